"""How values read on a terminal: aligned columns 80 wide, labelled paragraphs, numbers with their units.

Lays out text that it is given; what a value says of itself stands beside the value.

``columns`` is ours because ``rich.table`` was tried and cannot do what these tables promise. Where the line is too long it
leaves numbers out and cuts the end of a name; we take the middle of the name alone, and leave whole columns out. It has no
cell that spans the rest of a row, which says why a file could not be measured. It reads ``[bold]`` in a file's name as
markup. It takes 0.2 s to import, half of what ``--help`` may.
"""

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from .printable import printable, printable_lines

__all__ = [
    "MISSING",
    "WIDTH",
    "bytes_text",
    "cell_len",
    "columns",
    "count_text",
    "decibel_text",
    "fields",
    "fitted_name",
    "milliseconds_text",
    "number_text",
    "padded",
    "share_text",
    "shortened",
    "size_text",
]

WIDTH = 80
LABEL = 10
GAP = 1
SMALLEST_FLEXIBLE = 8
SMALLEST_SPAN = 20
THOUSAND = 1000
MISSING = "-"


def columns(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Iterable[int] = (0,),
    flexible: int = 0,
    smallest: int = SMALLEST_FLEXIBLE,
    dispensable: Sequence[int] = (),
    gap: int = GAP,
    width: int = WIDTH,
) -> list[str]:
    """Returns lines of aligned columns, numbers flush right, not wider than ``width`` unless the fixed columns are.

    Args:
        headings: one for each column.
        rows: a text for each column, made printable here. The last text of a shorter row takes the rest of the line, and more lines if needed.
        left: the columns that are flush left. Default: the first.
        flexible: the column whose texts lose their middle where the line would be too long. Default: the first.
        smallest: what the flexible column has at least. Default: 8.
        dispensable: columns that are left out, in this order, while the flexible one would have less. Default: none.
        gap: blanks between two columns. Default: 1.
        width: of the line. Default: 80.

    Examples:
        >>> print(*columns(("layer", "zeros", "left"), [("stem", "3%", "97%"), ("dense", "not pruned")]), sep="\\n")
        layer zeros left
        ────────────────
        stem     3%  97%
        dense not pruned
    """
    table, flush, blank = [list(map(printable, row)) for row in rows], set(left), " " * gap
    alone = [len(row) if len(row) == len(headings) else len(row) - 1 for row in table]  # texts in a column of their own
    widths = [
        max(map(cell_len, [heading, *(row[i] for row, count in zip(table, alone, strict=True) if i < count)]))
        for i, heading in enumerate(headings)
    ]
    shown = list(range(len(headings)))

    def room() -> int:
        return width - sum(widths[i] for i in shown if i != flexible) - gap * (len(shown) - 1)

    for number in dispensable:
        if room() >= min(widths[flexible], smallest):
            break
        shown.remove(number)
    widths[flexible] = min(widths[flexible], max(room(), smallest, cell_len(headings[flexible])))

    def line(cells: Sequence[str], count: int) -> str:
        fitted = {i: fitted_name(cells[i], widths[i]) if i == flexible else cells[i] for i in shown if i < count}
        return blank.join(padded(text, widths[i] if i in flush else -widths[i]) for i, text in fitted.items())

    total = sum(widths[i] for i in shown) + gap * (len(shown) - 1)
    lines = [line(headings, len(headings)), "─" * min(width, total)]
    for row, count in zip(table, alone, strict=True):
        start = line(row, count)
        if count < len(row):
            start += blank
            first, *others = textwrap.wrap(row[-1], max(width - cell_len(start), SMALLEST_SPAN)) or [""]
            lines += [start + first, *(" " * cell_len(start) + text for text in others)]
        else:
            lines.append(start)
    return [each.rstrip() for each in lines]


def fields(pairs: Iterable[tuple[str, str]], *, label_width: int = LABEL) -> list[str]:
    """Returns one paragraph for each (label, text), wrapped at 80 columns, printable.

    Args:
        pairs: labels and texts.
        label_width: columns that a label takes. Default: 10.

    Examples:
        >>> fields([("size", "98,496 bytes")])
        ['size      98,496 bytes']
    """
    lines = []
    for label, text in pairs:
        first, other = label.ljust(label_width), " " * label_width
        text = printable_lines(text)
        lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=other, break_on_hyphens=False)
    return lines


def fitted_name(path: str, width: int) -> str:
    """Returns a layer's name in this width; its last part says more than the scopes before it.

    Examples:
        >>> fitted_name("MobilenetV1/Conv2d_1_depthwise", 24)
        'Conv2d_1_depthwise'
    """
    path = printable(path)
    return shortened(path if len(path) <= width else path.rsplit("/", 1)[-1], width)


def shortened(name: str, length: int) -> str:
    """Returns ``name``, printable, with its middle replaced by an ellipsis if it takes more columns than ``length``.

    Examples:
        >>> shortened("mobilenet_v2_pruned_int8.tflite", 20)
        'mobilenet_…t8.tflite'
    """
    name = printable(name)
    if cell_len(name) <= length:
        return name
    tail = (length - 1) // 2
    return _beginning(name, length - 1 - tail) + "…" + _beginning(name[::-1], tail)[::-1]


def _beginning(text: str, length: int) -> str:
    count = min(len(text), length)
    while cell_len(text[:count]) > length:
        count -= 1
    return text[:count]


def cell_len(text: str) -> int:
    """Returns how many columns of a terminal a text takes: two for each wide sign (East Asian scripts, emoji), none for marks.

    Examples:
        >>> cell_len("cafe\u0301"), cell_len("数字"), cell_len("digits")
        (4, 4, 6)
    """
    return sum(
        0
        if unicodedata.category(sign) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(sign) in ("W", "F"))
        for sign in text
    )


def padded(text: str, width: int) -> str:
    """Returns a text filled with blanks: on the right, or on the left for a negative width.

    Examples:
        >>> padded("a", 3), padded("a", -3)
        ('a  ', '  a')
    """
    blanks = " " * (abs(width) - cell_len(text))
    return text + blanks if width > 0 else blanks + text


def count_text(count: int) -> str:
    """Returns a large number with a unit: thousand (k), million (M), billion (G), trillion (T).

    Examples:
        >>> count_text(27_648), count_text(12_501_632), count_text(512)
        ('27.6 k', '12.5 M', '512')
    """
    value = float(count)
    for unit in ("", " k", " M", " G"):
        if value < 999.5:  # from here on it would read 1000
            return f"{count}" if not unit else f"{value:.3g}{unit}"
        value /= THOUSAND
    return f"{value:.3g} T"


def share_text(share: float) -> str:
    """Returns a fraction in per cent, with a decimal below ten.

    Examples:
        >>> share_text(0.75), share_text(0.043), share_text(0.0)
        ('75%', '4.3%', '0%')
    """
    percent = 100 * share
    if 0 < percent < 0.05:
        return "<0.1%"
    return f"{percent:.1f}%" if 0 < percent < 9.95 else f"{percent:.0f}%"


def bytes_text(count: int) -> str:
    """Returns a size, in bytes below 1000, else in kB or MB.

    Examples:
        >>> bytes_text(16), bytes_text(98_512)
        ('16 bytes', '98.5 kB')
    """
    return f"{count} bytes" if count < THOUSAND else size_text(count)


def number_text(value: float) -> str:
    """Returns a real number with four digits.

    Examples:
        >>> number_text(3.14159), number_text(-128.0)
        ('3.142', '-128')
    """
    return f"{value:.4g}"


def decibel_text(value: float | None) -> str:
    """Returns a ratio in decibels with a decimal; "exact" where there is no error, "-" where there is no ratio.

    Examples:
        >>> decibel_text(31.25), decibel_text(float("inf")), decibel_text(None)
        ('31.2', 'exact', '-')
    """
    if value is None or math.isnan(value):
        return MISSING
    return "exact" if value == math.inf else f"{value:.1f}"


def size_text(size_bytes: int) -> str:
    """Returns a file size in kB, from a million bytes on in MB (powers of 1000).

    Examples:
        >>> size_text(98_512), size_text(3_978_596), size_text(13_978_596)
        ('98.5 kB', '3.98 MB', '14.0 MB')
    """
    if size_bytes < 999_950:  # from here on it would read 1000.0 kB
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes < 9_995_000 else f"{size_bytes / 1e6:.1f} MB"


def milliseconds_text(milliseconds: float) -> str:
    """Returns a time with three decimals below 100 ms, one below a second and none above.

    Examples:
        >>> milliseconds_text(0.3021), milliseconds_text(123.45), milliseconds_text(1234.56)
        ('0.302', '123.5', '1235')
    """
    if milliseconds < 100:
        return f"{milliseconds:.3f}"
    return f"{milliseconds:.1f}" if milliseconds < 1000 else f"{milliseconds:.0f}"
