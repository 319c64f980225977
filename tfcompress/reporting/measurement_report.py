"""What was measured, as one HTML page that a stranger can read: tables, plots, and how the numbers came about.

The page needs nothing from outside: styles and pictures are inside it. ``measurement`` obtains the numbers.
"""

import dataclasses
import datetime
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..measurement import Failure, Measurement, Result
from ..measurement.records import as_list
from ..system import check_writable, write_atomically
from ..system.text_tables import shortened

__all__ = ["report"]

DENSE_BELOW = 0.05  # quantization alone turns a few per cent of small weights into zeros; the page says 5 %
Sparsity = Mapping[str, Mapping[str, float]]


def report(
    measurements: Result | Iterable[Result],
    path: str | os.PathLike,
    *,
    title: str = "Model measurements",
    sparsity: Sparsity | None = None,
    notes: str | Iterable[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the measurements as one self-contained HTML page.

    Args:
        measurements: one or several; failures in their place are listed with their reasons.
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

    Examples:
        >>> import tempfile
        >>> from tfcompress.measurement.records import example_measurement
        >>> page = report(example_measurement(), Path(tempfile.mkdtemp()) / "report.html")
        >>> page.read_text()[:15]
        '<!doctype html>'
    """
    from .pages import render

    check_writable(path, overwrite=overwrite)
    results = as_list(measurements)
    records = [result for result in results if isinstance(result, Measurement)]
    failures = [result for result in results if isinstance(result, Failure)]
    if not results:
        raise ValueError("A report needs at least one measurement. Received: none. Call measure() first.")
    names = short_names(records)
    page = render(
        "page.html.jinja",
        title=title,
        notes=[notes] if isinstance(notes, str) else list(notes or ()),
        rows=list(zip(names, records, strict=True)),
        failures=failures,
        pictures=pictures(names, records, checked(sparsity or {})),
        on_devices=device_pictures(names, records),
        has_devices=len({record.device.name for record in records}) > 1,
        has_kinds=len({record.kind for record in records}) > 1,
        setups=setups(names, records),
        carried=[n for n, record in zip(names, records, strict=True) if record.settings.state == "carried"],
        has_labels=any(record.label for record in records),
        samples=sorted({record.samples for record in records if record.accuracy is not None}),
        today=datetime.date.today().isoformat(),
    )
    return write_atomically(path, page + "\n", overwrite=overwrite)


def short_names(records: list[Measurement]) -> list[str]:
    """Returns a name for each record that no other has: the file's, then with its label, then with its number.

    Examples:
        >>> from tfcompress.measurement.records import example_measurement
        >>> short_names([example_measurement(), example_measurement(label="float32"), example_measurement()])
        ['digits int8 (1)', 'digits float32 (2)', 'digits int8 (3)']
    """
    files = [record.name.removesuffix(".tflite") for record in records]
    labelled = [f"{file} {record.label}".strip() for file, record in zip(files, records, strict=True)]
    placed = [f"{name} {record.device.name}" for name, record in zip(files, records, strict=True)]
    numbered = [f"{name} ({number})" for number, name in enumerate(labelled, start=1)]
    return next((names for names in (files, labelled, placed) if len(set(names)) == len(names)), numbered)


def checked(sparsity: Sparsity) -> Sparsity:
    """Returns the sparsities of models that have any, if all of them are fractions.

    Examples:
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
    bars = drawn_names(names, records, plots.LONGEST_NAME)
    # On several devices one file has one size, and mostly one accuracy: it is drawn once.
    once = {
        (file_of(record), record.size_bytes, record.accuracy): i for i, record in reversed(list(enumerate(records)))
    }
    files = [i for i in range(len(records)) if i in once.values()]
    several = len({record.device.name for record in records}) > 1
    sides = [file_of(records[i]) if several else names[i] for i in files]
    # Layers belong to the model of the same name and get its colour; others come after the measured ones.
    known = {name: position for position, name in reversed(list(enumerate(names)))}
    known |= {record.label: position for position, record in reversed(list(enumerate(records))) if record.label}
    positions = {model: known.get(model, len(names) + i) for i, model in enumerate(sparsity)}
    return {
        "accuracy": Markup(plots.accuracy_against_size(sides, [records[i] for i in files])) if has_accuracy else None,
        "latency": {
            kind: Markup(plots.latency_bars([bars[i] for i in rows], [records[i] for i in rows], rows, kind))
            for kind, rows in timed_by_kind(records).items()
        },
        "sparsity": [
            (model, Markup(plots.sparsity_bars(model, layers, position=positions[model])))
            for model, layers in sparsity.items()
            if max(layers.values()) > DENSE_BELOW
        ],
        "dense": [model for model, layers in sparsity.items() if max(layers.values()) <= DENSE_BELOW],
    }


def drawn_names(names: list[str], records: list[Measurement], length: int) -> list[str]:
    """Returns names that fit beside marks and bars: with several devices both the file and the device stay readable.

    Examples:
        >>> from tfcompress.measurement.records import example_measurement
        >>> drawn_names(["digits local"], [example_measurement()], 12)
        ['digits local']
    """
    devices = {record.device.name for record in records}
    if len(devices) < 2:
        return names
    part = (length - 1) // 2
    shown = []
    for record in records:
        device = shortened(short_device(record.device.name), part)
        shown.append(f"{shortened(file_of(record), length - 1 - len(device))} {device}")
    return shown


def short_device(name: str) -> str:
    """Returns the part of a device's name that tells it from others of its kind.

    Examples:
        >>> short_device("ssh://pi@raspberrypi.local:22"), short_device("ethos-u55-128")
        ('raspberrypi.local:22', 'ethos-u55-128')
    """
    return name.rpartition("@")[2].rpartition("://")[2]


def timed_by_kind(records: list[Measurement]) -> dict[str, list[int]]:
    """Returns the places of the records with times by their kind: the kinds never share a picture."""
    found: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        if record.latency is not None:
            found.setdefault(record.kind, []).append(place)
    return found


def device_pictures(names: list[str], records: list[Measurement]) -> dict[str, object]:
    """Returns the plots of accuracy against latency, of time per op, and of devices side by side."""
    from markupsafe import Markup

    from . import measurement_plots
    from .plots import LONGEST_NAME

    sides = drawn_names(names, records, LONGEST_NAME)
    against, side_by_side = {}, {}
    for kind, rows in timed_by_kind(records).items():
        scored = [
            records[i] if i in rows else dataclasses.replace(records[i], latency=None) for i in range(len(records))
        ]
        if any(record.accuracy is not None and record.latency is not None for record in scored):
            against[kind] = Markup(measurement_plots.accuracy_against_latency(sides, scored, kind=kind))
        devices = list(dict.fromkeys(records[i].device.name for i in rows))
        files = list(dict.fromkeys(file_of(records[i]) for i in rows))
        if len(devices) > 1:
            times = {(file_of(records[i]), records[i].device.name): records[i].latency for i in rows}
            found = [[times.get((file, device)) for device in devices] for file in files]
            medians = [[None if latency is None else latency.median_ms for latency in row] for row in found]
            side_by_side[kind] = Markup(
                measurement_plots.device_bars([short_device(d) for d in devices], files, medians, kind)
            )
    ops = [
        (name, record.profile, Markup(measurement_plots.op_bars(name, record.profile, position=place)))
        for place, (name, record) in enumerate(zip(names, records, strict=True))
        if record.profile is not None and record.profile.ops
    ]
    return {"against": against, "side_by_side": side_by_side, "ops": ops}


def file_of(record: Measurement) -> str:
    """Returns how a file is called on every device."""
    return f"{record.name.removesuffix('.tflite')} {record.label}".strip()


def setups(names: list[str], records: list[Measurement]) -> list[tuple[str, Measurement]]:
    """Returns one record for each device and settings, with the names of those that share them."""
    groups: dict[tuple[object, object], list[int]] = {}
    for position, record in enumerate(records):
        groups.setdefault((record.device, record.settings), []).append(position)
    return [(", ".join(names[i] for i in group), records[group[0]]) for group in groups.values()]
