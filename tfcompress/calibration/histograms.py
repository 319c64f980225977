"""How often did values of each size occur, in one pass, without knowing their range beforehand?

A ``Histogram`` has bins whose width is a power of two and whose edges are whole multiples of it. When the values outgrow
``BINS`` bins the width doubles and neighbours are added up, which loses nothing but resolution: the bins depend on the
lowest and the highest value alone, so that any split of the data, in any order, merges to the very same histogram. What
range follows from the counts is decided by ``clipping_thresholds``.

Large tensors can be sampled: of each sample's values every k-th one is counted, k times, k having no divisor in common with
their number, so that no channel or column is left out. The outermost values of each sample, which decide on a range, are
counted among sixteen times as many, and the extremes are those of all values.
"""

import math
from dataclasses import dataclass, field

import numpy as np

__all__ = ["BINS", "Histogram", "extremes", "stride"]

BINS = 2048
"""Bins of a histogram at most, as in Migacz 2017; between half of them and all are in use."""

_CACHED = 1 << 15  # values that stay in the second-level cache from one step over them to the next
_BLOCK = 16  # neighbours that fill a line of the cache: taking one of them costs what taking all of them costs
_OUTER = 16  # of how many times more values than the middle of a sample its ends are counted
_FINEST = -126  # exponent of the narrowest bins: float32 holds 2**126
_TAIL = 1 / 256  # share of a sample's values at each end that is counted more closely


def extremes(values: np.ndarray) -> tuple[float, float]:
    """Returns the lowest and the highest of ``values``, NaN if one is NaN; (inf, -inf) of none.

    Args:
        values: any shape, float.

    Examples:
        >>> extremes(np.array([[2.0, -1.0]]))
        (-1.0, 2.0)
    """
    if not values.size:
        return math.inf, -math.inf
    return float(values.min()), float(values.max())


def stride(count: int, limit: int | None) -> int:
    """Returns the smallest step that takes at most ``limit`` of ``count`` values and shares no divisor with ``count``.

    Args:
        count: values of one sample.
        limit: how many may be taken; None takes all.

    Examples:
        >>> stride(100, None), stride(100, 50), stride(96, 50)
        (1, 3, 5)
    """
    if limit is None or count <= limit:
        return 1
    step = -(-count // limit)
    while math.gcd(step, count) > 1:
        step += 1
    return step


def _exponent(low: float, high: float) -> int:
    """Returns the smallest exponent whose bins hold 0, ``low`` and ``high`` in at most ``BINS``."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:  # nothing but zeros, which any bins hold
        return _FINEST
    exponent = max(math.frexp((high - low) / BINS)[1] - 1, _FINEST)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent


def _count(values: np.ndarray, exponent: int, first: int, bins: int) -> tuple[np.ndarray, int]:
    """Returns how many of ``values``, (n,), lie in each bin, and how many are zero; four times as fast in blocks."""
    counts, zeros = np.zeros(bins, np.int64), 0
    scale = values.dtype.type(math.ldexp(1.0, -exponent))
    size = min(_CACHED, values.size)
    scaled, small, numbers = np.empty(size, values.dtype), np.empty(size, np.int32), np.empty(size, np.intp)
    for start in range(0, values.size, _CACHED):
        block = values[start : start + _CACHED]
        part, whole, number = scaled[: block.size], small[: block.size], numbers[: block.size]
        # A power of two scales exactly, and so does the shift by whole bins, of which there are less than 2**24.
        np.multiply(block, scale, out=part)
        if first:
            np.floor(part, out=part)
            np.subtract(part, first, out=part)
        # Cuts off the fraction, the floor of what is not negative; processors have no quick way from float32 to int64.
        np.copyto(whole, part, casting="unsafe")
        np.copyto(number, whole)
        counts += np.bincount(number, minlength=bins)
        zeros += int(np.count_nonzero(block == 0))
    return counts, zeros


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins [first + i, first + i + 1) * 2**exponent, with exact extremes.

    Args:
        low: lowest of all values seen; inf before any. Default: inf.
        high: highest of all values seen; -inf before any. Default: -inf.
        exponent: binary logarithm of the bins' width.
        first: number of the first bin, at most 0.
        counts: values in each bin, (bins,) int64, bins <= ``BINS``; zero lies inside or on the upper end.
        zeros: how many of the counted values are exactly zero. Default: 0.

    Examples:
        >>> one, two = Histogram().add(np.array([[0.5, 1.0]])), Histogram().add(np.array([[-3.0, 0.0]]))
        >>> both = one.merge(two)
        >>> both.low, both.high, both.total, both.zeros
        (-3.0, 1.0, 4, 1)
    """

    low: float = math.inf
    high: float = -math.inf
    exponent: int = _FINEST
    first: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64), repr=False)
    zeros: int = 0

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> np.ndarray:
        """The bins' edges, (bins + 1,) float64, cut off at the extremes and at zero."""
        edges = np.ldexp(np.arange(self.first, self.first + len(self.counts) + 1, dtype=np.float64), self.exponent)
        return np.clip(edges, min(self.low, 0.0), max(self.high, 0.0))

    def add(
        self, values: np.ndarray, *, limit: int | None = None, seed: int = 0, floor: float | None = None
    ) -> "Histogram":
        """Returns the histogram with ``values`` in it; this one stays as it is.

        Args:
            values: shape (samples, ...), float.
            limit: how many values of each sample are counted besides its outermost ones, a 256th at each end, which are
                counted among sixteen times as many; the extremes are those of all. Default: None, all.
            seed: where in the sample the first counted value lies, modulo the stride. Default: 0.
            floor: what is known to be the lowest value, so that nobody need look for it. Default: None, not known.
        """
        if not values.size:
            return self
        rows = values.reshape(len(values), -1)
        if limit is None or rows.shape[1] <= limit:
            return self.merge(_whole(rows.reshape(-1), floor))
        merged = self
        for row in rows:
            merged = merged.merge(_thinned(row, limit, seed, floor))
        return merged

    def merge(self, other: "Histogram") -> "Histogram":
        """Returns the histogram of the values of both, the same in either order."""
        if self.low > self.high or other.low > other.high:
            return other if self.low > self.high else self
        low, high = float(np.minimum(self.low, other.low)), float(np.maximum(self.high, other.high))
        if not (math.isfinite(low) and math.isfinite(high)):
            return Histogram(low, high)
        if self.low == low and self.high == high:  # its bins hold the other's values as they are
            exponent, first, counts = self.exponent, self.first, self.counts.copy()
            parts = [other]
        else:
            exponent, first, bins = _bins(low, high)
            counts = np.zeros(bins, np.int64)
            parts = [self, other]
        for part in parts:
            start = (part.first >> (exponent - part.exponent)) - first
            coarse = part._coarse(exponent)
            counts[start : start + len(coarse)] += coarse
        return Histogram(low, high, exponent, first, counts, self.zeros + other.zeros)

    def _coarse(self, exponent: int) -> np.ndarray:
        """Returns the counts in bins of the width 2**exponent, which is not below this one's."""
        ratio = 1 << (exponent - self.exponent)
        if ratio == 1:
            return self.counts
        if ratio > BINS:  # at most one bin on each side of zero is left
            negative = int(self.counts[: -self.first].sum()) if self.first else 0
            positive = self.total - negative
            return np.array([negative, positive] if self.first else [positive], np.int64)
        before = self.first % ratio
        padded = np.zeros(-(-(before + len(self.counts)) // ratio) * ratio, np.int64)
        padded[before : before + len(self.counts)] = self.counts
        return padded.reshape(-1, ratio).sum(axis=1)


def _bins(low: float, high: float) -> tuple[int, int, int]:
    """Returns exponent, number of the first bin and number of bins for values from ``low`` to ``high`` and zero."""
    exponent = _exponent(low, high)
    first = math.floor(math.ldexp(min(low, 0.0), -exponent))
    return exponent, first, math.floor(math.ldexp(max(high, 0.0), -exponent)) - first + 1


def _whole(values: np.ndarray, floor: float | None) -> Histogram:
    low, high = extremes(values) if floor is None else (floor, float(values.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Histogram(low, high)
    exponent, first, bins = _bins(low, high)
    return Histogram(low, high, exponent, first, *_count(values, exponent, first, bins))


def _thinned(row: np.ndarray, limit: int, seed: int, floor: float | None) -> Histogram:
    """Returns the histogram of one sample, (values,): its ends from a part of it, the middle from a part of that part."""
    low, high = extremes(row) if floor is None else (floor, float(row.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Histogram(low, high)
    exponent, first, bins = _bins(low, high)
    outer, weight = _blocks(row, limit * _OUTER, seed)
    step = stride(outer.size, limit)
    counts, zeros = _count(outer[seed % step :: step], exponent, first, bins)
    reached = counts.cumsum()
    tail = reached[-1] * _TAIL
    lower = int(reached.searchsorted(tail, side="right"))  # bins below hold at most the tail
    upper = max(int(reached.searchsorted(reached[-1] - tail)) + 1, lower)  # bins from here on, too
    outside = outer >= row.dtype.type(math.ldexp(float(first + upper), exponent))
    if lower:
        outside |= outer < row.dtype.type(math.ldexp(float(first + lower), exponent))
    ends, end_zeros = _count(outer[outside], exponent, first, bins)
    is_middle = lower <= -first < upper
    counts[:lower], counts[lower:upper], counts[upper:] = ends[:lower], counts[lower:upper] * step, ends[upper:]
    counts *= weight
    for value in (low, high):  # no sampling misses these
        number = math.floor(math.ldexp(value, -exponent)) - first
        counts[number] = max(counts[number], 1)
    return Histogram(low, high, exponent, first, counts, (zeros * step if is_middle else end_zeros) * weight)


def _blocks(row: np.ndarray, limit: int, seed: int) -> tuple[np.ndarray, int]:
    """Returns about ``limit`` of the values of one sample, in blocks of neighbours, and how many each stands for."""
    if row.size <= limit:
        return row, 1
    blocks = row[: row.size // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    step = stride(len(blocks), max(limit // _BLOCK, 1))
    return blocks[seed % step :: step].reshape(-1), step
