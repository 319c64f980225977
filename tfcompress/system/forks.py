"""Was this process forked from one in which TensorFlow had run? Then its threads are gone, and whoever waits for them waits for ever.

``fork`` copies the thread that calls it and no other. A new process (``spawn``, ``subprocess``) has no such trouble, which is why
commands, and measuring on this machine, go on in one.
"""

import contextlib
import os
import sys
from pathlib import Path

from ..errors import ConversionError

__all__ = ["check_not_forked"]

FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of Linux's include/linux/sched.h
FLAGS_FIELD = 6  # of /proc/self/stat, counted from behind the name
THREADS = "tf_"  # how the names of TensorFlow's threads begin


def check_not_forked() -> None:
    """Refuses work that TensorFlow would never end: this process was forked after TensorFlow had run.

    Told by Linux, which knows that a process was forked, by TensorFlow, which knows that it has started, and by its threads, which
    are not there. Elsewhere nothing is checked.

    Raises:
        ConversionError: TensorFlow started before the fork.

    Examples:
        >>> check_not_forked()
    """
    context = sys.modules.get("tensorflow.python.eager.context")
    started = context is not None and getattr(getattr(context, "_context", None), "_initialized", False)
    try:
        if not started or not _was_forked() or any(name.startswith(THREADS) for name in _thread_names()):
            return
    except OSError:
        return  # a wall around this process
    raise ConversionError(
        "TensorFlow must not have run before a process is forked: its threads stay behind, and it would wait for them for ever. "
        f"Received: process {os.getpid()}, forked later. Start it with multiprocessing's 'spawn' method, or convert in the "
        "process that trains."
    )


def _was_forked() -> bool:
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[FLAGS_FIELD]) & FORKED_WITHOUT_EXEC)
    except (OSError, ValueError, IndexError):
        return False


def _thread_names() -> list[str]:
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            names.append(Path(f"/proc/self/task/{task}/comm").read_text())
    return names
