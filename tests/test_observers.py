"""Laws of observers, each public one through the same table: zero inside, mergeable, independent of batching."""

import numpy as np
import pytest

from tfcompress.observers import OBSERVERS, MinMax, MovingAverage, contain_zero

VALUES = np.random.default_rng(0).normal(0.3, 1.0, (24, 5, 3)).astype(np.float32)
ALL = [*OBSERVERS.values(), MovingAverage(momentum=0.0), MovingAverage(momentum=0.99)]


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
