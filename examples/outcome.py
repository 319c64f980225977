"""What the examples tell at the end: means and spreads over the seeds as tables, sentences and a picture of answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfcompress.measurement.tables import SHARES
from tfcompress.system.text_tables import columns

FILES = ("float32", "int8_ptq", "int8_qat")


def summary(measured: Sequence[Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Returns for each metric and file the values of all seeds, their mean and spread (highest minus lowest).

    The losses are means over the seeds of float minus int8.
    """
    found: dict[str, dict[str, Any]] = {}
    for metric in measured[0][0].scores:
        values = {name: [row[i].scores[metric] for row in measured] for i, name in enumerate(FILES)}
        found[metric] = {
            name: {"values": each, "mean": float(np.mean(each)), "spread": float(np.ptp(each))}
            for name, each in values.items()
        }
        for name in FILES[1:]:
            found[metric][name]["loss"] = found[metric][FILES[0]]["mean"] - found[metric][name]["mean"]
    return found


def most_lost(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns how far the worse int8 file is below float in one metric of ``summary``, as a mean over the seeds."""
    return max(rows[name]["loss"] for name in FILES[1:])


def least(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the value of the worst file in one metric of ``summary``, as a mean over the seeds."""
    return min(row["mean"] for row in rows.values())


def draw_answers(path: Path, pictures: np.ndarray, said: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> None:
    """Draws twenty pictures (20, height, width, channels) in [0, 1] with what a model says to each; wrong ones in red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8.5), layout="constrained")
    for place, (picture, answer, label) in enumerate(zip(pictures, said, truth, strict=True), start=1):
        axes = figure.add_subplot(4, 5, place)
        axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        title = classes[answer] + ("" if answer == label else f" (is: {classes[label]})")
        axes.set_title(title, fontsize=9, color="black" if answer == label else "firebrick")
    figure.savefig(path, dpi=100)


def value_text(metric: str, value: float) -> str:
    """Returns a metric's value: in per cent where it is a share of the samples."""
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.3f}"


def scores_text(scores: Mapping[str, float]) -> str:
    """Returns all values of one file."""
    return ", ".join(f"{name} {value_text(name, value)}" for name, value in scores.items())


def seed_table(measured: Sequence[Sequence[Any]]) -> list[str]:
    """Returns a table for each metric: a line per file, a column per seed, the mean, the spread and the loss."""
    lines: list[str] = []
    for metric, files in summary(measured).items():
        heads = [*(f"seed {i}" for i in range(len(measured))), "mean", "spread", "float - int8"]
        rows = [
            [
                *(value_text(metric, value) for value in row["values"]),
                value_text(metric, row["mean"]),
                value_text(metric, row["spread"]),
                value_text(metric, row["loss"]) if "loss" in row else "",
            ]
            for row in files.values()
        ]
        lines += columns([metric, *heads], [[name, *cells] for name, cells in zip(files, rows, strict=True)], gap=2)
        lines.append("")
    return [*lines[:-1], "spread: highest minus lowest value"] if len(measured) > 1 else lines[:-1]


def sentences(measured: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the same as paragraphs for the report."""
    return [
        f"{metric} over {len(measured)} seeds: "
        + "; ".join(
            f"{name} {value_text(metric, row['mean'])} (spread {value_text(metric, row['spread'])})"
            for name, row in files.items()
        )
        + "."
        for metric, files in summary(measured).items()
    ]
