"""Which part of a histogram should an integer tensor cover?

Three answers, each a pure function from a ``Histogram`` to (lowest, highest) within its extremes and zero: a share of the
values, the least squared error, the least loss of information. Which one is used is decided by ``observers``.
"""

import numpy as np

from .histograms import Histogram

__all__ = ["least_divergence", "least_squares", "percentiles"]

_ENDS = 256  # candidates for each end of a range: its full width in steps of 1/256; half of them where each is costly
_SMOOTHING = 1e-4  # counts: what an empty level has at least, as in the implementations of Migacz's search
_ROUNDS = 4
_EQUAL = 1e-3  # nats: what chance alone adds to a million counts in 2048 bins; which of such ranges is least is noise


def percentiles(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Returns the range that leaves out at most ``100 - percentile`` % of the values at each end.

    Within a bin values count as evenly spread: the answer is at most one bin, 1/1023 of the range, from the exact one.

    Args:
        histogram: with at least one value.
        percentile: in (50, 100].

    Examples:
        >>> values = np.arange(-100, 101, dtype=np.float32)[None]
        >>> [round(end) for end in percentiles(Histogram().add(values), 90)]
        [-80, 80]
    """
    edges, total = histogram.edges, histogram.total
    reached = np.concatenate([[0], np.cumsum(histogram.counts)])  # (bins + 1,)
    outside = total * (1 - percentile / 100)
    if outside < 1 / 2:  # less than half a value: nothing is left out
        return histogram.low, histogram.high
    return _crossing(edges, reached, outside), -_crossing(-edges[::-1], total - reached[::-1], outside)


def _crossing(edges: np.ndarray, reached: np.ndarray, wanted: float) -> float:
    """Returns where ``reached``, (bins + 1,) and growing, passes ``wanted``; the first such place on a plateau."""
    i = int(np.searchsorted(reached, wanted, side="left"))
    if i == 0 or i >= len(edges):
        return float(edges[min(i, len(edges) - 1)])
    share = (wanted - reached[i - 1]) / (reached[i] - reached[i - 1])
    return float(edges[i - 1] + share * (edges[i] - edges[i - 1]))


def _candidates(count: int, zero: int, ends: int = _ENDS) -> tuple[np.ndarray, np.ndarray]:
    """Returns the edges that may be a lower and an upper end, (n,) int each, the extremes among them."""
    lows = np.unique(np.linspace(0, zero, min(zero, ends) + 1).round().astype(int))
    highs = np.unique(np.linspace(zero, count, min(count - zero, ends) + 1).round().astype(int))
    return lows, highs


def least_squares(histogram: Histogram, bits: int) -> tuple[float, float]:
    """Returns the range with the least mean squared error of asymmetric quantization.

    error(lo, hi) = sum over v < lo of (v - lo)**2 + sum over v > hi of (v - hi)**2 + inside * step**2 / 12 with
    step = (hi - lo) / (2**bits - 1); exact zeros inside have no error. All pairs of up to 257 ends each are tried.

    Args:
        histogram: with at least one value.
        bits: of the integer tensor, at least 2.

    Examples:
        >>> values = np.append(np.random.default_rng(0).normal(size=10**5), 40.0).astype(np.float32)
        >>> low, high = least_squares(Histogram().add(values[None]), 4)
        >>> -4 < low < -2 and 2 < high < 5
        True
    """
    edges, counts = histogram.edges, histogram.counts.astype(np.float64)
    zero = min(-histogram.first, len(counts))
    lows, highs = _candidates(len(counts), zero)
    centres = (edges[:-1] + edges[1:]) / 2
    moments = [np.concatenate([[0], np.cumsum(counts * centres**power)]) for power in range(3)]  # 3 x (bins + 1,)

    def beyond(sums: list[np.ndarray], end: np.ndarray) -> np.ndarray:
        return np.maximum(sums[2] - 2 * end * sums[1] + end**2 * sums[0], 0)

    left = beyond([moment[lows] for moment in moments], edges[lows])
    right = beyond([moment[-1] - moment[highs] for moment in moments], edges[highs])
    inside = np.maximum(moments[0][highs][None, :] - moments[0][lows][:, None] - histogram.zeros, 0)
    step = (edges[highs][None, :] - edges[lows][:, None]) / (2**bits - 1)
    errors = left[:, None] + right[None, :] + inside * step**2 / 12  # (lows, highs)
    errors[step <= 0] = np.inf
    i, j = np.unravel_index(int(errors.argmin()), errors.shape)
    return float(edges[lows[i]]), float(edges[highs[j]])


def least_divergence(histogram: Histogram, bits: int) -> tuple[float, float]:
    """Returns the range whose quantized distribution says most about the full one (Kullback-Leibler divergence).

    P is the distribution with everything outside moved into the outermost bins; Q has the values inside, 2**bits levels
    that each spread their mass evenly over their occupied bins; KL(P || Q) is least. Migacz searches one symmetric
    threshold; here the upper and the lower end are searched in turn until neither moves, from the full range; of ranges within 0.001 nats of the least the widest is taken. The bin that
    starts at zero gets its neighbour's count, so that a ReLU's zeros, which every range holds exactly, do not decide.

    Args:
        histogram: with at least one value.
        bits: of the integer tensor, at least 2.

    Source: Migacz, "8-bit inference with TensorRT", GTC 2017,
    https://on-demand.gputechconf.com/gtc/2017/presentation/s7310-8-bit-inference-with-tensorrt.pdf.

    Examples:
        >>> values = np.append(np.random.default_rng(0).normal(size=10**5), 40.0).astype(np.float32)
        >>> low, high = least_divergence(Histogram().add(values[None]), 4)
        >>> low > -6 and high < 10
        True
    """
    counts = histogram.counts.astype(np.float64)
    zero = min(-histogram.first, len(counts))
    if 0 <= zero < len(counts) and histogram.zeros:
        counts[zero] = counts[zero + 1] if zero + 1 < len(counts) else counts[zero] - histogram.zeros
    edges, levels = histogram.edges, 2**bits
    if len(counts) <= levels or not counts.any():
        return histogram.low, histogram.high
    lows, highs = _candidates(len(counts), zero, _ENDS // 2)
    low, high = 0, len(counts)
    for _ in range(_ROUNDS):
        before = low, high
        for ends in (highs, lows):
            is_high = ends is highs
            wide = ends[(ends - low if is_high else high - ends) >= levels]
            if len(wide):
                starts, stops = (np.full_like(wide, low), wide) if is_high else (wide, np.full_like(wide, high))
                best = int(wide[_widest_least(_divergences(counts, starts, stops, levels), is_high)])
                low, high = (low, best) if is_high else (best, high)
        if before == (low, high):
            break
    return float(edges[low]), float(edges[high])


def _widest_least(divergences: np.ndarray, is_high: bool) -> int:
    """Returns the place of the least divergence; of those equal to it the widest range's."""
    places = np.flatnonzero(divergences <= divergences.min() + _EQUAL)
    return int(places[-1] if is_high else places[0])


def _divergences(counts: np.ndarray, starts: np.ndarray, stops: np.ndarray, levels: int) -> np.ndarray:
    """Returns KL(P || Q) for each range of bins [start, stop), (n,), by sums over levels rather than bins."""

    def sums(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(values)])

    mass, occupied = sums(counts), sums(counts > 0)
    entropy = sums(counts * np.log(np.maximum(counts, 1)))
    total = mass[-1]
    share = np.arange(levels + 1) / levels
    bounds = (starts[:, None] + np.round(share * (stops - starts)[:, None])).astype(int)  # (n, levels + 1)
    inside = np.diff(mass[bounds], axis=1)
    # P: the outermost bins, and with them the outermost levels, also hold what lies outside.
    below, above = mass[starts], total - mass[stops]
    reference = inside.copy()
    reference[:, 0] += below
    reference[:, -1] += above
    bins = np.diff(occupied[bounds], axis=1)
    bins[:, 0] += (below > 0) & (counts[starts] == 0)
    bins[:, -1] += (above > 0) & (counts[stops - 1] == 0)
    spread = np.maximum(inside, _SMOOTHING) / np.maximum(bins, 1)
    own = entropy[stops] - entropy[starts]
    for ends, more in ((starts, below), (stops - 1, above)):
        old, new = counts[ends], counts[ends] + more
        own += new * np.log(np.maximum(new, 1)) - old * np.log(np.maximum(old, 1))
    cross = (reference * np.log(spread)).sum(axis=1)
    covered = np.maximum(inside.sum(axis=1), _SMOOTHING)
    return (own - cross) / total + np.log(covered / total)
