"""How a model's own numbers and names get into source code and Markdown without changing what the text means.

The templates lie beside this module. Names come from model files and may hold anything: each filter writes them as a
literal of its language.
"""

import json
from typing import Any

from ..tflite import TensorInfo

__all__ = ["describe", "kotlin_text", "plain", "render"]


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
    """Returns a template of this folder, filled in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tfcompress", "bundling"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # source code, not HTML: the filters below write literals
    )
    environment.filters |= {"literal": repr, "kotlin": kotlin_text, "plain": plain}
    return environment.get_template(template).render(**values)
