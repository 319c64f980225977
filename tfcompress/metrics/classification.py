"""How good are a classifier's answers? Accuracy, confusion and area under the curve, from outputs and labels.

Pure functions of arrays. They run no model and read no file: ``measurement`` does.
"""

import numpy as np

from ..errors import DataError

__all__ = [
    "area_under_curve",
    "check_labels",
    "class_scores",
    "confusion_matrix",
    "predicted_classes",
    "top1_accuracy",
    "top_k_accuracy",
]

MOST_CLASSES = 1000  # of a confusion matrix that still fits a record
TOP = 5


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


def top_k_accuracy(outputs: np.ndarray, labels: np.ndarray, k: int = TOP) -> float:
    """Returns the fraction of samples whose label is among the k highest outputs.

    A label that ties with the k-th output counts if fewer than k classes of a lower number or a higher output stand before
    it, as if the classes were sorted by output, then by number.

    Args:
        outputs: shape (n, classes).
        labels: shape (n,), integers.
        k: how many answers a sample has. Default: 5.

    Raises:
        DataError: the labels do not match the outputs.

    Examples:
        >>> top_k_accuracy(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), np.array([1, 2]), k=2)
        0.5
    """
    scores = class_scores(outputs)
    labels = check_labels(labels, samples=len(scores), columns=scores.shape[1])
    own = scores[np.arange(len(scores)), labels][:, None] if scores.shape[1] > 1 else scores
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    return float(np.mean(before.sum(axis=1) < k))


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray, *, threshold: float | None = None) -> np.ndarray:
    """Returns how many samples of each label (row) got each answer (column), shape (classes, classes), int64.

    Args:
        outputs: shape (n, classes), or (n,) / (n, 1) for a binary model.
        labels: shape (n,), integers.
        threshold: of a binary model, as in ``predicted_classes``. Default: None.

    Raises:
        DataError: the labels do not match, or there are more than 1000 classes.

    Examples:
        >>> confusion_matrix(np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 0, 0]))
        array([[1, 1],
               [0, 1]])
    """
    scores = class_scores(outputs)
    labels = check_labels(labels, samples=len(scores), columns=scores.shape[1])
    classes = max(2, scores.shape[1])
    if classes > MOST_CLASSES:
        raise DataError(f"A confusion matrix is for at most {MOST_CLASSES} classes. Received: {classes}. Leave it out.")
    found = np.zeros((classes, classes), np.int64)
    np.add.at(found, (labels, predicted_classes(scores, threshold=threshold)), 1)
    return found


def area_under_curve(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the area under the receiver operating characteristic.

    The probability that a sample of the class gets a higher output than one of another class, ties counting half; with
    three or more classes the mean over classes against the rest.

    Reference:
        Hanley and McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve", 1982.

    Args:
        outputs: shape (n, classes), or (n,) / (n, 1) for a binary model.
        labels: shape (n,), integers.

    Raises:
        DataError: the labels do not match, or no class has samples both of it and of others.

    Examples:
        >>> area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    scores = class_scores(outputs)
    labels = check_labels(labels, samples=len(scores), columns=scores.shape[1])
    columns = {1: scores[:, -1]} if scores.shape[1] <= 2 else dict(enumerate(scores.T))
    if scores.shape[1] == 2:
        columns = {1: scores[:, 1] - scores[:, 0]}
    areas = []
    for number, column in columns.items():
        is_class = labels == number
        positives, negatives = int(is_class.sum()), int((~is_class).sum())
        if positives and negatives:
            wins = _ranks(column)[is_class].sum() - positives * (positives + 1) / 2
            areas.append(wins / (positives * negatives))
    if not areas:
        raise DataError("An area under the curve needs samples of two classes. Received: labels of one class only.")
    return float(np.mean(areas))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 1, equal values sharing the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places.reshape(-1)]


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
