"""How measurements look on a terminal and in a spreadsheet: one aligned table with notes below, never wider than asked.

``records`` writes them as JSON.
"""

import csv
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..system.printable import printable, spreadsheet_cell
from ..system.text_tables import MISSING, WIDTH, columns, milliseconds_text, shortened, size_text

if TYPE_CHECKING:
    from .records import Measurement, Result

__all__ = ["csv_text", "measurement_table"]

SMALLEST_NAME = 12
LONGEST_DEVICE = 18
GAP = 2
SHARES = ("top1", "top5", "exact")  # shown in per cent
HEADINGS = {"top1": "accuracy", "coco_map": "mAP", "coco_map50": "mAP50"}
DISPENSABLE = ("gzip", "p99", "p90", "size", "peak MB")  # what a narrow terminal can do without, first things first


def measurement_table(measurements: "Result | Iterable[Result]", *, width: int = WIDTH) -> str:
    """Returns one aligned text table, a line per measurement, numbers flush right, without a line break at the end.

    Sizes are in kB (1000 bytes) or MB, times in milliseconds, peak memory in MB (10^6 bytes). A name that is too long
    for the line loses its middle, and the ending .tflite is left out; with several devices, columns that a terminal has no
    room for are left out, gzip first. Measured, modelled and emulated times stand in columns of their own. A failure is a row
    with its reason. Below stands what else has to be said: noise, ratios of files that ran in turns, agreement with a
    reference, what an early end left out.

    Args:
        measurements: one or several, or failures in their place.
        width: columns of the terminal, at least 80. Default: 80.

    Examples:
        >>> from tfcompress.measurement.records import example_measurement
        >>> print(measurement_table(example_measurement()))
        model   accuracy     size     gzip  median ms    p90    p99  peak MB
        ────────────────────────────────────────────────────────────────────
        digits    97.2 %  24.0 kB  12.0 kB      0.100  0.120  0.200     60.0
    """
    if width < WIDTH:
        raise ValueError(f"width must be at least {WIDTH}. Received: width={width}.")
    results = as_list(measurements)
    devices = {device_of(result) for result in results}
    shown = columns_of(results)
    names = ["model", "device"] if len(devices) > 1 else ["model"]
    headings = [*names, *shown]
    rows = []
    for number, result in enumerate(results):
        row = [result.name.removesuffix(".tflite"), shortened(device_of(result), LONGEST_DEVICE)][: len(names)]
        failed = [f"failed: {getattr(result, 'reason', '')}"]
        rows.append(row + (failed if is_failure(result) else [cells[number] for cells in shown.values()]))
    lines = columns(
        headings,
        rows,
        left=range(len(names)),
        smallest=SMALLEST_NAME,
        dispensable=[headings.index(head) for head in DISPENSABLE if head in shown] if len(names) > 1 else (),
        gap=GAP,
        width=width,
    )
    return "\n".join([*lines, *notes(results, width)])


def as_list(measurements: "Result | Iterable[Result]") -> "list[Result]":
    """Returns measurements as a list, also a single one."""
    return list(measurements) if isinstance(measurements, Iterable) else [measurements]


def is_failure(result: "Result") -> bool:
    """Whether a row says only why there is no measurement."""
    return not hasattr(result, "latency")


def measured(results: "Iterable[Result]") -> list[Any]:
    """Returns the rows that are measurements."""
    return [result for result in results if not is_failure(result)]


def device_of(result: Any) -> str:
    """Returns the name of the device that a row is about."""
    return result.device if is_failure(result) else result.device.name


def columns_of(results: "Sequence[Result]") -> dict[str, list[str]]:
    """Returns the cells of each column by its heading; failures have empty ones."""
    metrics = list(dict.fromkeys(r.metric for r in measured(results) if r.scores)) or ["top1"]
    kinds = {r.kind for r in measured(results)}
    shown: dict[str, Callable[[Measurement], str]] = {}
    for metric in metrics:
        shown[HEADINGS.get(metric, metric)] = lambda r, m=metric: score_text(r, m)  # type: ignore[misc]
    shown |= {"size": lambda r: size_text(r.size_bytes), "gzip": lambda r: size_text(r.gzip_bytes)}
    if kinds & {"measured", "example"} or not kinds:
        for head, field in (("median ms", "median_ms"), ("p90", "p90_ms"), ("p99", "p99_ms")):
            shown[head] = lambda r, f=field: time_text(r, f, ("measured", "example"))  # type: ignore[misc]
    for kind in ("modelled", "emulated"):
        if any(time_text(r, "median_ms", (kind,)) != MISSING for r in measured(results)):
            shown[f"{kind} ms"] = lambda r, k=kind: time_text(r, "median_ms", (k,))  # type: ignore[misc]
    shown["peak MB"] = lambda r: (
        MISSING if r.peak_bytes is None or r.kind not in ("measured", "example") else f"{r.peak_bytes / 1e6:.1f}"
    )
    return {head: ["" if is_failure(r) else cell(r) for r in results] for head, cell in shown.items()}  # type: ignore[arg-type]


def score_text(record: "Measurement", metric: str) -> str:
    """Returns a record's value of a metric: in per cent where it is a share of the samples."""
    value = record.scores.get(metric, record.accuracy if metric == "top1" == record.metric else None)
    if value is None:
        return MISSING
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.4g}"


def time_text(record: "Measurement", field: str, kinds: tuple[str, ...]) -> str:
    """Returns a time of a record if it is of one of these kinds; a compiler's model of a processor has one time for all."""
    if record.kind not in kinds:
        return MISSING
    value = record.estimates.get("inference ms") if record.latency is None else getattr(record.latency, field)
    return MISSING if value is None else milliseconds_text(value)


def notes(results: "Sequence[Result]", width: int) -> list[str]:
    """Returns what has to be said below the table, wrapped to its width."""
    several = len({device_of(result) for result in results}) > 1
    texts = []
    for r in measured(results):
        name = f"{r.name} on {device_of(r)}" if several else r.name
        if r.interrupted:
            texts.append(f"interrupted: {name} was measured in part ({r.samples} samples)")
        if r.noise is not None and r.noise.reasons:
            texts.append(f"noisy: {name}: {r.noise}")
        if r.ratio is not None:
            texts.append(f"ratio: {name} takes {r.ratio}")
        if r.reference is not None:
            texts.append(f"reference: {name}: {r.reference}")
        if r.estimates:
            numbers = ", ".join(f"{key} {value:,.6g}" for key, value in r.estimates.items())
            texts.append(f"{r.kind}: {name}: {numbers}")
    return [line for text in texts for line in textwrap.wrap(printable(text), width, subsequent_indent="  ")]


def csv_text(measurements: "Result | Iterable[Result]") -> str:
    """Returns comma-separated values, one row per measurement or failure, with a row of headings.

    Text that a spreadsheet would take for a formula has an apostrophe before it. Modelled and emulated times have columns of
    their own; times are in milliseconds, sizes in bytes.

    Args:
        measurements: one or several, or failures in their place.

    Examples:
        >>> from tfcompress.measurement.records import example_measurement
        >>> csv_text(example_measurement()).splitlines()[1][:32]
        'digits.tflite,int8,local,example'
    """
    target = io.StringIO()
    rows = [csv_row(result) for result in as_list(measurements)]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    writer = csv.DictWriter(target, heads, restval="", lineterminator="\n")
    for row in ({head: head for head in heads}, *rows):
        writer.writerow({head: spreadsheet_cell(cell) for head, cell in row.items()})
    return target.getvalue()


def csv_row(result: Any) -> dict[str, Any]:
    """Returns one row by heading; what is not known is an empty cell."""
    row: dict[str, Any] = {"model": result.model, "label": result.label, "device": device_of(result)}
    if is_failure(result):
        return {**row, "failure": result.reason}
    row |= {"kind": result.kind, "metric": result.metric, "accuracy": result.accuracy, "samples": result.samples}
    row |= {f"score {name}": value for name, value in result.scores.items()}
    row |= {name: getattr(result, name) for name in ("size_bytes", "gzip_bytes")}
    times = ("median_ms", "low_ms", "high_ms", "p90_ms", "p99_ms", "mean_ms", "std_ms", "min_ms", "load_ms", "first_ms")
    prefix = {"modelled": "modelled ", "emulated": "emulated "}.get(result.kind, "")
    if result.latency is not None:
        row |= {prefix + name: getattr(result.latency, name) for name in times}
    row |= {
        prefix + name: getattr(result, name)
        for name in ("peak_bytes", "runtime_bytes", "run_bytes", "activation_bytes")
    }
    row |= {f"{result.kind} {name}": value for name, value in result.estimates.items()}
    row |= {name: getattr(result.settings, name) for name in ("threads", "xnnpack", "api", "accelerator", "runs")}
    row |= {"cpu": result.device.cpu, "runtime": result.device.runtime, "model_sha256": result.model_sha256}
    row["noise"] = "" if result.noise is None else "; ".join(result.noise.reasons)
    row["ratio"] = "" if result.ratio is None else result.ratio.median
    return {**row, "failure": ""}
