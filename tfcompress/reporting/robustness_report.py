"""What compression does to a model under attack and in bad weather, as one HTML page."""

import os
from pathlib import Path

from ..security import Robustness
from ..system import check_writable, write_atomically
from .plots import WIDTH_INCHES, colour, new_figure, style, svg, tick_locator

__all__ = ["robustness_report"]

_LEGEND_ROWS = 0.35


def robustness_report(
    found: Robustness, path: str | os.PathLike, *, title: str = "Robustness", overwrite: bool = False
) -> Path:
    """Writes how files answer under attack and under bad conditions as one self-contained HTML page.

    Args:
        found: of ``tfcompress.robustness``.
        path: where the page is to be.
        title: its heading. Default: "Robustness".
        overwrite: whether an existing file may be replaced. Default: False.

    Returns:
        The path of the page.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    from markupsafe import Markup

    from .pages import render

    check_writable(path, overwrite=overwrite)
    names = list(found.headings[1:])
    page = render(
        "robustness.html.jinja",
        title=title,
        found=found,
        names=names,
        attacks=Markup(_attack_bars(found, names)),
        corruptions=[
            (name, Markup(_strength_curve(found, names, name, place)))
            for place, name in enumerate(found.files[0].corrupted)
        ],
    )
    return write_atomically(path, page + "\n", overwrite=overwrite)


def _attack_bars(found: Robustness, names: list[str]) -> str:
    """Returns horizontal bars of accuracy by attack, one for each file, with 95 % intervals."""
    attacks = list(found.files[0].attacked)
    height = 0.26 * len(attacks) * (len(names) + 1) + 0.9 + _LEGEND_ROWS
    figure = new_figure(height)
    axes = figure.add_axes((0.16, 0.6 / height, 0.8, 1 - (0.75 + _LEGEND_ROWS) / height))
    thickness = 0.8 / len(names)
    for number, (name, file) in enumerate(zip(names, found.files, strict=True)):
        for row, attack in enumerate(attacks):
            share = file.attacked[attack]
            low, high = share.interval
            whiskers = [[100 * max(0.0, share.value - low)], [100 * max(0.0, high - share.value)]]
            axes.barh(
                row - 0.4 + thickness * (number + 0.5),
                100 * share.value,
                height=0.9 * thickness,
                color=colour(number),
                xerr=whiskers,
                error_kw={"elinewidth": 1, "capsize": 2},
                label=name if row == 0 else None,
                zorder=2,
            )
    axes.set_yticks(range(len(attacks)), attacks)
    axes.set_ylim(len(attacks) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, %; whiskers: 95 %")
    style(axes, grid="x")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(3, len(names)), frameon=False, fontsize=8.5)
    return svg(figure, "ra", "Accuracy under attack")


def _strength_curve(found: Robustness, names: list[str], corruption: str, place: int) -> str:
    """Returns accuracy against the strength of one corruption, strength 0 being the clean samples."""
    figure = new_figure(2.4)
    axes = figure.add_axes((0.13, 0.2, 1 - 0.13 - 1.9 / WIDTH_INCHES, 0.72))
    for number, (name, file) in enumerate(zip(names, found.files, strict=True)):
        values = [100 * share.value for share in (file.attacked["none"], *file.corrupted[corruption])]
        axes.plot(range(len(values)), values, marker="o", markersize=4, color=colour(number), label=name)
    axes.set_ylim(0, 102)
    axes.set_xlabel("strength")
    axes.set_ylabel("accuracy, %")
    axes.xaxis.set_major_locator(tick_locator(6, whole=True))
    style(axes, grid="y")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5)
    return svg(figure, f"rc{place}", f"Accuracy by strength of {corruption}")
