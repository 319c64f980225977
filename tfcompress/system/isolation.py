"""How does work that may crash natively run without taking its caller along?

In a child process: TensorFlow's converter ends a process with ``abort()`` where Python would raise, and so do LiteRT and
HDF5 on some damaged files. The child reports progress while it works and may take data piece by piece; its result, its
errors and its end by a signal all come back as values or as exceptions of the caller. A child behind a wall (``sandbox``) is
not trusted: what comes back is read as data and bounded. What the function does is no concern of this module.
"""

import contextlib
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import ConversionError, OutputError, SandboxError
from .isolated_child import CLASSES, LENGTH_BYTES, LONGEST_REASON, ChildExit, Reporter, call_inside, is_inside
from .printable import printable_lines
from .sandbox import Sandbox, child_environment

__all__ = ["ChildExit", "Reporter", "run_isolated"]

CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tfcompress.system.isolated_child import main; main()"
)
LONGEST_LINE = 1 << 16  # of progress, in bytes
LONGEST_TEXT = 10_000  # of a message, in letters
LAST_BYTES = 1 << 16  # of standard error, which are searched for the reason
LARGEST_ANSWER = 1 << 34
LEAST_ROOM = 1 << 16  # what a child needs to say anything
SECONDS_AFTER = 5.0  # the child's own clock goes first
# What Python, glibc and LLVM print after the line that says why, or in place of one.
NOISE = ("*** ", "Fatal Python error", "  File ", "Current thread", "Extension modules", "Stack dump", "#", "PLEASE ")
OUT_OF_MEMORY = ("bad_alloc", "Cannot allocate memory", "out of memory", "MemoryError")


def converter_error(ended: ChildExit) -> Exception:
    """Returns the error for a child that converts a model, one line that says what to do.

    Examples:
        >>> converter_error(ChildExit(3, "lowering model.keras"))
        ConversionError('The process gave no answer while lowering model.keras. Received: exit code 3. --debug shows its output.')
    """
    while_doing = f" while {ended.stage}" if ended.stage else ""
    reason = f" ({ended.said})" if ended.said else ""
    if ended.raised == "MemoryError":
        said = ended.said or "nothing more could be allocated"
        text = f"Memory ran out{while_doing}. Received: {said}. Free memory, use a smaller model, or fewer samples."
    elif ended.raised:
        text = f"The work ended in an unexpected {ended.raised}: {ended.said}. --debug shows where."
    elif ended.code == -signal.SIGKILL or any(word in ended.said for word in OUT_OF_MEMORY):
        text = (
            f"The process was ended{while_doing}, as the system does when memory runs out{reason}. Received: "
            f"{ended.how}. Free memory, use a smaller model, or fewer samples."
        )
    elif ended.is_late:
        text = f"The process did not end in time{while_doing}{reason}. Received: SIGALRM. The file may be damaged."
    elif ended.code < 0:
        text = (
            f"A native library crashed{while_doing}{reason}. Received: {ended.how}. The model may be damaged or hold "
            "what the converter cannot take: save it again, or replace the layer. --debug shows the library's lines."
        )
    else:
        text = f"The process gave no answer{while_doing}{reason}. Received: {ended.how}. --debug shows its output."
    return ConversionError(text)


def run_isolated(
    function_path: str,
    request: Any,
    *,
    pieces: Iterable[Any] | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    timeout_seconds: float | None = None,
    sandbox: Sandbox | None = None,
    explain: Callable[[ChildExit], Exception] = converter_error,
    debug: bool = False,
) -> Any:
    """Returns what a function answers to ``request`` in a new Python process.

    The child imports from where this process does, without ``TF_USE_LEGACY_KERAS``. Its prints and log lines are
    dropped unless ``debug``; warnings from this package come back as warnings. Its temporary files lie in a folder
    that is gone afterwards, however it ends. Ctrl-C and SIGTERM end the child first (SIGTERM: in the main thread).

    Args:
        function_path: "package.module:function", called in the child as ``function(request, report)``; ``report`` is a
            ``Reporter``.
        request: any value that can be pickled.
        pieces: values that can be pickled; the child finds them in ``report.pieces``, and each is made when there is room
            for it in the pipe. A function that takes them reports no progress. Default: none.
        on_progress: called with (done, total or None) whenever the function reports. Default: nothing.
        timeout_seconds: after how long the system ends the child, also inside a native loop. Default: None, never.
        sandbox: what the child may reach; its environment is then reduced too. It can start no processes: where its function
            calls ``run_isolated``, that work runs inside. Default: None, whatever this process may reach.
        explain: makes the error for a child that left no result. Default: a ``ConversionError`` in one line.
        debug: whether the child's output and tracebacks are shown on standard error. Default: False.

    Returns:
        The function's result: what ``answers.write_answer`` takes.

    Raises:
        TfcompressError: one that the function raised, of the same class and with the same message.
        ValueError: likewise; and so are ``TypeError`` and ``OSError``.
        SandboxError: the wall cannot be built, or the answer is no answer.
        ConversionError: another exception, an end by a signal, the time is over, or no answer; or what ``explain`` makes.

    Examples:
        >>> run_isolated("tfcompress.system.isolation:count_letters", "four")
        4
        >>> run_isolated("tfcompress.system.isolation:count_letters", "four", pieces=["and", "more"])
        11
    """
    if is_inside():
        return call_inside(
            function_path,
            request,
            pieces=pieces,
            on_progress=on_progress,
            timeout_seconds=timeout_seconds,
            explain=explain,
        )
    order = pickle.dumps((function_path, request, pieces is not None, timeout_seconds, debug))
    with _temporary_folder() as name, _sigterm_raises():
        folder = Path(name)
        with _named_if_full(folder.parent):
            (folder / "tmp").mkdir()
            (folder / "request").write_bytes(order)
            if sandbox is not None:
                (folder / "sandbox").write_text(sandbox.to_json())
        with contextlib.ExitStack() as stack:
            said = None if debug else stack.enter_context(open(folder / "stderr", "wb"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD, json.dumps(sys.path), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=_environment(folder, sandbox),
                start_new_session=True,  # Ctrl-C at a terminal reaches this process alone, which then ends the child
            )
            stack.callback(_end, process)
            is_late = stack.enter_context(_watched(process, timeout_seconds))
            if pieces is not None:
                _hand_over(pieces, process.stdin)
            stage = _follow(process.stdout, on_progress)
            code = -signal.SIGALRM if process.wait() and is_late.is_set() else process.returncode
        answer = _answer(folder)
        if answer is None:
            _check_room(folder)
            raise _explained(folder, code) or explain(
                ChildExit(code, stage, "" if debug else _last_words(folder / "stderr"))
            )
    for message in answer.get("warnings", ()):
        warnings.warn(_text(message), stacklevel=2)
    if "raised" in answer:
        raise explain(ChildExit(1, *(_text(answer.get(name, "")) for name in ("stage", "message", "raised"))))
    if "error" in answer:
        raise CLASSES.get(str(answer["error"]), SandboxError)(_text(answer.get("message", "")))
    return answer.get("result")


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
    """Gives a new folder below that of temporary files, which is gone afterwards."""
    place = os.environ.get("TMPDIR") or "the system's"
    try:
        place = tempfile.gettempdir()
        folder = tempfile.TemporaryDirectory(prefix="tfcompress-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(place, error.strerror or str(error)) from error
    with folder as name:
        yield name


@contextlib.contextmanager
def _named_if_full(place: Path) -> Iterator[None]:
    """Says by name which folder takes no more."""
    try:
        yield
    except OSError as error:
        raise _no_room(place, error.strerror or str(error)) from error


def _check_room(folder: Path) -> None:
    """Raises if a child that left no answer can have had no room for one."""
    with _named_if_full(folder.parent):
        (folder / "room").write_bytes(bytes(LEAST_ROOM))


def _no_room(place: str | Path, reason: str) -> OutputError:
    return OutputError(
        f"The folder for temporary files must have room. Received: {place} ({reason}). Make room there, or set TMPDIR to "
        "another folder."
    )


def _environment(folder: Path, sandbox: Sandbox | None) -> dict[str, str]:
    """Returns the child's environment."""
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    environment = environment if sandbox is None else child_environment(environment)
    return {**environment, "TMPDIR": str(folder / "tmp")}  # what a killed converter leaves behind goes with the folder


@contextlib.contextmanager
def _watched(process: subprocess.Popen, timeout_seconds: float | None) -> Iterator[threading.Event]:
    """Ends the child when its time is over, should it have stopped its own clock; gives an event that says so."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    if timeout_seconds is None:
        yield late
        return
    timer = threading.Timer(timeout_seconds + SECONDS_AFTER, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _hand_over(pieces: Iterable[Any], stream: Any) -> None:
    """Writes each piece to the child with its length before it, and an end mark; a child that is gone says why by its end."""
    for piece in pieces:
        content = pickle.dumps(piece)
        with contextlib.suppress(BrokenPipeError):
            stream.write(len(content).to_bytes(LENGTH_BYTES, "little") + content)
            continue
        return
    with contextlib.suppress(BrokenPipeError):
        stream.write(bytes(LENGTH_BYTES))
        stream.flush()


def _follow(stream: Any, on_progress: Callable[[int, int | None], None] | None) -> str:
    """Passes progress on until the child closes the channel; returns the stage it had reached."""
    stage = ""
    while line := stream.readline(LONGEST_LINE):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a native library that writes to descriptor 1 before it was redirected
        if not isinstance(record, dict):
            continue
        stage = _text(record.get("stage", stage))
        done, total = record.get("done"), record.get("total")
        if on_progress is not None and type(done) is int and (total is None or type(total) is int):
            on_progress(done, total)
    return stage


def _end(process: subprocess.Popen) -> None:
    """Ends the child and whatever it started, and closes the channels."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what the child did not read any more
                stream.close()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turns SIGTERM into ``SystemExit`` inside the block, so that child and folder are cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(folder: Path) -> dict[str, Any] | None:
    """Returns what the child left, None if it left nothing; it may not be ours any more, so it is only data."""
    content = _content(folder / "answer", LARGEST_ANSWER)
    if content is None:
        return None
    from .answers import read_answer

    answer = read_answer(content)
    if not isinstance(answer, dict) or not isinstance(answer.get("warnings", []), list):
        raise SandboxError(f"The child process must answer with a dictionary. Received: {type(answer).__name__}.")
    return answer


def _explained(folder: Path, code: int) -> Exception | None:
    """Returns the error that the child left for its end, where it ended inside work that has a meaning of its own."""
    try:
        kind, message = json.loads(_content(folder / "explained", LONGEST_LINE) or b"{}")[str(code)]
        return CLASSES[kind](_text(message))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _content(path: Path, most: int) -> bytes | None:
    """Returns the bytes of a plain file that the child left, None without one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise SandboxError(
                f"The child process must answer with a file of at most {most:,} bytes. Received: {path.name}."
            )
        return file.read(most)


def _text(text: Any) -> str:
    """Returns foreign text in a length and of letters that may be shown."""
    shown = text[:LONGEST_TEXT] if isinstance(text, str) else type(text).__name__
    return printable_lines(shown)


def _last_words(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        text = file.read(LAST_BYTES).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(NOISE)]
    return _text(telling[-1][:LONGEST_REASON].rstrip(".")) if telling else ""


def count_letters(text: str, report: Reporter) -> int:
    """Returns the length of ``text`` and of what else is handed over; the example above."""
    return len(text) + sum(map(len, report.pieces))
