"""Laws of masks: exact counts also on ties, the largest stay, twice is once."""

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
