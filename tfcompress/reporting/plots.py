"""The pictures of a report, as SVG text that can stand inside a page.

Drawn with matplotlib's ``Figure`` alone: pyplot, its global state and its windows are never touched. Figures are as
narrow as a phone, so that their text stays legible when the page is.
"""

import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..measurement import Measurement
from ..system.printable import printable
from ..system.text_tables import milliseconds_text, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "accuracy_against_size", "latency_bars", "sparsity_bars"]

# Okabe and Ito, "Color Universal Design", 2008: told apart by colour-blind readers. Its yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#1f2933"
GREY = "#6b7580"
GRID = "#e4e7eb"
WIDTH_INCHES = 4.4
BAR_INCHES = 0.34
FRAME_INCHES = 0.75
FONT_POINTS = 9.5
LONGEST_NAME = 24
LONGEST_SIDE_NAME = 18
LOGARITHMIC_FROM = 20  # ratio of the largest to the smallest file from which small files would crowd at the left
LABEL_POINTS = 15.0


def accuracy_against_size(names: Sequence[str], measurements: Sequence[Measurement]) -> str:
    """Returns a scatter plot of accuracy in per cent against file size in kB; unlabelled files are left out.

    Args:
        names: one per measurement.
        measurements: at least one of them with an accuracy.
    """
    figure = new_figure(3.0)
    axes = figure.add_axes((0.155, 0.17, 0.47, 0.79))
    chosen = [i for i, record in enumerate(measurements) if record.accuracy is not None]
    sizes = [measurements[i].size_bytes / 1e3 for i in chosen]
    accuracies = [100 * (measurements[i].accuracy or 0.0) for i in chosen]
    for i, size, accuracy in zip(chosen, sizes, accuracies, strict=True):
        axes.plot(size, accuracy, MARKERS[i % len(MARKERS)], color=colour(i), markersize=8, mec="white", zorder=3)
    set_size_axis(axes, sizes)
    axes.set_ylim(*accuracy_limits(accuracies))
    axes.set_ylabel("accuracy, %")
    axes.yaxis.set_major_locator(tick_locator(6))
    style(axes, grid="both")
    label_at_the_side(axes, [names[i] for i in chosen], sizes, accuracies, [colour(i) for i in chosen])
    return svg(figure, "a", "Accuracy against file size")


def set_size_axis(axes: Any, sizes: Sequence[float]) -> None:
    """Puts kB on the horizontal axis, from zero or, for very different files, logarithmically."""
    set_horizontal_axis(axes, sizes, "file size, kB", room=1.1, ticks=4, numbers="{x:,.0f}")


def set_horizontal_axis(
    axes: Any, values: Sequence[float], label: str, *, room: float, ticks: int, numbers: str
) -> None:
    """Puts values that are not negative on the horizontal axis, from zero or, where they differ much, logarithmically.

    Args:
        axes: of the figure.
        values: what is drawn.
        label: of the axis.
        room: how far it goes on, as a factor of the largest value.
        ticks: at most, from zero on.
        numbers: their format on a logarithmic axis.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    logarithmic = min(values) > 0 and max(values) > LOGARITHMIC_FROM * min(values)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
        axes.xaxis.set_major_formatter(StrMethodFormatter(numbers))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, room * max(values) or 1.0)
        axes.xaxis.set_major_locator(tick_locator(ticks))
    axes.set_xlabel(label + (" (logarithmic)" if logarithmic else ""))


def accuracy_limits(accuracies: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of an axis of per cent: two points apart or more, so that a tenth of a point looks like no gulf.

    No more than a mark's own room is above 100.
    """
    middle, half = (max(accuracies) + min(accuracies)) / 2, max(1.0, 0.6 * (max(accuracies) - min(accuracies)))
    top = min(middle + half, 100 + 0.2 * half)
    return top - 2 * half, top


def label_at_the_side(
    axes: Any,
    names: Sequence[str],
    xs: Sequence[float],
    ys: Sequence[float],
    colours: Sequence[str],
    longest: int = LONGEST_SIDE_NAME,
) -> None:
    """Writes the names right of the axes, a line from each to its point, apart from each other even where points meet."""
    height_points = axes.get_position().height * axes.figure.get_figheight() * 72
    low, high = axes.get_ylim()
    fractions = [(y - low) / (high - low) for y in ys]
    order = sorted(range(len(names)), key=lambda i: (fractions[i], -xs[i]))
    places = spread([fractions[i] for i in order], min(LABEL_POINTS / height_points, 1 / max(len(names) - 1, 1)))
    for i, place in zip(order, places, strict=True):
        axes.annotate(
            shortened(names[i], longest),
            (xs[i], ys[i]),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            color=INK,
            fontsize=FONT_POINTS,
            arrowprops={"arrowstyle": "-", "color": colours[i], "linewidth": 0.8, "shrinkB": 4},
            annotation_clip=False,
            parse_math=False,  # a dollar sign in a file name starts no formula
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Returns ascending places in [0, 1] moved as little as needed for ``gap`` between neighbours.

    Args:
        places: ascending.
        gap: smallest distance, at most 1 / (number of places - 1).

    Examples:
        >>> [round(place, 2) for place in spread([0.5, 0.5, 0.95], 0.2)]
        [0.5, 0.7, 0.95]
    """
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else max(place, 0.0))
    ceiling = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def latency_bars(
    names: Sequence[str], measurements: Sequence[Measurement], positions: Sequence[int], kind: str = "measured"
) -> str:
    """Returns horizontal bars of the median time per inference in ms, with a whisker that ends at p90.

    Args:
        names: one per measurement.
        measurements: at least one, all with a latency.
        positions: of each among all: decides the colour.
        kind: what the times are, for the axis. Default: "measured".
    """
    figure, axes = bar_figure(len(names), shortened_all(names))
    latencies = [record.latency for record in measurements if record.latency is not None]
    medians = [latency.median_ms for latency in latencies]
    p90s = [max(latency.p90_ms or 0.0, latency.median_ms) for latency in latencies]
    rows = range(len(names))
    axes.barh(rows, medians, height=0.62, color=[colour(i) for i in positions], zorder=2)
    whiskers = [p90 - median for median, p90 in zip(medians, p90s, strict=True)]
    no_lower = [0.0] * len(medians)
    axes.errorbar(
        medians, rows, xerr=[no_lower, whiskers], fmt="none", ecolor=INK, elinewidth=1.2, capsize=3.5, zorder=3
    )
    for row, median, p90 in zip(rows, medians, p90s, strict=True):
        value_text(axes, p90, row, milliseconds_text(median))
    axes.set_xlim(0, 1.16 * max(p90s) or 1.0)
    axes.xaxis.set_major_locator(tick_locator(4))
    what = "median" if kind in ("measured", "example") else f"{kind} median"
    axes.set_xlabel(f"{what} ms, whisker to p90" if any(whiskers) else f"{what} ms")
    style(axes, grid="x")
    return svg(figure, f"l{kind}", "Latency per file")


def sparsity_bars(name: str, layers: Mapping[str, float], *, position: int) -> str:
    """Returns horizontal bars of the share of zero weights, in per cent, one per layer.

    Args:
        name: of the model.
        layers: sparsity in [0, 1] by layer name, in the model's order; at least one.
        position: of the model among all: decides the colour and keeps ids apart.
    """
    figure, axes = bar_figure(len(layers), shortened_all(list(layers)))
    percents = [100 * value for value in layers.values()]
    axes.barh(range(len(layers)), percents, height=0.62, color=colour(position), zorder=2)
    for row, percent in enumerate(percents):
        value_text(axes, percent, row, f"{percent:.0f}")
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("zero weights, %")
    style(axes, grid="x")
    return svg(figure, f"s{position}", f"Weight sparsity per layer of {name}")


def bar_figure(rows: int, labels: Sequence[str]) -> "tuple[Figure, Any]":
    """Returns a figure as high as its rows need, the first row on top, with room for the labels."""
    height = BAR_INCHES * rows + FRAME_INCHES
    figure = new_figure(height)
    left = 0.03 + 0.0172 * max(map(len, labels))  # width of a character at this size, as a share of the figure
    axes = figure.add_axes((left, 0.56 / height, 0.95 - left, 1 - 0.62 / height))
    axes.set_yticks(range(rows), labels, parse_math=False)
    axes.set_ylim(rows - 0.5, -0.5)
    return figure, axes


def value_text(axes: Any, x: float, row: int, text: str) -> None:
    """Writes a value right of its bar."""
    axes.annotate(text, (x, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK)


def new_figure(height_inches: float) -> "Figure":
    """Returns an empty figure on white."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="white")


def style(axes: Any, *, grid: str) -> None:
    """Removes what is no data: frame, tick marks; leaves a pale grid."""
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(True, axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=FONT_POINTS, labelcolor=INK)
    axes.xaxis.label.set(size=FONT_POINTS, color=GREY)
    axes.yaxis.label.set(size=FONT_POINTS, color=GREY)


def tick_locator(ticks: int, *, whole: bool = False) -> Any:
    """Returns a locator of at most this many round numbers, only whole ones if asked for."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=ticks, min_n_ticks=2, steps=[1, 2, 2.5, 5, 10], integer=whole)


def colour(position: int) -> str:
    """Returns the colour of the model at this position, the same one in all pictures.

    Examples:
        >>> colour(7) == colour(0)
        True
    """
    return COLOURS[position % len(COLOURS)]


def shortened_all(names: Sequence[str]) -> list[str]:
    """Returns names that fit beside bars.

    Examples:
        >>> shortened_all(["conv", "a_name_much_too_long_for_a_phone"])
        ['conv', 'a_name_much_…for_a_phone']
    """
    return [shortened(name, LONGEST_NAME) for name in names]


def svg(figure: "Figure", prefix: str, description: str) -> str:
    """Returns the figure as one ``svg`` element for an HTML page.

    The prolog, metadata and namespaces go (HTML needs none), ids are numbers behind a prefix, as all pictures share one page.

    Args:
        figure: what to draw.
        prefix: short and unique in the page.
        description: for readers who hear the page.
    """
    text = io.StringIO()
    with warnings.catch_warnings():
        # A name in a script that matplotlib's own font lacks gets boxes here; the table shows it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(text, format="svg", metadata={"Date": None})
    picture = text.getvalue()
    picture = picture[picture.index("<svg") :]
    picture = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    picture = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", picture)
    # matplotlib draws some ids by lot; equal pictures are to be equal text.
    ids = {name: str(number) for number, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]*)"', picture)))}
    picture = re.sub(
        r'(\bid="|href="#|url\(#)([^")]*)', lambda found: f"{found[1]}{prefix}-{ids.get(found[2], found[2])}", picture
    )
    label = html.escape(printable(description), quote=True)
    return re.sub(r'<svg\b.*?(viewBox="[^"]*")[^>]*>', rf'<svg role="img" aria-label="{label}" \1>', picture, count=1)
