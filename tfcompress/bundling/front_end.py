"""How does sound become features on a device? The front end's settings and rule, in Python, Kotlin and C.

Python's is the module that training used, as it is; Kotlin's computes its tables, C's has them as constants.
"""

import dataclasses
from pathlib import Path

import numpy as np

from ..data import log_mel
from .snippets import render

__all__ = ["FILES", "front_end_files"]

NUMBERS_PER_ROW = 8
MODULE, KOTLIN, HEADER, CODE = FILES = ("log_mel.py", "LogMel.kt", "log_mel.h", "log_mel.c")


def front_end_files(front_end: log_mel.LogMel, source: str) -> dict[str, str]:
    """Returns the texts of the files, by name.

    Args:
        front_end: what the model was trained with.
        source: the model's name, for comments.

    Examples:
        >>> list(front_end_files(log_mel.LogMel(), "words.keras"))
        ['log_mel.py', 'LogMel.kt', 'log_mel.h', 'log_mel.c']
    """
    settings = dataclasses.asdict(front_end)
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    module = Path(log_mel.__file__).read_text(encoding="utf-8")
    module += f"\n\nFRONT_END = LogMel({arguments})\n# The settings that {source} was trained with: FRONT_END(sound) is its input.\n"
    tables = _tables(front_end)
    numbers = {name: _rows(values) for name, values in tables.items()}
    size = sum(values.nbytes for values in tables.values())
    shown = {
        **{
            name: float(value) if name in ("lowest_hz", "highest_hz", "floor") else value
            for name, value in settings.items()
        },
        "source": source,
        "kilobytes": f"{size / 1000:.1f}",
        "stack": 4 * (front_end.frame_length // 2 + 1),
        **numbers,
    }
    return {MODULE: module, **{name: render(f"{name}.jinja", **shown) for name in (KOTLIN, HEADER, CODE)}}


def _tables(front_end: log_mel.LogMel) -> dict[str, np.ndarray]:
    angles = 2 * np.pi * np.arange(front_end.frame_length) / front_end.frame_length
    bands = [np.flatnonzero(column) for column in front_end.weights.T]
    return {
        "window": front_end.window,
        "cosines": np.cos(angles).astype(np.float32),
        "sines": np.sin(angles).astype(np.float32),
        "first": np.array([bins[0] for bins in bands], np.uint16),
        "count": np.array([len(bins) for bins in bands], np.uint16),
        "weights": np.concatenate([front_end.weights[bins, band] for band, bins in enumerate(bands)]),
    }


def _rows(values: np.ndarray) -> str:
    texts = [f"{value:.9e}f" if values.dtype.kind == "f" else str(value) for value in values]
    lines = [", ".join(texts[start : start + NUMBERS_PER_ROW]) for start in range(0, len(texts), NUMBERS_PER_ROW)]
    return ",\n".join(f"    {line}" for line in lines)
