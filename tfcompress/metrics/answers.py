"""How good are a model's answers, and how far are two models apart?

Pure functions of arrays. They run no model and read no file: ``measurement`` and ``verification`` do.
"""

import math

import numpy as np

from ..errors import DataError

__all__ = [
    "argmax_agreement",
    "check_labels",
    "class_scores",
    "cosine",
    "decibels",
    "predicted_classes",
    "step_difference",
    "top1_accuracy",
]


def class_scores(outputs: np.ndarray) -> np.ndarray:
    """Returns the outputs as one row per sample: (n, classes), or (n, 1) for a binary model.

    Axes of length 1 between the batch and the classes are dropped: (n, 1, 1, 10) becomes (n, 10).

    Args:
        outputs: array (n,), (n, classes) or with axes of length 1 in between.

    Raises:
        DataError: more than one axis besides the batch is longer than 1, as in a segmentation model.

    Examples:
        >>> class_scores(np.zeros((5, 1, 1, 10))).shape
        (5, 10)
    """
    outputs = np.asarray(outputs)
    if sum(size > 1 for size in outputs.shape[1:]) > 1 or outputs.ndim == 0:
        raise DataError(
            f"Accuracy needs one row of class scores per sample. Received: outputs of shape {outputs.shape}. "
            "Measure without labels."
        )
    return outputs.reshape(len(outputs), int(np.prod(outputs.shape[1:], dtype=np.int64)))


def predicted_classes(outputs: np.ndarray, *, threshold: float | None = None) -> np.ndarray:
    """Returns the class that each row of outputs stands for.

    With two or more columns the arg-max (the first one of a tie); with one column 1 where it is above the threshold.

    Args:
        outputs: as ``class_scores`` takes them: probabilities or logits.
        threshold: of a single column; None: 0.5 if all outputs lie in [0, 1], as probabilities do, otherwise 0, as for
            logits. Default: None.

    Returns:
        An int64 array (n,).

    Examples:
        >>> predicted_classes(np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]))
        array([1, 0])
        >>> predicted_classes(np.array([[0.2], [0.9]])), predicted_classes(np.array([-3.0, 0.4]))
        (array([0, 1]), array([0, 1]))
    """
    scores = class_scores(outputs)
    if scores.shape[1] != 1:
        return scores.argmax(axis=1)
    if threshold is None:
        threshold = 0.5 if np.all((scores >= 0) & (scores <= 1)) else 0.0
    return (scores[:, 0] > threshold).astype(np.int64)


def top1_accuracy(outputs: np.ndarray, labels: np.ndarray, *, threshold: float | None = None) -> float:
    """Returns the fraction of samples whose predicted class is the label.

    Args:
        outputs: array (n, classes), or (n,) / (n, 1) for a binary model.
        labels: integer array (n,): 0 to classes - 1, or 0 and 1 for a binary model.
        threshold: as in ``predicted_classes``. Default: None.

    Raises:
        DataError: the labels do not match the outputs (``check_labels``).

    Examples:
        >>> top1_accuracy(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]), np.array([1, 0, 0, 0]))
        0.75
    """
    scores = class_scores(outputs)
    labels = check_labels(labels, samples=len(scores), columns=scores.shape[1])
    return float(np.mean(predicted_classes(scores, threshold=threshold) == labels))


def check_labels(labels: np.ndarray, *, samples: int, columns: int) -> np.ndarray:
    """Returns the labels as an int64 array (n,) if a model with this many outputs can be scored with them.

    Args:
        labels: integer array (n,) or (n, 1); a float array of whole numbers is taken too.
        samples: how many labels there have to be.
        columns: outputs per sample; 1 stands for a binary model.

    Raises:
        DataError: no labels, another number of labels than samples, labels that are not whole numbers, negative labels,
            or a label for which the model has no output.

    Examples:
        >>> check_labels(np.array([0, 7]), samples=2, columns=3)
        Traceback (most recent call last):
        ...
        tfcompress.errors.DataError: Labels must be in [0, 2] for a model with 3 outputs. Received: a label 7. ...
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != samples or samples == 0:
        raise DataError(
            f"There must be one label per sample, at least one. Expected shape: ({samples},). "
            f"Received shape: {labels.shape}. Give integer class numbers, not one-hot rows."
        )
    if labels.dtype.kind not in "iubf" or (labels.dtype.kind == "f" and not np.array_equal(labels, np.trunc(labels))):
        raise DataError(
            f"Labels must be whole numbers. Received: dtype {labels.dtype} with other values. Give class numbers."
        )
    highest = max(columns, 2) - 1
    wrong = labels[(labels < 0) | (labels > highest)]
    if wrong.size:
        outputs = "1 output (binary)" if columns == 1 else f"{columns} outputs"
        raise DataError(
            f"Labels must be in [0, {highest}] for a model with {outputs}. Received: a label {wrong.flat[0]:g}. "
            "Check that the labels belong to this model and count from 0."
        )
    return labels.astype(np.int64)


def argmax_agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Returns how often two models give the same class, as a fraction of the samples.

    Outputs with more axes, such as a segmentation (n, height, width, classes), are compared position by position.

    Args:
        first: outputs of one model, (n,) or (n, ..., classes).
        second: outputs of the other on the same samples, same shape.

    Raises:
        ValueError: the shapes differ, or there is no sample.

    Examples:
        >>> argmax_agreement(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[0.2, 0.8], [0.4, 0.6]]))
        0.5
    """
    check_same_shape(first, second)
    first, second = np.asarray(first), np.asarray(second)
    classes = first.shape[-1] if first.ndim > 1 else 1
    rows = first.reshape(-1, classes), second.reshape(-1, classes)
    return float(np.mean(predicted_classes(rows[0]) == predicted_classes(rows[1])))


def step_difference(first: np.ndarray, second: np.ndarray, scale: float) -> tuple[float, float]:
    """Returns the largest and the mean absolute difference of two outputs, in quantization steps.

    max |first - second| / scale and mean |first - second| / scale.

    Args:
        first: real-valued outputs of one model, any shape.
        second: real-valued outputs of the other, same shape.
        scale: the real size of one quantization step, above 0.

    Raises:
        ValueError: the shapes differ, there is no value, or the scale is not above 0.

    Examples:
        >>> step_difference(np.array([0.0, 1.0]), np.array([0.5, 1.0]), scale=0.25)
        (2.0, 1.0)
    """
    check_same_shape(first, second)
    if not scale > 0:
        raise ValueError(f"scale must be above 0. Received: scale={scale}. Use the output's quantization scale.")
    steps = np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64)) / scale
    return float(steps.max()), float(steps.mean())


def decibels(signal: float, noise: float) -> float:
    """Returns the ratio of a signal's energy to an error's in decibels: the SQNR of a quantized tensor.

    10 log10(signal / noise); infinite without an error, minus infinity for an error without a signal. Six decibels more
    are one bit more.

    Args:
        signal: sum of the squares of the true values.
        noise: sum of the squares of the differences.

    Examples:
        >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
        (20.0, inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and signal / noise > 0 else -math.inf


def cosine(product: float, first: float, second: float) -> float:
    """Returns the cosine similarity of two vectors from their products; 1 where both are zero, 0 where one is.

    Args:
        product: sum of the products of their values.
        first: sum of the squares of the first.
        second: sum of the squares of the second.

    Examples:
        >>> cosine(4.0, 4.0, 4.0), cosine(0.0, 0.0, 0.0)
        (1.0, 1.0)
    """
    if first == 0 or second == 0:
        return float(first == second)
    return float(np.clip(product / math.sqrt(first) / math.sqrt(second), -1.0, 1.0))


def check_same_shape(first: np.ndarray, second: np.ndarray) -> None:
    """Refuses two arrays that cannot be compared value by value with a ``ValueError``.

    Examples:
        >>> check_same_shape(np.zeros(2), np.ones(2))
    """
    if np.shape(first) != np.shape(second) or np.size(first) == 0:
        raise ValueError(
            f"Outputs are compared on the same samples. Received shapes: {np.shape(first)} and {np.shape(second)}."
        )
