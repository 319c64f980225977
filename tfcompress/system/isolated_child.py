"""The other side of ``isolation``: what the child process does, from its first moment behind the wall to its answer.

A process behind a wall can start none of its own. What would run in a child of its own runs inside it then: its time is still
bounded, and what a crash means is written down beforehand for the parent to say.
"""

import contextlib
import gc
import importlib
import json
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from .. import errors

__all__ = ["CLASSES", "ChildExit", "Reporter", "call_inside", "is_inside", "main"]

PACKAGE = str(Path(__file__).resolve().parents[1])
LONGEST_REASON = 300
LENGTH_BYTES = 8  # before each piece: how long it is
WALL = "TFCOMPRESS_WALL"  # in the environment behind a wall: the folder of the process
ENDS = ("SIGALRM", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGKILL", "SIGXFSZ")
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


def is_inside() -> bool:
    """Whether this process is behind a wall, where it can start no other.

    Examples:
        >>> is_inside()
        False
    """
    return WALL in os.environ


def call_inside(
    function_path: str,
    request: Any,
    *,
    pieces: Iterable[Any] | None,
    on_progress: Callable[[int, int | None], None] | None,
    timeout_seconds: float | None,
    explain: Callable[[ChildExit], Exception],
) -> Any:
    """Returns what ``isolation.run_isolated`` would, from this very process.

    Args:
        function_path: as ``run_isolated`` takes it, and so are the others.
        request: any value.
        pieces: what the function finds in ``report.pieces``.
        on_progress: called with (done, total or None).
        timeout_seconds: after how long the system ends this process.
        explain: makes the error for what ends without a result; a crash is told by the parent.
    """
    folder = Path(os.environ[WALL])
    report = InnerReporter(on_progress, pieces or ())
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    began = time.monotonic()
    with _explained(folder, explain):
        signal.setitimer(signal.ITIMER_REAL, min(filter(None, (left, timeout_seconds)), default=0))
        try:
            answer = _answer(function_path, request, report)
        finally:
            signal.setitimer(signal.ITIMER_REAL, left and max(0.001, left - (time.monotonic() - began)))
    if isinstance(answer, Exception):
        if _known_class(answer) is not None:
            raise answer
        raise explain(_exit_of(answer, report.now)) from answer
    return answer


class InnerReporter(Reporter):
    """A reporter for what runs inside: progress is passed on, the stage is kept."""

    def __init__(self, on_progress: Callable[[int, int | None], None] | None, pieces: Iterable[Any]) -> None:
        super().__init__(sys.stdout, pieces)
        self._on_progress = on_progress

    def _say(self, record: dict[str, Any]) -> None:
        if self._on_progress is not None and "done" in record:
            self._on_progress(record["done"], record["total"])


@contextlib.contextmanager
def _explained(folder: Path, explain: Callable[[ChildExit], Exception]) -> Iterator[None]:
    """Leaves in the folder what each end by a signal would mean, for as long as the block runs."""
    path = folder / "explained"
    before = path.read_text() if path.exists() else None
    told = {}
    for name in ENDS:
        number = -getattr(signal, name)
        error = explain(ChildExit(number))
        told[str(number)] = [_known_class(error) or "ConversionError", str(error)]
    path.write_text(json.dumps(told))
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


def _answer(function_path: str, request: Any, report: Reporter) -> Any:
    """Returns the function's result, or the exception that it raised."""
    module, _, function = function_path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)(request, report)
    except Exception as error:  # noqa: BLE001 - the boundary of the work: the caller raises it again
        return error


def _known_class(error: BaseException) -> str | None:
    """Returns the name of the nearest class of an error that a parent knows."""
    for kind in type(error).__mro__:
        if CLASSES.get(kind.__name__) is kind:
            return kind.__name__
    return None


def _exit_of(error: BaseException, stage: str) -> ChildExit:
    """Returns the end of a function that raised what nobody expected."""
    text = " ".join(str(error).split())[:LONGEST_REASON].rstrip(".")
    return ChildExit(1, stage, text, "MemoryError" if isinstance(error, MemoryError) else type(error).__name__)


def main() -> None:
    """Runs the function that the folder in ``sys.argv[2]`` asks for and leaves the answer there."""
    gc.set_threshold(50_000, 20, 20)  # imports and traces make millions of objects that stay
    folder = Path(sys.argv[2])
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints to standard output from here on does not disturb the reports
    try:
        _enter_wall(folder)
    except errors.SandboxError as error:
        _leave_answer(folder, {"error": "SandboxError", "message": str(error)})
    function_path, request, has_pieces, timeout_seconds, debug = pickle.loads((folder / "request").read_bytes())
    watch = threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True)
    report = Reporter(stream, _pieces(folder, watch) if has_pieces else ())
    if not has_pieces:
        watch.start()
    # A native loop that holds the interpreter's lock stops every thread, not this.
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds or 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        answer = _described(_answer(function_path, request, report), report, debug)
    ours = [str(w.message) for w in caught if w.category is UserWarning and w.filename.startswith((PACKAGE, "<"))]
    _leave_answer(folder, {**answer, "warnings": list(dict.fromkeys(ours))})


def _enter_wall(folder: Path) -> None:
    """Gives up what the policy in the folder, if there is one, does not allow; before any library is loaded."""
    policy = folder / "sandbox"
    if policy.exists():
        from .sandbox import enter

        enter(policy.read_text(), str(folder))
        os.environ[WALL] = str(folder)


def _described(answer: Any, report: Reporter, debug: bool) -> dict[str, Any]:
    """Returns the function's result or exception as a dictionary."""
    if not isinstance(answer, Exception):
        return {"result": answer}
    if debug:
        import traceback

        traceback.print_exception(answer)
    known = _known_class(answer)
    if known is not None:
        return {"error": known, "message": str(answer) or known}
    ended = _exit_of(answer, report.now)
    return {"raised": ended.raised, "message": ended.said, "stage": ended.stage}


def _leave_answer(folder: Path, answer: dict[str, Any]) -> None:
    """Writes the answer whole and ends the process."""
    from .answers import write_answer

    try:
        content = write_answer(answer)
    except TypeError as error:
        content = write_answer({"raised": "TypeError", "message": str(error), "stage": "", "warnings": []})
    (folder / "answer.partial").write_bytes(content)
    os.replace(folder / "answer.partial", folder / "answer")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # TensorFlow's threads have crashed at exit after good work


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
