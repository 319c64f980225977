"""What are a model's answers compared with? Samples with classes, values or boxes, held in memory.

Labels come out of the same readers as the samples; here they become what metrics take.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from .readers.arrays_in_memory import label_arrays
from .readers.names import LABEL
from .samples import Batch, Samples, check_label_count, count_samples
from .specs import LabelKind

__all__ = ["Labelled", "labelled"]


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Samples with what a model should answer to each.

    Attributes:
        x: by input name, shape (n, ...), the input's dtype.
        y: classes of shape (n,), int64, indices from 0; values of shape (n, ...); or several arrays by name, such as
            "boxes" and "classes", each with n as its first axis.
        sha256: the hash of samples and labels.
        kind: what ``y`` is. Default: "classes".
        class_names: the names of the classes in order of their index, where the source names them. Default: None.

    Raises:
        DataError: samples and labels differ in number.

    Examples:
        >>> Labelled({"x": np.zeros((3, 2))}, np.array([0, 2, 1]), "hash")
        Labelled(3 samples of 3 classes)
    """

    x: Batch
    y: Any
    sha256: str
    kind: LabelKind = "classes"
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_label_count(_by_name(self.y), samples=count_samples(self.x))

    @property
    def samples(self) -> int:
        """How many samples."""
        return count_samples(self.x)

    def first(self, samples: int) -> Any:
        """Returns the labels of the first samples.

        Examples:
            >>> Labelled({"x": np.zeros((3, 2))}, np.array([0, 2, 1]), "hash").first(2)
            array([0, 2])
        """
        if isinstance(self.y, Mapping):
            return {name: array[:samples] for name, array in self.y.items()}
        return self.y[:samples]

    def __repr__(self) -> str:
        if self.kind == "classes":
            classes = len(self.class_names) if self.class_names else len(np.unique(self.y))
            return f"Labelled({self.samples} samples of {classes} classes)"
        arrays = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in _by_name(self.y).items())
        return f"Labelled({self.samples} samples with {arrays})"


def labelled(samples: Samples, kind: LabelKind, *, y: Any = None, place: str = "the data") -> Labelled:
    """Returns samples and their labels, read into memory.

    Args:
        samples: read with their labels.
        kind: what the labels are. Values that are missing are the only input itself, as for an autoencoder;
            any are classes where the source names its classes, else values.
        y: the labels, where they do not come with the samples. Default: None.
        place: where the samples came from, for the message. Default: "the data".

    Raises:
        DataError: a sample does not fit, labels are missing, of another number or no classes.
    """
    x, labels = samples.in_memory()
    if y is not None:
        labels = label_arrays(y)
    if kind == "any":
        kind = "classes" if samples.class_names else "values"
    if not labels and (kind != "values" or len(x) > 1):
        raise DataError(f"Labelled data needs an array y. Received: {place} without one. Store x and y in a .npz file.")
    y = labels[LABEL] if set(labels) == {LABEL} else labels or next(iter(x.values()))
    if kind == "classes":
        y = class_indices(y)
    content = [f"{samples.sha256}".encode()]
    content += [np.ascontiguousarray(array).tobytes() for _, array in sorted(_by_name(y).items())]
    return Labelled(x, y, hashlib.sha256(b"".join(content)).hexdigest(), kind, samples.class_names)


def _by_name(y: Any) -> Mapping[str, np.ndarray]:
    return y if isinstance(y, Mapping) else {LABEL: y}


def class_indices(y: Any) -> np.ndarray:
    """Returns labels of any accepted form as class indices, shape (n,), int64.

    Args:
        y: indices of shape (n,) or (n, 1), of integers or whole floats, or one-hot rows of shape (n, classes).

    Raises:
        DataError: they are none of these.

    Examples:
        >>> class_indices(np.array([[0, 1], [1, 0]]))
        array([1, 0])
    """
    if isinstance(y, Mapping):
        raise DataError(f"Labels must be class indices. Received: {', '.join(y)}. Store one index per sample as y.")
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
