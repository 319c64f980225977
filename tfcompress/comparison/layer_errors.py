"""What one layer loses, as values: its errors against the same layer of another file, and its row in a report.

``layer_comparison`` finds the numbers; nothing is run here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..system.text_tables import MISSING, columns, decibel_text, number_text
from ..tflite import OpSummary

__all__ = ["LayerError", "LayerReport", "json_number", "ranking", "report_table"]


@dataclass(frozen=True)
class LayerError:
    """How far one op of a file is from the same op of another.

    Args:
        index: the op's number in the second file.
        layer: its short name.
        tensor: name of its output in the second file.
        op: as in the schema.
        weight_sqnr_db: energy of the first file's weights over that of their difference, in decibels; infinite for equal
            ones, None without weights or where they have another shape.
        sqnr_db: the same of the output, over all samples: with what earlier layers lost. None where it could not be read.
        cosine: cosine similarity of the outputs, in [-1, 1]; None likewise.
        own_sqnr_db: of the output when the first file's layer gets exactly what the second one's got: what this layer
            loses by itself. None where that was not asked for or not possible.
        max_difference: largest absolute difference of the outputs; None where they could not be read.
        step: real size of one integer step of the second file's output, None for a float tensor.
    """

    index: int
    layer: str
    tensor: str
    op: str
    weight_sqnr_db: float | None
    sqnr_db: float | None
    cosine: float | None
    own_sqnr_db: float | None
    max_difference: float | None
    step: float | None

    @property
    def max_steps(self) -> float | None:
        """Largest difference of the outputs in steps of the second file's output; None for a float tensor."""
        return None if self.max_difference is None or self.step is None else self.max_difference / self.step

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values; an infinite ratio (no error at all) as the text "inf"."""
        return {name: json_number(value) for name, value in vars(self).items()} | {
            "max_steps": json_number(self.max_steps)
        }


@dataclass(frozen=True)
class LayerReport:
    """One op of a finished file: what it is, where its range comes from, and what it loses.

    Args:
        operation: the op in the finished file.
        origin: where the output's range comes from: "trained", "calibrated", "prescribed", "follows"; "" for a float one.
        error: against the float file; None where no op of the float file is the same, or nothing was run.
        observer: short name of what measured a calibrated range. Default: "", unknown or not calibrated.
    """

    operation: OpSummary
    origin: str
    error: LayerError | None
    observer: str = ""

    @property
    def origin_text(self) -> str:
        """The origin, with the observer of a calibrated range."""
        return f"{self.origin}, {self.observer}" if self.observer else self.origin

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values."""
        return {
            **self.operation.to_json(),
            "origin": self.origin,
            "observer": self.observer or None,
            "error": None if self.error is None else self.error.to_json(),
        }


def ranking(errors: Sequence[LayerError], *, count: int | None = None) -> list[LayerError]:
    """Returns the layers that lose most first: by their own loss where it is known, else by that of their output.

    Layers without any loss (a reshape) are left out.

    Args:
        errors: of the layers of a file.
        count: how many at most. Default: all.
    """

    def loss(error: LayerError) -> float:
        value = error.own_sqnr_db if error.own_sqnr_db is not None else error.sqnr_db
        return math.inf if value is None or math.isnan(value) else value

    return [error for error in sorted(errors, key=loss) if loss(error) < math.inf][:count]


def json_number(value: Any) -> Any:
    """Returns a number that JSON has: infinity and NaN as text, everything else as it is.

    Examples:
        >>> json_number(math.inf), json_number(2.5), json_number(None)
        ('inf', 2.5, None)
    """
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def report_table(reports: Sequence[LayerReport]) -> str:
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
