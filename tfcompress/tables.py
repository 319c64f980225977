"""How measurements look on a terminal: one aligned table, never wider than it was asked to be."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Measurement

__all__ = ["measurement_table", "milliseconds_text", "shortened", "size_text"]

DEFAULT_WIDTH = 80
SMALLEST_NAME = 12
MISSING = "-"
HEADINGS = ("model", "accuracy", "size", "gzip", "median ms", "p90", "p99", "peak MB")
GAPS = 2 * (len(HEADINGS) - 1)


def measurement_table(measurements: "Measurement | Iterable[Measurement]", *, width: int = DEFAULT_WIDTH) -> str:
    """Returns one aligned text table, a line per measurement, numbers flush right, without a line break at the end.

    Sizes are in kB (1000 bytes) or MB, times in milliseconds, peak memory in MB (10^6 bytes). A name that is too long
    for the line loses its middle, and the ending .tflite is left out.

    Args:
        measurements: one or several.
        width: columns of the terminal, at least 80. Default: 80.

    Example:
        >>> from tfcompress.records import example_measurement
        >>> print(measurement_table(example_measurement()))
        model   accuracy     size     gzip  median ms    p90    p99  peak MB
        ────────────────────────────────────────────────────────────────────
        digits    97.2 %  24.0 kB  12.0 kB      0.100  0.120  0.200     60.0
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if width < DEFAULT_WIDTH:
        raise ValueError(f"width must be at least {DEFAULT_WIDTH}. Received: width={width}.")
    rows = [cells(record) for record in as_list(measurements)]
    numbers = [max(map(len, column)) for column in zip(HEADINGS[1:], *(row[1:] for row in rows), strict=True)]
    room = max(width - sum(numbers) - GAPS, SMALLEST_NAME)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right", no_wrap=True)
    for name, *rest in rows:
        table.add_row(shortened(name, room), *rest)
    # Not force_terminal: the text carries no colours, so that it can be piped and pasted.
    console = Console(file=io.StringIO(), width=max(width, room + sum(numbers) + GAPS), color_system=None)
    console.print(table, markup=False, highlight=False)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip("\n").splitlines())  # type: ignore[attr-defined]


def as_list(measurements: "Measurement | Iterable[Measurement]") -> "list[Measurement]":
    """Returns measurements as a list, also a single one."""
    return list(measurements) if isinstance(measurements, Iterable) else [measurements]


def cells(record: "Measurement") -> list[str]:
    """Returns one row of the table."""
    latency = record.latency
    return [
        record.name.removesuffix(".tflite"),
        MISSING if record.accuracy is None else f"{100 * record.accuracy:.1f} %",
        size_text(record.size_bytes),
        size_text(record.gzip_bytes),
        *(milliseconds_text(value) for value in (latency.median_ms, latency.p90_ms, latency.p99_ms)),
        MISSING if record.peak_bytes is None else f"{record.peak_bytes / 1e6:.1f}",
    ]


def size_text(size_bytes: int) -> str:
    """Returns a file size in kB, from a million bytes on in MB (powers of 1000).

    Example:
        >>> size_text(98_512), size_text(3_978_596), size_text(13_978_596)
        ('98.5 kB', '3.98 MB', '14.0 MB')
    """
    if size_bytes < 999_950:  # from here on it would read 1000.0 kB
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes < 9_995_000 else f"{size_bytes / 1e6:.1f} MB"


def milliseconds_text(milliseconds: float) -> str:
    """Returns a time with three decimals below 100 ms, one below a second and none above.

    Example:
        >>> milliseconds_text(0.3021), milliseconds_text(123.45), milliseconds_text(1234.56)
        ('0.302', '123.5', '1235')
    """
    if milliseconds < 100:
        return f"{milliseconds:.3f}"
    return f"{milliseconds:.1f}" if milliseconds < 1000 else f"{milliseconds:.0f}"


def shortened(name: str, length: int) -> str:
    """Returns ``name`` with its middle replaced by an ellipsis if it is longer than ``length``.

    Example:
        >>> shortened("mobilenet_v2_pruned_int8.tflite", 20)
        'mobilenet_…t8.tflite'
    """
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return name[: length - 1 - tail] + "…" + name[-tail:]
