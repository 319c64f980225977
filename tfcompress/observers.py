"""Which range a tensor needs, from the values that were seen.

An observer is a value with four pure functions over an explicit state: ``init``, ``update`` (one batch of values),
``merge`` (two states, earlier first) and ``range``. States are small and may be made on different threads and merged.
Every range contains zero, as TFLite's zero point must be exact. Nothing here runs a model.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["OBSERVERS", "MinMax", "MovingAverage", "Observer", "contain_zero"]


class Observer(Protocol):
    """What the calibrator asks of an observer; ``values`` has shape (samples, ...), float32."""

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

    Example:
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

    Example:
        >>> observer = MinMax()
        >>> observer.range(observer.update(observer.init(), np.array([[-1.0, 3.0]])))
        (-1.0, 3.0)
    """

    def init(self) -> _Extremes:
        """Returns the state before anything was seen."""
        return _Extremes(np.inf, -np.inf)

    def update(self, state: _Extremes, values: np.ndarray) -> _Extremes:
        """Returns the extremes of the state and of ``values``, (samples, ...) float."""
        return _Extremes(min(state.low, float(values.min())), max(state.high, float(values.max())))

    def merge(self, earlier: _Extremes, later: _Extremes) -> _Extremes:
        """Returns the extremes of both."""
        return _Extremes(min(earlier.low, later.low), max(earlier.high, later.high))

    def range(self, state: _Extremes) -> tuple[float, float]:
        """Returns the extremes, widened to contain zero."""
        return contain_zero(state.low, state.high)


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

    Example:
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


OBSERVERS: dict[str, Observer] = {"min_max": MinMax(), "moving_average": MovingAverage()}
