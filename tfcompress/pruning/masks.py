"""Which weights of an array go when a fraction of them must.

A mask function takes an array and a sparsity and returns an array of the same shape, 1 where the weight stays and 0
where it goes. A mask with the attribute ``matrix`` gets the kernel as TFLite stores it, (outputs * positions, inputs), so
that a pattern lies along the axis that its kernels read. Ranks decide, not thresholds: the count is exact, also when weights tie. Nothing here knows Keras.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["Block", "Mask", "NofM", "jointly", "magnitude", "pruned_count", "sparsity"]

Mask = Callable[[np.ndarray, float], np.ndarray]


def pruned_count(size: int, sparsity: float) -> int:
    """Returns how many of ``size`` weights are zero at ``sparsity``: the nearest whole number, halves upwards, never all.

    Args:
        size: number of weights.
        sparsity: fraction in [0, 1).

    Examples:
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

    Examples:
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

    Examples:
        >>> sparsity(np.array([0, 1, 0, 2]))
        0.5
    """
    return float(np.mean(weights == 0)) if weights.size else 0.0


class Block:
    """Removes whole blocks of weights, those of the smallest norm.

    A block is (rows, columns) of the kernel as TFLite stores it: (1, 4) is four inputs of one output, (16, 1) sixteen
    outputs of one input. Blocks at an edge may be smaller, so norms are per weight: mean(|w|), or sqrt(mean(w**2)). The
    number of blocks is exact, also on ties.

    Args:
        shape: rows and columns, from 1 on.
        norm: "l1" or "l2"; the second minds a single large weight more. Default: "l1".

    Raises:
        ValueError: not two whole numbers from 1 on, or an unknown norm.

    Examples:
        >>> weights = np.array([[2.0, 2.0, 3.0, 0.0]])
        >>> Block((1, 2))(weights, 0.5)
        array([[1., 1., 0., 0.]], dtype=float32)
        >>> Block((1, 2), norm="l2")(weights, 0.5)
        array([[0., 0., 1., 1.]], dtype=float32)

    Source: Narang, Undersander and Diamos, "Block-sparse recurrent neural networks", 2017,
    https://arxiv.org/abs/1711.02782.
    """

    matrix = True

    def __init__(self, shape: tuple[int, int], *, norm: str = "l1") -> None:
        sizes = tuple(shape) if isinstance(shape, tuple | list) else ()
        if len(sizes) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
            raise ValueError(f"A block must be (rows, columns), from 1 on. Received: shape={shape!r}. Try (1, 4).")
        if norm not in ("l1", "l2"):
            raise ValueError(f"norm must be 'l1' or 'l2'. Received: norm={norm!r}.")
        self.shape = sizes
        self.norm = norm

    def __repr__(self) -> str:
        return f"Block({self.shape})" if self.norm == "l1" else f"Block({self.shape}, norm={self.norm!r})"

    def __call__(self, matrix: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask of a matrix (rows, columns), with ``pruned_count(blocks, sparsity)`` blocks of zeros."""
        kept = magnitude(self.scores(matrix), sparsity)
        return self.spread(kept, matrix.shape)

    def scores(self, matrix: np.ndarray) -> np.ndarray:
        """Returns the norm of each block per weight, float64 (block rows, block columns)."""
        rows, columns = self.shape
        magnitudes = np.abs(matrix).astype(np.float64)
        powers = magnitudes if self.norm == "l1" else magnitudes**2
        room = ((0, -matrix.shape[0] % rows), (0, -matrix.shape[1] % columns))
        totals, counts = (
            np.pad(values, room).reshape(-(-matrix.shape[0] // rows), rows, -1, columns).sum(axis=(1, 3))
            for values in (powers, np.ones(matrix.shape))
        )
        means = totals / counts
        return means if self.norm == "l1" else np.sqrt(means)

    def spread(self, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the mask of the weights from that of the blocks."""
        return np.repeat(np.repeat(kept, self.shape[0], axis=0), self.shape[1], axis=1)[: shape[0], : shape[1]]


class NofM:
    """Keeps n of each m neighbouring inputs, those of the largest magnitude: 2:4 or 1:4 sparsity.

    As the schedule climbs each group loses one weight after the other, until m - n are gone. What is left over at the end
    of a row, fewer than m weights, keeps its n largest too.

    Args:
        n: weights that stay, from 1 on and below m.
        m: size of a group.

    Raises:
        ValueError: n outside [1, m); at a call: a sparsity above (m - n) / m.

    Examples:
        >>> NofM(2, 4)(np.array([[1.0, -4.0, 3.0, 2.0]]), 0.5)
        array([[0., 1., 1., 0.]], dtype=float32)

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021, https://arxiv.org/abs/2104.08378.
    """

    matrix = True

    def __init__(self, n: int, m: int) -> None:
        numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (n, m))
        if not numbers or not 1 <= n < m:
            raise ValueError(
                f"n of m must be whole numbers with 1 <= n < m. Received: n={n!r}, m={m!r}. Try NofM(2, 4)."
            )
        self.n, self.m = n, m

    def __repr__(self) -> str:
        return f"NofM({self.n}, {self.m})"

    @property
    def most(self) -> float:
        """The sparsity at which n of m are left."""
        return (self.m - self.n) / self.m

    def __call__(self, matrix: np.ndarray, sparsity: float) -> np.ndarray:
        """Returns the mask of a matrix (rows, columns): in each group the same number of zeros."""
        if not 0 <= sparsity <= self.most + 1e-9:
            raise ValueError(
                f"{self.n}:{self.m} sparsity is {self.most:g} at most. Received: sparsity={sparsity!r}. End the schedule at "
                f"{self.most:g}."
            )
        rows, columns = matrix.shape
        gone = int(sparsity * self.m + 1e-9)
        groups = np.pad(np.abs(matrix).astype(np.float64), ((0, 0), (0, -columns % self.m)), constant_values=-1.0)
        groups = groups.reshape(rows, -1, self.m)
        ranks = np.argsort(np.argsort(groups, axis=-1, kind="stable"), axis=-1, kind="stable")
        return (ranks >= gone).astype(np.float32).reshape(rows, -1)[:, :columns]


def jointly(mask: Any, arrays: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Returns the masks of several arrays under one ranking: the smallest of all go, wherever they are.

    Args:
        mask: ``magnitude`` or a ``Block``.
        arrays: weights by name; matrices for a ``Block``.
        sparsity: fraction of all weights, or of all blocks, that goes, in [0, 1).

    Returns:
        Masks by name; together they have exactly ``pruned_count(total, sparsity)`` zeros or zero blocks. One weight or
        block of each array always stays.

    Raises:
        ValueError: another mask, or a sparsity outside [0, 1).

    Examples:
        >>> jointly(magnitude, {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}, 0.25)["a"]
        array([0., 1.], dtype=float32)
    """
    if mask is not magnitude and not isinstance(mask, Block):
        raise ValueError(f"One ranking needs masks.magnitude or masks.Block. Received: mask={mask!r}.")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be a fraction in [0, 1). Received: sparsity={sparsity!r}.")
    blocks = mask if isinstance(mask, Block) else None
    scores = {name: blocks.scores(values) if blocks else np.abs(values) for name, values in arrays.items()}
    flat = np.concatenate([values.reshape(-1).astype(np.float64) for values in scores.values()])
    start = 0
    for values in scores.values():  # the best of each stays
        flat[start + int(np.argmax(values))] = np.inf
        start += values.size
    count = min(pruned_count(flat.size, sparsity), flat.size - len(scores))
    kept = np.ones(flat.size, np.float32)
    kept[np.argsort(flat, kind="stable")[:count]] = 0.0
    result, start = {}, 0
    for name, values in scores.items():
        piece = kept[start : start + values.size].reshape(values.shape)
        result[name] = blocks.spread(piece, arrays[name].shape) if blocks else piece
        start += values.size
    return result
