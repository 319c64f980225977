"""How native libraries are kept from writing to the terminal.

TFLite and XNNPACK write log lines straight to file descriptor 2, past Python's ``sys.stderr`` and ``logging``. Errors
are not lost with them: the interpreter raises them too. What Python itself writes passes by, whichever thread it comes from:
the process's ``sys.stdout`` and ``sys.stderr`` stay the objects that they are. Loggers of TensorFlow say errors alone while a
model is loaded or converted.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["converter_silenced", "native_stderr_silenced", "prints_silenced"]

STDERR = 2


class Counted:
    """Something that belongs to the process, changed while at least one caller wants it so.

    Two threads that each changed and restored it on their own would leave it changed for good.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.callers = 0
        self.is_watched = False

    def __enter__(self) -> None:
        """Counts one caller in; the first one changes it."""
        with self.lock:
            if not self.is_watched and hasattr(os, "register_at_fork"):
                self.is_watched = True
                os.register_at_fork(after_in_child=self.after_fork)
            self.callers += 1
            if self.callers == 1:
                self.change()

    def __exit__(self, *_: object) -> None:
        """Counts one caller out; the last one restores it."""
        with self.lock:
            if self.callers == 1:
                self.restore()
            self.callers = max(self.callers - 1, 0)

    def after_fork(self) -> None:
        """Restores it in a child that was forked meanwhile, where the threads that would do it do not exist."""
        self.lock = threading.Lock()
        if self.callers:
            self.restore()
        self.callers = 0

    def change(self) -> None:
        """Changes it."""
        raise NotImplementedError

    def restore(self) -> None:
        """Puts it back."""
        raise NotImplementedError


class Silence(Counted):
    """File descriptor 2 pointed at nothing; Python's streams to it lead to where it pointed before.

    The descriptor that they write to meanwhile is kept for the life of the process: another thread may be about to write to it
    when the silence ends.
    """

    def __init__(self):
        super().__init__()
        self.beside: int | None = None
        self.streams: list[io.FileIO] = []
        self.is_changed = False

    def change(self) -> None:
        """Points the descriptor at the null device, unless the process has none."""
        flush_stderr()
        try:
            if self.beside is None:
                self.beside = os.dup(STDERR)
            else:
                os.dup2(STDERR, self.beside, inheritable=False)
        except OSError:
            return  # a service without stderr: nothing to silence
        self.streams = python_streams(STDERR)
        for stream in self.streams:
            point(stream, self.beside)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDERR)
        os.close(null)
        self.is_changed = True

    def restore(self) -> None:
        """Points the descriptor, and Python's streams, at where they pointed."""
        if not self.is_changed:
            return
        flush_stderr()
        os.dup2(self.beside, STDERR)  # type: ignore[arg-type]
        for stream in self.streams:
            if not stream.closed:
                point(stream, STDERR)
        self.streams, self.is_changed = [], False


class QuietLoggers(Counted):
    """The loggers of TensorFlow and absl, which say errors alone."""

    def __init__(self):
        super().__init__()
        self.levels: dict[str, int] = {}

    def change(self) -> None:
        """Raises their levels."""
        for name in ("absl", "tensorflow"):
            logger = logging.getLogger(name)
            self.levels[name] = logger.level
            logger.setLevel(logging.ERROR)

    def restore(self) -> None:
        """Puts their levels back."""
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)


SILENCE = Silence()
LOGGERS = QuietLoggers()


@contextlib.contextmanager
def native_stderr_silenced(*, debug: bool = False) -> Iterator[None]:
    """Sends what native code writes to file descriptor 2 inside the block to nowhere.

    What Python writes to ``sys.stderr`` meanwhile, in any thread, is seen. Blocks may nest and may run in several threads; the
    descriptor comes back when the last one ends, also after an error.

    Args:
        debug: leaves everything as it is. Default: False.

    Examples:
        >>> with native_stderr_silenced():
        ...     _ = os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.")
    """
    with contextlib.nullcontext() if debug else SILENCE:
        yield


@contextlib.contextmanager
def converter_silenced(*, debug: bool = False) -> Iterator[None]:
    """Runs the body without the log lines of TensorFlow, its converter and absl; what Python code prints is seen.

    Args:
        debug: lets them through. Default: False.

    Examples:
        >>> with converter_silenced():
        ...     logging.getLogger("tensorflow").warning("a line of the converter")
    """
    with contextlib.nullcontext() if debug else LOGGERS, native_stderr_silenced(debug=debug):
        yield


class Here(threading.local):
    """Whether this thread is inside ``prints_silenced``."""

    depth = 0


HERE = Here()


@contextlib.contextmanager
def prints_silenced(*modules: ModuleType) -> Iterator[None]:
    """Drops what the functions of some modules print in this thread; other threads' prints, and other modules', are seen.

    The modules get a ``print`` of their own, once, which is Python's outside such blocks.

    Args:
        modules: of a library that prints whatever it is asked.

    Examples:
        >>> import calendar
        >>> with prints_silenced(calendar):
        ...     calendar.prmonth(2026, 11)
    """
    for module in modules:
        vars(module).setdefault("print", print_outside)
    HERE.depth += 1
    try:
        yield
    finally:
        HERE.depth -= 1


def print_outside(*values: Any, **options: Any) -> None:
    """Prints, but not inside ``prints_silenced``.

    Examples:
        >>> print_outside("seen")
        seen
    """
    if not HERE.depth:
        builtins.print(*values, **options)


def python_streams(descriptor: int) -> list[io.FileIO]:
    """Returns the files at the bottom of Python's standard error streams that write to a descriptor.

    Examples:
        >>> python_streams(-1)
        []
    """
    found = {}
    for stream in (sys.stderr, sys.__stderr__):
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if isinstance(raw, io.FileIO) and not raw.closed and raw.fileno() == descriptor:
            found[id(raw)] = raw
    return list(found.values())


def point(stream: io.FileIO, descriptor: int) -> None:
    """Makes a file write to another descriptor, and stay the object that it is: who holds it, a logger say, goes on with it."""
    name = stream.name
    io.FileIO.__init__(stream, descriptor, "w", closefd=False)  # Python lets a file be opened anew
    stream.name = name  # type: ignore[misc]


def flush_stderr() -> None:
    """Writes out what Python holds back, so that it lands on its own side of the redirection.

    Examples:
        >>> flush_stderr()
    """
    if sys.stderr is not None and not sys.stderr.closed:
        sys.stderr.flush()
