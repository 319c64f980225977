"""Does an array fit a model's input, and how does it come out of a ``.npy`` or ``.npz`` file?

Everything here is about one array or one file of arrays: its shape, its dtype, its values. Which arrays belong to which
input, and in which batches they are read, is decided by ``data``.
"""

import errno
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .scalings import Scaling, scale

__all__ = [
    "InputSpec",
    "check_shape",
    "fit",
    "one_line",
    "read_npy",
    "read_npz",
]


@dataclass(frozen=True)
class InputSpec:
    """What one input of a model accepts.

    Attributes:
        name: the input's name; arrays are found by it.
        shape: the batch axis first; None is a dynamic axis. The batch axis is not compared with the data.
        dtype: the element type; anything that ``np.dtype`` takes.

    Raises:
        ValueError: the shape has no batch axis or holds something that is neither None nor a positive whole number.

    Examples:
        >>> print(InputSpec("image", (None, 8, 8, 1), np.float32))
        'image' float32 (any, 8, 8, 1)
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype

    def __post_init__(self) -> None:
        shape = tuple(None if axis is None else int(axis) for axis in self.shape)
        if not shape or any(axis is not None and axis < 1 for axis in shape):
            raise ValueError(
                f"shape must begin with the batch axis and hold None or positive sizes. Received: shape={self.shape}. "
                "Write None for a dynamic axis."
            )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype} {_text((None, *self.shape[1:]))}"


def check_shape(array: np.ndarray, spec: InputSpec, *, place: str = "the data") -> np.ndarray:
    """Returns ``array`` with a batch axis, or says why it does not fit.

    An array of the input's rank is a batch; an array of one axis less is a single sample and gets a batch axis of 1.

    Args:
        array: shape (n, ...) or (...), any dtype.
        spec: the input it is for.
        place: where the array came from, for the message. Default: "the data".

    Returns:
        Shape (n, ...), the same dtype and memory.

    Raises:
        DataError: the rank, an axis or the kind of the dtype does not fit.

    Examples:
        >>> spec = InputSpec("image", (None, 8, 8, 1), np.float32)
        >>> check_shape(np.zeros((8, 8, 1)), spec).shape
        (1, 8, 8, 1)
    """
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"Input {spec} takes real numbers. Received: {array.dtype} {_text(array.shape)} in {place}. "
            "Store plain integers or floats."
        )
    if not _is_castable(array.dtype, spec.dtype):
        raise DataError(
            f"Input {spec} takes no {array.dtype}. Received: {array.dtype} {_text(array.shape)} in {place}. "
            f"Convert it to {spec.dtype} first."
        )
    wanted = spec.shape[1:]
    batch = array[None] if array.ndim == len(wanted) else array
    if batch.ndim != len(spec.shape) or not _fits(batch.shape[1:], wanted):
        advice = "Reshape or resize the samples."
        if array.ndim == len(wanted) and wanted[-1:] == (1,) and _fits((*array.shape[1:], 1), wanted):
            advice = "Add the channel axis: x[..., None]."
        raise DataError(
            f"Input {spec} takes samples of shape {_text(wanted)}. "
            f"Received: {array.dtype} {_text(array.shape)} in {place}. {advice}"
        )
    return batch


def fit(array: np.ndarray, spec: InputSpec, *, first: int = 0, scaling: str | Scaling | None = None) -> np.ndarray:
    """Returns a batch in the input's dtype, every value kept, or says which value cannot be.

    Integers become floats as they are (255 becomes 255.0), floats are rounded to the input's width, integers go to a
    narrower integer type if every value is in its range. Floats never become integers.

    Args:
        array: shape (n, ...), real; has passed ``check_shape``.
        spec: the input it is for.
        first: index of the array's first sample in the whole data, for the message. Default: 0.
        scaling: a name of ``SCALINGS`` or a ``Scaling``, applied to uint8 arrays for a float input. Default: None, values kept.

    Returns:
        Shape (n, ...), dtype ``spec.dtype``; the same memory where nothing had to change.

    Raises:
        DataError: NaN, infinity, a value outside the input's range, or scaling asked of values that are not pixels.

    Examples:
        >>> spec = InputSpec("image", (None, 2), np.float32)
        >>> fit(np.array([[0, 255]], np.uint8), spec)
        array([[  0., 255.]], dtype=float32)
        >>> fit(np.array([[0, 255]], np.uint8), spec, scaling="minus_one_one")
        array([[-1.,  1.]], dtype=float32)
    """
    if scaling not in (None, "raw") and array.dtype.kind == "f":
        raise DataError(
            f"scaling applies to 8-bit pixels. Received: scaling={scaling!r} and {array.dtype} values for input "
            f"{spec.name!r}. Leave scaling out: float values are taken as they are."
        )
    if scaling is not None and array.dtype == np.uint8 and spec.dtype.kind == "f":
        array = scale(array, scaling)
    if array.dtype.kind == "f":
        _refuse(~np.isfinite(array), array, spec, first, "takes finite values")
    if array.dtype == spec.dtype:
        return array
    if spec.dtype.kind in "iu" and array.size:
        limits = np.iinfo(spec.dtype)
        _refuse((array < limits.min) | (array > limits.max), array, spec, first, "takes values in its dtype's range")
    with np.errstate(over="ignore"):
        cast = array.astype(spec.dtype)
    if spec.dtype.kind == "f":
        _refuse(~np.isfinite(cast), array, spec, first, "takes values in its dtype's range")
    return cast


def read_npy(path: Path, *, allow_pickle: bool = False) -> np.ndarray:
    """Returns the array of a ``.npy`` file, mapped into memory rather than read.

    Args:
        path: the file.
        allow_pickle: whether an array of Python objects may be unpickled, which runs code. Default: False.

    Returns:
        Any shape and dtype, read-only.

    Raises:
        DataError: not a ``.npy`` file, truncated, or Python objects without ``allow_pickle``.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(3))
        >>> read_npy(path)
        memmap([0, 1, 2])
    """
    _check_magic(path, b"\x93NUMPY")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about headers that Python 2 wrote
            return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "Python objects" not in str(error):
            raise _corrupt(path, error) from error
        if not allow_pickle:
            raise _unsafe(path) from error
    except Exception as error:
        raise _corrupt(path, error) from error
    try:
        array = np.load(path, allow_pickle=True)
    except Exception as error:
        raise _corrupt(path, error) from error
    return _numbers(path, array)


def read_npz(
    path: Path, choose: Callable[[list[str]], list[str]], *, allow_pickle: bool = False
) -> dict[str, np.ndarray]:
    """Returns those arrays of a ``.npz`` file that ``choose`` picks from its names; the others are not unpacked.

    Args:
        path: the file.
        choose: from the names in the file to the names to read.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: not a ``.npz`` file, truncated, or Python objects without ``allow_pickle``.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "both.npz"
        >>> np.savez(path, x=np.arange(3), y=np.arange(3))
        >>> read_npz(path, lambda names: ["x"])
        {'x': array([0, 1, 2])}
    """
    _check_magic(path, b"PK")
    try:
        # An own handle: np.load leaves its file open when the archive's directory is broken.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            with np.load(file) as archive:
                arrays = {name: archive[name] for name in choose(archive.files)}
    except DataError:
        raise
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise _corrupt(path, error) from error
        if not allow_pickle:
            raise _unsafe(path) from error
        return _unpickled_npz(path, choose)
    except Exception as error:
        raise _corrupt(path, error) from error
    return _only_arrays(path, arrays)


def one_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, without its closing full stop, or its type's name.

    Examples:
        >>> one_line(ValueError("No data left.\\nSee above."))
        'No data left'
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


def _unpickled_npz(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=True) as archive:
            names = choose(archive.files)
            arrays = {name: archive[name] for name in names}
    except DataError:
        raise
    except Exception as error:
        raise _corrupt(path, error) from error
    return {name: _numbers(path, array) for name, array in _only_arrays(path, arrays).items()}


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    """Returns an array of Python objects (samples, usually) as an array of numbers."""
    if array.dtype != object or array.ndim == 0:
        return array
    try:
        return np.stack([np.asarray(item) for item in array])
    except Exception as error:
        raise DataError(
            f"Objects must be arrays of one shape. Received: {path} ({one_line(error)}). Store numbers with np.save."
        ) from error


def _only_arrays(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out members without its magic number as bytes
            raise DataError(f"A .npz file must hold arrays. Received: {path} ({name!r} is none). Save it again.")
    return arrays


def _check_magic(path: Path, magic: bytes) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(len(magic))
    except OSError as error:
        raise DataError(f"The data must be readable. Received: {path} ({error.strerror}). Check the path.") from error
    if start != magic:
        found = "an empty file" if not start else f"it begins with {start!r}"
        raise DataError(f"A {path.suffix} file must begin with {magic!r}. Received: {path} ({found}). Save it again.")


def _corrupt(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return DataError(f"There must be memory to read the data. Received: {path} ({error.strerror}). Free memory.")
    return DataError(f"The file must be a whole {path.suffix}. Received: {path} ({one_line(error)}). Save it again.")


def _unsafe(path: Path) -> DataError:
    return DataError(
        f"Arrays of Python objects can run code when they are read. Received: {path}. "
        "Store numbers, or pass --allow_unsafe (allow_pickle=True in Python) if you trust the file."
    )


def _is_castable(received: np.dtype, wanted: np.dtype) -> bool:
    return wanted.kind == "f" or (wanted.kind in "iu" and received.kind in "biu") or received == wanted


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or w == s for s, w in zip(shape, wanted, strict=True))


def _refuse(bad: np.ndarray, array: np.ndarray, spec: InputSpec, first: int, rule: str) -> None:
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"Input {spec} {rule}. Received: {array[position]} in sample {first + position[0]}. "
            "Repair or drop such samples."
        )


def _text(shape: tuple[int | None, ...]) -> str:
    axes = ["any" if axis is None else str(axis) for axis in shape]
    return f"({axes[0]},)" if len(axes) == 1 else f"({', '.join(axes)})"
