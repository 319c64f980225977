"""Laws of masks: exact counts also on ties, the largest stay, twice is once."""

import itertools

import numpy as np
import pytest

from tfcompress.pruning import masks

ARRAYS = [
    np.random.default_rng(0).normal(size=(3, 3, 4, 8)),
    np.ones((7, 5)),
    np.zeros(11),
    np.repeat([1.0, -1.0, 2.0], 9),
]


@pytest.mark.parametrize("weights", ARRAYS, ids=["normal", "ties", "zeros", "few values"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.75, 0.99])
class TestMagnitude:
    def test_count_is_exact(self, weights, sparsity):
        mask = masks.magnitude(weights, sparsity)
        assert mask.shape == weights.shape
        assert set(np.unique(mask)) <= {0.0, 1.0}
        assert int((mask == 0).sum()) == masks.pruned_count(weights.size, sparsity)

    def test_what_stays_is_at_least_as_large_as_what_goes(self, weights, sparsity):
        mask = masks.magnitude(weights, sparsity)
        kept, gone = np.abs(weights[mask == 1]), np.abs(weights[mask == 0])
        assert not gone.size or kept.min() >= gone.max()

    def test_something_stays(self, weights, sparsity):
        assert masks.magnitude(weights, sparsity).any()

    def test_masking_twice_changes_nothing(self, weights, sparsity):
        mask = masks.magnitude(weights, sparsity)
        np.testing.assert_array_equal(masks.magnitude(weights * mask, sparsity), mask)


def test_more_sparsity_keeps_a_subset():
    weights = ARRAYS[0]
    assert np.all(masks.magnitude(weights, 0.8) <= masks.magnitude(weights, 0.4))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 75])
def test_a_wrong_fraction_is_refused(sparsity):
    with pytest.raises(ValueError, match="must be a fraction"):
        masks.magnitude(np.ones(4), sparsity)


MATRIX = np.random.default_rng(0).normal(size=(16, 32))
EVERY = [masks.magnitude, masks.Block((1, 4)), masks.Block((16, 1), norm="l2"), masks.NofM(1, 4)]
NO_MASKS = {"Mask", "jointly", "pruned_count", "sparsity"}


@pytest.mark.parametrize("mask", EVERY, ids=lambda mask: getattr(mask, "__name__", repr(mask)))
class TestEveryMask:
    def test_removes_nothing_at_first_and_then_whole_weights(self, mask):
        assert mask(MATRIX, 0.0).all()
        found = mask(MATRIX, 0.5)
        assert found.shape == MATRIX.shape
        assert set(np.unique(found)) == {0.0, 1.0}

    def test_more_sparsity_keeps_a_subset(self, mask):
        found = [mask(MATRIX, sparsity) for sparsity in (0.25, 0.5, 0.75)]
        assert all(np.all(more <= less) for less, more in itertools.pairwise(found))

    def test_masking_twice_changes_nothing(self, mask):
        found = mask(MATRIX, 0.5)
        np.testing.assert_array_equal(mask(MATRIX * found, 0.5), found)


def test_every_public_mask_is_in_the_table():
    public = {getattr(masks, name) for name in set(masks.__all__) - NO_MASKS}
    assert {mask if mask in public else type(mask) for mask in EVERY} == public
