"""How much does an error of a layer's weights cost at its outputs? A quadratic form of the samples it was fed.

For weights W + D where W was meant, and inputs p' where p was meant, the squared error of the outputs, summed over all
patches, is D H D.T + 2 D B + c for each output channel, with

    H = sum p' p'.T,   B = sum p' r,   c = sum r**2,   r = (p' - p) W.T

so that a search over D needs no sample any more.
"""

from dataclasses import dataclass

import numpy as np

from .linear_layers import Layer, patches

__all__ = ["Moments", "measure_moments"]

_BLOCK = 16  # samples whose patches are in memory at the same time


@dataclass(frozen=True)
class Moments:
    """The quadratic form of a layer's output error.

    Args:
        gram: H, (G, K, K) float64, mean over patches.
        cross: B, (G, O, K) float64, likewise.
        constant: c, (G, O) float64, likewise.

    Examples:
        >>> moments = Moments(np.eye(2)[None], np.zeros((1, 1, 2)), np.zeros((1, 1)))
        >>> moments.error(np.array([[[3.0, 4.0]]])).tolist()
        [[25.0]]
    """

    gram: np.ndarray
    cross: np.ndarray
    constant: np.ndarray

    def error(self, difference: np.ndarray) -> np.ndarray:
        """Returns the mean squared output error (G, O) of weights that differ by ``difference`` (G, O, K)."""
        return ((difference @ self.gram + 2 * self.cross) * difference).sum(axis=2) + self.constant

    def gradient(self, difference: np.ndarray) -> np.ndarray:
        """Returns the derivative of ``error`` by ``difference``, (G, O, K)."""
        return 2 * (difference @ self.gram + self.cross)


def measure_moments(
    layer: Layer, weights: np.ndarray, meant: np.ndarray, received: np.ndarray, *, positions: int, seed: int = 0
) -> Moments:
    """Returns the quadratic form of a layer on its inputs.

    Args:
        layer: the layer.
        weights: W, (G, O, K).
        meant: inputs of the float file, (n, ...).
        received: inputs of the repaired one, same shape.
        positions: largest number of output positions of a sample that count.
        seed: which positions. Default: 0.
    """
    groups, rows, columns = weights.shape
    gram = np.zeros((groups, columns, columns))
    cross = np.zeros(weights.shape)
    constant = np.zeros((groups, rows))
    count = 0
    plain = weights.astype(np.float32)
    for start in range(0, len(meant), _BLOCK):
        part = slice(start, start + _BLOCK)
        wanted = patches(layer, meant[part], positions=positions, seed=seed + start)
        got = patches(layer, received[part], positions=positions, seed=seed + start)
        residual = (got - wanted) @ plain.transpose(0, 2, 1)  # (G, M, O)
        gram += got.transpose(0, 2, 1) @ got
        cross += residual.transpose(0, 2, 1) @ got
        constant += (residual.astype(np.float64) ** 2).sum(axis=1)
        count += got.shape[1]
    return Moments(gram / count, cross / count, constant / count)
