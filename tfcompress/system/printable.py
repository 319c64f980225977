r"""How does foreign text, such as a name in a file, reach a terminal, a page or a spreadsheet without steering it?

A tensor's name may hold an escape sequence that rewrites the screen, a bidirectional mark that turns what stands beside it
around, or nothing that can be seen; a file's name need not be text at all. What may be shown is listed, not what may not: the
signs that Unicode counts as printable, but for the few of those that leave no mark. Everything else is written as Python writes
it, ``\x1b``.

Layouts (``text_tables``, pages) pass each name through ``printable``, so that columns stay aligned; whatever a command writes
passes ``write`` once more. Files for machines, JSON above all, keep names as they are: JSON has escapes of its own.
"""

from typing import TextIO

__all__ = ["encodable", "printable", "printable_lines", "spreadsheet_cell", "write"]

# Printable by category, and yet nothing is seen: Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties, 15.0) without
# what str.isprintable refuses anyway. Fillers, joiners and selectors of variants.
UNSEEN = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x2800, 0x2800),  # not in that list: the Braille pattern without a dot
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)
ESCAPED_BYTES = range(0xDC80, 0xDD00)  # how Python holds bytes of a file's name that are not text (PEP 383)
# What tables draw with, for a terminal that has ASCII alone.
PLAIN_SIGNS = str.maketrans({"─": "-", "└": "`", "…": "~", "–": "-"})
CELL_BEGINNINGS = "_./\\~([{<#"
QUOTE = "'"


def printable(text: str) -> str:
    r"""Returns the text on one line, with an escape for each sign that is not seen or that steers a terminal.

    Examples:
        >>> print(printable("conv\x1b[2J"), printable("a\nb"), printable("digits ✓ 数字"))
        conv\x1b[2J a\nb digits ✓ 数字
        >>> print(printable("\u202exfl.exe"), printable("a\u200bb"), printable(b"\xff.tflite".decode(errors="surrogateescape")))
        \u202exfl.exe a\u200bb \xff.tflite
    """
    if text.isprintable() and UNSEEN.isdisjoint(text):
        return text
    return "".join(sign if sign.isprintable() and sign not in UNSEEN else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    if ord(sign) in ESCAPED_BYTES:
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def printable_lines(text: str) -> str:
    r"""Returns the text with its line breaks, and each line as ``printable`` has it.

    Examples:
        >>> printable_lines("size 3 kB\nname a\rb")
        'size 3 kB\nname a\\rb'
    """
    return "\n".join(map(printable, text.split("\n")))


def encodable(text: str, encoding: str | None) -> str:
    r"""Returns the text in signs that an encoding has: lines become minus signs, other signs escapes.

    Args:
        text: any text.
        encoding: of a stream; None stands for UTF-8.

    Examples:
        >>> print(encodable("─── 数字 …t8.tflite", "ascii"))
        --- \u6570\u5b57 ~t8.tflite
    """
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN_SIGNS).encode(encoding, "backslashreplace").decode(encoding)
    return text


def write(text: str, stream: TextIO | None) -> None:
    r"""Writes lines to a stream at once, printable and in its encoding, and ends the last one; no stream, nothing is written.

    Args:
        text: one or several lines.
        stream: such as ``sys.stdout``, which a service does not have.

    Raises:
        OSError: the stream takes no more.

    Examples:
        >>> import sys
        >>> write("layer \x07 conv", sys.stdout)
        layer \x07 conv
    """
    if stream is None or stream.closed:
        return
    text = encodable(printable_lines(text), getattr(stream, "encoding", None))
    stream.write(text if text.endswith("\n") else text + "\n")
    stream.flush()


def spreadsheet_cell(value: object) -> object:
    r"""Returns what to write to CSV so that a spreadsheet takes text for text, not for a formula.

    Text that begins with anything but a letter, a digit or one of ``_./\~([{<#`` gets an apostrophe before it, as spreadsheets
    write text that is to stay text. Numbers are left alone, also negative ones.

    Args:
        value: of a cell.

    Examples:
        >>> spreadsheet_cell("=HYPERLINK(A1)"), spreadsheet_cell("-1+1"), spreadsheet_cell("digits.tflite"), spreadsheet_cell(-1.5)
        ("'=HYPERLINK(A1)", "'-1+1", 'digits.tflite', -1.5)
        >>> print(spreadsheet_cell("\t=1+1"))
        '\t=1+1
    """
    if not isinstance(value, str) or not value:
        return value
    first = value[0]
    shown = printable(value)
    return shown if first.isalnum() or (first in CELL_BEGINNINGS and shown[0] == first) else QUOTE + shown
