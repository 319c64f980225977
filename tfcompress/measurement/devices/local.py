"""Runs ``agent`` in a child process of this machine: clean numbers, and a crash stays in the child."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ... import errors
from .device import Progress

__all__ = ["LocalDevice", "run_agent"]

AGENT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tfcompress.measurement.devices.on_device.agent import main; main()"
SECONDS_TO_STOP = 20.0


class LocalDevice:
    """This machine, as a device. It starts a process per request, so that nothing of one is left in the next.

    Attributes:
        name: "local".
        kind: "measured".

    Examples:
        >>> LocalDevice().run({"kind": "latency"}, {"model": Path("gone.tflite")}, {})
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model file must exist. Received: gone.tflite. Check the path.
    """

    name = "local"
    kind = "measured"

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._stopping = False

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns the answer to one request; the child works on the files where they are.

        Args:
            request: as ``agent`` takes it.
            files: by key.
            results: by key.
            progress: called with (done, total). Default: None.

        Raises:
            ModelError: the file cannot be opened.
            DeviceError: the interpreter failed, or the process ended by a signal or without an answer.
            KeyboardInterrupt: Ctrl-C was pressed twice; the child is gone.
        """
        paths = {key: os.fspath(path) for key, path in {**files, **results}.items()}
        return self._answer({**request, "paths": paths}, progress)

    def interrupt(self) -> None:
        """Asks the running request to end early and to answer with what it has; does nothing without one."""
        child = self._child
        if child is not None and child.poll() is None:
            self._stopping = True
            child.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Ends the child of a request that still runs."""
        child = self._child
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()

    def _answer(self, request: Mapping[str, Any], progress: Progress | None) -> dict[str, Any]:
        paths = request.get("paths") or {"model": request["model"]}
        place = request.get("name") or ", ".join(path for key, path in paths.items() if key.startswith("model"))
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            silent = not request.get("debug")
            with self._started(said if silent else None) as child:
                lines = self._talk(child, request, progress)
            said.seek(0)
            words = ([line for line in said.read().splitlines() if line.strip()] or ["no message"])[-1]
        try:
            return answer_of(lines, child.returncode, place, words)
        except errors.DeviceError as error:
            if self._stopping:  # it had not begun yet
                raise KeyboardInterrupt from error
            raise
        finally:
            self._stopping = False

    @contextlib.contextmanager
    def _started(self, stderr: IO[str] | None) -> Iterator[subprocess.Popen[str]]:
        """Starts the child in a session of its own: Ctrl-C in a terminal is for this process, which asks the child."""
        environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", AGENT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
        self._child = child
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            self._child = None

    def _talk(self, child: subprocess.Popen[str], request: Mapping[str, Any], progress: Progress | None) -> list[str]:
        """Returns what the child says; at the first Ctrl-C it is asked to come to an end, at the second it is ended."""
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a child that is gone already says why below
            child.stdin.write(json.dumps(dict(request), default=list) + "\n")
            child.stdin.flush()
        lines: list[str] = []
        reader = threading.Thread(target=_read, args=(child.stdout, lines, progress), daemon=True)
        reader.start()
        try:
            _wait(reader)
        except KeyboardInterrupt:
            self.interrupt()
            _wait(reader, SECONDS_TO_STOP)
            if reader.is_alive():
                raise
        child.wait()
        return lines


def _read(stream: IO[str], lines: list[str], progress: Progress | None) -> None:
    for line in stream:
        if line.startswith('{"progress":'):
            if progress is not None:
                progress(*json.loads(line)["progress"])
        elif line.strip():
            lines.append(line)


def _wait(reader: threading.Thread, seconds: float | None = None) -> None:
    """Waits in pieces, so that Ctrl-C is heard meanwhile."""
    left = seconds
    while reader.is_alive() and (left is None or left > 0):
        reader.join(0.2)
        left = None if left is None else left - 0.2


def run_agent(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the agent's answer to ``request``, from a new Python process.

    The child imports from where this process does. Its native log lines are dropped unless ``request["debug"]``.

    Args:
        request: as ``agent.run_request`` takes it.

    Raises:
        ModelError: the file cannot be opened.
        DeviceError: the interpreter failed, or the process ended by a signal or without an answer.
    """
    return LocalDevice()._answer(request, None)


def answer_of(lines: list[str], code: int, place: str, said: str) -> dict[str, Any]:
    """Returns the answer that a finished child left, or raises what became of it.

    Args:
        lines: of its standard output.
        code: its exit code, as ``subprocess`` tells it.
        place: how messages name what it worked on.
        said: the last line of its standard error.

    Raises:
        TfcompressError: the answer is an error, or there is none.

    Examples:
        >>> answer_of(['{"complete": true, "a": 1}'], 0, "m.tflite", "")
        {'complete': True, 'a': 1}
    """
    if code < 0:
        raise errors.DeviceError(
            f"The process that ran {place} was ended by {signal.Signals(-code).name}. "
            "The file is damaged or the memory too small: convert it again, or free memory."
        )
    answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    if code or not answer.get("complete"):
        raise errors.DeviceError(f"The process that ran {place} gave no answer (exit code {code}): {said}")
    if "error" in answer:
        kind = ValueError if answer["error"] == "ValueError" else getattr(errors, answer["error"])
        raise kind(answer["message"])
    return answer
