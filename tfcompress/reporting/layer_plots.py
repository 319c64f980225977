"""The pictures of a page about one file: where its bytes are, and where it loses.

As those of ``plots``: SVG text, drawn without pyplot.
"""

import math
from collections.abc import Mapping, Sequence

from ..comparison import LayerError
from ..system.text_tables import bytes_text, decibel_text, fitted_name, share_text
from .plots import (
    COLOURS,
    GREY,
    LONGEST_NAME,
    WIDTH_INCHES,
    bar_figure,
    new_figure,
    style,
    svg,
    tick_locator,
    value_text,
)

__all__ = ["bytes_bars", "loss_bars", "loss_curve", "numbered", "weight_bars"]

PARTING_DB = 20.0


def bytes_bars(sizes: Mapping[str, int]) -> str:
    """Returns horizontal bars of the stored size of each kind of content.

    Args:
        sizes: bytes by kind, at least one above 0.
    """
    shown = {kind: size for kind, size in sizes.items() if size}
    total = sum(shown.values())
    texts = [f"{bytes_text(size)}, {share_text(size / total)}" for size in shown.values()]
    return _bars(list(shown), [size / 1e3 for size in shown.values()], texts, "kB", ("k", "Bytes by kind"), COLOURS[0])


def weight_bars(names: Sequence[str], sizes: Sequence[int]) -> str:
    """Returns horizontal bars of the size of the weights of some layers.

    Args:
        names: of the layers, at least one.
        sizes: in bytes.
    """
    texts = [bytes_text(size) for size in sizes]
    return _bars(names, [size / 1e3 for size in sizes], texts, "weights, kB", ("w", "Weights by layer"), COLOURS[2])


def loss_bars(errors: Sequence[LayerError]) -> str:
    """Returns horizontal bars of the SQNR that layers have by themselves, the worst first; shorter is worse.

    Args:
        errors: of at least one layer, with a finite ratio.
    """
    names = [numbered(error.index, error.layer) for error in errors]
    values = [error.own_sqnr_db if error.own_sqnr_db is not None else error.sqnr_db or 0.0 for error in errors]
    texts = [decibel_text(value) for value in values]
    return _bars(names, [max(value, 0.0) for value in values], texts, "SQNR, dB", ("r", "Loss by layer"), COLOURS[1])


def loss_curve(errors: Sequence[LayerError]) -> str:
    """Returns the SQNR of outputs over the order of execution: what has been lost up to each layer, and by each alone.

    Args:
        errors: in the order of execution.
    """
    figure = new_figure(2.7)
    axes = figure.add_axes((0.12, 0.18, 0.84, 0.68))
    finite = {
        "up to this layer": [(e.index, e.sqnr_db) for e in errors if e.sqnr_db is not None and _is_drawn(e.sqnr_db)],
        "by this layer alone": [
            (e.index, e.own_sqnr_db) for e in errors if e.own_sqnr_db is not None and _is_drawn(e.own_sqnr_db)
        ],
    }
    for (label, points), colour, marker in zip(finite.items(), (COLOURS[0], COLOURS[1]), ("o", "s"), strict=True):
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=3.2, linewidth=1, color=colour, label=label)
    axes.axhline(PARTING_DB, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("SQNR, dB")
    axes.set_xlabel(f"number of the op; dashed: {PARTING_DB:.0f} dB")
    axes.xaxis.set_major_locator(tick_locator(8, whole=True))
    style(axes, grid="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=8.5)
    return svg(figure, "c", "Loss over the order of execution")


def numbered(index: int, layer: str) -> str:
    """Returns a layer's name with its number in front, short enough to stand beside a bar.

    Examples:
        >>> numbered(7, "MobilenetV1/Conv2d_1_depthwise")
        '#7 Conv2d_1_depthwise'
    """
    number = f"#{index} "
    return number + fitted_name(layer, LONGEST_NAME - len(number))


def _is_drawn(value: float) -> bool:
    return math.isfinite(value)


def _bars(
    names: Sequence[str], values: Sequence[float], texts: Sequence[str], unit: str, title: tuple[str, str], colour: str
) -> str:
    figure, axes = bar_figure(len(names), list(names))
    axes.barh(range(len(names)), values, height=0.62, color=colour, zorder=2)
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        value_text(axes, value, row, text)
    # Room for the text of the longest bar: a share of the axes' width, by its characters.
    width = axes.get_position().width * WIDTH_INCHES
    axes.set_xlim(0, (max(values) or 1.0) * (1 + 0.085 * max(map(len, texts)) / width))
    axes.xaxis.set_major_locator(tick_locator(4))
    axes.set_xlabel(unit)
    style(axes, grid="x")
    return svg(figure, *title)
