"""How far apart are two arrays? Agreement, quantization steps, signal to noise and cosine; of large tensors block by block.

Pure arrays: sums of squares and products in double precision, so that no tensor has to be held for all samples. What they
are compared for is decided in ``comparison`` and ``conversion``.
"""

import math
from dataclasses import dataclass

import numpy as np

from .classification import predicted_classes

__all__ = ["Difference", "argmax_agreement", "cosine", "decibels", "step_difference"]

_CHUNK = 1 << 14  # values at a time: 128 kB of doubles, which stay in a core's second-level cache


def argmax_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Returns how often two models give the same class, as a fraction of the samples.

    Outputs with more axes, such as a segmentation (n, height, width, classes), are compared position by position.

    Args:
        first: outputs of one model, (n,) or (n, ..., classes).
        second: outputs of the other on the same samples, same shape.

    Raises:
        ValueError: the shapes differ, or there is no sample.

    Examples:
        >>> argmax_agreement(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[0.2, 0.8], [0.4, 0.6]]))
        0.5
    """
    check_same_shape(first, second)
    first, second = np.asarray(first), np.asarray(second)
    classes = first.shape[-1] if first.ndim > 1 else 1
    rows = first.reshape(-1, classes), second.reshape(-1, classes)
    return float(np.mean(predicted_classes(rows[0]) == predicted_classes(rows[1])))


def step_difference(first: np.ndarray, second: np.ndarray, scale: float) -> tuple[float, float]:
    """Returns the largest and the mean absolute difference of two outputs, in quantization steps.

    max |first - second| / scale and mean |first - second| / scale.

    Args:
        first: real-valued outputs of one model, any shape.
        second: real-valued outputs of the other, same shape.
        scale: the real size of one quantization step, above 0.

    Raises:
        ValueError: the shapes differ, there is no value, or the scale is not above 0.

    Examples:
        >>> step_difference(np.array([0.0, 1.0]), np.array([0.5, 1.0]), scale=0.25)
        (2.0, 1.0)
    """
    check_same_shape(first, second)
    if not scale > 0:
        raise ValueError(f"scale must be above 0. Received: scale={scale}. Use the output's quantization scale.")
    steps = np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64)) / scale
    return float(steps.max()), float(steps.mean())


def decibels(signal: float, noise: float) -> float:
    """Returns the ratio of a signal's energy to an error's in decibels: the SQNR of a quantized tensor.

    10 log10(signal / noise); infinite without an error, minus infinity for an error without a signal. Six decibels more
    are one bit more.

    Args:
        signal: sum of the squares of the true values.
        noise: sum of the squares of the differences.

    Examples:
        >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
        (20.0, inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and signal / noise > 0 else -math.inf


def cosine(product: float, first: float, second: float) -> float:
    """Returns the cosine similarity of two vectors from their products; 1 where both are zero, 0 where one is.

    Args:
        product: sum of the products of their values.
        first: sum of the squares of the first.
        second: sum of the squares of the second.

    Examples:
        >>> cosine(4.0, 4.0, 4.0), cosine(0.0, 0.0, 0.0)
        (1.0, 1.0)
    """
    if first == 0 or second == 0:
        return float(first == second)
    return float(np.clip(product / math.sqrt(first) / math.sqrt(second), -1.0, 1.0))


def check_same_shape(first: np.ndarray, second: np.ndarray) -> None:
    """Refuses two arrays that cannot be compared value by value with a ``ValueError``.

    Examples:
        >>> check_same_shape(np.zeros(2), np.ones(2))
    """
    if np.shape(first) != np.shape(second) or np.size(first) == 0:
        raise ValueError(
            f"Outputs are compared on the same samples. Received shapes: {np.shape(first)} and {np.shape(second)}."
        )


@dataclass(frozen=True)
class Difference:
    """The sums behind the difference of two tensors; add those of further samples with ``+``.

    Args:
        count: how many values were compared.
        signal: sum of the squares of the first tensor.
        other: sum of the squares of the second.
        noise: sum of the squared differences.
        absolute: sum of the absolute differences.
        largest: largest absolute difference.

    Examples:
        >>> apart = Difference.of(np.array([3.0, 4.0]), np.array([3.0, 3.5]))
        >>> round(apart.sqnr_db, 6), apart.largest, apart.mean
        (20.0, 0.5, 0.25)
    """

    count: int = 0
    signal: float = 0.0
    other: float = 0.0
    noise: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(
        cls,
        first: np.ndarray,
        second: np.ndarray,
        *,
        first_scale: tuple[float, int] | None = None,
        second_scale: tuple[float, int] | None = None,
    ) -> "Difference":
        """Returns the difference of two arrays of the same number of values; values that are not finite are left out.

        Args:
            first: any shape, numbers.
            second: likewise.
            first_scale: scale and zero point if the first holds quantized integers. Default: None.
            second_scale: likewise. Default: None.

        Raises:
            ValueError: the arrays have different numbers of values.
        """
        if first.size != second.size:
            raise ValueError(f"Tensors of one size are compared. Received: {first.shape} and {second.shape}.")
        sums = np.zeros(4)
        count, largest = 0, 0.0
        first, second = first.reshape(-1), second.reshape(-1)
        for start in range(0, first.size, _CHUNK):
            a = _real(first[start : start + _CHUNK], first_scale)
            b = _real(second[start : start + _CHUNK], second_scale)
            finite = np.isfinite(a) & np.isfinite(b)
            if not finite.all():
                a, b = a[finite], b[finite]
            apart = a - b
            size = np.abs(apart)
            sums += _product(a, a), _product(b, b), _product(apart, apart), size.sum()
            count += a.size
            largest = max(largest, float(size.max(initial=0.0)))
        signal, other, noise, absolute = (float(value) for value in sums)
        return cls(count, signal, other, noise, absolute, largest)

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(
            self.count + other.count,
            self.signal + other.signal,
            self.other + other.other,
            self.noise + other.noise,
            self.absolute + other.absolute,
            max(self.largest, other.largest),
        )

    @property
    def sqnr_db(self) -> float:
        """Energy of the first tensor over that of the difference in decibels; infinite for equal tensors."""
        return decibels(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """Cosine similarity of the two tensors, in [-1, 1]."""
        return cosine((self.signal + self.other - self.noise) / 2, self.signal, self.other)

    @property
    def mean(self) -> float:
        """Mean absolute difference."""
        return self.absolute / self.count if self.count else math.nan


def _product(a: np.ndarray, b: np.ndarray) -> float:
    # Not a @ b: BLAS starts its threads for each chunk, which costs more than the products.
    return float(np.einsum("i,i->", a, b))


def _real(values: np.ndarray, scale: tuple[float, int] | None) -> np.ndarray:
    real = values.astype(np.float64)
    return real if scale is None else (real - scale[1]) * scale[0]
