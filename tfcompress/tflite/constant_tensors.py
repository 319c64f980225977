"""Which numbers are stored in a ``.tflite`` file: the integers of a constant, unpacked, and the real numbers they mean.

    real = scale[channel] * (integer - zero_point[channel])

Four-bit and two-bit integers lie several to a byte, the first in the lowest bits. Reads the schema's objects only.
"""

import math
from typing import Any

import numpy as np

from . import flatbuffer

__all__ = ["buffer_bytes", "integers", "real_values", "scales", "value_range", "zeros"]

_PACKED = {"INT4": (4, True), "UINT4": (4, False), "INT2": (2, True)}
_BITS = {"INT8": (8, True), "UINT8": (8, False), "INT16": (16, True), "UINT16": (16, False)} | _PACKED


def buffer_bytes(buffer: Any) -> int:
    """Returns how many bytes a buffer stores, also when they stand behind the flatbuffer, as in files above 2 GB."""
    if buffer.data is not None and len(buffer.data):
        return len(buffer.data)
    return int(buffer.size or 0) if (buffer.offset or 0) > 1 else 0


def integers(model: Any, tensor: Any) -> np.ndarray | None:
    """Returns the stored values of a constant as they are, low-bit integers as int8; None for what is computed.

    None as well for a type that NumPy does not have, and where the bytes do not fit the shape.

    Args:
        model: the schema's object of the file.
        tensor: one of its tensors.
    """
    data = model.buffers[tensor.buffer].data
    shape = _shape(tensor)
    if data is None or not len(data) or any(size < 0 for size in shape):
        return None
    packed = _PACKED.get(flatbuffer.type_name(tensor))
    if packed is None:
        dtype = flatbuffer.dtype_of(tensor)
        fits = dtype is not None and len(data) == math.prod(shape) * dtype.itemsize
        return flatbuffer.constant(model, tensor) if fits else None
    bits, signed = packed
    parts = [(np.asarray(data, np.uint8) >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    values = np.stack(parts, axis=-1).reshape(-1)[: math.prod(shape)].astype(np.int8)
    if values.size != math.prod(shape):
        return None
    if signed:
        values[values >= 2 ** (bits - 1)] -= np.int8(2**bits)
    return values.reshape(shape)


def scales(tensor: Any) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Returns the scales, the zero points and the axis that they belong to; None for a tensor that is not quantized.

    One scale stands for the whole tensor. Scales that are not finite and above 0 stand for none, as in LiteRT.

    Args:
        tensor: of the schema.

    Returns:
        float64 array (n,), int64 array (n,), axis; or None.
    """
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return None
    with np.errstate(invalid="ignore"):  # a signalling NaN in a damaged file
        scale = np.asarray(quantization.scale, np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        return None
    points = quantization.zeroPoint
    zero_point = np.zeros(len(scale), np.int64) if points is None or not len(points) else np.asarray(points, np.int64)
    if len(zero_point) != len(scale):
        zero_point = np.resize(zero_point, len(scale))
    return scale, zero_point, int(quantization.quantizedDimension or 0)


def value_range(tensor: Any) -> tuple[float, float] | None:
    """Returns the lowest and the highest real number that a quantized tensor can hold, None for others."""
    found, bits = scales(tensor), _BITS.get(flatbuffer.type_name(tensor))
    if found is None or bits is None:
        return None
    scale, zero_point, _ = found
    lowest = -(2 ** (bits[0] - 1)) if bits[1] else 0
    highest = lowest + 2 ** bits[0] - 1
    return float(np.min((lowest - zero_point) * scale)), float(np.max((highest - zero_point) * scale))


def real_values(model: Any, tensor: Any) -> np.ndarray | None:
    """Returns the real numbers that a constant stands for as float32; None for what is computed or has no such meaning.

    Args:
        model: the schema's object of the file.
        tensor: one of its tensors.
    """
    values = integers(model, tensor)
    if values is None or values.dtype.kind not in "iuf":
        return None
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    found = scales(tensor)
    if found is None:
        return None
    scale, zero_point, axis = found
    if len(scale) > 1:
        if not 0 <= axis < values.ndim or values.shape[axis] != len(scale):
            return None
        along = [1] * values.ndim
        along[axis] = len(scale)
        scale, zero_point = scale.reshape(along), zero_point.reshape(along)
    with np.errstate(over="ignore"):  # scales of a damaged file
        return (values.astype(np.float32) - zero_point.astype(np.float32)) * scale.astype(np.float32)


def zeros(model: Any, tensor: Any) -> float | None:
    """Returns the fraction of a constant's values that stand for exactly 0; None for what is computed."""
    values = integers(model, tensor)
    if values is None or not values.size:
        return None
    found = scales(tensor)
    if found is None or not found[1].any():
        return float(np.mean(values == 0))
    real = real_values(model, tensor)
    return None if real is None else float(np.mean(real == 0))


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
