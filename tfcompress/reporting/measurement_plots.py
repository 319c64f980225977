"""The pictures of measurements on devices: accuracy against latency, time per op, devices side by side.

As those of ``plots``: SVG text, drawn without pyplot.
"""

from collections.abc import Sequence
from typing import Any

from ..measurement import Measurement, Profile
from ..system.text_tables import milliseconds_text
from .plots import (
    COLOURS,
    GREY,
    INK,
    LONGEST_NAME,
    MARKERS,
    accuracy_limits,
    bar_figure,
    colour,
    label_at_the_side,
    new_figure,
    set_horizontal_axis,
    shortened_all,
    style,
    svg,
    tick_locator,
    value_text,
)

__all__ = ["accuracy_against_latency", "device_bars", "op_bars", "pareto_front"]

TOP = 10
OFF_COLOUR = COLOURS[1]


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Returns the places of the points that no other beats in both, from the cheapest on.

    Args:
        costs: less is better.
        values: more is better.

    Examples:
        >>> pareto_front([1.0, 2.0, 3.0, 2.5], [0.8, 0.9, 0.85, 0.9])
        [0, 1]
    """
    front: list[int] = []
    for place in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not front or values[place] > values[front[-1]]:
            front.append(place)
    return front


def accuracy_against_latency(names: Sequence[str], records: Sequence[Measurement], *, kind: str) -> str:
    """Returns a scatter plot of accuracy against median time, the Pareto front as a line, confidence intervals as whiskers.

    Args:
        names: one per record.
        records: at least one with an accuracy and a latency, all of one kind.
        kind: "measured", "modelled" or "emulated", for the axis.
    """
    figure = new_figure(3.0)
    axes = figure.add_axes((0.155, 0.17, 0.36, 0.79))
    chosen = [i for i, record in enumerate(records) if record.accuracy is not None and record.latency is not None]
    times = [records[i].latency.median_ms for i in chosen]  # type: ignore[union-attr]
    accuracies = [100 * (records[i].accuracy or 0.0) for i in chosen]
    front = pareto_front(times, accuracies)
    for i, time, accuracy in zip(chosen, times, accuracies, strict=True):
        ends = interval(records[i])
        axes.errorbar(time, accuracy, xerr=[[ends[0]], [ends[1]]], ecolor=INK, elinewidth=1, capsize=2.5, zorder=2)
        axes.plot(time, accuracy, MARKERS[i % len(MARKERS)], color=colour(i), markersize=8, mec="white", zorder=3)
    set_time_axis(axes, times, kind)
    axes.set_ylim(*accuracy_limits(accuracies))
    # To the frame on both sides, so that a front of one point is a line too.
    xs = [times[front[0]], *(times[i] for i in front), axes.get_xlim()[1]]
    ys = [axes.get_ylim()[0], *(accuracies[i] for i in front), accuracies[front[-1]]]
    axes.plot(xs, ys, color=GREY, linewidth=1.0, linestyle="--", drawstyle="steps-post", zorder=1)
    axes.set_ylabel("accuracy, %")
    axes.yaxis.set_major_locator(tick_locator(6))
    style(axes, grid="both")
    label_at_the_side(axes, [names[i] for i in chosen], times, accuracies, [colour(i) for i in chosen], LONGEST_NAME)
    return svg(figure, f"t{kind}", f"Accuracy against {kind} latency")


def interval(record: Measurement) -> tuple[float, float]:
    """Returns how far the ends of the median's confidence interval are from it, in ms; 0 where they are not known."""
    latency = record.latency
    if latency is None or latency.low_ms is None or latency.high_ms is None:
        return 0.0, 0.0
    return max(0.0, latency.median_ms - latency.low_ms), max(0.0, latency.high_ms - latency.median_ms)


def set_time_axis(axes: Any, times: Sequence[float], kind: str) -> None:
    """Puts milliseconds on the horizontal axis, from zero or, for very different files, logarithmically."""
    set_horizontal_axis(axes, times, f"{median_of(kind)}, ms", room=1.15, ticks=3, numbers="{x:g}")


def median_of(kind: str) -> str:
    """Returns how an axis calls a median that was measured, or was not.

    Examples:
        >>> median_of("measured"), median_of("modelled")
        ('median', 'modelled median')
    """
    return "median" if kind in ("measured", "example") else f"{kind} median"


def op_bars(name: str, profile: Profile, *, position: int) -> str:
    """Returns horizontal bars of the ten ops that take longest; those off the delegate have another colour.

    Args:
        name: of the file.
        profile: of it, with at least one op.
        position: of the file among all: keeps ids apart.
    """
    ops = profile.top(TOP)
    figure, axes = bar_figure(len(ops), shortened_all([f"#{op.node} {op.name.split(' (')[0]}" for op in ops]))
    times = [op.ms for op in ops]
    colours = [COLOURS[0] if op.part is not None else OFF_COLOUR for op in ops]
    axes.barh(range(len(ops)), times, height=0.62, color=colours, zorder=2)
    for row, op in enumerate(ops):
        share = 100 * op.ms / profile.sum_ms if profile.sum_ms else 0.0
        value_text(axes, op.ms, row, f"{milliseconds_text(op.ms)} ({share:.0f} %)")
    axes.set_xlim(0, 1.42 * max(times) or 1.0)
    axes.xaxis.set_major_locator(tick_locator(4))
    axes.set_xlabel("ms per inference")
    style(axes, grid="x")
    return svg(figure, f"o{position}", f"Time per op of {name}")


def device_bars(
    devices: Sequence[str], files: Sequence[str], medians: Sequence[Sequence[float | None]], kind: str
) -> str:
    """Returns bars of the median time of each file on each device, side by side.

    Args:
        devices: their names, at least two.
        files: their names.
        medians: for each file the time in ms on each device; None where there is none.
        kind: "measured", "modelled" or "emulated".
    """
    figure, axes = bar_figure(len(files) * len(devices), rows_of(devices, files))
    for number, times in enumerate(medians):
        for place, time in enumerate(times):
            row = number * len(devices) + place
            axes.barh(row, time or 0.0, height=0.62, color=colour(number), zorder=2)
            value_text(axes, time or 0.0, row, "–" if time is None else milliseconds_text(time))
    most = max((time for times in medians for time in times if time is not None), default=1.0)
    axes.set_xlim(0, 1.2 * most)
    for boundary in range(1, len(files)):
        axes.axhline(boundary * len(devices) - 0.5, color=GREY, linewidth=0.6)
    axes.xaxis.set_major_locator(tick_locator(4))
    axes.set_xlabel(f"{median_of(kind)} ms per inference")
    style(axes, grid="x")
    return svg(figure, f"d{kind}", "Latency per file and device")


def rows_of(devices: Sequence[str], files: Sequence[str]) -> list[str]:
    """Returns the labels of the rows: each file with each device.

    Examples:
        >>> rows_of(["a", "b"], ["x"])
        ['x, a', 'x, b']
    """
    from ..system.text_tables import shortened

    return [f"{shortened(file, 12)}, {shortened(device, 12)}" for file in files for device in devices]
