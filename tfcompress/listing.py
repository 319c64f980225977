"""How an account of a file reads on a terminal: aligned columns, 80 wide.

Takes values of ``inspection`` and ``comparison`` and returns text; computes nothing.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .tables import MISSING, shortened, size_text

if TYPE_CHECKING:
    from .agreement import Agreement
    from .inspection import Inspection
    from .losses import LayerError, LayerReport
    from .summaries import OpSummary

__all__ = [
    "agreement_text",
    "bytes_text",
    "columns",
    "count_text",
    "decibel_text",
    "fields",
    "fitted_name",
    "inspection_text",
    "number_text",
    "report_table",
    "share_text",
]

WIDTH = 80
LABEL = 10
GAP = 1
SMALLEST_FLEXIBLE = 8
THOUSAND = 1000


def columns(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: Iterable[int] = (0,), flexible: int = 0
) -> list[str]:
    """Returns lines of aligned columns, numbers flush right, not wider than 80 unless the fixed columns are.

    Args:
        headings: one for each column.
        rows: a text for each column.
        left: the columns that are flush left. Default: the first.
        flexible: the column whose texts lose their middle where the line would be too long. Default: the first.

    Examples:
        >>> print(*columns(("layer", "zeros"), [("stem", "3%"), ("dense", "75%")]), sep="\\n")
        layer zeros
        ───────────
        stem     3%
        dense   75%
    """
    table = [list(row) for row in rows]
    widths = [max(len(heading), *(len(row[i]) for row in table), 0) for i, heading in enumerate(headings)]
    fixed = sum(widths) - widths[flexible] + GAP * (len(widths) - 1)
    widths[flexible] = min(widths[flexible], max(WIDTH - fixed, SMALLEST_FLEXIBLE, len(headings[flexible])))
    flush = set(left)

    def line(cells: Sequence[str]) -> str:
        fitted = [fitted_name(cell, widths[i]) if i == flexible else cell for i, cell in enumerate(cells)]
        texts = [cell.ljust(widths[i]) if i in flush else cell.rjust(widths[i]) for i, cell in enumerate(fitted)]
        return (" " * GAP).join(texts).rstrip()

    return [line(headings), "─" * min(WIDTH, sum(widths) + GAP * (len(widths) - 1)), *(line(row) for row in table)]


def fitted_name(path: str, width: int) -> str:
    """Returns a layer's name in this width; its last part says more than the scopes before it.

    Examples:
        >>> fitted_name("MobilenetV1/Conv2d_1_depthwise", 24)
        'Conv2d_1_depthwise'
    """
    return shortened(path if len(path) <= width else path.rsplit("/", 1)[-1], width)


def fields(pairs: Iterable[tuple[str, str]], *, label_width: int = LABEL) -> list[str]:
    """Returns one paragraph for each (label, text), wrapped at 80 columns.

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
        lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=other, break_on_hyphens=False)
    return lines


def inspection_text(found: "Inspection") -> str:
    """Returns the whole inspection as text: what the file is, then a table of layers and one of ranges."""
    lines = [found.name, *fields(_overview(found)), "", *_layers(found.operations)]
    ranges = _ranges(found.operations)
    return "\n".join([*lines, "", *ranges] if ranges else lines)


def agreement_text(found: "Agreement") -> str:
    """Returns how two files agree as text: their outputs, where they part, and a table of the layers both share."""
    first, second = found.size_bytes
    made_up = f"{found.samples} random samples, as no data was given: --data shows how they agree on real ones"
    pairs = [
        ("first", f"{found.first} ({first:,} bytes)"),
        ("second", f"{found.second} ({second:,} bytes)"),
        ("data", made_up if found.random else f"{found.samples} samples"),
        *(("output", str(output)) for output in found.outputs),
        ("matched", f"{len(found.layers)} ops of {found.operators[0]} and {found.operators[1]}"),
        ("differ", _where(found.first_difference, f"by more than {found.steps:g} step{'s' * (found.steps != 1)}")),
        ("part", _where(found.parting, f"below {found.threshold_db:g} dB")),
    ]
    rows = [
        (
            str(error.index),
            error.layer,
            error.op,
            decibel_text(error.weight_sqnr_db),
            decibel_text(error.sqnr_db),
            MISSING if error.cosine is None else f"{error.cosine:.4f}",
            MISSING if error.max_steps is None else number_text(error.max_steps),
        )
        for error in found.layers
    ]
    headings = ("#", "layer", "op", "weights dB", "output dB", "cosine", "max steps")
    return "\n".join([*fields(pairs), "", *columns(headings, rows, left=(1, 2), flexible=1)])


def _where(error: "LayerError | None", how: str) -> str:
    if error is None:
        return f"nowhere {how}"
    ratio = "equal" if error.sqnr_db == math.inf else f"SQNR {decibel_text(error.sqnr_db)} dB"
    steps = "" if error.max_steps is None else f", at most {number_text(error.max_steps)} steps apart"
    return f"first at #{error.index} {error.layer} ({error.op}) {how}: {ratio}{steps}"


def report_table(reports: "Sequence[LayerReport]") -> str:
    """Returns the layers of a conversion as an aligned table: precision, range and its origin, and what each loses.

    Args:
        reports: as ``comparison.layer_reports`` returns them.
    """
    rows = []
    for report in reports:
        operation, error = report.operation, report.error
        output = operation.output
        bounds = None if output is None else output.range
        rows.append(
            (
                str(operation.index),
                operation.layer,
                operation.precision,
                MISSING if bounds is None else number_text(bounds[0]),
                MISSING if bounds is None else number_text(bounds[1]),
                report.observer or report.origin or MISSING,
                decibel_text(error.weight_sqnr_db if error else None),
                decibel_text(error.own_sqnr_db if error else None),
                decibel_text(error.sqnr_db if error else None),
                MISSING if error is None or error.cosine is None else f"{error.cosine:.3f}",
            )
        )
    headings = ("#", "layer", "type", "lowest", "highest", "range", "weights", "own", "output", "cosine")
    return "\n".join(columns(headings, rows, left=(1, 2, 5), flexible=1))


def _overview(found: "Inspection") -> list[tuple[str, str]]:
    kinds = [
        f"{kind} {size:,} ({share_text(size / found.size_bytes)})" for kind, size in found.bytes_by_kind.items() if size
    ]
    pairs = [("size", f"{found.size_bytes:,} bytes, {found.gzip_bytes:,} gzipped"), ("bytes", ", ".join(kinds))]
    if found.trial is not None:
        pairs.append(("LiteRT", str(found.trial)))
    if found.min_runtime_version:
        pairs.append(("needs", f"the interpreter of TensorFlow {found.min_runtime_version} or newer, says the file"))
    pairs += [("input", str(tensor)) for tensor in found.inputs]
    pairs += [("output", str(tensor)) for tensor in found.outputs]
    pairs += [("signature", str(signature)) for signature in found.signatures] or [("signature", "none")]
    pairs.append(("ops", _counted(found.ops)))
    pairs.append(("precision", _counted(found.precisions)))
    pairs.append(("compute", f"{count_text(found.multiply_adds)} multiply-adds a run"))
    if found.sparsity is not None:
        pairs.append(("zeros", f"{share_text(found.sparsity)} of the weights"))
    if found.metadata:
        pairs.append(("metadata", ", ".join(f"{name} ({size:,} bytes)" for name, size in found.metadata.items())))
    if found.subgraphs > 1:
        pairs.append(("graphs", f"{found.subgraphs}; # below counts in each, as graph:number"))
    return [(label, text) for label, text in pairs if text]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _layers(operations: "Sequence[OpSummary]") -> list[str]:
    # One precision for all ops stands in the overview; the column would only take the room of the names.
    shown = len({op.precision for op in operations}) > 1
    rows = [
        (
            _number(op),
            op.layer,
            op.op,
            *([op.precision] if shown else []),
            op.output.sample_text if op.output is not None else MISSING,
            count_text(op.multiply_adds) if op.multiply_adds else MISSING,
            f"{op.weight_bytes:,}" if op.weight_bytes else MISSING,
            MISSING if op.sparsity is None else share_text(op.sparsity),
        )
        for op in operations
    ]
    precision = ["precision"] if shown else []
    headings = ("#", "layer", "op", *precision, "output", "mul-adds", "bytes", "zeros")
    return columns(headings, rows, left=(1, 2, 3, 4 if shown else 3), flexible=1)


def _ranges(operations: "Sequence[OpSummary]") -> list[str]:
    rows = []
    for op in operations:
        output = op.output
        if output is None or output.range is None or output.scale is None:
            continue
        rows.append(
            (
                _number(op),
                op.layer,
                number_text(output.range[0]),
                number_text(output.range[1]),
                f"{output.scale:.6g}",
                str(output.zero_point),
                op.granularity or MISSING,
            )
        )
    headings = ("#", "layer", "lowest", "highest", "scale", "zero point", "weights")
    return columns(headings, rows, left=(1, 6), flexible=1) if rows else []


def _number(op: "OpSummary") -> str:
    return f"{op.subgraph}:{op.index}" if op.subgraph else str(op.index)


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
