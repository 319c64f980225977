"""Samples from a ``.npy`` or ``.npz`` file, or from a folder that holds one.

``.npy`` is mapped into memory, so that a file larger than memory can be read; of a ``.npz`` only what is wanted is unpacked.
"""

import errno
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...errors import DataError, reason
from ...system import check_regular
from ..samples import Samples
from ..specs import SampleSpec
from . import image_folder, names, tfrecords

__all__ = ["find_array_files", "npz_names", "read", "read_npy", "read_npz"]

SUFFIXES = (".npy", ".npz")
NPY_MAGIC = b"\x93NUMPY"
SMALL_BYTES = 1 << 30  # may unpack from anything, as blank pictures do
LARGEST_RATIO = 64
_Taken = TypeVar("_Taken")


def read(source: str | os.PathLike, spec: SampleSpec) -> Samples:
    """Returns the samples of a file.

    Args:
        source: a ``.npy`` for a model with one input; a ``.npz`` with arrays by input name, for one input also with a lone
            array or one named x, images, input or samples; or a folder that holds one of these.
        spec: what is read.

    Raises:
        DataError: the file is missing, of another kind, damaged, or does not fit.

    Examples:
        >>> import tempfile
        >>> from ..specs import InputSpec
        >>> path = Path(tempfile.mkdtemp()) / "both.npz"
        >>> np.savez(path, x=np.zeros((3, 2)), y=np.arange(3))
        >>> read(path, SampleSpec([InputSpec("image", (None, 2), np.float32)])).count
        3
    """
    path = _one_file(Path(source))
    if path.suffix == ".npy":
        if len(spec.inputs) > 1:
            raise DataError(
                f"A model with {len(spec.inputs)} inputs needs an array for each. Received: {path}. "
                f"Store a .npz file with {', '.join(each.name for each in spec.inputs)}."
            )
        arrays = {spec.inputs[0].name: read_npy(path, allow_pickle=spec.allow_pickle)}
        return Samples.of_arrays(arrays, spec, place=str(path))
    if path.suffix in tfrecords.SUFFIXES:
        raise DataError(
            f"TFRecords need a feature map. Received: {path} without one. Pass --features=MAP.json, which names the feature "
            "of each input (tfcompress.TFRecords in Python)."
        )
    if path.suffix != ".npz":
        raise DataError(f"Data must be .npy, .npz or a folder. Received: {path}. Store the samples with np.save.")

    chosen = names.choose(npz_names(path), spec, place=str(path))
    arrays = read_npz(path, {*chosen.inputs.values(), *chosen.labels.values()}, allow_pickle=spec.allow_pickle)
    inputs, labels = ({name: arrays[key] for name, key in part.items()} for part in chosen)
    return Samples.of_arrays(inputs, spec, labels=labels, place=str(path))


def find_array_files(folder: Path) -> list[Path]:
    """Returns the array files that lie in a folder itself, in the order of their names; hidden names are left out."""
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))


def _one_file(path: Path) -> Path:
    """Returns ``path``, or the array file that a folder holds instead of images."""
    if not path.exists():
        raise DataError(f"The data must exist. Received: {path}. Check the path.")
    if not path.is_dir():
        return path
    arrays = find_array_files(path)
    has_images = bool(image_folder.find_images(path))
    if len(arrays) > 1 or has_images:
        names = ", ".join(p.name for p in arrays)
        raise DataError(
            f"A folder must hold images or one array file. Received: {path} with {names}"
            f"{' and images' if len(arrays) == 1 else ''}. Name the file itself."
        )
    return arrays[0]


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


def npz_names(path: Path) -> list[str]:
    """Returns the names of the arrays in a ``.npz`` file, without unpacking one.

    Raises:
        DataError: not a ``.npz`` file, or its directory is damaged.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "both.npz"
        >>> np.savez(path, x=np.arange(3), y=np.arange(3))
        >>> npz_names(path)
        ['x', 'y']
    """
    return _from_npz(path, lambda archive: list(archive.files))


def read_npz(path: Path, names: Collection[str] | None = None, *, allow_pickle: bool = False) -> dict[str, np.ndarray]:
    """Returns the arrays of a ``.npz`` file by name.

    Args:
        path: the file.
        names: which to read, in the file's order; the others are not unpacked. Default: all.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: not a ``.npz`` file, truncated, or Python objects without ``allow_pickle``.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "both.npz"
        >>> np.savez(path, x=np.arange(3), y=np.arange(3))
        >>> read_npz(path, ["x"])
        {'x': array([0, 1, 2])}
    """

    def unpacked(archive: Any) -> dict[str, np.ndarray]:
        return {name: archive[name] for name in archive.files if names is None or name in names}

    arrays = _from_npz(path, unpacked, allow_pickle=allow_pickle)
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # NumPy hands out members without its magic number as bytes
            raise DataError(f"A .npz file must hold arrays. Received: {path} ({name!r} is none). Save it again.")
    return {name: _numbers(path, array) if allow_pickle else array for name, array in arrays.items()}


def _from_npz(path: Path, take: Callable[[Any], _Taken], *, allow_pickle: bool = False) -> _Taken:
    """Returns what ``take`` takes of the opened file; Python objects are unpickled only where there are some."""
    _check_magic(path, b"PK")
    try:
        # An own handle: np.load leaves its file open when the archive's directory is broken.
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            _check_members(file)
            file.seek(0)
            with np.load(file) as archive:
                return take(archive)
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise _corrupt(path, error) from error
        if not allow_pickle:
            raise _unsafe(path) from error
    except Exception as error:
        raise _corrupt(path, error) from error
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=True) as archive:
            return take(archive)
    except Exception as error:
        raise _corrupt(path, error) from error


def _check_members(file: Any) -> None:
    """Refuses an archive that holds a name twice, of which readers take one or the other, or that is far larger than its file.

    Each array's header is read first, so that what it declares is what the archive holds.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) < len(members):
            raise ValueError("two arrays have one name")
        for member in members:
            if member.file_size > max(SMALL_BYTES, LARGEST_RATIO * member.compress_size):
                raise ValueError(
                    f"{member.filename} would unpack to {member.file_size} bytes from {member.compress_size}"
                )
            with archive.open(member) as stream:
                _check_header(member.filename, stream, member.file_size)


def _check_header(name: str, stream: Any, size: int) -> None:
    """Refuses an array that declares another size than it has: NumPy would ask for the memory before it reads."""
    second = np.lib.format.read_array_header_2_0  # version 3 differs in the encoding of names alone
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): second, (3, 0): second}
    if stream.read(len(NPY_MAGIC)) != NPY_MAGIC:
        return  # no array; whoever asks for it is told so
    reader = readers.get(tuple(stream.read(2)))
    if reader is None:
        return
    shape, _, dtype = reader(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} declares {shape} of {dtype} but has {size} bytes")


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    """Returns an array of Python objects (samples, usually) as an array of numbers."""
    if array.dtype != object or array.ndim == 0:
        return array
    try:
        return np.stack([np.asarray(item) for item in array])
    except Exception as error:
        raise DataError(
            f"Objects must be arrays of one shape. Received: {path} ({reason(error)}). Store numbers with np.save."
        ) from error


def _check_magic(path: Path, magic: bytes) -> None:
    check_regular(path, "The data", DataError)
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
    return DataError(f"The file must be a whole {path.suffix}. Received: {path} ({reason(error)}). Save it again.")


def _unsafe(path: Path) -> DataError:
    return DataError(
        f"Arrays of Python objects can run code when they are read. Received: {path}. "
        "Store numbers, or pass --allow_unsafe (allow_pickle=True in Python) if you trust the file."
    )
