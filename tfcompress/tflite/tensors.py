"""What goes into a model and what comes out, tensor by tensor: shapes, dtypes, and the way to real numbers and back.

Pure arrays and descriptions; ``interpreter`` runs the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from .affine import AffineParameters, dequantize, quantize

__all__ = ["TensorInfo", "check_shape", "from_raw", "tensor_info", "to_raw"]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model.

    Attributes:
        name: the name in the file's signature, or the tensor's own name in a file without one.
        shape: batch axis first; None for an axis that may be resized.
        dtype: what the tensor holds.
        scale: real size of one integer step; None for a tensor that is not quantized.
        zero_point: the integer that stands for 0.
        index: the tensor's number in the file.

    Examples:
        >>> print(TensorInfo("image", (None, 8, 8, 1), np.dtype(np.int8), 0.0625, -128, index=0))
        image int8 (any, 8, 8, 1), scale 0.0625, zero point -128
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    scale: float | None
    zero_point: int
    index: int

    @property
    def parameters(self) -> AffineParameters | None:
        """The quantization, or None."""
        return None if self.scale is None else AffineParameters.of_dtype(self.scale, self.zero_point, self.dtype)

    @property
    def real_dtype(self) -> np.dtype:
        """The dtype of the numbers that the tensor stands for: float32 for a quantized one, otherwise its own."""
        return self.dtype if self.scale is None else np.dtype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Returns the description as plain JSON values.

        Examples:
            >>> info = TensorInfo("x", (None, 3), np.dtype(np.int8), 0.5, 1, index=0)
            >>> TensorInfo.from_json(info.to_json()) == info
            True
        """
        return {**vars(self), "shape": list(self.shape), "dtype": self.dtype.name}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> TensorInfo:
        """Returns the description that ``to_json`` wrote."""
        return cls(**{**fields, "shape": tuple(fields["shape"]), "dtype": np.dtype(fields["dtype"])})

    def __str__(self) -> str:
        shape = ", ".join("any" if size is None else str(size) for size in self.shape)
        scale = "" if self.scale is None else f", scale {self.scale:.7g}, zero point {self.zero_point}"
        return f"{self.name} {self.dtype} ({shape}){scale}"


def check_shape(array: np.ndarray, info: TensorInfo, place: str) -> None:
    """Refuses an array that is not a batch of what the input takes with a ``DataError``.

    Examples:
        >>> check_shape(np.zeros((5, 8)), TensorInfo("x", (1, 8), np.dtype(np.float32), None, 0, 0), "m.tflite")
    """
    sample = array.shape[1:]
    fits = len(sample) == len(info.shape) - 1 and all(
        wanted in (None, size) for wanted, size in zip(info.shape[1:], sample)
    )
    if not fits or not array.ndim:
        wanted = ", ".join(["n", *("any" if size is None else str(size) for size in info.shape[1:])])
        raise DataError(f"Input '{info.name}' of {place} takes shape ({wanted}). Received: {array.shape}.")


def tensor_info(name: str, detail: Mapping[str, Any]) -> TensorInfo:
    """Returns what LiteRT's dictionary says about one tensor; a scale of 0 there means not quantized.

    Examples:
        >>> detail = {"index": 3, "shape": [1, 4], "shape_signature": [-1, 4], "dtype": np.int8, "quantization": (0.5, 1)}
        >>> print(tensor_info("scores", detail))
        scores int8 (any, 4), scale 0.5, zero point 1
    """
    dtype = np.dtype(detail["dtype"])
    sizes = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    scale, zero_point = detail["quantization"]
    is_quantized = scale != 0 and dtype.kind in "iu"
    return TensorInfo(
        name,
        tuple(None if size < 0 else int(size) for size in sizes),
        dtype,
        float(scale) if is_quantized else None,
        int(zero_point) if is_quantized else 0,
        int(detail["index"]),
    )


def to_raw(values: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Returns real numbers as the input holds them.

    Args:
        values: array (n, ...) of numbers.
        info: the input.

    Raises:
        DataError: NaN for a quantized input, or a number that an integer input which is not quantized cannot hold.

    Examples:
        >>> to_raw(np.array([[-1.0, 0.0, 99.0]]), TensorInfo("x", (1, 3), np.dtype(np.int8), 0.5, 0, index=0))
        array([[ -2,   0, 127]], dtype=int8)
    """
    parameters = info.parameters
    if values.dtype.kind not in "biuf":
        raise DataError(f"Input '{info.name}' takes numbers. Received: dtype {values.dtype}.")
    if parameters is not None:
        if np.isnan(values).any():
            raise DataError(f"Input '{info.name}' takes finite values. Received: NaN. Remove it from the data.")
        return quantize(values, parameters)
    if info.dtype.kind == "f":
        return values.astype(info.dtype)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"Input '{info.name}' takes finite values. Received: NaN or infinity.")
    cast = values.astype(info.dtype)
    if not np.array_equal(cast, values):
        raise DataError(f"Input '{info.name}' holds {info.dtype}. Received: numbers that do not fit. Give integers.")
    return cast


def from_raw(values: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Returns what the output holds as real numbers: float32 where it is quantized, unchanged otherwise.

    Examples:
        >>> from_raw(np.array([[127]], np.int8), TensorInfo("y", (1, 1), np.dtype(np.int8), 0.5, 1, index=0))
        array([[63.]], dtype=float32)
    """
    parameters = info.parameters
    return values if parameters is None else dequantize(values, parameters)
