"""How native libraries are kept from writing to the terminal.

TFLite and XNNPACK write log lines straight to file descriptor 2, past Python's ``sys.stderr`` and ``logging``. Errors
are not lost with them: the interpreter raises them too. Python's own output is left alone, but for the loggers of
TensorFlow while a model is loaded or converted.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator

__all__ = ["converter_silenced", "native_stderr_silenced"]

STDERR = 2


class Silence:
    """File descriptor 2 pointed at nothing while at least one caller wants it so.

    The descriptor belongs to the process, hence the one instance below: two threads that each saved and restored it on
    their own would leave it closed for good.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.callers = 0
        self.saved: int | None = None

    def enter(self) -> None:
        """Counts one caller in; the first one redirects."""
        with self.lock:
            self.callers += 1
            if self.callers == 1:
                self.redirect()

    def leave(self) -> None:
        """Counts one caller out; the last one restores."""
        with self.lock:
            self.callers -= 1
            if self.callers == 0 and self.saved is not None:
                flush_stderr()
                os.dup2(self.saved, STDERR)
                os.close(self.saved)
                self.saved = None

    def redirect(self) -> None:
        """Points the descriptor at the null device, unless the process has none."""
        flush_stderr()
        try:
            self.saved = os.dup(STDERR)
        except OSError:
            return  # a service without stderr: nothing to silence
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDERR)
        os.close(null)


SILENCE = Silence()


@contextlib.contextmanager
def native_stderr_silenced(*, debug: bool = False) -> Iterator[None]:
    """Sends what is written to file descriptor 2 inside the block to nowhere.

    Keep the block to the native call: a progress bar drawn on stderr meanwhile is lost as well. Blocks may nest and may
    run in several threads; the descriptor comes back when the last one ends, also after an error.

    Args:
        debug: leaves everything as it is. Default: False.

    Examples:
        >>> with native_stderr_silenced():
        ...     _ = os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.")
    """
    if debug:
        yield
        return
    SILENCE.enter()
    try:
        yield
    finally:
        SILENCE.leave()


@contextlib.contextmanager
def converter_silenced(*, debug: bool = False) -> Iterator[None]:
    """Runs the body without the log lines of TensorFlow, its converter and absl.

    Args:
        debug: lets them through. Default: False.

    Examples:
        >>> with converter_silenced():
        ...     print("a line of the converter")
    """
    if debug:
        yield
        return
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with native_stderr_silenced(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def flush_stderr() -> None:
    """Writes out what Python holds back, so that it lands on its own side of the redirection.

    Examples:
        >>> flush_stderr()
    """
    if sys.stderr is not None and not sys.stderr.closed:
        sys.stderr.flush()
