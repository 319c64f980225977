"""How long work shows that it goes on: a bar with a rate on a terminal, plain lines otherwise.

Writes to a descriptor of its own beside standard error, because the native libraries' log lines are silenced by
pointing descriptor 2 elsewhere.
"""

import contextlib
import os
import sys
import time
from typing import Any, Self

from ..system.printable import printable, write

__all__ = ["Progress", "say"]

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts units of work; use it as a context manager and call it with (done, total or None).

    Args:
        what: the word in front, for instance "calibrating".
        unit: what is counted, for instance "samples".
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what = printable(what)
        self._unit = unit
        self._bar: Any = None
        self._done = 0
        self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        try:
            encoding = getattr(sys.stderr, "encoding", None)
            self._stream = os.fdopen(os.dup(2), "w", encoding=encoding, errors="backslashreplace")
        except OSError:  # a service without standard error
            self._stream = open(os.devnull, "w")
        self._terminal = self._stream.isatty()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._stream.close()

    def __call__(self, done: int, total: int | None) -> None:
        if not self._terminal:
            now = time.monotonic()
            if now - self._spoke > _SECONDS_BETWEEN_LINES or done == total:
                self._spoke = now
                print(f"{self._what}: {done} of {total or '?'} {self._unit}", file=self._stream, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                desc=self._what,
                unit=f" {self._unit}",
                file=self._stream,
                ncols=self._columns(),
                leave=False,
            )
        self._bar.update(done - self._done)
        self._done = done

    def _columns(self) -> int:
        columns = os.get_terminal_size(self._stream.fileno()).columns
        return columns or 80  # a pseudo-terminal that was never given a size says 0


def say(text: str) -> None:
    """Prints one line on standard error, as far as there is one."""
    with contextlib.suppress(OSError):  # nobody is left to tell
        write(" ".join(text.split()), sys.stderr)
