"""How does work that may crash natively run without taking its caller along?

In a child process: TensorFlow's converter ends a process with ``abort()`` where Python would raise, and so do LiteRT and
HDF5 on some damaged files. The child reports progress while it works and may take data piece by piece; its result, its
errors and its end by a signal all come back as values or as exceptions of the caller. What the function does is no concern
of this module.
"""

import contextlib
import gc
import importlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

from .. import errors
from ..errors import ConversionError

__all__ = ["ChildExit", "Reporter", "main", "run_isolated"]

CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tfcompress.system.isolation import main; main()"
PACKAGE = str(Path(__file__).resolve().parents[1])
LONGEST_REASON = 300
LENGTH_BYTES = 8  # before each piece: how long it is
# What Python, glibc and LLVM print after the line that says why, or in place of one.
NOISE = ("*** ", "Fatal Python error", "  File ", "Current thread", "Extension modules", "Stack dump", "#", "PLEASE ")
OUT_OF_MEMORY = ("bad_alloc", "Cannot allocate memory", "out of memory", "MemoryError")
CLASSES: dict[str, type[Exception]] = {
    **{name: getattr(errors, name) for name in errors.__all__},
    **{kind.__name__: kind for kind in (ValueError, TypeError, OSError)},
}


class ChildExit(NamedTuple):
    """How a child ended that left no result.

    Attributes:
        code: its exit code; for an end by a signal minus the signal's number.
        stage: what it was doing, as it told; "" if it told nothing.
        said: the last line of its standard error that tells something, or the message of ``raised``; may be "".
        raised: the name of the exception's class that nobody expected; "" if there was none.

    Examples:
        >>> ChildExit(-11).how, ChildExit(3).how, ChildExit(-signal.SIGALRM).is_late
        ('SIGSEGV', 'exit code 3', True)
    """

    code: int
    stage: str = ""
    said: str = ""
    raised: str = ""

    @property
    def how(self) -> str:
        """The signal's name, or the exit code."""
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # a real-time signal has no name
            return f"signal {-self.code}"

    @property
    def is_late(self) -> bool:
        """Whether its time was over."""
        return self.code == -signal.SIGALRM


class Reporter:
    """What the function in the child says while it works; called with (done, total or None).

    Args:
        stream: where the lines go, text.
        pieces: what the parent hands over piece by piece. Default: nothing.

    Attributes:
        now: the stage that was told last.
        pieces: an iterator over what ``run_isolated`` was given as ``pieces``; each comes when it is asked for.

    Examples:
        >>> report = Reporter(sys.stdout)
        >>> report.stage("lowering model.keras")
        {"stage": "lowering model.keras"}
        >>> report(32, 100)
        {"done": 32, "total": 100}
    """

    def __init__(self, stream: IO[str], pieces: Iterable[Any] = ()) -> None:
        self._stream = stream
        self.now = ""
        self.pieces = iter(pieces)

    def __call__(self, done: int, total: int | None) -> None:
        self._say({"done": done, "total": total})

    def stage(self, text: str) -> None:
        """Says what is being done now; if the process dies, the error names it."""
        self.now = text
        self._say({"stage": text})

    def _say(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()


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
        explain: makes the error for a child that left no result. Default: a ``ConversionError`` in one line.
        debug: whether the child's output and tracebacks are shown on standard error. Default: False.

    Returns:
        The function's result, pickled on the way.

    Raises:
        TfcompressError: one that the function raised, of the same class and with the same message.
        ValueError: likewise; and so are ``TypeError`` and ``OSError``.
        ConversionError: another exception, an end by a signal, the time is over, or no answer; or what ``explain`` makes.

    Examples:
        >>> run_isolated("tfcompress.system.isolation:count_letters", "four")
        4
        >>> run_isolated("tfcompress.system.isolation:count_letters", "four", pieces=["and", "more"])
        11
    """
    with tempfile.TemporaryDirectory(prefix="tfcompress-", ignore_cleanup_errors=True) as name, _sigterm_raises():
        folder = Path(name)
        (folder / "tmp").mkdir()
        order = (function_path, request, pieces is not None, timeout_seconds, debug)
        (folder / "request").write_bytes(pickle.dumps(order))
        environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
        environment["TMPDIR"] = str(folder / "tmp")  # what a killed converter leaves behind goes with the folder
        with contextlib.ExitStack() as stack:
            said = None if debug else stack.enter_context(open(folder / "stderr", "wb"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", CHILD, json.dumps(sys.path), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                start_new_session=True,  # Ctrl-C at a terminal reaches this process alone, which then ends the child
            )
            stack.callback(_end, process)
            if pieces is not None:
                _hand_over(pieces, process.stdin)
            stage = _follow(process.stdout, on_progress)
            code = process.wait()
        answer = _answer(folder)
        if answer is None:
            raise explain(ChildExit(code, stage, "" if debug else _last_words(folder / "stderr")))
    for message in answer["warnings"]:
        warnings.warn(message, stacklevel=2)
    if "raised" in answer:
        raise explain(ChildExit(1, answer["stage"], answer["message"], answer["raised"]))
    if "error" in answer:
        raise CLASSES[answer["error"]](answer["message"])
    return answer["result"]


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
    for line in stream:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a native library that writes to descriptor 1 before it was redirected
        if not isinstance(record, dict):
            continue
        stage = str(record.get("stage", stage))
        if on_progress is not None and "done" in record:
            on_progress(record["done"], record["total"])
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
    path = folder / "answer"
    return pickle.loads(path.read_bytes()) if path.exists() else None


def _last_words(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith(NOISE)]
    return telling[-1][:LONGEST_REASON].rstrip(".") if telling else ""


# The child's side.


def main() -> None:
    """Runs the function that the folder in ``sys.argv[2]`` asks for and leaves the answer there."""
    gc.set_threshold(50_000, 20, 20)  # imports and traces make millions of objects that stay
    folder = Path(sys.argv[2])
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints to standard output from here on does not disturb the reports
    function_path, request, has_pieces, timeout_seconds, debug = pickle.loads((folder / "request").read_bytes())
    watch = threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True)
    report = Reporter(stream, _pieces(folder, watch) if has_pieces else ())
    if not has_pieces:
        watch.start()
    # A native loop that holds the interpreter's lock stops every thread, not this.
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds or 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        answer = _call(function_path, request, report, debug)
    ours = [str(w.message) for w in caught if w.category is UserWarning and w.filename.startswith((PACKAGE, "<"))]
    answer["warnings"] = list(dict.fromkeys(ours))
    (folder / "answer.partial").write_bytes(pickle.dumps(answer))
    os.replace(folder / "answer.partial", folder / "answer")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # TensorFlow's threads have crashed at exit after good work


def _call(function_path: str, request: Any, report: Reporter, debug: bool) -> dict[str, Any]:
    module, _, function = function_path.partition(":")
    try:
        return {"result": getattr(importlib.import_module(module), function)(request, report)}
    except Exception as error:  # noqa: BLE001 - the boundary of the process: the parent raises it again
        if debug:
            import traceback

            traceback.print_exc()
        for kind in type(error).__mro__:
            if kind.__name__ in CLASSES and CLASSES[kind.__name__] is kind:
                return {"error": kind.__name__, "message": str(error) or kind.__name__}
        text = " ".join(str(error).split())[:LONGEST_REASON].rstrip(".")
        name = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
        return {"raised": name, "message": text, "stage": report.now}


def _pieces(folder: Path, watch: threading.Thread) -> Iterator[Any]:
    """Yields what the parent hands over, and watches the parent from then on."""
    source = os.fdopen(0, "rb", closefd=False)
    while True:
        length = int.from_bytes(_exactly(source, LENGTH_BYTES, folder), "little")
        if not length:
            break
        yield pickle.loads(_exactly(source, length, folder))
    watch.start()


def _exactly(source: IO[bytes], count: int, folder: Path) -> bytes:
    content = source.read(count)
    if len(content) < count:
        _leave(folder)
    return content


def _leave_with_parent(folder: Path) -> None:
    """Waits for the parent's end of standard input to close, which only its death does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    _leave(folder)


def _leave(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def count_letters(text: str, report: Reporter) -> int:
    """Returns the length of ``text`` and of what else is handed over; the example above."""
    return len(text) + sum(map(len, report.pieces))
