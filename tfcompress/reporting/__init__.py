"""What was measured, as one HTML page that a stranger can read: tables, plots, and how the numbers came about.

The page needs nothing from outside: styles and pictures are inside it. ``measurement`` obtains the numbers.
"""

import datetime
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..files import check_writable, write_atomically
from ..records import Measurement
from ..tables import as_list

__all__ = ["report"]

DENSE_BELOW = 0.05  # quantization alone turns a few per cent of small weights into zeros; the page says 5 %
Sparsity = Mapping[str, Mapping[str, float]]


def report(
    measurements: Measurement | Iterable[Measurement],
    path: str | os.PathLike,
    *,
    title: str = "Model measurements",
    sparsity: Sparsity | None = None,
    notes: str | Iterable[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the measurements as one self-contained HTML page.

    Args:
        measurements: one or several.
        path: where the page is to be.
        title: its heading. Default: "Model measurements".
        sparsity: share of zero weights, in [0, 1], by model name and then by layer name. Default: None.
        notes: paragraphs of plain text below the heading. Default: None.
        overwrite: whether an existing file may be replaced. Default: False.

    Returns:
        The path of the page.

    Raises:
        ValueError: there is no measurement, or a sparsity is no fraction.
        OutputError: the file exists or cannot be written.

    Example:
        >>> import tempfile
        >>> from tfcompress.records import example_measurement
        >>> page = report(example_measurement(), Path(tempfile.mkdtemp()) / "report.html")
        >>> page.read_text()[:15]
        '<!doctype html>'
    """
    from .pages import render

    check_writable(path, overwrite=overwrite)
    records = as_list(measurements)
    if not records:
        raise ValueError("A report needs at least one measurement. Received: none. Call measure() first.")
    names = short_names(records)
    page = render(
        "page.html.jinja",
        title=title,
        notes=[notes] if isinstance(notes, str) else list(notes or ()),
        rows=list(zip(names, records, strict=True)),
        pictures=pictures(names, records, checked(sparsity or {})),
        setups=setups(names, records),
        carried=[n for n, record in zip(names, records, strict=True) if record.settings.state == "carried"],
        has_labels=any(record.label for record in records),
        samples=sorted({record.samples for record in records if record.accuracy is not None}),
        today=datetime.date.today().isoformat(),
    )
    return write_atomically(path, page + "\n", overwrite=overwrite)


def short_names(records: list[Measurement]) -> list[str]:
    """Returns a name for each record that no other has: the file's, then with its label, then with its number.

    Example:
        >>> from tfcompress.records import example_measurement
        >>> short_names([example_measurement(), example_measurement(label="float32"), example_measurement()])
        ['digits int8 (1)', 'digits float32 (2)', 'digits int8 (3)']
    """
    files = [record.name.removesuffix(".tflite") for record in records]
    labelled = [f"{file} {record.label}".strip() for file, record in zip(files, records, strict=True)]
    numbered = [f"{name} ({number})" for number, name in enumerate(labelled, start=1)]
    return next((names for names in (files, labelled) if len(set(names)) == len(names)), numbered)


def checked(sparsity: Sparsity) -> Sparsity:
    """Returns the sparsities of models that have any, if all of them are fractions.

    Example:
        >>> checked({"int8": {"conv": 0.75}, "empty": {}})
        {'int8': {'conv': 0.75}}
    """
    for model, layers in sparsity.items():
        for layer, value in layers.items():
            if not 0 <= value <= 1:
                raise ValueError(
                    f"sparsity must be in [0, 1]. Received: {value} for {model}, layer {layer}. Write 0.75 for 75 %."
                )
    return {model: layers for model, layers in sparsity.items() if layers}


def pictures(names: list[str], records: list[Measurement], sparsity: Sparsity) -> dict[str, object]:
    """Returns the plots as markup that the template leaves as it is."""
    from markupsafe import Markup

    from . import plots

    has_accuracy = any(record.accuracy is not None for record in records)
    # Layers belong to the model of the same name and get its colour; others come after the measured ones.
    known = {name: position for position, name in reversed(list(enumerate(names)))}
    known |= {record.label: position for position, record in reversed(list(enumerate(records))) if record.label}
    positions = {model: known.get(model, len(names) + i) for i, model in enumerate(sparsity)}
    return {
        "accuracy": Markup(plots.accuracy_against_size(names, records)) if has_accuracy else None,
        "latency": Markup(plots.latency_bars(names, records)),
        "sparsity": [
            (model, Markup(plots.sparsity_bars(model, layers, position=positions[model])))
            for model, layers in sparsity.items()
            if max(layers.values()) > DENSE_BELOW
        ],
        "dense": [model for model, layers in sparsity.items() if max(layers.values()) <= DENSE_BELOW],
    }


def setups(names: list[str], records: list[Measurement]) -> list[tuple[str, Measurement]]:
    """Returns one record for each device and settings, with the names of those that share them."""
    groups: dict[tuple[object, object], list[int]] = {}
    for position, record in enumerate(records):
        groups.setdefault((record.device, record.settings), []).append(position)
    return [(", ".join(names[i] for i in group), records[group[0]]) for group in groups.values()]
