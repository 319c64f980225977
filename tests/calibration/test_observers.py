"""Laws of observers, each public one through the same table: zero inside, mergeable, independent of batching."""

import itertools

import numpy as np
import pytest

from tfcompress.calibration.histograms import BINS, Histogram, extremes, stride
from tfcompress.calibration.observers import (
    OBSERVERS,
    Entropy,
    Highest,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
    contain_zero,
    not_negative,
)

VALUES = np.random.default_rng(0).normal(0.3, 1.0, (24, 5, 3)).astype(np.float32)
HISTOGRAMMED = [Percentile, MeanSquaredError, Entropy]
ALL = [
    *OBSERVERS.values(),
    MovingAverage(momentum=0.0),
    MovingAverage(momentum=0.99),
    Percentile(percentile=75, values_per_sample=4, seed=5),
    MeanSquaredError(bits=4),
    Entropy(bits=4),
]


def observe(observer, *blocks):
    state = observer.init()
    for block in blocks:
        state = observer.update(state, block)
    return state


@pytest.mark.parametrize("observer", ALL, ids=repr)
class TestEveryObserver:
    def test_range_contains_zero_and_has_a_width(self, observer):
        for values in (VALUES, VALUES + 10, VALUES - 10, VALUES * 0):
            low, high = observer.range(observe(observer, values))
            assert low <= 0 <= high
            assert low < high

    def test_range_lies_within_the_extremes(self, observer):
        low, high = observer.range(observe(observer, VALUES))
        assert VALUES.min() <= low and high <= VALUES.max()

    @pytest.mark.parametrize("size", [1, 5, 24])
    def test_batching_does_not_matter(self, observer, size):
        blocks = [VALUES[i : i + size] for i in range(0, len(VALUES), size)]
        whole, parts = observer.range(observe(observer, VALUES)), observer.range(observe(observer, *blocks))
        assert parts == pytest.approx(whole, rel=1e-9)  # float64 sums in another order

    @pytest.mark.parametrize("cut", [0, 1, 7, 24])
    def test_merging_two_halves_is_one_pass(self, observer, cut):
        first = observe(observer, *([VALUES[:cut]] if cut else []))
        second = observe(observer, *([VALUES[cut:]] if cut < len(VALUES) else []))
        merged = observer.range(observer.merge(first, second))
        assert merged == pytest.approx(observer.range(observe(observer, VALUES)), rel=1e-9)

    def test_the_same_values_twice_are_the_same_range(self, observer):
        if isinstance(observer, MovingAverage):
            pytest.skip("an average moves towards what it sees last")
        state = observe(observer, VALUES)
        assert observer.range(observer.merge(state, state)) == pytest.approx(observer.range(state), rel=1e-9)

    def test_what_is_not_finite_is_handed_on(self, observer):
        if observer == MovingAverage(momentum=0.0):
            pytest.skip("without memory only the last sample counts")
        for bad in (np.nan, np.inf, -np.inf):
            values = VALUES[:4].copy()
            values[2, 1, 1] = bad
            assert not np.isfinite(observer.range(observe(observer, VALUES, values, VALUES))).all()

    def test_update_leaves_the_old_state_alone(self, observer):
        state = observe(observer, VALUES[:4])
        before = observer.range(state)
        observer.update(state, VALUES[4:] * 100)
        assert observer.range(state) == before


def test_min_max_is_the_extremes():
    assert MinMax().range(observe(MinMax(), VALUES)) == (float(VALUES.min()), float(VALUES.max()))


def test_moving_average_by_hand():
    observer = MovingAverage(momentum=0.75)
    values = np.array([[0.0, 4.0], [-4.0, 8.0]], np.float32)
    assert observer.range(observe(observer, values)) == (-1.0, 5.0)


def test_one_odd_sample_moves_the_average_less():
    odd = VALUES.copy()
    odd[5, 0, 0] = 1000
    assert observe(MinMax(), odd).high == 1000
    assert MovingAverage().range(observe(MovingAverage(), odd))[1] < 200


def test_an_empty_range_gets_a_width():
    assert contain_zero(0.0, 0.0) == (0.0, 1e-6)


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_wrong_momentum(momentum):
    with pytest.raises(ValueError, match="momentum must be in"):
        MovingAverage(momentum=momentum)


# Histograms and the ranges chosen from them.


@pytest.fixture(scope="module")
def tails():
    """A ReLU's and a symmetric layer's values with heavy tails, (32, 40000) float32 each."""
    random = np.random.default_rng(3)
    values = random.standard_t(5, (32, 40_000)).astype(np.float32)
    return {"relu": np.maximum(values, 0), "symmetric": values}


def test_any_split_in_any_order_is_the_same_histogram():
    random = np.random.default_rng(0)
    values = (random.normal(size=(64, 50)) * 10.0 ** random.uniform(-6, 4, (64, 1))).astype(np.float32)
    whole = Histogram().add(values)
    for order in (np.arange(64), np.arange(64)[::-1], random.permutation(64)):
        parts = [Histogram().add(values[group]) for group in np.array_split(order, 7)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        assert (merged.low, merged.high, merged.exponent, merged.first) == (
            whole.low,
            whole.high,
            whole.exponent,
            whole.first,
        )
        np.testing.assert_array_equal(merged.counts, whole.counts)
        assert merged.zeros == whole.zeros


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 0.5, 5.0])
def test_a_histogram_counts_what_numpy_counts(scale, shift):
    values = ((np.random.default_rng(1).normal(size=(3, 500)) + shift) * scale).astype(np.float32)
    histogram = Histogram().add(values)
    edges = histogram.edges
    assert edges[0] == min(values.min(), 0) and edges[-1] == max(values.max(), 0)
    assert BINS / 2 - 1 <= len(histogram.counts) <= BINS
    np.testing.assert_array_equal(histogram.counts, np.histogram(values.astype(np.float64), edges)[0])


def test_a_histogram_by_hand():
    histogram = Histogram().add(np.array([[0.0, 1.0, 2047.0], [0.5, 1.5, 0.0]], np.float32))
    assert (histogram.width, histogram.first, histogram.total, histogram.zeros) == (1.0, 0, 6, 2)
    assert histogram.counts[[0, 1, 2047]].tolist() == [3, 2, 1]
    wider = histogram.merge(Histogram().add(np.array([[-1.0]])))
    assert (wider.width, wider.first, len(wider.counts)) == (2.0, -1, 1025)
    assert wider.counts[[0, 1, 1024]].tolist() == [1, 5, 1]


def test_zeros_alone_merge_with_anything():
    for value in (1e-30, 1.0, -3.0):
        state = Histogram().add(np.zeros((2, 8)), limit=3).merge(Histogram().add(np.full((1, 8), value)))
        assert (state.low, state.high) == (min(value, 0.0), max(value, 0.0))
        assert state.zeros >= 8


def test_memory_is_bounded():
    state = Histogram()
    for power in range(-30, 30):
        state = state.add(np.array([[-(10.0**power), 10.0**power]], np.float64))
        assert state.counts.nbytes <= 8 * BINS


def test_the_extremes_are_those_of_all_values():
    values = np.random.default_rng(0).normal(size=(2, 9973)).astype(np.float32)
    state = Histogram().add(values, limit=10)
    assert (state.low, state.high) == extremes(values) == (float(values.min()), float(values.max()))
    assert state.counts[[0, -1]].min() >= 1  # no sampling misses them
    assert Histogram().add(values, limit=3000).total == pytest.approx(values.size, rel=0.02)


@pytest.mark.parametrize("count", [7, 96, 100, 3 * 224 * 224, 1 << 16])
@pytest.mark.parametrize("limit", [1, 5, 50, 1000])
def test_a_stride_leaves_out_no_channel(count, limit):
    step = stride(count, limit)
    assert len(range(0, count, step)) <= max(limit, 1)
    assert count <= limit or np.gcd(step, count) == 1 or step >= count


@pytest.mark.parametrize("kind", HISTOGRAMMED)
@pytest.mark.parametrize("name", ["relu", "symmetric"])
def test_sampling_moves_a_range_by_less_than_one_percent(kind, name, tails):
    values = tails[name]
    whole = kind(values_per_sample=None)
    low, high = whole.range(observe(whole, values))
    for seed in range(3):
        sampled = kind(seed=seed)  # about a fifth of the values
        assert np.abs(np.subtract(sampled.range(observe(sampled, values)), (low, high))).max() < 0.01 * (high - low)


def test_percentile_is_numpys(tails):
    for percentile in (75, 99, 99.9):
        observer = Percentile(percentile=percentile, values_per_sample=None)
        values = tails["symmetric"]
        low, high = observer.range(observe(observer, values))
        expected = np.percentile(values, [100 - percentile, percentile])
        bin_width = 2 * (values.max() - values.min()) / BINS  # the resolution that the observer promises
        np.testing.assert_allclose([low, high], expected, atol=bin_width)


def test_the_whole_percentile_is_the_extremes():
    assert Percentile(percentile=100).range(observe(Percentile(percentile=100), VALUES)) == (
        float(VALUES.min()),
        float(VALUES.max()),
    )


def squared_error(values, low, high, bits):
    step = (high - low) / (2**bits - 1)
    zero = np.round(-low / step)
    integers = np.clip(np.round(values / step) + zero, 0, 2**bits - 1)
    return np.mean(((integers - zero) * step - values) ** 2)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["relu", "symmetric"])
def test_squared_error_is_as_low_as_a_search_by_quantizing_finds(bits, name, tails):
    values = tails[name].astype(np.float64)
    observer = MeanSquaredError(bits=bits)
    ours = squared_error(values, *observer.range(observe(observer, values)), bits)
    low, high = values.min(), values.max()
    shares = np.linspace(0.02, 1, 50)
    best = min(squared_error(values, low * a, high * a, bits) for a in shares)
    assert ours <= best * 1.05  # real rounding against the formula's step**2 / 12
    assert ours < squared_error(values, low, high, bits)


def divergence(values, high, levels, bins=2048):
    """Migacz's published loop, for values from 0: KL of the clipped distribution to its ``levels`` levels."""
    counts, edges = np.histogram(values, bins, (0, values.max()))
    counts = counts.astype(float)
    counts[0] = counts[1]
    stop = round(high / edges[1])
    reference = counts[:stop].copy()
    reference[-1] += counts[stop:].sum()
    quantized = np.zeros(stop)
    bounds = np.round(np.arange(levels + 1) / levels * stop).astype(int)
    for start, end in itertools.pairwise(bounds):
        occupied = counts[start:end] > 0
        occupied[-1] |= end == stop and reference[-1] > 0
        if occupied.any():
            quantized[start:end][occupied] = max(counts[start:end].sum(), 1e-4) / occupied.sum()
    p, q = reference / reference.sum(), quantized / quantized.sum()
    return np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))


def test_entropy_is_as_low_as_the_published_loop_finds(tails):
    values = tails["relu"][:8].astype(np.float64)
    values *= 2048 / values.max() * (1 - 1e-12)  # bins of the width 1 in both
    observer = Entropy(bits=6)
    low, high = observer.range(observe(observer, values))
    candidates = np.arange(64, 2049, 16)
    best = min(divergence(values, stop, 64) for stop in candidates)
    assert low == 0
    assert divergence(values, high, 64) <= best + 2e-3  # other candidates, and of those within 1e-3 the widest


@pytest.mark.parametrize("kind", HISTOGRAMMED)
def test_wrong_arguments(kind):
    with pytest.raises(ValueError, match="values_per_sample must be at least 1"):
        kind(values_per_sample=0)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        kind(seed=-1)


def test_wrong_percentile_and_bits():
    with pytest.raises(ValueError, match=r"percentile must be in \(50, 100\]. Received: percentile=0.9999"):
        Percentile(percentile=0.9999)
    with pytest.raises(ValueError, match="bits must be from 2 to 16"):
        Entropy(bits=32)


@pytest.mark.parametrize("kind", HISTOGRAMMED)
def test_what_is_known_not_to_be_negative_needs_no_look_at_the_lowest(kind, tails):
    observer = kind()
    shortened = not_negative(observer, 6.0)
    assert shortened != observer
    for values in (tails["relu"], np.abs(VALUES)):
        assert shortened.range(observe(shortened, values)) == observer.range(observe(observer, values))


def test_highest_is_min_max_of_what_is_not_negative():
    for values in (np.abs(VALUES), VALUES * 0):
        assert Highest().range(observe(Highest(), values)) == MinMax().range(observe(MinMax(), values))
    assert np.isnan(observe(Highest(), np.full((2, 3), np.nan), VALUES))


def test_the_highest_is_settled_at_its_limit():
    observer = Highest(limit=6.0)
    assert not observer.is_settled(observer.init())
    assert not observer.is_settled(observe(observer, np.full((1, 2), 5.9)))
    assert observer.is_settled(observe(observer, np.full((1, 2), 6.0)))
    assert not observer.is_settled(float("nan"))
    assert not Highest().is_settled(1e30)
