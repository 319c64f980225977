"""One file as a page, layer by layer: what it holds (``inspect``), and what its conversion did and lost.

The same account as text and JSON is made here too, so that the three never say different things.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison import LayerError, LayerReport, ranking, report_table
from ..conversion.result import LABEL
from ..system import check_writable, write_atomically
from ..system.text_tables import decibel_text, fields
from ..tflite import Inspection, inspect

if TYPE_CHECKING:
    from ..conversion import Conversion

__all__ = ["conversion_record", "conversion_report", "conversion_text", "inspection_report"]

LARGEST = 12
WORST = 10


def inspection_report(
    found: Inspection, path: str | os.PathLike, *, title: str | None = None, overwrite: bool = False
) -> Path:
    """Writes what a file holds as one self-contained HTML page.

    Args:
        found: of ``tflite.inspect``.
        path: where the page is to be.
        title: its heading. Default: the file's name.
        overwrite: whether an existing file may be replaced. Default: False.

    Returns:
        The path of the page.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    return _write(found, path, title or Path(found.name).name, (), None, overwrite)


def conversion_report(
    conversion: "Conversion",
    path: str | os.PathLike,
    *,
    layers: Sequence[LayerReport] = (),
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes what a conversion did, and what each layer lost, as one self-contained HTML page.

    Args:
        conversion: the finished conversion.
        path: where the page is to be.
        layers: of ``comparison.layer_reports``. Default: none, which leaves the losses out.
        title: its heading. Default: the model's name and the target's.
        overwrite: whether an existing file may be replaced. Default: False.

    Returns:
        The path of the page.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    heading = title or f"{Path(conversion.source).name} for {conversion.target.name}"
    found = inspect(conversion.tflite, run=False)
    return _write(found, path, heading, tuple(layers), conversion, overwrite)


def conversion_record(conversion: "Conversion", layers: Sequence[LayerReport] = ()) -> dict[str, Any]:
    """Returns the account of a conversion as plain JSON values: the conversion's own, bytes by kind, layers and ranking.

    Args:
        conversion: the finished conversion.
        layers: of ``comparison.layer_reports``. Default: none.
    """
    found = inspect(conversion.tflite, run=False)
    return {
        **conversion.to_json(),
        "bytes_by_kind": dict(found.bytes_by_kind),
        "precisions": found.precisions,
        "multiply_adds": found.multiply_adds,
        "layers": [layer.to_json() for layer in layers],
        "ranking": [error.index for error in ranking(_errors(layers))],
    }


def conversion_text(conversion: "Conversion", layers: Sequence[LayerReport] = ()) -> str:
    """Returns the account of a conversion as text: the conversion's own, the layers that lose most, and a table of all.

    Args:
        conversion: the finished conversion.
        layers: of ``comparison.layer_reports``. Default: none.
    """
    found = inspect(conversion.tflite, run=False)
    kinds = ", ".join(f"{kind} {size:,}" for kind, size in found.bytes_by_kind.items() if size)
    worst = ", ".join(f"#{e.index} {e.layer} ({decibel_text(_loss(e))} dB)" for e in ranking(_errors(layers), count=5))
    pairs = [("bytes", kinds), *([("loses", f"most in {worst}")] if worst else [])]
    table = ["", report_table(layers)] if layers else []
    return "\n".join([str(conversion), *fields(pairs, label_width=LABEL), *table])


def _write(
    found: Inspection,
    path: str | os.PathLike,
    title: str,
    layers: tuple[LayerReport, ...],
    conversion: "Conversion | None",
    overwrite: bool,
) -> Path:
    from markupsafe import Markup

    from . import layer_plots
    from .pages import render

    check_writable(path, overwrite=overwrite)
    errors = _errors(layers)
    worst = ranking(errors, count=WORST)
    heavy = sorted((o for o in found.operations if o.weight_bytes), key=lambda o: -o.weight_bytes)[:LARGEST]
    names, sizes = [layer_plots.numbered(o.index, o.layer) for o in heavy], [o.weight_bytes for o in heavy]
    page = render(
        "layers.html.jinja",
        title=title,
        found=found,
        conversion=conversion,
        facts=conversion.facts if conversion is not None else (),
        reports={report.operation.index: report for report in layers},
        worst=worst,
        has_own=any(error.own_sqnr_db is not None for error in errors),
        pictures={
            "bytes": Markup(layer_plots.bytes_bars(found.bytes_by_kind)),
            "weights": Markup(layer_plots.weight_bars(names, sizes)) if heavy else None,
            "curve": Markup(layer_plots.loss_curve(errors)) if worst else None,
            "worst": Markup(layer_plots.loss_bars(worst)) if worst else None,
        },
        heavy=len(heavy),
        weighted=sum(1 for operation in found.operations if operation.weight_bytes),
    )
    return write_atomically(path, page + "\n", overwrite=overwrite)


def _errors(layers: Sequence[LayerReport]) -> list[LayerError]:
    return [layer.error for layer in layers if layer.error is not None]


def _loss(error: LayerError) -> float | None:
    return error.own_sqnr_db if error.own_sqnr_db is not None else error.sqnr_db
