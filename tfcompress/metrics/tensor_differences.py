"""How far apart are two tensors, summed over blocks so that no tensor has to be held for all samples?

Pure arrays: sums of squares and products in double precision, block by block. What they are compared for is decided in
``comparison``.
"""

import math
from dataclasses import dataclass

import numpy as np

from .answers import cosine, decibels

__all__ = ["Difference"]

_CHUNK = 1 << 14  # values at a time: 128 kB of doubles, which stay in a core's second-level cache


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
