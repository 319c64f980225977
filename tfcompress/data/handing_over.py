"""How do samples that a user's own script makes reach a process that may not run it?

The script runs in a child with all of the user's rights, as it may crash natively; what it returns lies in a file meanwhile,
which the other process reads as often as it needs.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..system import ChildExit, Reporter, call_function, names_a_function, run_isolated
from ..system.isolation import converter_error
from .readers.tfrecords import TFRecords

__all__ = ["Kept", "collect", "files_of", "opened", "portable"]


@dataclass(frozen=True)
class Kept:
    """What a user's function returned, in a file.

    Args:
        path: of the file, whose content only this user's own processes wrote: it is a pickle.
        is_stream: whether it holds elements that were iterated over, rather than one value.
    """

    path: str
    is_stream: bool


def portable(source: Any, folder: str | os.PathLike, *, debug: bool = False) -> Any:
    """Returns a source of samples that another process can open: itself, or what a script made of ``path.py:function``.

    Args:
        source: a path, ``TFRecords``, None, or ``path.py:function``, which is called in a child.
        folder: where the samples of a function are kept.
        debug: whether the function's own output is shown. Default: False.

    Raises:
        DataError: the script or its function fails, or ends its process.
        ConversionError: it raised something unexpected while its samples were read.

    Examples:
        >>> portable("samples.npz", "/tmp")
        'samples.npz'
    """
    if not isinstance(source, str) or not names_a_function(source):
        return source
    request = (source, os.path.join(folder, "samples.pickle"))

    def explain(ended: ChildExit) -> Exception:
        if ended.raised:
            return converter_error(ended)
        said = f", {ended.said}" if ended.said else ""
        return DataError(
            f"The function must return data. Received: {source} ended its process by {ended.how}{said}. Run it with python first."
        )

    return run_isolated("tfcompress.data.handing_over:collect", request, explain=explain, debug=debug)


def collect(request: tuple[str, str], report: Reporter) -> Any:
    """Calls the user's function and keeps what it returns; runs in the child that ``portable`` starts."""
    source, path = request
    report.stage(f"running {source}")
    made = call_function(source)
    if isinstance(made, str | os.PathLike):
        return os.fspath(made)
    if isinstance(made, TFRecords) or made is None:
        return made
    is_array = hasattr(made, "__array__") and not callable(made)
    is_stream = not (isinstance(made, Mapping | tuple | list) or is_array)
    if is_stream and callable(made) and not isinstance(made, Iterable):
        made = made()
    with open(path, "wb") as file:
        for element in made if is_stream else [made]:
            pickle.dump(_arrays(element), file, pickle.HIGHEST_PROTOCOL)
    return Kept(path, is_stream)


def opened(source: Any) -> Any:
    """Returns the source that ``portable`` made, ready to be read.

    Examples:
        >>> opened("samples.npz")
        'samples.npz'
    """
    if not isinstance(source, Kept):
        return source
    elements = _elements(source.path)
    return elements if source.is_stream else next(elements())


def files_of(source: Any) -> tuple[str, ...]:
    """Returns the files and folders that a source of samples is read from.

    Examples:
        >>> files_of("images/"), files_of(None)
        (('images/',), ())
    """
    if isinstance(source, TFRecords):
        return source.paths
    if isinstance(source, Kept):
        return (source.path,)
    return (os.fspath(source),) if isinstance(source, str | os.PathLike) else ()


def _elements(path: str) -> Callable[[], Iterator[Any]]:
    size = Path(path).stat().st_size

    def elements() -> Iterator[Any]:
        with open(path, "rb") as file:
            while file.tell() < size:
                yield pickle.load(file)

    return elements


def _arrays(value: Any) -> Any:
    """Returns a value with arrays of NumPy in the place of those of other libraries."""
    if isinstance(value, Mapping):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_arrays, value)) if not hasattr(value, "_fields") else tuple(map(_arrays, value))
    return np.asarray(value) if hasattr(value, "__array__") and not isinstance(value, np.ndarray) else value
