"""Which source code goes along with a model, and how do its numbers and names get there without changing what the text means?

The model becomes a C array, a tokenizer its rule in Python and Kotlin, a front end for sound its rule in Python, Kotlin and C.
The templates lie in ``templates`` beside this module. Names come from model files and may hold anything: each filter writes them as a literal of
its language.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..data import LogMel, Tokenizer, log_mel
from ..tflite import TensorInfo
from . import signed_files

__all__ = [
    "ARRAY_FILES",
    "FRONT_END_FILES",
    "SIGNED_FILES",
    "TOKENIZER_FILES",
    "array_files",
    "describe",
    "front_end_files",
    "kotlin_text",
    "plain",
    "render",
    "signed_files_text",
    "tokenizer_files",
]

ARRAY_FILES = ("model.h", "model.cc", "sha256.h", "sha256.c")
TOKENIZER_FILES = ("vocabulary.txt", "tokenizer.py", "Tokenizer.kt")
FRONT_END_FILES = ("log_mel.py", "LogMel.kt", "log_mel.h", "log_mel.c")
SIGNED_FILES = "signed_files.py"
BYTES_PER_ROW = 16
NUMBERS_PER_ROW = 8


def describe(info: TensorInfo) -> dict[str, Any]:
    """Returns one tensor as the templates read it; scale None for one that is not quantized.

    Examples:
        >>> import numpy as np
        >>> tensor = describe(TensorInfo("x", (None, 2), np.dtype(np.int8), 0.5, -1, index=3))
        >>> tensor["shape"], tensor["scale"], tensor["lowest"], tensor["highest"]
        ((None, 2), 0.5, -128, 127)
    """
    parameters = info.parameters
    return {
        "name": info.name,
        "index": info.index,
        "shape": info.shape,
        "dtype": info.dtype.name,
        "scale": info.scale,
        "zero_point": info.zero_point,
        "lowest": None if parameters is None else parameters.lowest,
        "highest": None if parameters is None else parameters.highest,
        "bytes": info.dtype.itemsize,
        "real_range": None if parameters is None else parameters.real_range,
    }


def plain(text: str) -> str:
    """Returns one line of text that ends no comment, docstring or table cell.

    Examples:
        >>> plain('a|b\\n*/ <b> \\"\\"\\"')
        "a/b * / (b) '''"
    """
    table = str.maketrans({"|": "/", '"': "'", "\\": "/", "<": "(", ">": ")", "`": "'", "[": "(", "]": ")"})
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line.translate(table).replace("*/", "* /").replace("/*", "/ *")


def kotlin_text(text: str) -> str:
    """Returns ``text`` as a Kotlin string literal.

    Examples:
        >>> print(kotlin_text('cost "$x"'))
        "cost \\"\\u0024x\\""
    """
    escaped = json.dumps(text).replace("$", "\\u0024").replace("\\f", "\\u000c")
    return escaped


def render(template: str, **values: Any) -> str:
    """Returns a template, filled in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tfcompress", "bundling/templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # source code, not HTML: the filters below write literals
    )
    environment.filters |= {"literal": repr, "kotlin": kotlin_text, "plain": plain}
    return environment.get_template(template).render(**values)


def array_files(content: bytes, sha256: str) -> dict[str, str]:
    """Returns the texts of ``model.h`` and ``model.cc``, the model for a program that has no file system, and of its hash.

    The linker puts the array into flash memory. It is aligned to 16 bytes, as TFLite Micro asks of a model, and compiles as
    C11 and as C++11.

    Args:
        content: the bytes of the file.
        sha256: their hash, 64 hexadecimal digits.

    Examples:
        >>> print(array_files(b"TFL3", "0" * 64)["model.cc"].splitlines()[-2])
            0x54,0x46,0x4c,0x33,
    """
    rows = [
        "0x" + content[start : start + BYTES_PER_ROW].hex(",").replace(",", ",0x") + ","
        for start in range(0, len(content), BYTES_PER_ROW)
    ]
    values = {"size": len(content), "sha256": sha256, "rows": rows}
    return {name: render(f"{name}.jinja", **values) for name in ARRAY_FILES}


def signed_files_text() -> str:
    """Returns the module that checks a bundle's signature, as it stands: it needs nothing of this package.

    Examples:
        >>> "tfcompress" in signed_files_text().partition("import")[2].split("def ")[0]
        False
    """
    return Path(signed_files.__file__).read_text(encoding="utf-8")


def tokenizer_files(tokenizer: Tokenizer, source: str) -> dict[str, str]:
    """Returns the vocabulary and the tokenizer's rule in Python and in Kotlin, by name of the file.

    Args:
        tokenizer: what the model was trained with.
        source: the model's name, for comments.

    Examples:
        >>> list(tokenizer_files(Tokenizer(("<end>", "<unknown>", "call")), "spam.keras"))
        ['vocabulary.txt', 'tokenizer.py', 'Tokenizer.kt']
    """
    vocabulary, *code = TOKENIZER_FILES
    rule = {"source": source, "length": tokenizer.length, "unit": tokenizer.unit}
    return {vocabulary: tokenizer.vocabulary_text(), **{name: render(f"{name}.jinja", **rule) for name in code}}


def front_end_files(front_end: LogMel, source: str) -> dict[str, str]:
    """Returns from sound to features in Python, Kotlin and C, by name of the file.

    Python's is the module that training used, as it is; Kotlin's computes its tables, C's has them as constants.

    Args:
        front_end: what the model was trained with.
        source: the model's name, for comments.

    Examples:
        >>> list(front_end_files(LogMel(), "words.keras"))
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
    python, *code = FRONT_END_FILES
    return {python: module, **{name: render(f"{name}.jinja", **shown) for name in code}}


def _tables(front_end: LogMel) -> dict[str, np.ndarray]:
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
