"""How does a value come back from a process that may be in a stranger's hands? As data: nothing in it is run.

Pickle calls what it is told to call. Here a value is text and bytes: JSON in which arrays, bytes and values of this
package's own classes are marked, with what is large behind it. Only frozen dataclasses and named tuples of this package come
back as classes, with the fields that they declare; their constructors are not called.
"""

import dataclasses
import enum
import importlib
import json
import math
from typing import Any

import numpy as np

from ..errors import SandboxError
from .printable import printable

__all__ = ["read_answer", "write_answer"]

HEADER = b"tfcompress answer 1\n"
LENGTH_BYTES = 8
PLAIN = (bool, int, str, type(None))
KINDS = "biufcSUmM"  # of arrays: numbers, text, bytes, times; no Python objects


def write_answer(value: Any) -> bytes:
    """Returns a value as bytes that ``read_answer`` takes.

    Args:
        value: of numbers, text, bytes, arrays, ``np.dtype``, lists, tuples, sets, mappings, and this package's enumerations,
            named tuples and frozen dataclasses of the same.

    Raises:
        TypeError: there is something else in it.

    Examples:
        >>> read_answer(write_answer({"twice": (2.5, b"x"), 3: None}))
        {'twice': (2.5, b'x'), 3: None}
    """
    pieces: list[bytes] = []
    text = json.dumps(_marked(value, pieces)).encode()
    lengths = np.array([len(text), *(len(piece) for piece in pieces)], "<u8")
    return b"".join([HEADER, len(lengths).to_bytes(LENGTH_BYTES, "little"), lengths.tobytes(), text, *pieces])


def read_answer(content: bytes) -> Any:
    """Returns the value that ``write_answer`` wrote; content of anybody's is safe to read.

    Raises:
        SandboxError: it is no such value.

    Examples:
        >>> import pickle
        >>> read_answer(pickle.dumps(3))
        Traceback (most recent call last):
        ...
        tfcompress.errors.SandboxError: The child process must answer with plain values. Received: something else (no header). The file may be an attack: nothing of the answer was run.
    """
    try:
        if not content.startswith(HEADER):
            raise ValueError("no header")
        view, start = memoryview(content), len(HEADER) + LENGTH_BYTES
        count = int.from_bytes(view[len(HEADER) : start], "little")
        if not 0 < count <= len(content):
            raise ValueError("impossible count")
        ends = start + LENGTH_BYTES * count
        pieces = []
        for length in np.frombuffer(view[start:ends], "<u8").tolist():
            if length > len(content) - ends:
                raise ValueError("cut off")
            pieces.append(view[ends : ends + length])
            ends += length
        return _plain(json.loads(bytes(pieces[0])), pieces[1:])
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
        RecursionError,
        OverflowError,
    ) as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise SandboxError(
            f"The child process must answer with plain values. Received: something else ({printable(reason)}). The file may be an "
            "attack: nothing of the answer was run."
        ) from error


def _marked(value: Any, pieces: list[bytes]) -> Any:
    """Returns a value as JSON: plain values as they are, everything else as [mark, ...]."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    if isinstance(value, bytes | bytearray):
        pieces.append(bytes(value))
        return ["bytes", len(pieces) - 1]
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        pieces.append(array.tobytes())
        mark = "array" if isinstance(value, np.ndarray) else "scalar"
        return [mark, _dtype_text(array.dtype), list(array.shape), len(pieces) - 1]
    if isinstance(value, np.dtype):
        return ["dtype", _dtype_text(value)]
    if isinstance(value, enum.Enum):
        return ["enum", *_named(kind), value.name]
    if _is_ours(kind) and dataclasses.is_dataclass(kind):
        return [
            "value",
            *_named(kind),
            {f.name: _marked(getattr(value, f.name), pieces) for f in dataclasses.fields(value)},
        ]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return ["named", *_named(kind), [_marked(item, pieces) for item in value]]
    for name, sort in (("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if kind is sort:
            return [name, [_marked(item, pieces) for item in value]]
    if hasattr(value, "items"):  # a dictionary, a read-only view of one, a counter
        return ["dict", [[_marked(key, pieces), _marked(item, pieces)] for key, item in value.items()]]
    raise TypeError(f"An answer must be of plain values. Received: {kind.__module__}.{kind.__qualname__}.")


def _plain(value: Any, pieces: list[memoryview]) -> Any:
    """Returns what a marked value stands for."""
    if isinstance(value, (*PLAIN, float)):
        return value
    mark, *rest = value
    if mark == "float":
        return float(rest[0])
    if mark == "bytes":
        return bytes(pieces[rest[0]])
    if mark in ("array", "scalar"):
        array = np.frombuffer(bytearray(pieces[rest[2]]), _dtype(rest[0])).reshape(rest[1])
        return array if mark == "array" else array[()]
    if mark == "dtype":
        return _dtype(rest[0])
    if mark in ("list", "tuple", "set", "frozenset"):
        sort = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[mark]
        return sort(_plain(item, pieces) for item in rest[0])
    if mark == "dict":
        return {_plain(key, pieces): _plain(item, pieces) for key, item in rest[0]}
    kind = _class(rest[0], rest[1])
    if mark == "enum" and issubclass(kind, enum.Enum):
        return kind[rest[2]]
    if mark == "named" and issubclass(kind, tuple) and len(rest[2]) == len(kind._fields):
        return tuple.__new__(kind, [_plain(item, pieces) for item in rest[2]])
    if mark == "value" and dataclasses.is_dataclass(kind):
        made: Any = object.__new__(kind)  # type: ignore[arg-type]  # a class, not a value of one
        for each in dataclasses.fields(kind):
            object.__setattr__(made, each.name, _plain(rest[2][each.name], pieces))
        return made
    raise ValueError(f"mark {mark!r}")


def _named(kind: type) -> tuple[str, str]:
    if not _is_ours(kind):
        raise TypeError(f"An answer must be of plain values. Received: {kind.__module__}.{kind.__qualname__}.")
    return kind.__module__, kind.__qualname__


def _class(module: str, name: str) -> Any:
    """Returns one of this package's own value classes."""
    if module.partition(".")[0] != "tfcompress" or not name.isidentifier():
        raise ValueError(f"class {module}.{name}")
    kind = getattr(importlib.import_module(module), name)
    if not isinstance(kind, type) or kind.__module__ != module or not _is_ours(kind):
        raise ValueError(f"class {module}.{name}")
    return kind


def _is_ours(kind: type) -> bool:
    """Whether a class is a frozen dataclass, a named tuple or an enumeration of this package."""
    if kind.__module__.partition(".")[0] != "tfcompress":
        return False
    parameters = getattr(kind, "__dataclass_params__", None)
    is_frozen = parameters is not None and parameters.frozen
    return is_frozen or issubclass(kind, enum.Enum) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _dtype_text(dtype: np.dtype) -> str:
    if dtype.kind not in KINDS:
        raise TypeError(f"An answer must be of plain values. Received: an array of {dtype}.")
    return dtype.str


def _dtype(text: str) -> np.dtype:
    if not isinstance(text, str):
        raise TypeError("an array of another type")
    dtype = np.dtype(text)
    if dtype.kind not in KINDS:
        raise ValueError(f"an array of {dtype}")
    return dtype
