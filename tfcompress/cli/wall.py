"""The flag of commands that open a file, and the wall around the child that it stands for: ``system.sandbox``."""

import os
import tempfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

from absl import flags

from .progress import say

if TYPE_CHECKING:
    from ..system import Sandbox

__all__ = ["SECONDS", "temporary_folder", "wall", "wall_flags"]

SECONDS = 6 * 3600.0


def wall_flags(values: flags.FlagValues) -> None:
    """Adds ``--sandbox`` to a command's flags."""
    flags.DEFINE_enum(
        "sandbox",
        "auto",
        ["auto", "required", "off"],
        "the wall around the process that opens the file: no network, no other files, no other programs, at most 80 % of the "
        "memory or $TFCOMPRESS_MEMORY_GIB; auto takes what the kernel offers, required refuses less",
        flag_values=values,
    )


def wall(values: flags.FlagValues, readable: Iterable[str | os.PathLike | None]) -> "Sandbox | None":
    """Returns the wall that the flags ask for, None for none; says in one line what the kernel lacks.

    Args:
        values: the command's flags, parsed.
        readable: files and folders that the child needs; None is left out.

    Raises:
        SandboxError: the kernel lacks a part of it, and it is required.
        ValueError: the limit of memory in the environment is no number.
    """
    if values.sandbox == "off":
        return None
    from ..errors import SandboxError
    from ..system.sandbox import Sandbox, memory_share, missing_parts, missing_text

    missing = missing_parts()
    if missing and values.sandbox == "required":
        raise SandboxError(missing_text(missing))
    if missing:
        say(f"warning: {missing_text(missing)} The file is opened without.")
    paths = tuple(os.fspath(path) for path in readable if path is not None)
    return Sandbox(readable=paths, memory_bytes=memory_share(), required=values.sandbox == "required")


def temporary_folder() -> tempfile.TemporaryDirectory:
    """Returns a folder for what one child hands to the next; a context manager."""
    return tempfile.TemporaryDirectory(prefix="tfcompress-", ignore_cleanup_errors=True)
