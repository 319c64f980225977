"""How sure are answers, how sure may they be, and how sure is a share of so few samples?

Pure functions of arrays, as in ``classification``.
"""

import math

import numpy as np

from ..errors import DataError
from .classification import check_labels, class_scores

__all__ = ["are_probabilities", "expected_calibration_error", "probabilities", "wilson_interval"]

BINS = 15
_SUM_TOLERANCE = 0.05  # of rows that int8 rounds to 1/256 each


def are_probabilities(outputs: np.ndarray) -> bool:
    """Returns whether outputs look like probabilities rather than logits: all in [0, 1], and rows of several add up to 1.

    Args:
        outputs: shape (n, classes), or (n,) / (n, 1) for a binary model.

    Examples:
        >>> are_probabilities(np.array([[0.25, 0.75]])), are_probabilities(np.array([[-1.0, 2.0]]))
        (True, False)
    """
    scores = class_scores(outputs)
    if not ((scores >= 0) & (scores <= 1)).all():
        return False
    return scores.shape[1] == 1 or bool((np.abs(scores.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Returns the probability of each class, (n, classes), float64; logits pass a softmax, or a sigmoid if there is one.

    Args:
        outputs: shape (n, classes), or (n,) / (n, 1) for a binary model, of which class 1 is meant.

    Examples:
        >>> probabilities(np.array([[0.0, 0.0], [1.0, 1.0]]))
        array([[0.5, 0.5],
               [0.5, 0.5]])
        >>> probabilities(np.array([0.0, 0.25]))
        array([[1.  , 0.  ],
               [0.75, 0.25]])
    """
    scores = class_scores(outputs).astype(np.float64)
    given = are_probabilities(scores)
    if scores.shape[1] == 1:
        of_one = scores if given else 0.5 * (1 + np.tanh(scores / 2))
        return np.concatenate([1 - of_one, of_one], axis=1)
    if not given:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def expected_calibration_error(outputs: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """Returns how far confidence and accuracy are apart on average, in [0, 1].

    Samples fall into bins of equal width by their confidence, the probability of the predicted class:
    ECE = sum over bins of |bin| / n * |accuracy(bin) - mean confidence(bin)|. Bins hold their upper end.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599.

    Args:
        outputs: shape (n, classes), or (n,) / (n, 1) for a binary model; logits or probabilities.
        labels: shape (n,), integers.
        bins: how many. Default: 15.

    Raises:
        DataError: the labels do not match the outputs.
        ValueError: ``bins`` is below 1.

    Examples:
        >>> outputs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
        >>> round(expected_calibration_error(outputs, np.array([0, 0, 1, 0])), 6)  # (2 * |1 - 0.9| + 2 * |0.5 - 0.6|) / 4
        0.1
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1. Received: bins={bins}.")
    shares = probabilities(outputs)
    labels = check_labels(labels, samples=len(shares), columns=shares.shape[1])
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    apart = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(apart).sum() / len(labels))


def wilson_interval(successes: int, samples: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Returns the ends of the confidence interval of a share, which lie in [0, 1] also for none and for all.

    Reference:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.

    Args:
        successes: how many.
        samples: of how many, at least one.
        z: quantile of the normal distribution. Default: that of 95 %.

    Raises:
        DataError: no samples, or more successes than samples.

    Examples:
        >>> [round(end, 3) for end in wilson_interval(8, 10)]
        [0.49, 0.943]
    """
    if not 0 <= successes <= samples or not samples:
        raise DataError(f"A share is of at least one sample. Received: {successes} of {samples}.")
    share, spread = successes / samples, z * z / samples
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / samples + spread / (4 * samples))
    return max(0.0, middle - half), min(1.0, middle + half)
