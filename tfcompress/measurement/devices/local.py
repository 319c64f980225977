"""Runs ``agent`` in a child process of this machine: clean numbers, and a crash stays in the child."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import errors
from ...system import Sandbox
from ...system.sandbox import child_environment
from ...tflite import run_interpreter
from .device import AnsweringDevice, Progress, Request
from .protocol import Ended, Exchange

__all__ = ["LocalDevice", "describe_file", "run_agent"]

AGENT = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
if sys.argv[2:]:
    from tfcompress.system.sandbox import enter
    enter(*sys.argv[2:])
from tfcompress.measurement.devices.on_device.agent import main
main()
"""
SECONDS_TO_STOP = 20.0
SECONDS_IN_SILENCE = 3600.0


class LocalDevice(AnsweringDevice):
    """This machine, as a device. It starts a process per request, so that nothing of one is left in the next.

    Args:
        sandbox: what that process may reach besides the files of the request. Default: None, everything.
        timeout_seconds: after which a process that gives no sign of life is ended. Default: None, an hour.

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

    def __init__(self, *, sandbox: Sandbox | None = None, timeout_seconds: float | None = None) -> None:
        self._sandbox = sandbox
        self._seconds = timeout_seconds or SECONDS_IN_SILENCE
        self._exchange: LocalExchange | None = None

    def answer(self, request: Request) -> dict[str, Any]:
        """Returns the answer to one request; the child works on the files where they are.

        Args:
            request: what is asked for.

        Raises:
            ModelError: the file cannot be opened.
            DeviceError: the interpreter failed, or the process ended by a signal or without an answer.
            KeyboardInterrupt: Ctrl-C was pressed twice; the child is gone.
        """
        paths = {key: os.fspath(path) for key, path in {**request.files, **request.results}.items()}
        results = tuple(os.path.dirname(os.path.abspath(path)) for path in request.results.values())
        return self._asked({**request.settings, "paths": paths}, request.name, request.progress, results)

    def interrupt(self) -> None:
        """Asks the running request to end early and to answer with what it has; does nothing without one."""
        if self._exchange is not None:
            self._exchange.interrupt()

    def close(self) -> None:
        """Ends the child of a request that still runs."""
        if self._exchange is not None:
            self._exchange.close()

    def _asked(
        self,
        request: Mapping[str, Any],
        place: str,
        progress: Progress | None = None,
        result_folders: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
        arguments = [sys.executable, "-P", "-c", AGENT, json.dumps(sys.path)]
        with tempfile.TemporaryDirectory(prefix="tfcompress-", ignore_cleanup_errors=True) as folder:
            if self._sandbox is not None:
                paths = tuple(map(os.fspath, (request.get("paths") or {"model": request["model"]}).values()))
                policy = dataclasses.replace(
                    self._sandbox,
                    readable=(*self._sandbox.readable, *paths),
                    writable=(*self._sandbox.writable, *result_folders),
                )
                arguments += [policy.to_json(), folder]
                environment = {**child_environment(environment), "TMPDIR": folder}
            exchange = self._exchange = LocalExchange(
                arguments, request, environment=environment, debug=bool(request.get("debug"))
            )
            try:
                reply, ended = exchange.answer(
                    progress=progress, timeout_seconds=self._seconds, stop_seconds=SECONDS_TO_STOP
                )
            finally:
                self._exchange = None
        try:
            return answer_of(reply, ended, place, self._seconds)
        except errors.DeviceError as error:
            if exchange.is_stopped:  # it had not begun yet
                raise KeyboardInterrupt from error
            raise


class LocalExchange(Exchange):
    """An exchange with a child of this process, which a signal asks for an early answer."""

    def stop(self) -> None:
        """Sends SIGINT, which the agent takes for the wish to answer with what it has."""
        self.send_signal(signal.SIGINT)


def run_agent(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the agent's answer to ``request``, from a new Python process.

    The child imports from where this process does. Its native log lines are dropped unless ``request["debug"]``.

    Args:
        request: as ``agent.run_request`` takes it.

    Raises:
        ModelError: the file cannot be opened.
        DeviceError: the interpreter failed, or the process ended by a signal or without an answer.
    """
    return LocalDevice()._asked(request, request.get("name") or request["model"])


def describe_file(model: Path, name: str) -> dict[str, Any]:
    """Returns what LiteRT here says of a file that is to run elsewhere: its inputs, outputs and operations.

    Args:
        model: the file.
        name: how messages call it.

    Raises:
        ModelError: LiteRT cannot open the file.
        DeviceError: it crashed on the file.
    """
    request = {"model": os.fspath(model), "name": name}
    return run_interpreter(f"{__name__}:describe_in_child", request, place=name)


def describe_in_child(request: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Returns the same in the child that ``describe_file`` starts."""
    from .on_device.agent import describe_model, open_named

    return describe_model(open_named(request["model"], request["name"]))


def answer_of(reply: Mapping[str, Any] | None, ended: Ended, place: str, seconds: float = 0.0) -> dict[str, Any]:
    """Returns the answer that a finished child left, or raises what became of it.

    Args:
        reply: its last line; None without one that has the end mark.
        ended: how it ended.
        place: how messages name what it worked on.
        seconds: how long it may be silent. Default: 0.

    Raises:
        TfcompressError: the answer is an error, or there is none.

    Examples:
        >>> answer_of({"complete": True, "a": 1}, Ended(0, b"", ""), "m.tflite")
        {'complete': True, 'a': 1}
    """
    if ended.code is None and reply is None:
        raise errors.DeviceError(
            f"The process that runs {place} must give a sign of life within {seconds:g} s. Received: none. The file may loop "
            "for ever: convert it again, or pass a larger --timeout_seconds (timeout_seconds)."
        )
    if ended.code is not None and ended.code < 0:
        raise errors.DeviceError(
            f"The process that ran {place} was ended by {signal.Signals(-ended.code).name}. "
            "The file is damaged or the memory too small: convert it again, or free memory."
        )
    if ended.code or reply is None:
        raise errors.DeviceError(
            f"The process that ran {place} gave no answer (exit code {ended.code}): {ended.last_words}"
        )
    if "error" in reply:
        kind = ValueError if reply["error"] == "ValueError" else getattr(errors, reply["error"])
        raise kind(reply["message"])
    return dict(reply)
