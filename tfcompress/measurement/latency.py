"""What do many timed runs say? Medians, percentiles, and how far to trust them.

Pure arithmetic on times in milliseconds. ``devices`` takes the times, ``records`` keeps what they say.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["Latency", "Noise", "Ratio", "bootstrap_interval", "is_steady", "spread_of"]

MILLISECONDS_DIGITS = 6  # a nanosecond: the clock's own resolution
RESAMPLES = 2000  # Efron and Tibshirani 1993, chapter 14: 1000 or more for the ends of an interval
CONFIDENCE = 0.95
STEADY_WINDOW = 10
STEADY_VARIATION = 0.02
SEED = 0
NOISY_SPREAD = 0.05
NOISY_DEGREES = 10.0


def bootstrap_interval(values: Sequence[float] | np.ndarray, *, seed: int = SEED) -> tuple[float, float]:
    """Returns the ends of the 95 % confidence interval of the median.

    Runs that follow each other are alike, so whole blocks of n^(1/3) consecutive values are drawn, with those at the end
    followed by those at the beginning; the ends are the 2.5th and 97.5th percentile of the medians of 2000 such draws.

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile intervals). Politis and Romano, "A
        Circular Block-Resampling Procedure for Stationary Data", 1992 (blocks).

    Args:
        values: shape (n,), in the order in which they were measured, at least one.
        seed: of the draws. Default: 0.

    Examples:
        >>> bootstrap_interval([2.0] * 50)
        (2.0, 2.0)
        >>> low, high = bootstrap_interval(np.arange(100.0))
        >>> low < 49.5 < high
        True
    """
    values = np.asarray(values, np.float64)
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, count, (RESAMPLES, math.ceil(count / length)))
    places = (starts[:, :, None] + np.arange(length)) % count
    medians = np.median(values[places.reshape(RESAMPLES, -1)[:, :count]], axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(medians, [tail, 100 - tail])
    return float(low), float(high)


def is_steady(times: Sequence[float]) -> bool:
    """Returns whether a device has warmed up: the last ten runs vary by less than 2 % (standard deviation over mean).

    Reference:
        Georges, Buytaert and Eeckhout, "Statistically Rigorous Java Performance Evaluation", 2007, section 3.3: steady
        once the coefficient of variation of the last k iterations falls below 0.01 or 0.02.

    Examples:
        >>> is_steady([1.0] * 9), is_steady([5.0] + [1.0] * 10), is_steady([5.0] + [1.0] * 9)
        (False, True, False)
    """
    last = np.asarray(times[-STEADY_WINDOW:], np.float64)
    return len(last) == STEADY_WINDOW and bool(last.std() < STEADY_VARIATION * last.mean())


def spread_of(times: Sequence[float] | np.ndarray) -> float:
    """Returns the interquartile range of times over their median.

    Examples:
        >>> spread_of([1.0, 1.0, 1.0]), spread_of([1.0, 2.0, 3.0])
        (0.0, 0.5)
    """
    low, middle, high = np.percentile(np.asarray(times, np.float64), [25, 50, 75])
    return float((high - low) / middle) if middle > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one inference takes, in milliseconds, over ``runs`` timed calls of the interpreter.

    Attributes:
        median_ms: half of the runs were faster.
        p90_ms: nine of ten runs were faster; None where a runner does not tell.
        p99_ms: 99 of 100 runs were faster; None likewise.
        mean_ms: arithmetic mean.
        std_ms: standard deviation (of the population).
        min_ms: the fastest run.
        runs: how many runs were timed.
        warmup_runs: how many ran before them untimed, the first one apart.
        load_ms: opening the file and allocating its tensors.
        first_ms: the very first inference.
        low_ms: lower end of the median's 95 % confidence interval; None where the runs are not known. Default: None.
        high_ms: upper end of it. Default: None.
        steady: whether the warm-up ended because the times had settled (``is_steady``); None where a number of
            warm-up runs was asked for. Default: None.

    Examples:
        >>> Latency.of([1.0, 2.0, 3.0], warmup_runs=5, load_ms=0.5, first_ms=4.0).median_ms
        2.0
    """

    median_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    std_ms: float
    min_ms: float
    runs: int
    warmup_runs: int
    load_ms: float
    first_ms: float
    low_ms: float | None = None
    high_ms: float | None = None
    steady: bool | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be finite and not negative. Received: {field.name}={value}.")

    @classmethod
    def of(
        cls,
        milliseconds: Iterable[float],
        *,
        warmup_runs: int,
        load_ms: float,
        first_ms: float,
        steady: bool | None = None,
    ) -> Latency:
        """Returns the summary of timed runs; percentiles are interpolated linearly between runs.

        Args:
            milliseconds: one value per run, at least one.
            warmup_runs: untimed runs before them.
            load_ms: opening the file.
            first_ms: the first inference.
            steady: whether the warm-up ended with settled times. Default: None.
        """
        times = np.asarray(list(milliseconds), np.float64)
        if not times.size:
            raise ValueError("A latency needs at least one timed run. Received: none.")
        median, p90, p99 = np.percentile(times, [50, 90, 99])
        low, high = bootstrap_interval(times)
        numbers = [median, p90, p99, times.mean(), times.std(), times.min(), load_ms, first_ms, low, high]
        median, p90, p99, mean, std, least, load, first, low, high = (
            round(float(n), MILLISECONDS_DIGITS) for n in numbers
        )
        counts = len(times), warmup_runs
        return cls(median, p90, p99, mean, std, least, *counts, load, first, low, high, steady)

    def __str__(self) -> str:
        tail = {"p90": self.p90_ms, "p99": self.p99_ms}
        shown = "".join(f", {name} {value:.3f} ms" for name, value in tail.items() if value is not None)
        return f"median {self.median_ms:.3f} ms{shown} ({self.runs} runs)"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as long as another file one takes, run after run in turns.

    Attributes:
        to: name of the other file.
        median: of the ratios of neighbouring runs; 2 is twice as slow, 0.5 twice as fast.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        pairs: how many pairs of runs.

    Examples:
        >>> print(Ratio.of("float.tflite", [1.0, 1.1, 1.2], [2.0, 2.2, 2.4]))
        0.500 times float.tflite (95 % interval 0.500 to 0.500, 3 pairs)
    """

    to: str
    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, to: str, times: Sequence[float], other: Sequence[float]) -> Ratio:
        """Returns the ratio of two lists of times that were measured in turns.

        Args:
            to: name of the other file.
            times: of this file, at least one.
            other: of the other file, as many.
        """
        ratios = np.asarray(times, np.float64) / np.asarray(other, np.float64)
        low, high = bootstrap_interval(ratios)
        middle = float(np.median(ratios))
        middle, low, high = (round(each, MILLISECONDS_DIGITS) for each in (middle, low, high))
        return cls(to, middle, low, high, len(ratios))

    def __str__(self) -> str:
        return (
            f"{self.median:.3f} times {self.to} (95 % interval {self.low:.3f} to {self.high:.3f}, {self.pairs} pairs)"
        )


@dataclasses.dataclass(frozen=True)
class Noise:
    """What else went on while times were taken. None stands for what a system does not tell.

    Attributes:
        spread: interquartile range of the times over their median.
        governor: of the processor's frequency: "performance", "powersave", ...
        frequency_mhz: of the processor, before and after.
        throttled: how often the processor was slowed down because of heat or power meanwhile; on a Raspberry Pi 1 if it
            ever was since it started.
        load: of the machine over the last minute before, as ``uptime`` tells it.
        preemptions: how often the process had to leave the processor to others.
        temperature_c: of the hottest sensor, before and after.
        cores: how many the process was allowed to use.

    Examples:
        >>> print(Noise(0.2, "powersave", (800.0, 2400.0), 0, 3.5, 40, (50.0, 71.0), cores=2))
        times spread by 20 %; governor powersave; load 3.5 on 2 cores; temperature from 50 to 71 °C
    """

    spread: float
    governor: str | None
    frequency_mhz: tuple[float | None, float | None]
    throttled: int | None
    load: float | None
    preemptions: int | None
    temperature_c: tuple[float | None, float | None]
    cores: int

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Noise:
        """Returns what ``dataclasses.asdict`` and JSON made of one."""
        pairs = {name: tuple(fields[name]) for name in ("frequency_mhz", "temperature_c")}
        return cls(**{**fields, **pairs})

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the times are not to be relied on; empty for a quiet run.

        A spread above 5 %, a governor other than performance when the times spread, throttling, a load above the number
        of cores, ten degrees more than before.
        """
        before, after = self.temperature_c
        is_noisy = self.spread > NOISY_SPREAD
        checks = {
            f"times spread by {self.spread:.0%}".replace("%", " %"): is_noisy,
            f"governor {self.governor}": is_noisy and self.governor not in (None, "performance"),
            "the processor was throttled": bool(self.throttled),
            f"load {self.load or 0:.1f} on {self.cores} cores": (self.load or 0) > self.cores,
            f"temperature from {before or 0:.0f} to {after or 0:.0f} °C": before is not None
            and after is not None
            and after - before > NOISY_DEGREES,
        }
        return tuple(text for text, holds in checks.items() if holds)

    def __str__(self) -> str:
        return "; ".join(self.reasons) or "quiet"
