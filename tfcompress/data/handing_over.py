"""How do samples that a user's own script makes reach a process that may not run it?

The script runs in the process that was asked to, with all its rights; arrays go with the request, what is iterated goes piece
by piece and lies in a temporary file on the other side, where it can be read more than once.
"""

import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..system import call_function, names_a_function
from .readers.tfrecords import TFRecords

__all__ = ["files_of", "portable", "received"]


def portable(source: Any) -> tuple[Any, Iterator[Any] | None]:
    """Returns what can be sent of a source of samples: the source, and pieces that stand for it or None.

    Args:
        source: a path, ``TFRecords``, None, or ``path.py:function``, which is called.

    Raises:
        DataError: the script or its function fails.

    Examples:
        >>> portable("samples.npz")
        ('samples.npz', None)
    """
    if not isinstance(source, str) or not names_a_function(source):
        return source, None
    made = call_function(source)
    if isinstance(made, str | os.PathLike | TFRecords) or made is None:
        return made, None
    if isinstance(made, Mapping | tuple | list) or (hasattr(made, "__array__") and not callable(made)):
        return _arrays(made), None
    if callable(made) and not isinstance(made, Iterable):
        made = made()
    return None, map(_arrays, made)


def received(pieces: Iterator[Any], folder: str | None = None) -> Callable[[], Iterator[Any]]:
    """Returns a function whose iterators yield what was handed over, as often as they are asked for.

    Args:
        pieces: what was handed over, from this very program's other process.
        folder: where they are kept, as a file. Default: None, the folder for temporary files.

    Examples:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = received(iter([1, 2]), folder)
        ...     list(again()), list(again())
        ([1, 2], [1, 2])
    """
    handle, path = tempfile.mkstemp(dir=folder, suffix=".pickle")
    with os.fdopen(handle, "wb") as file:
        for piece in pieces:
            pickle.dump(piece, file)
        size = file.tell()

    def elements() -> Iterator[Any]:
        with open(path, "rb") as file:
            while file.tell() < size:
                yield pickle.load(file)

    return elements


def files_of(source: Any) -> tuple[str, ...]:
    """Returns the files and folders that a source of samples is read from.

    Examples:
        >>> files_of("images/"), files_of([1, 2])
        (('images/',), ())
    """
    if isinstance(source, TFRecords):
        return source.paths
    return (os.fspath(source),) if isinstance(source, str | os.PathLike) else ()


def _arrays(value: Any) -> Any:
    """Returns a value with arrays of NumPy in the place of those of other libraries."""
    if isinstance(value, Mapping):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_arrays, value)) if not hasattr(value, "_fields") else tuple(map(_arrays, value))
    return np.asarray(value) if hasattr(value, "__array__") and not isinstance(value, np.ndarray) else value
