"""How does this machine speak with another process: a client such as ssh or adb, a compiler, an agent in a child?

One command that runs to its end, or one request and its answer. Every process runs in a session of its own, so that Ctrl-C at
the terminal reaches this one alone, which then decides what becomes of the other.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ... import errors
from .device import Progress

__all__ = ["Ended", "Exchange", "checked_answer", "command", "last_line"]

LONGEST_MESSAGE = 300
NOTHING = "no message"


class Ended(NamedTuple):
    """How a program ended.

    Attributes:
        code: its exit code; None if it was ended because time was up.
        output: what it wrote to standard output.
        said: what it wrote to standard error.
    """

    code: int | None
    output: bytes
    said: str

    @property
    def text(self) -> str:
        """The output as text."""
        return self.output.decode("utf-8", "replace")

    @property
    def last_words(self) -> str:
        """The last line on standard error that says something, shortened."""
        return last_line(self.said)


def last_line(text: str) -> str:
    """Returns the last line with something in it, shortened and without a full stop.

    Examples:
        >>> last_line("one\\ntwo.\\n\\n")
        'two'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:LONGEST_MESSAGE].rstrip(".") if lines else NOTHING


def command(
    arguments: Sequence[str],
    *,
    content: IO[bytes] | bytes = b"",
    output: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout_seconds: float,
) -> Ended:
    """Runs a program to its end.

    Args:
        arguments: program and arguments.
        content: its standard input, bytes or an open file. Default: nothing.
        output: an open file for its standard output. Default: None, kept for ``Ended.output``.
        environment: its environment. Default: this process's.
        folder: in which it starts. Default: this process's.
        timeout_seconds: after which it is ended.

    Raises:
        DeviceError: there is no such program.

    Examples:
        >>> command(["echo", "hello"], timeout_seconds=10).output
        b'hello\\n'
    """
    # Not a pipe: a daemon that the client leaves running would keep a pipe open for ever.
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as kept:
        is_file = not isinstance(content, bytes)
        process = start(
            arguments,
            stdin=content if is_file else subprocess.PIPE,
            stdout=output or kept,
            stderr=said,
            environment=environment,
            cwd=folder,
        )
        code: int | None
        try:
            process.communicate(None if is_file else content, timeout=timeout_seconds)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
        said.seek(0)
        kept.seek(0)
        return Ended(code, kept.read(), said.read().decode("utf-8", "replace"))


def start(
    arguments: Sequence[str], *, environment: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen:
    """Starts a program in a session of its own."""
    try:
        return subprocess.Popen(list(arguments), start_new_session=True, env=environment, **streams)
    except FileNotFoundError as error:
        package = {"ssh": "openssh-client"}.get(arguments[0], arguments[0])
        raise errors.DeviceError(
            f"The program {arguments[0]!r} must be installed on this machine, as part of the package {package}. "
            "Received: none on the PATH."
        ) from error
    except PermissionError as error:
        raise errors.DeviceError(
            f"The program {arguments[0]!r} must be executable. Received: {error.strerror}."
        ) from error


def end(process: subprocess.Popen) -> None:
    """Ends a program that still runs, with what it started, and closes its streams."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


class Exchange:
    """One request to an agent, in a child or behind a client program, and the lines of JSON that come back.

    Args:
        arguments: program and arguments of the child or client.
        request: what the agent is asked, plain JSON values.
        environment: of the child or client. Default: this process's.
        debug: lets the far end's standard error through. Default: False.

    Attributes:
        is_stopped: whether an early answer was asked for.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        request: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        debug: bool = False,
    ):
        self.is_stopped = False
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``answer``
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._process = start(
            arguments,
            environment=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else self._said,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._send(json.dumps(dict(request), default=list).encode() + b"\n")

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed by ``close``
            for line in self._process.stdout or ():
                self._lines.put(line)
        self._lines.put(None)

    def _send(self, content: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(content)  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def interrupt(self) -> None:
        """Asks the agent to answer with what it has; from any thread."""
        self.is_stopped = True
        self.stop()

    def stop(self) -> None:
        """Tells the agent so: a line behind the request."""
        self._send(b"stop\n")

    def send_signal(self, number: int) -> None:
        """Sends a signal to the child or client, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def answer(
        self,
        *,
        timeout_seconds: float | None = None,
        stop_seconds: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[dict[str, Any] | None, Ended]:
        """Waits for the answer and returns it, None without one, and how the process ended.

        The first Ctrl-C asks the agent for what it has, the second one leaves.

        Args:
            timeout_seconds: after which a silent agent is given up. Default: None, never.
            stop_seconds: the same after Ctrl-C, which is then raised. Default: as ``timeout_seconds``.
            progress: called with what is done and what is to do. Default: None.
        """
        interrupt: KeyboardInterrupt | None = None
        reply, code = None, None
        try:
            while True:
                try:
                    line = self._lines.get(timeout=timeout_seconds)
                except queue.Empty:
                    if interrupt is not None and stop_seconds is not None:
                        raise interrupt from None
                    break
                except KeyboardInterrupt as caught:
                    if interrupt is not None:
                        raise
                    interrupt = caught
                    timeout_seconds = timeout_seconds if stop_seconds is None else stop_seconds
                    self.interrupt()
                    continue
                if line is None:
                    code = self._process.wait()
                    break
                record = parsed(line)
                if "progress" in record and progress is not None:
                    progress(*record["progress"])
                reply = record if "complete" in record else reply
        finally:
            self.close()
        self._said.seek(0)
        ended = Ended(code, b"", self._said.read().decode("utf-8", "replace"))
        self._said.close()
        return reply, ended

    def close(self) -> None:
        """Ends the child or client; the far end of a client takes it for the end of its input."""
        end(self._process)


def parsed(line: bytes) -> dict[str, Any]:
    """Returns a line as a JSON object; an empty one for what a native library printed.

    Examples:
        >>> parsed(b'{"a": 1}'), parsed(b"INFO: hello")
        ({'a': 1}, {})
    """
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def checked_answer(answer: Mapping[str, Any], sha256: Mapping[str, str], *, place: str) -> dict[str, Any]:
    """Returns an answer that is complete and about the files that were sent.

    Args:
        answer: the agent's last line.
        sha256: of each model that was sent, by its key.
        place: how messages call the device.

    Raises:
        TfcompressError: the answer is an error, of the same class.
        DeviceError: the answer has no end marker, or is about other files.

    Examples:
        >>> checked_answer({"complete": True, "sha256": {"model": "ab"}}, {"model": "cd"}, place="ssh://pi@board")
        Traceback (most recent call last):
        ...
        tfcompress.errors.DeviceError: The answer of ssh://pi@board must be about the model that was sent. ...
    """
    if answer.get("complete") is not True:
        raise errors.DeviceError(
            f"The answer of {place} must have its end marker. Received: one without. Run it again."
        )
    if "error" in answer:
        kind = getattr(errors, str(answer["error"]), errors.DeviceError)
        raise (kind if issubclass(kind, errors.TfcompressError) else errors.DeviceError)(
            f"{place}: {answer['message']}"
        )
    for key, digest in sha256.items():
        received = answer.get("sha256", {}).get(key)
        if received != digest:
            raise errors.DeviceError(
                f"The answer of {place} must be about the model that was sent. Received: sha256 {received} for {key}, "
                f"sent: {digest}. Clear the device's cache (tfcompress devices --device={place} --clear) and run it again."
            )
    return dict(answer)
