"""Which samples does a model see, wherever they come from?

Files, folders, arrays, ``tf.data`` and generators all become one of two values: ``Samples``, read in batches for
calibration, and ``Labelled``, held in memory for accuracy. What fits an input is decided by ``arrays``, how a picture
becomes a sample by ``images``. TensorFlow is never imported: a ``tf.data.Dataset`` is recognised by what it can do.
"""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .arrays import InputSpec, check_shape, read_npy, read_npz
from .elements import LABEL_NAMES, arrays_in_memory, as_array, choose_names, find_labels, select_by_name, split_element
from .images import SUFFIXES, ImageReader, find_images
from .samples import Batch, Blocks, Samples, count_samples
from .scalings import Scaling, resolve_scaling
from .scripts import call_function, names_a_function
from .tfrecords import TFRecords
from .tfrecords import load as load_tfrecords

__all__ = ["InputSpec", "Labelled", "Samples", "load_labelled", "load_representative"]

_MAPPED_BYTES = 32 << 20  # of a mapped file at most before it is given back


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Samples with the class that each belongs to.

    Attributes:
        x: by input name, shape (n, ...), the input's dtype.
        y: shape (n,), int64, class indices from 0.
        class_names: the names of the classes in order of their index, where the source names them, otherwise None.
        sha256: the hash of samples and labels.

    Raises:
        DataError: samples and labels differ in number.

    Examples:
        >>> spec = InputSpec("x", (None, 2), np.float32)
        >>> load_labelled((np.zeros((3, 2)), np.array([0, 2, 1])), [spec])
        Labelled(3 samples of 3 classes)
    """

    x: Batch
    y: np.ndarray
    class_names: tuple[str, ...] | None
    sha256: str

    def __post_init__(self) -> None:
        if count_samples(self.x) != len(self.y):
            raise DataError(
                f"Each sample needs one label. Received: {count_samples(self.x)} samples and {len(self.y)} labels. "
                "Store x and y of the same length."
            )

    def __repr__(self) -> str:
        classes = len(self.class_names) if self.class_names else len(np.unique(self.y))
        return f"Labelled({len(self.y)} samples of {classes} classes)"


def load_representative(
    source: Any, inputs: Sequence[InputSpec], *, scaling: str | Scaling | None = None, allow_pickle: bool = False
) -> Samples:
    """Returns the samples of ``source``, ready to be read in batches; labels are dropped.

    Accepted are

    - a path: ``.npy`` (mapped into memory), ``.npz`` (arrays by input name; for one input also a lone array or one
      named x, images, input or samples), a folder of images at any depth, a folder that holds one ``.npy`` or ``.npz``;
    - an array, a dictionary of arrays by input name, a list or tuple with one array per input, ``(x, y)``, or a list
      of single samples for a model with one input;
    - ``TFRecords``: files of ``tf.train.Example`` with the feature of each input;
    - a ``tf.data.Dataset``, another iterable, a function that returns one, or a generator (read once), of elements
      that are each an array, a dictionary, one array per input, or ``(x, y)``.

    An array of the input's rank is a batch, an array of one axis less is a single sample.

    Args:
        source: where the samples are.
        inputs: what the model accepts.
        scaling: for images and uint8 arrays: ``zero_one`` (p / 255), ``minus_one_one`` (p / 127.5 - 1), ``raw``,
            ``imagenet_torch``, ``imagenet_caffe``, ``mean=R,G,B;std=R,G,B`` or an ``scalings.Scaling``. Default: None, which keeps arrays as they are and takes images as ``zero_one`` for a float input and
            ``raw`` for an integer one.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: the source is missing, unreadable, empty or does not fit the inputs.
        TypeError: ``source`` is none of the above.
        ValueError: ``scaling`` has an unknown name, or ``inputs`` is empty or names an input twice.

    Examples:
        >>> spec = InputSpec("image", (None, 8, 8, 1), np.float32)
        >>> stream = ({"image": np.full((8, 8, 1), i)} for i in range(5))
        >>> [len(batch["image"]) for batch in load_representative(stream, [spec]).batches(4)]
        [4, 1]
    """
    inputs, scaling = _check_arguments(inputs, scaling)
    if isinstance(source, str) and names_a_function(source):
        source = call_function(source)
    if isinstance(source, TFRecords):
        return load_tfrecords(source.paths, inputs, source.features, scaling=scaling)
    if isinstance(source, str | os.PathLike):
        path = _array_file(Path(source))
        if path.is_dir():
            return _image_samples(_images(path), inputs, scaling)
        return _array_samples(_read(path, inputs, allow_pickle)[0], inputs, scaling, place=str(path))
    arrays = arrays_in_memory(source, inputs)
    if arrays is not None:
        return _array_samples(arrays, inputs, scaling, place="the data")
    return Samples(_stream(source, inputs), inputs, scaling=scaling)


def load_labelled(
    source: Any, inputs: Sequence[InputSpec], *, scaling: str | Scaling | None = None, allow_pickle: bool = False
) -> Labelled:
    """Returns samples and their classes, read into memory.

    Accepted are a path to a ``.npz`` with ``x`` (or arrays by input name) and ``y``, a folder that holds one, a folder
    of images with one sub-folder per class (class indices in sorted order, as Keras numbers them), a dictionary with
    ``x`` and ``y``, or a tuple ``(x, y)``, x being whatever ``load_representative`` takes as arrays. Labels are indices,
    of any integer dtype or whole floats, of shape (n,) or (n, 1), or one-hot rows of shape (n, classes).

    Args:
        source: where the samples are.
        inputs: what the model accepts.
        scaling: as in ``load_representative``. Default: None.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: the source is missing, unreadable, empty, does not fit the inputs, or its labels are no classes.
        TypeError: ``source`` is none of the above.
        ValueError: ``scaling`` has an unknown name, or ``inputs`` is empty or names an input twice.

    Examples:
        >>> spec = InputSpec("image", (None, 2), np.float32)
        >>> load_labelled({"x": np.zeros((2, 2)), "y": np.eye(2)}, [spec]).y
        array([0, 1])
    """
    inputs, scaling = _check_arguments(inputs, scaling)
    y: Any
    if isinstance(source, str) and names_a_function(source):
        source = call_function(source)
    if isinstance(source, str | os.PathLike):
        path = _array_file(Path(source))
        if path.is_dir():
            files, y, class_names = _class_folders(path)
            return _labelled(_image_samples(files, inputs, scaling), y, class_names)
        arrays, y = _read(path, inputs, allow_pickle)
        place = str(path)
    elif isinstance(source, Mapping):
        arrays, y = select_by_name(source, inputs, "the dictionary"), find_labels(source)
        place = "the data"
    elif isinstance(source, tuple | list) and len(source) == 2:
        found = arrays_in_memory(source[0], inputs)
        if found is None:
            raise TypeError(f"x must be arrays. Received: x of type {type(source[0]).__name__}.")
        arrays, y, place = found, source[1], "the data"
    else:
        raise TypeError(f"Labelled data must be a path, (x, y) or a dictionary. Received: {type(source).__name__}.")
    if y is None:
        raise DataError(f"Labelled data needs an array y. Received: {place} without one. Store x and y in a .npz file.")
    return _labelled(_array_samples(arrays, inputs, scaling, place=place), _class_indices(as_array(y)), None)


def _labelled(samples: Samples, y: np.ndarray, class_names: tuple[str, ...] | None) -> Labelled:
    batches = list(samples.batches(samples.count or 1))
    if len(batches) != 1:
        raise DataError(
            "Labelled pictures must have one size. Received: several. Resize them to the size to be tested."
        )
    sha256 = hashlib.sha256(f"{samples.sha256}".encode() + y.tobytes()).hexdigest()
    return Labelled(batches[0], y, class_names, sha256)


def _class_indices(y: np.ndarray) -> np.ndarray:
    """Returns labels of any accepted form as class indices, shape (n,), int64."""
    if y.dtype.kind not in "biuf":
        raise DataError(f"Labels must be class indices. Received: y of dtype {y.dtype}. Store integers from 0.")
    if y.ndim == 2 and y.shape[1] > 1:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(
                f"Labels of two axes must be one-hot. Received: y of shape {y.shape} with other rows. "
                "Store one class index per sample."
            )
        return y.argmax(axis=1).astype(np.int64)
    if y.ndim != 1 and not (y.ndim == 2 and y.shape[1] == 1):
        raise DataError(f"Labels must have shape (n,). Received: y of shape {y.shape}. Store one index per sample.")
    y = y.reshape(-1)
    wrong = ~((y >= 0) & (y < 2**31) & (np.trunc(y) == y)) if y.dtype.kind == "f" else (y < 0) | (y >= 2**31)
    if wrong.any():
        raise DataError(
            f"Labels must be whole numbers from 0. Received: {y[wrong][0]} for sample {int(wrong.argmax())}. "
            "Number the classes from 0."
        )
    return y.astype(np.int64)


# Files and folders.


def _array_file(path: Path) -> Path:
    """Returns ``path``, or the array file that a folder holds instead of images."""
    if not path.exists():
        raise DataError(f"The data must exist. Received: {path}. Check the path.")
    if not path.is_dir():
        return path
    arrays = sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz") and not p.name.startswith("."))
    if arrays and (len(arrays) > 1 or find_images(path)):
        names = ", ".join(p.name for p in arrays)
        raise DataError(
            f"A folder must hold images or one array file. Received: {path} with {names}"
            f"{' and images' if len(arrays) == 1 else ''}. Name the file itself."
        )
    return arrays[0] if arrays else path


def _read(path: Path, inputs: tuple[InputSpec, ...], allow_pickle: bool) -> tuple[Batch, np.ndarray | None]:
    """Returns the arrays of a file by input name, and its labels if it has any."""
    if path.suffix == ".npy":
        if len(inputs) > 1:
            raise DataError(
                f"A model with {len(inputs)} inputs needs an array for each. Received: {path}. "
                f"Store a .npz file with {', '.join(spec.name for spec in inputs)}."
            )
        return {inputs[0].name: read_npy(path, allow_pickle=allow_pickle)}, None
    if path.suffix in (".tfrecord", ".tfrecords"):
        raise DataError(
            f"TFRecords need a feature map. Received: {path} without one. Pass --features=MAP.json, which names the feature "
            "of each input (tfcompress.TFRecords in Python)."
        )
    if path.suffix != ".npz":
        raise DataError(f"Data must be .npy, .npz or a folder. Received: {path}. Store the samples with np.save.")
    arrays = read_npz(
        path,
        lambda names: [*choose_names(names, inputs, str(path)).values(), *(n for n in names if n in LABEL_NAMES)],
        allow_pickle=allow_pickle,
    )
    return select_by_name(arrays, inputs, str(path)), find_labels(arrays)


def _images(folder: Path) -> list[Path]:
    files = find_images(folder)
    if not files:
        others = sorted({p.suffix or p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")})
        found = f"only {', '.join(others[:5])}" if others else "it is empty"
        raise DataError(
            f"The folder must hold images ({' '.join(sorted(SUFFIXES))}) or one .npy or .npz file. "
            f"Received: {folder} ({found}). Check the path."
        )
    return files


def _class_folders(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    images = _images(folder)
    loose = [path for path in images if path.parent == folder]
    if loose:
        raise DataError(
            f"Labelled images must lie in one sub-folder per class. Received: {loose[0]}. Move it into its class."
        )
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    files = [find_images(folder / name) for name in names]
    return [file for group in files for file in group], np.repeat(np.arange(len(names)), [len(f) for f in files]), names


def _image_samples(files: list[Path], inputs: tuple[InputSpec, ...], scaling: str | Scaling | None) -> Samples:
    if len(inputs) > 1:
        raise DataError(
            f"A folder of images can feed one input. Received: a model with {len(inputs)} inputs. "
            f"Store a .npz file with {', '.join(spec.name for spec in inputs)}."
        )
    reader = ImageReader(inputs[0], scaling)
    return Samples(lambda size: ({inputs[0].name: reader.read(file)} for file in files), inputs, count=len(files))


# Arrays and streams.


def _array_samples(
    arrays: Batch, inputs: tuple[InputSpec, ...], scaling: str | Scaling | None, *, place: str
) -> Samples:
    batch = {spec.name: check_shape(arrays[spec.name], spec, place=place) for spec in inputs}
    count = count_samples(batch)

    def blocks(size: int) -> Iterator[Batch]:
        held = 0
        for start in range(0, count, size):
            block = {name: array[start : start + size] for name, array in batch.items()}
            held += sum(array.nbytes for array in block.values())
            if held > _MAPPED_BYTES:
                held = sum(_forget(array) for array in batch.values())
            yield block

    return Samples(blocks, inputs, count=count, is_array=True, scaling=scaling)


def _forget(array: np.ndarray) -> int:
    """Gives back the memory into which a read-only file was mapped, so that a large one never counts whole; returns 0."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and getattr(array, "mode", None) == "r" and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)  # who still reads an earlier block gets it from the file again
    return 0


def _stream(source: Any, inputs: tuple[InputSpec, ...]) -> Blocks:
    if not callable(source) and not isinstance(source, Iterable):
        raise TypeError(
            f"Data must be a path, arrays, a tf.data.Dataset or a generator. Received: {type(source).__name__}."
        )
    is_dataset = hasattr(source, "element_spec") and hasattr(source, "cardinality")
    if is_dataset and int(source.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise DataError("The data set must end. Received: one that repeats for ever. Call .take(n) on it.")
    was_read = False

    def blocks(size: int) -> Iterator[Batch]:
        nonlocal was_read
        if isinstance(source, Iterator):
            if was_read:
                raise DataError(
                    "A generator can be read once. Received: a second pass. Pass the function that makes it, or arrays."
                )
            was_read = True
        first = 0
        elements = source() if callable(source) and not isinstance(source, Iterable) else source
        for element in elements:
            place = f"sample {first}"
            block = {
                spec.name: check_shape(array, spec, place=place)
                for spec, array in zip(inputs, split_element(element, inputs).values(), strict=True)
            }
            first += count_samples(block)
            yield block

    return blocks


def _check_arguments(
    inputs: Sequence[InputSpec], scaling: str | Scaling | None
) -> tuple[tuple[InputSpec, ...], str | Scaling | None]:
    names = [spec.name for spec in inputs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"inputs must name each input of the model once. Received: {names}.")
    return tuple(inputs), resolve_scaling(scaling)
