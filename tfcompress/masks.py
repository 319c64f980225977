"""Which weights of an array go when a fraction of them must.

A mask function takes an array and a sparsity and returns an array of the same shape, 1 where the weight stays and 0
where it goes. Ranks decide, not thresholds: the count is exact, also when weights tie. Nothing here knows Keras.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["Mask", "magnitude", "pruned_count", "sparsity"]

Mask = Callable[[np.ndarray, float], np.ndarray]


def pruned_count(size: int, sparsity: float) -> int:
    """Returns how many of ``size`` weights are zero at ``sparsity``: the nearest whole number, halves upwards, never all.

    Args:
        size: number of weights.
        sparsity: fraction in [0, 1).

    Example:
        >>> pruned_count(10, 0.25), pruned_count(4, 0.75)
        (3, 3)
        >>> pruned_count(10, 0.99)
        9
    """
    return max(min(int(np.floor(size * sparsity + 0.5)), size - 1), 0)


def magnitude(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Returns the mask that removes the weights of smallest absolute value.

    Among equal magnitudes the earlier ones in memory order go first, so the mask is a function of its arguments alone.

    Args:
        weights: any shape, any float dtype.
        sparsity: fraction that is removed, in [0, 1).

    Returns:
        An array of the shape of ``weights``, float32, with exactly ``pruned_count(weights.size, sparsity)`` zeros.

    Raises:
        ValueError: sparsity outside [0, 1).

    Example:
        >>> magnitude(np.array([3.0, -1.0, 2.0, -4.0]), 0.5)
        array([1., 0., 0., 1.], dtype=float32)

    Source: Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural networks", 2015,
    https://arxiv.org/abs/1506.02626.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be a fraction in [0, 1). Received: sparsity={sparsity!r}.")
    mask = np.ones(weights.size, dtype=np.float32)
    count = pruned_count(weights.size, sparsity)
    if count:
        mask[np.argsort(np.abs(weights), axis=None, kind="stable")[:count]] = 0.0
    return mask.reshape(weights.shape)


def sparsity(weights: np.ndarray) -> float:
    """Returns the fraction of ``weights`` that is exactly zero; 0 for an empty array.

    Args:
        weights: any shape, any dtype.

    Example:
        >>> sparsity(np.array([0, 1, 0, 2]))
        0.5
    """
    return float(np.mean(weights == 0)) if weights.size else 0.0
