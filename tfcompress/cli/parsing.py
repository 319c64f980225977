"""How a command reads its absl flags: help exits with 0, wrong usage is one line.

Each command has a ``FlagValues`` of its own, so that two commands never see each other's flags.
"""

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ..errors import OutputError
from ..system.printable import write

__all__ = [
    "PAGES",
    "UsageError",
    "abandon_stdout",
    "check_report",
    "define_scaling",
    "help_text",
    "new_flags",
    "parse",
    "parse_overrides",
    "parse_shapes",
    "show",
]

PAGES = (".html", ".htm")
_REPORTS = (*PAGES, ".json", ".txt")


class UsageError(Exception):
    """The flags are wrong; the message is one line."""


def new_flags() -> flags.FlagValues:
    """Returns a set of flags with ``--help`` and ``--debug``."""
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "print this help and exit", short_name="h", flag_values=values)
    flags.DEFINE_bool("debug", False, "show tracebacks and the log lines of TensorFlow", flag_values=values)
    return values


def define_scaling(values: flags.FlagValues) -> None:
    """Adds ``--scaling``, the same for every command that reads pixels.

    Args:
        values: the command's flags.
    """
    flags.DEFINE_string(
        "scaling",
        None,
        "how pixels of images become inputs: zero_one, minus_one_one, raw, imagenet_torch, imagenet_caffe, or "
        "mean=R,G,B;std=R,G,B",
        flag_values=values,
    )


def parse(values: flags.FlagValues, arguments: Sequence[str], *, required: Sequence[str]) -> bool:
    """Reads ``arguments`` into ``values``; returns whether help was asked for.

    Args:
        values: the command's flags.
        arguments: the command line without the program's name.
        required: flags that must be given.

    Raises:
        UsageError: an unknown flag, a malformed value, a positional argument or a missing flag.
    """
    try:
        rest = values(["command", *arguments])
    except flags.Error as error:
        raise UsageError(f"{' '.join(str(error).split())} --help lists the flags.") from error
    if values.help:
        return True
    if len(rest) > 1:
        raise UsageError(
            f"Every input is a flag. Received: {rest[1]!r}. Write --NAME={rest[1]}; --help lists the flags."
        )
    missing = [name for name in required if not values[name].value]
    if missing:
        raise UsageError(f"--{missing[0]} must be given. --help lists the flags.")
    empty = [name for name in values if isinstance(values[name].value, list) and "" in values[name].value]
    if empty:
        raise UsageError(f"--{empty[0]} must not have an empty entry. Received: {','.join(values[empty[0]].value)!r}.")
    return False


def check_report(path: str | None) -> None:
    """Checks that the name of an account says in which form it is wanted.

    Raises:
        UsageError: it ends in none of .html, .htm, .json and .txt.

    Examples:
        >>> check_report("account.html")
    """
    if path and Path(path).suffix.lower() not in _REPORTS:
        raise UsageError(f"--report must name a {', '.join(_REPORTS)} file. Received: {path!r}.")


def parse_shapes(entries: Sequence[str]) -> dict[str, tuple[int | None, ...]] | None:
    """Returns shapes by input name from entries like "image:1,224,224,3"; "any" is a dynamic axis. None for no entry.

    Raises:
        UsageError: an entry is malformed.

    Examples:
        >>> parse_shapes(["image:1,any,any,3"])
        {'image': (1, None, None, 3)}
    """
    shapes: dict[str, tuple[int | None, ...]] = {}
    for entry in entries:
        name, _, sizes = entry.rpartition(":")
        try:
            shapes[name] = tuple(None if size.strip() == "any" else int(size) for size in sizes.split(","))
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--input_shape must be NAME:1,224,224,3. Received: {entry!r}.")
    return shapes or None


def parse_overrides(entries: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (pattern, observer) pairs from entries like "*logits*=percentile".

    Raises:
        UsageError: an entry is malformed.

    Examples:
        >>> parse_overrides(["*logits*=percentile"])
        [('*logits*', 'percentile')]
    """
    pairs = []
    for entry in entries:
        pattern, equals, observer = entry.rpartition("=")
        if not pattern or not equals or not observer:
            raise UsageError(f"--observe must be PATTERN=OBSERVER. Received: {entry!r}.")
        pairs.append((pattern, observer))
    return pairs


def show(text: str) -> None:
    """Writes a result to standard output, printable and in its encoding; each command's one way to get there.

    Raises:
        OutputError: standard output takes no more; says that it is standard output, not one of the files.
    """
    try:
        write(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise OutputError(
            f"Standard output must take the result. Received: {error.strerror}. Files that were asked for are written."
        ) from error


def abandon_stdout() -> None:
    """Points standard output at nothing, so that what it did not take is not tried again, and said again, at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def help_text(values: flags.FlagValues, *, program: str, summary: str, example: str) -> str:
    """Returns the help of a command: every flag with its default, at most 80 columns wide."""
    lines = [f"{program}: {summary}", "", f"  {example}", "", "Flags:"]
    for name in sorted({flag.name for flag in values._flags().values()}):
        flag = values[name]
        default = f" Default: {flag.default_as_str}." if flag.default not in (None, False, []) else ""
        shown = f"--[no]{name}" if flag.boolean and flag.default else f"--{name}"
        shown += "" if flag.boolean else "=" + ("..." if flag.parser.syntactic_help else "VALUE")
        lines.append(f"  {shown}")
        lines += textwrap.wrap(
            flag.help.rstrip(".") + "." + default, 74, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines)
