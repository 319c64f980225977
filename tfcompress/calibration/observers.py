"""Which range a tensor needs, from the values that were seen.

An observer is a value with four pure functions over an explicit state: ``init``, ``update`` (one batch of values),
``merge`` (two states, earlier first) and ``range``. States are small and may be made on different threads and merged.
Every range contains zero, as TFLite's zero point must be exact. Nothing here runs a model.

``Percentile``, ``MeanSquaredError`` and ``Entropy`` keep a ``histograms.Histogram`` of at most 16 kB: one pass, the same
for any split of the data into batches and workers. Of a sample with more than ``values_per_sample`` values
every k-th one is counted, beginning at ``seed``, besides its outermost ones, which are counted more closely.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from .clipping_thresholds import least_divergence, least_squares, percentiles
from .histograms import Histogram, extremes

__all__ = [
    "OBSERVERS",
    "Entropy",
    "Highest",
    "MeanSquaredError",
    "MinMax",
    "MovingAverage",
    "NotNegative",
    "Observer",
    "ObserverName",
    "Percentile",
    "contain_zero",
    "not_negative",
]

_VALUES_PER_SAMPLE = 1 << 12


class Observer(Protocol):
    """What the calibrator asks of an observer; ``values`` has shape (samples, ...), float32.

    An observer whose range does not depend on the order of the data says so by a class attribute ``ordered = False``.
    """

    def init(self) -> Any:
        """Returns the state before anything was seen."""

    def update(self, state: Any, values: np.ndarray) -> Any:
        """Returns the state after ``values``."""

    def merge(self, earlier: Any, later: Any) -> Any:
        """Returns the state after what ``earlier`` saw and then what ``later`` saw."""

    def range(self, state: Any) -> tuple[float, float]:
        """Returns (lowest, highest), lowest <= 0 <= highest."""


def contain_zero(low: float, high: float) -> tuple[float, float]:
    """Returns the smallest range around ``low`` and ``high`` that contains zero and has a width.

    Examples:
        >>> contain_zero(0.5, 2.0), contain_zero(0.0, 0.0)
        ((0.0, 2.0), (0.0, 1e-06))
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    return (low, high) if high > low else (low, low + 1e-6)


class _Extremes(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class MinMax:
    """The lowest and the highest value seen, as TFLiteConverter's own calibrator takes them.

    Examples:
        >>> observer = MinMax()
        >>> observer.range(observer.update(observer.init(), np.array([[-1.0, 3.0]])))
        (-1.0, 3.0)
    """

    ordered: ClassVar[bool] = False

    def init(self) -> _Extremes:
        """Returns the state before anything was seen."""
        return _Extremes(np.inf, -np.inf)

    def update(self, state: _Extremes, values: np.ndarray) -> _Extremes:
        """Returns the extremes of the state and of ``values``, (samples, ...) float."""
        return self.merge(state, _Extremes(*extremes(values)))

    def merge(self, earlier: _Extremes, later: _Extremes) -> _Extremes:
        """Returns the extremes of both."""
        # np.minimum hands NaN on, min() would hide it
        return _Extremes(float(np.minimum(earlier.low, later.low)), float(np.maximum(earlier.high, later.high)))

    def range(self, state: _Extremes) -> tuple[float, float]:
        """Returns the extremes, widened to contain zero."""
        return contain_zero(state.low, state.high)


@dataclass(frozen=True)
class Highest:
    """``MinMax`` for values that are known not to be negative: the lowest is taken to be zero without looking.

    Args:
        limit: what no value can exceed, as 6 behind a ReLU6: once it was reached there is nothing more to see.
            Default: infinity.

    Examples:
        >>> observer = Highest(limit=6.0)
        >>> state = observer.update(observer.init(), np.array([[1.0, 3.0]]))
        >>> observer.range(state), observer.is_settled(state)
        ((0.0, 3.0), False)
    """

    ordered: ClassVar[bool] = False
    limit: float = np.inf

    def is_settled(self, state: float) -> bool:
        """Returns whether no further value can change the range."""
        return state >= self.limit

    def init(self) -> float:
        """Returns the state before anything was seen."""
        return 0.0

    def update(self, state: float, values: np.ndarray) -> float:
        """Returns the highest of the state and of ``values``, (samples, ...) float."""
        return self.merge(state, float(values.max()))

    def merge(self, earlier: float, later: float) -> float:
        """Returns the higher one."""
        return float(np.maximum(earlier, later))

    def range(self, state: float) -> tuple[float, float]:
        """Returns zero and the highest value."""
        return contain_zero(0.0, state)


class _Average(NamedTuple):
    samples: int
    first: np.ndarray  # (2,): extremes of the first sample
    average: np.ndarray  # (2,): moving average of the extremes


@dataclass(frozen=True)
class MovingAverage:
    """The exponential moving average of each sample's lowest and highest value: one odd sample moves it little.

    v_1 = x_1, v_n = momentum * v_{n-1} + (1 - momentum) * x_n, for the extremes x_n of sample n. Two states merge
    exactly: v = momentum**k * (v_earlier - x_later_1) + v_later, where the later state saw k samples.

    Args:
        momentum: weight of the past, in [0, 1). Default: 0.9.

    Raises:
        ValueError: momentum outside [0, 1).

    Examples:
        >>> observer = MovingAverage(momentum=0.5)
        >>> observer.range(observer.update(observer.init(), np.array([[0.0, 1.0], [0.0, 3.0]])))
        (0.0, 2.0)

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, https://arxiv.org/abs/1712.05877, section 3.1; ours averages over samples, theirs over batches.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: momentum={self.momentum!r}.")

    def init(self) -> _Average:
        """Returns the state before anything was seen."""
        return _Average(0, np.zeros(2), np.zeros(2))

    def update(self, state: _Average, values: np.ndarray) -> _Average:
        """Returns the state after each sample of ``values``, (samples, ...) float, in order."""
        rows = values.reshape(len(values), -1)
        extremes = np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1).astype(np.float64)  # (samples, 2)
        average = extremes[0]
        for extreme in extremes[1:]:
            average = self.momentum * average + (1 - self.momentum) * extreme
        return self.merge(state, _Average(len(extremes), extremes[0], average))

    def merge(self, earlier: _Average, later: _Average) -> _Average:
        """Returns the state of one pass over both."""
        if not earlier.samples:
            return later
        if not later.samples:
            return earlier
        average = self.momentum**later.samples * (earlier.average - later.first) + later.average
        return _Average(earlier.samples + later.samples, earlier.first, average)

    def range(self, state: _Average) -> tuple[float, float]:
        """Returns the average extremes, widened to contain zero."""
        return contain_zero(*state.average)


@dataclass(frozen=True)
class _Histogrammed:
    """What the observers that decide on a histogram have in common."""

    ordered: ClassVar[bool] = False
    values_per_sample: int | None = _VALUES_PER_SAMPLE
    seed: int = 0

    def __post_init__(self) -> None:
        if self.values_per_sample is not None and self.values_per_sample < 1:
            raise ValueError(
                f"values_per_sample must be at least 1, or None for all. Received: {self.values_per_sample!r}."
            )
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0. Received: seed={self.seed!r}.")

    def init(self) -> Histogram:
        """Returns the state before anything was seen."""
        return Histogram()

    def update(self, state: Histogram, values: np.ndarray, *, floor: float | None = None) -> Histogram:
        """Returns the histogram with ``values``, (samples, ...) float, of which none is known to lie below ``floor``."""
        return state.add(values, limit=self.values_per_sample, seed=self.seed, floor=floor)

    def merge(self, earlier: Histogram, later: Histogram) -> Histogram:
        """Returns the histogram of both, exactly that of one pass."""
        return earlier.merge(later)


@dataclass(frozen=True)
class NotNegative:
    """A histogram observer for values that are known not to be negative: the lowest is taken to be zero without looking.

    Args:
        observer: a ``Percentile``, ``MeanSquaredError`` or ``Entropy``.

    Examples:
        >>> observer = NotNegative(Percentile(percentile=100))
        >>> observer.range(observer.update(observer.init(), np.array([[1.0, 3.0]])))
        (0.0, 3.0)
    """

    ordered: ClassVar[bool] = False
    observer: Any

    def init(self) -> Histogram:
        """Returns the state before anything was seen."""
        return self.observer.init()

    def update(self, state: Histogram, values: np.ndarray) -> Histogram:
        """Returns the histogram with ``values``, (samples, ...) float."""
        return self.observer.update(state, values, floor=0.0)

    def merge(self, earlier: Histogram, later: Histogram) -> Histogram:
        """Returns the histogram of both."""
        return earlier.merge(later)

    def range(self, state: Histogram) -> tuple[float, float]:
        """Returns the range that the observer chooses."""
        return self.observer.range(state)


def not_negative(observer: Observer, limit: float) -> Observer:
    """Returns an observer with the same range that looks less, for values which are known to lie in [0, ``limit``].

    Examples:
        >>> not_negative(MinMax(), 6.0), not_negative(MovingAverage(), 6.0)
        (Highest(limit=6.0), MovingAverage(momentum=0.9))
    """
    if isinstance(observer, _Histogrammed):
        return NotNegative(observer)
    return Highest(limit) if observer == MinMax() else observer


def _chosen(choose: Callable[..., tuple[float, float]], state: Histogram, *options: float) -> tuple[float, float]:
    """Returns the chosen range, widened to contain zero; the extremes where they are not finite or nothing was seen."""
    is_sound = np.isfinite(state.low) and np.isfinite(state.high) and state.total
    return contain_zero(*(choose(state, *options) if is_sound else (state.low, state.high)))


@dataclass(frozen=True)
class Percentile(_Histogrammed):
    """The range outside of which at most ``100 - percentile`` % of the values lie at each end: outliers are clipped.

    Exact to 1/1024 of the extremes' width.

    Args:
        values_per_sample: how many values of a sample are counted besides its outermost ones; None for all.
            Default: 4096.
        seed: where counting begins in a sample, modulo the stride. Default: 0.
        percentile: in (50, 100]. Default: 99.99.

    Raises:
        ValueError: an argument outside its range.

    Examples:
        >>> observer = Percentile(percentile=99.0)
        >>> values = np.append(np.linspace(-1, 1, 999), 100.0)[None]
        >>> [round(end, 1) for end in observer.range(observer.update(observer.init(), values))]
        [-1.0, 1.0]

    Source: Wu et al., "Integer quantization for deep learning inference", 2020, https://arxiv.org/abs/2004.09602,
    section 5.1; theirs is of absolute values, ours of each end.
    """

    percentile: float = 99.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 50 < self.percentile <= 100:
            raise ValueError(
                f"percentile must be in (50, 100]. Received: percentile={self.percentile!r}. Write 99.99 for 99.99 %."
            )

    def range(self, state: Histogram) -> tuple[float, float]:
        """Returns the chosen range, widened to contain zero."""
        return _chosen(percentiles, state, self.percentile)


@dataclass(frozen=True)
class _ForBits(_Histogrammed):
    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits must be from 2 to 16. Received: bits={self.bits!r}.")


@dataclass(frozen=True)
class MeanSquaredError(_ForBits):
    """The range with the least mean squared error between values and their asymmetric quantization.

    Args:
        values_per_sample: how many values of a sample are counted besides its outermost ones; None for all.
            Default: 4096.
        seed: where counting begins in a sample, modulo the stride. Default: 0.
        bits: width of the integers, 2 to 16. Default: 8.

    Raises:
        ValueError: an argument outside its range.

    Examples:
        >>> observer = MeanSquaredError(bits=2)
        >>> values = np.append(np.linspace(-1, 1, 10_000), 5.0)[None]
        >>> low, high = observer.range(observer.update(observer.init(), values))
        >>> -1 <= low < -0.7 and 0.7 < high < 2
        True

    Source: Banner et al., "Post training 4-bit quantization of convolutional networks for rapid-deployment", 2019,
    https://arxiv.org/abs/1810.05723, section 2; theirs fits a distribution, ours takes the histogram itself.
    """

    def range(self, state: Histogram) -> tuple[float, float]:
        """Returns the chosen range, widened to contain zero."""
        return _chosen(least_squares, state, self.bits)


@dataclass(frozen=True)
class Entropy(_ForBits):
    """The range whose quantized distribution has the least Kullback-Leibler divergence from the values' own.

    Args:
        values_per_sample: how many values of a sample are counted besides its outermost ones; None for all.
            Default: 4096.
        seed: where counting begins in a sample, modulo the stride. Default: 0.
        bits: width of the integers, 2 to 16; with more than 10 nothing is clipped, for a histogram has
            2048 bins at most. Default: 8.

    Raises:
        ValueError: an argument outside its range.

    Examples:
        >>> observer = Entropy()
        >>> values = np.append(np.random.default_rng(0).normal(size=10_000), 50.0)[None]
        >>> low, high = observer.range(observer.update(observer.init(), values))
        >>> high < 15
        True

    Source: Migacz, "8-bit inference with TensorRT", GTC 2017; see ``clipping_thresholds.least_divergence`` for what differs.
    """

    def range(self, state: Histogram) -> tuple[float, float]:
        """Returns the chosen range, widened to contain zero."""
        return _chosen(least_divergence, state, self.bits)


ObserverName = Literal["min_max", "moving_average", "percentile", "mean_squared_error", "entropy"]
"""The names of ``OBSERVERS``, which a type checker completes."""

OBSERVERS: dict[str, Observer] = {
    "min_max": MinMax(),
    "moving_average": MovingAverage(),
    "percentile": Percentile(),
    "mean_squared_error": MeanSquaredError(),
    "entropy": Entropy(),
}
