"""The tables of the case ``reference`` of ``accuracy.py``, from the figures in ``reference.json``.

``python benchmarks/reference_tables.py`` writes docs/results.md and README's table again; ``accuracy.py --keep`` does so after it
has put new figures into the record.
"""

import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfcompress.system import write_atomically

ROOT = Path(__file__).resolve().parents[1]
RECORD, PAGE, README = ROOT / "benchmarks" / "reference.json", ROOT / "docs" / "results.md", ROOT / "README.md"
HALVED = "int8 half the multiply-adds"
ROWS = (
    "float32",
    "int8 post-training",
    "int8 QAT",
    "int8 pruned 50 %",
    "int8 pruned 75 %",
    HALVED,
    "int8 distilled",
)
FIGURES = ("accuracy", "size_bytes", "gzip_bytes", "median_ms")
Figures = dict[str, dict[str, list[float]]]  # by row and figure, a value per seed
INTRODUCTION = """# Reference results

What each kind of compression costs and wins, on models that are trained within minutes: accuracy on the test data, mean over the
seeds, and the spread between the best and the worst seed; size of the file; milliseconds of one sample on one thread of a machine
with two cores that had other work, all files of a model in turns, so that they compare with each other and with nothing else.

`float32` and *int8 post-training* are the trained model. *QAT*, *pruned* and *half the multiply-adds* train on from it for the same
number of epochs, so that they may end above it; *distilled* is trained from the start, as long as the first, from a larger
teacher. Pruned weights are zeros in a file of the same size: they show in gzip. The models for MNIST prune over all layers
jointly (`scope="global"`), the others each layer alike.

Why some int8 files take longer than float32 here, by `tfcompress measure --profile`: in `text_attention` two BATCH_MATMULs and the
SOFTMAX, 85 % of the time, have float kernels in XNNPACK and none for int8, and run in TFLite's own. In `ds_cnn` and the small CNNs
XNNPACK's int8 depthwise convolutions and the first convolution take two to three times as long as the float ones on this processor
(x86-64, Intel Xeon), which the faster pointwise convolutions (0.4 of the time) do not make up for. Measure on your own device.

Not here: the autoencoder, whose training sounds are not among our data; `next_character` and `ssdlite`, which answer something
else than a class and have pages of their own ([text](text.md#the-next-character), [detection](object_detection.md)); larger members
of the families above, which take hours to train; the official ResNet-8 of MLPerf Tiny, a case of its own of
`benchmarks/accuracy.py`. Recipes were not tuned for each model: `text_lstm`, learning from a teacher, stays at the larger class (87.3 %).
"""
COMMAND = "python benchmarks/accuracy.py --cases=reference --reference={name}"


def load() -> dict[str, Any]:
    """Returns the record: title, day, code and figures by model."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def keep(name: str, title: str, rows: Figures, *, known: Sequence[str]) -> None:
    """Puts one model's figures into the record, in the order of the ``known``, and writes the pages again."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = load() | {name: {"title": title, "day": day, "code": f"commit {commit.stdout.strip()}", "rows": rows}}
    record = {name: record[name] for name in known if name in record}
    write_atomically(RECORD, json.dumps(record, indent=1) + "\n", overwrite=True)
    publish(record, known)


def publish(record: Mapping[str, Any], known: Sequence[str]) -> None:
    """Writes docs/results.md and README's table."""
    write_atomically(PAGE, page(record, known), overwrite=True)
    write_atomically(README, with_overview(README.read_text(), record), overwrite=True)


def page(record: Mapping[str, Any], known: Sequence[str]) -> str:
    """Returns docs/results.md; of the ``known`` models it names those that are not in the record."""
    missing = ", ".join(f"`{name}`" for name in known if name not in record)
    note = [f"The command knows these too, which were not run with three seeds yet: {missing}.", ""] if missing else []
    sections = [section(name, entry) for name, entry in record.items()]
    return "\n".join([INTRODUCTION, *note, *overview(record), "", *sections])


def section(name: str, entry: Mapping[str, Any]) -> str:
    """Returns the part of one model: means over the seeds, and the spread from the lowest to the highest."""
    rows = entry["rows"]
    seeds = len(next(iter(rows.values()))["accuracy"])
    lines = [
        f"## {entry['title']}",
        "",
        f"`{COMMAND.format(name=name)} --seeds={seeds}`, on {entry['day']} with {entry['code']}.",
        "",
        "| | accuracy, % | spread | size, kB | gzip, kB | median ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row, figures in rows.items():
        mean = {figure: statistics.mean(values) for figure, values in figures.items()}
        spread = max(figures["accuracy"]) - min(figures["accuracy"])
        lines.append(
            f"| {row} | {100 * mean['accuracy']:.1f} | {100 * spread:.1f} | {mean['size_bytes'] / 1000:.1f} "
            f"| {mean['gzip_bytes'] / 1000:.1f} | {mean['median_ms']:.3f} |"
        )
    if HALVED not in rows:
        lines += ["", f"No row *{HALVED}*: `remove_channels` cannot take that much from it."]
    if ROWS[-1] not in rows:
        lines += ["", f"No row *{ROWS[-1]}*: it has no larger teacher here."]
    return "\n".join([*lines, ""])


def overview(record: Mapping[str, Any]) -> list[str]:
    """Returns the lines of one table: a line per model, the mean accuracy of each of its files."""
    lines = [
        "| accuracy, % | " + " | ".join(ROWS) + " |",
        "|---|" + "---:|" * len(ROWS),
    ]
    for entry in record.values():
        rows = entry["rows"]
        cells = [f"{100 * statistics.mean(rows[row]['accuracy']):.1f}" if row in rows else "" for row in ROWS]
        lines.append(f"| {entry['title']} | " + " | ".join(cells) + " |")
    return lines


def with_overview(readme: str, record: Mapping[str, Any]) -> str:
    """Returns README with its table written anew."""
    start = readme.index("| accuracy, % |")
    return readme[:start] + "\n".join(overview(record)) + readme[readme.index("\n\n", start) :]


if __name__ == "__main__":
    from reference import SUBJECTS

    publish(load(), list(SUBJECTS))
    sys.exit(0)
