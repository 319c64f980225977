"""How does work that may crash natively run without taking its caller along?

In a child process: TensorFlow's converter ends a process with ``abort()`` where Python would raise, and native HDF5 may
do the same on a damaged file. The child reports progress while it works; its result, its errors and its end by a signal
all come back as values or as exceptions of the caller. What the function does is no concern of this module.
"""

import contextlib
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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any

from .. import errors
from ..errors import ConversionError

__all__ = ["Reporter", "main", "run_isolated"]

CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tfcompress.system.isolation import main; main()"
PACKAGE = str(Path(__file__).resolve().parents[1])
LONGEST_REASON = 300
# What Python, glibc and LLVM print after the line that says why, or in place of one.
NOISE = ("*** ", "Fatal Python error", "  File ", "Current thread", "Extension modules", "Stack dump", "#", "PLEASE ")
OUT_OF_MEMORY = ("bad_alloc", "Cannot allocate memory", "out of memory", "MemoryError")
CLASSES: dict[str, type[Exception]] = {
    **{name: getattr(errors, name) for name in errors.__all__},
    **{kind.__name__: kind for kind in (ValueError, TypeError, OSError, MemoryError)},
}


class Reporter:
    """What the function in the child says while it works; called with (done, total or None).

    Args:
        stream: where the lines go, text.

    Attributes:
        now: the stage that was told last.

    Examples:
        >>> report = Reporter(sys.stdout)
        >>> report.stage("lowering model.keras")
        {"stage": "lowering model.keras"}
        >>> report(32, 100)
        {"done": 32, "total": 100}
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.now = ""

    def __call__(self, done: int, total: int | None) -> None:
        self._say({"done": done, "total": total})

    def stage(self, text: str) -> None:
        """Says what is being done now; if the process dies, the error names it."""
        self.now = text
        self._say({"stage": text})

    def _say(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()


def run_isolated(
    function_path: str,
    request: Any,
    *,
    on_progress: Callable[[int, int | None], None] | None = None,
    timeout_seconds: int | None = None,
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
        on_progress: called with (done, total or None) whenever the function reports. Default: nothing.
        timeout_seconds: after how long the system ends the child, also inside a native loop. Default: None, never.
        debug: whether the child's output and tracebacks are shown on standard error. Default: False.

    Returns:
        The function's result, pickled on the way.

    Raises:
        TfcompressError: one that the function raised, of the same class and with the same message.
        ValueError: likewise; and so are ``TypeError``, ``OSError`` and ``MemoryError``.
        ConversionError: another exception, an end by a signal, the time is over, or no answer; one line that says what to do.

    Examples:
        >>> run_isolated("tfcompress.system.isolation:count_letters", "four")
        4
    """
    with tempfile.TemporaryDirectory(prefix="tfcompress-", ignore_cleanup_errors=True) as name, _sigterm_raises():
        folder = Path(name)
        (folder / "tmp").mkdir()
        (folder / "request").write_bytes(pickle.dumps((function_path, request, timeout_seconds, debug)))
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
            stage = _follow(process.stdout, on_progress)
            code = process.wait()
        answer = _answer(folder)
        if answer is None:
            raise ConversionError(_obituary(code, stage, "" if debug else _last_words(folder / "stderr")))
    for message in answer["warnings"]:
        warnings.warn(message, stacklevel=2)
    if "error" in answer:
        raise CLASSES[answer["error"]](answer["message"])
    return answer["result"]


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


def _obituary(code: int, stage: str, said: str) -> str:
    """Returns the one line for a child that left no answer."""
    while_doing = f" while {stage}" if stage else ""
    reason = f" ({said})" if said else ""
    if code == -signal.SIGKILL or any(word in said for word in OUT_OF_MEMORY):
        return (
            f"The process was ended{while_doing}, as the system does when memory runs out{reason}. Received: "
            f"{_how(code)}. Free memory, use a smaller model, or fewer samples."
        )
    if code == -signal.SIGALRM:
        return f"The process did not end in time{while_doing}{reason}. Received: SIGALRM. The file may be damaged."
    if code < 0:
        return (
            f"A native library crashed{while_doing}{reason}. Received: {_how(code)}. The model may be damaged or hold "
            "what the converter cannot take: save it again, or replace the layer. --debug shows the library's lines."
        )
    return f"The process gave no answer{while_doing}{reason}. Received: {_how(code)}. --debug shows its output."


def _no_memory(stage: str, reason: str) -> str:
    while_doing = f" while {stage}" if stage else ""
    return f"Memory ran out{while_doing}. Received: {reason}. Free memory, use a smaller model, or fewer samples."


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


# The child's side.


def main() -> None:
    """Runs the function that the folder in ``sys.argv[2]`` asks for and leaves the answer there."""
    folder = Path(sys.argv[2])
    report = Reporter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever prints to standard output from here on does not disturb the reports
    threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    function_path, request, timeout_seconds, debug = pickle.loads((folder / "request").read_bytes())
    signal.alarm(timeout_seconds or 0)  # a native loop that holds the interpreter's lock stops every thread, not this
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
    except MemoryError as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON].rstrip(".") or "nothing more could be allocated"
        return {"error": "ConversionError", "message": _no_memory(report.now, reason)}
    except Exception as error:  # noqa: BLE001 - the boundary of the process: the parent raises it again
        if debug:
            import traceback

            traceback.print_exc()
        for kind in type(error).__mro__:
            if kind.__name__ in CLASSES and CLASSES[kind.__name__] is kind:
                return {"error": kind.__name__, "message": str(error) or kind.__name__}
        text = " ".join(str(error).split())[:LONGEST_REASON].rstrip(".")
        message = f"The work ended in an unexpected {type(error).__name__}: {text}. --debug shows where."
        return {"error": "ConversionError", "message": message}


def _leave_with_parent(folder: Path) -> None:
    """Waits for the parent's end of standard input to close, which only its death does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def count_letters(text: str, report: Reporter) -> int:
    """Returns the length of ``text``; the example above."""
    return len(text)
