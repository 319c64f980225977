"""``tfcompress devices``: which phones are there, and which files a board or phone keeps in its cache."""

from collections.abc import Sequence

from absl import flags

from ..system.text_tables import size_text
from .parsing import UsageError, help_text, new_flags, parse, show

__all__ = ["SUMMARY", "run"]

SUMMARY = "list phones, and list or clear the files that a device has in its cache"
_EXAMPLE = "{program} --device=ssh://pi@raspberrypi.local --clear"


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string(
        "device", None, "ssh://user@host:port or adb://serial; without it the phones are listed", flag_values=values
    )
    flags.DEFINE_bool(
        "clear", False, "remove everything that tfcompress has left there, environments too", flag_values=values
    )
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = _flags()
    if parse(values, arguments, required=()):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    if values.device is None:
        if values.clear:
            raise UsageError("--clear needs a --device. --help lists the flags.")
        show(_phones_text())
        return 0
    from ..measurement.devices import open_cache

    with open_cache(values.device) as board:
        if values.clear:
            board.clear()
            show(f"{board.name}: cleared")
            return 0
        files = board.cached()
        lines = [f"{file.sha256}  {size_text(file.size_bytes)}" for file in files]
        total = sum(file.size_bytes for file in files)
        show("\n".join([*lines, f"{board.name}: {len(files)} files, {size_text(total)}"]))
    return 0


def _phones_text() -> str:
    from ..measurement.devices.remote import listed_phones

    phones = [f"adb://{phone.serial}  {phone.state}  {phone.model}".rstrip() for phone in listed_phones()]
    return "\n".join(phones or ["no phones; boards are named ssh://user@host"])
