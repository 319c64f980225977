"""What does a model take, what is read for it, and does an array fit?

Everything here is about one array: its shape, its dtype, its values. Where arrays come from is decided by ``readers``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError
from .scalings import Scaling, resolve_scaling, scale

__all__ = ["InputSpec", "LabelKind", "SampleSpec", "check_shape", "fit"]

LabelKind = Literal["classes", "values", "boxes", "any"]
"""``classes`` are class indices, ``values`` arrays of real numbers, ``boxes`` two arrays, "boxes" and "classes"; ``any`` are
classes where a folder has them, otherwise values."""


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


@dataclass(frozen=True)
class SampleSpec:
    """What is read of a source for a model.

    Attributes:
        inputs: what each input accepts.
        labels: which labels come along; None for samples alone. Default: None.
        scaling: of pictures and uint8 arrays, as ``load_representative`` takes it. Default: None.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        ValueError: ``scaling`` has an unknown name, or ``inputs`` is empty or names an input twice.

    Examples:
        >>> SampleSpec([InputSpec("x", (None, 2), np.float32)], scaling="mean=127.5;std=127.5").scaling
        Scaling(mean=(127.5,), std=(127.5,), bgr=False)
    """

    inputs: Sequence[InputSpec]
    labels: LabelKind | None = None
    scaling: str | Scaling | None = None
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.inputs]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"inputs must name each input of the model once. Received: {names}.")
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "scaling", resolve_scaling(self.scaling))


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
