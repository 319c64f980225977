"""Which integer stands for which real number: the linear quantization arithmetic of TFLite.

    real = scale * (integer - zero_point)
    integer = clip(round(real / scale) + zero_point, lowest, highest)

``round`` goes half away from zero, as TFLite's does (NumPy's own rounding goes half to even). One scale for the whole
tensor; ranges come from observers, not from here.

Reference:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    2018, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

__all__ = ["AffineParameters", "dequantize", "from_range", "quantize", "round_half_away"]

WIDEST_BITS = 32


@dataclasses.dataclass(frozen=True)
class AffineParameters:
    """How the integers of one tensor map to real numbers.

    Attributes:
        scale: the real distance of two neighbouring integers, finite and above 0.
        zero_point: the integer that stands for the real number 0.
        bits: width of the integer, 2 to 32. Default: 8.
        signed: two's complement (int8) or unsigned (uint8). Default: True.
        narrow: leaves the lowest integer out, as TFLite's symmetric weights do. Default: False.

    Raises:
        ValueError: the scale is not a positive finite number, or the zero point is outside the integers.

    Examples:
        >>> AffineParameters(scale=0.5, zero_point=-1)
        AffineParameters(scale=0.5, zero_point=-1, int8, real -63.5 to 64)
    """

    scale: float
    zero_point: int
    bits: int = 8
    signed: bool = True
    narrow: bool = False

    def __post_init__(self):
        check_bits(self.bits)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"scale must be finite and above 0. Received: scale={self.scale}. Use from_range().")
        if not self.lowest <= self.zero_point <= self.highest:
            raise ValueError(
                f"zero_point must be in [{self.lowest}, {self.highest}]. Received: zero_point={self.zero_point}. "
                "Widen the range until it contains zero."
            )

    @classmethod
    def of_dtype(cls, scale: float, zero_point: int, dtype) -> AffineParameters:
        """Returns the parameters of a tensor of ``dtype`` (int8, uint8, int16, ...).

        Examples:
            >>> AffineParameters.of_dtype(1.0, 128, np.uint8)
            AffineParameters(scale=1, zero_point=128, uint8, real -128 to 127)
        """
        dtype = np.dtype(dtype)
        if dtype.kind not in "iu":
            raise ValueError(f"A quantized tensor is of an integer dtype. Received: dtype={dtype}.")
        return cls(float(scale), int(zero_point), bits=8 * dtype.itemsize, signed=dtype.kind == "i")

    @property
    def lowest(self) -> int:
        """The lowest integer in use."""
        return (-(2 ** (self.bits - 1)) if self.signed else 0) + int(self.narrow)

    @property
    def highest(self) -> int:
        """The highest integer in use."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        """The smallest NumPy dtype that holds the integers."""
        storage_bits = next(width for width in (8, 16, 32) if self.bits <= width)
        return np.dtype(f"{'int' if self.signed else 'uint'}{storage_bits}")

    @property
    def real_range(self) -> tuple[float, float]:
        """The real numbers that the lowest and the highest integer stand for."""
        return self.scale * (self.lowest - self.zero_point), self.scale * (self.highest - self.zero_point)

    def __repr__(self) -> str:
        low, high = self.real_range
        kind = f"{'int' if self.signed else 'uint'}{self.bits}"
        return (
            f"AffineParameters(scale={self.scale:.7g}, zero_point={self.zero_point}, {kind}, "
            f"real {low:.5g} to {high:.5g})"
        )


# Adding 0.5 itself would take the largest number below 0.5 to 1; this one takes halves up and nothing else.
_JUST_BELOW_HALF = float(np.nextafter(0.5, 0.0))


def round_half_away(values: np.ndarray) -> np.ndarray:
    """Rounds to whole numbers, halves away from zero.

    Args:
        values: float array of any shape.

    Examples:
        >>> round_half_away(np.array([-2.5, -0.5, 0.49999999999999994, 0.5, 2.5]))
        array([-3., -1.,  0.,  1.,  3.])
    """
    values = np.asarray(values, np.float64)
    return np.trunc(values + np.copysign(_JUST_BELOW_HALF, values))


def quantize(values: np.ndarray, parameters: AffineParameters) -> np.ndarray:
    """Returns the integers that stand for ``values``; what is out of range becomes the nearest end.

    Args:
        values: float array of any shape, without NaN.
        parameters: the scale and zero point.

    Returns:
        An integer array of the same shape, of ``parameters.dtype``.

    Raises:
        ValueError: ``values`` holds NaN, which no integer stands for.

    Examples:
        >>> quantize(np.array([-3.14159, 0.0, 3.14159]), from_range(-3.14159, 3.14159))
        array([-128,   -1,  127], dtype=int8)
    """
    values = np.asarray(values, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"values must not hold NaN. Received: {int(np.isnan(values).sum())} NaN. Remove them.")
    integers = round_half_away(values / parameters.scale)
    integers += parameters.zero_point
    return np.clip(integers, parameters.lowest, parameters.highest, out=integers).astype(parameters.dtype)


def dequantize(integers: np.ndarray, parameters: AffineParameters) -> np.ndarray:
    """Returns the real numbers that ``integers`` stand for.

    Args:
        integers: integer array of any shape.
        parameters: the scale and zero point.

    Returns:
        A float32 array of the same shape.

    Examples:
        >>> dequantize(np.array([-1, 9], np.int8), AffineParameters(scale=0.5, zero_point=-1))
        array([0., 5.], dtype=float32)
    """
    shifted = np.asarray(integers).astype(np.int64) - parameters.zero_point
    return (shifted * parameters.scale).astype(np.float32)


def from_range(lo: float, hi: float, *, bits: int = 8, symmetric: bool = False) -> AffineParameters:
    """Returns the parameters that spread the signed integers of ``bits`` over the real range [lo, hi].

    The range is first widened to contain zero. Then, with n = 2^bits - 1 steps:

        asymmetric:  scale = (hi - lo) / n,                     zero_point = round(lowest - lo / scale)
        symmetric:   scale = max(|lo|, |hi|) / (2^(bits-1) - 1), zero_point = 0, the lowest integer unused

    A range of zero width (a tensor that is always 0) gets scale 1.

    Args:
        lo: lowest real value, finite.
        hi: highest real value, finite, not below ``lo``.
        bits: width of the integer, 2 to 32. Default: 8.
        symmetric: whether zero is the integer 0, as for weights. Default: False.

    Raises:
        ValueError: an end is not finite, ``hi`` is below ``lo``, or ``bits`` is out of range.

    Examples:
        >>> from_range(-3.14159, 3.14159)
        AffineParameters(scale=0.02463992, zero_point=-1, int8, real -3.1293 to 3.1539)
        >>> from_range(-3.14159, 3.14159, symmetric=True)
        AffineParameters(scale=0.02473693, zero_point=0, int8, real -3.1416 to 3.1416)
    """
    check_bits(bits)
    lo, hi = float(lo), float(hi)
    if not (math.isfinite(lo) and math.isfinite(hi)):
        raise ValueError(f"A range has finite ends. Received: lo={lo}, hi={hi}. Remove NaN and infinity from the data.")
    if hi < lo:
        raise ValueError(f"hi must not be below lo. Received: lo={lo}, hi={hi}. Exchange them.")
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    highest = 2 ** (bits - 1) - 1
    if symmetric:
        return AffineParameters(max(-lo, hi) / highest or 1.0, 0, bits=bits, narrow=True)
    lowest = -highest - 1
    scale = (hi - lo) / (highest - lowest) or 1.0
    # As MLIR's quantizer: from the end whose quotient loses fewer digits.
    exact = lowest - lo / scale if -lo < hi else highest - hi / scale
    return AffineParameters(scale, int(np.clip(round_half_away(np.array(exact)), lowest, highest)), bits=bits)


def check_bits(bits: int) -> None:
    """Refuses an integer width that is not 2 to 32 with a ``ValueError``.

    Examples:
        >>> check_bits(8)
    """
    if not 2 <= bits <= WIDEST_BITS:
        raise ValueError(f"bits must be in [2, {WIDEST_BITS}]. Received: bits={bits}. TFLite uses 4, 8 and 16.")
