"""Which number says how good a model's answers are? Metrics by name, and what truth each of them is compared with.

Pure functions of arrays, as in ``metrics``. Running the model is ``measurement``'s business.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..data import load_function
from ..data.scripts import names_a_function
from ..errors import DataError
from .answers import check_labels, class_scores, predicted_classes, top1_accuracy

__all__ = [
    "METRICS",
    "Metric",
    "MetricName",
    "area_under_curve",
    "confusion_matrix",
    "resolve_metrics",
    "top_k_accuracy",
]

Outputs = Mapping[str, np.ndarray]
MetricName = Literal["top1", "top5", "auc", "mse", "exact", "coco_map", "coco_map50"]
MOST_CLASSES = 1000  # of a confusion matrix that still fits a record
TOP = 5


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
        threshold: of a binary model, as in ``metrics.predicted_classes``. Default: None.

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


def mean_squared_error(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Returns the mean square of the differences.

    Args:
        outputs: real numbers of any shape (n, ...).
        truth: as many real numbers.

    Raises:
        DataError: the numbers of values differ.

    Examples:
        >>> mean_squared_error(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
        2.0
    """
    truth = np.asarray(truth, np.float64)
    if truth.size != outputs.size or len(truth) != len(outputs):
        raise DataError(f"Each output has one true value. Received: {outputs.shape} and {truth.shape}.")
    return float(np.mean((np.asarray(outputs, np.float64) - truth.reshape(outputs.shape)) ** 2))


def exact_match(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Returns the fraction of samples whose answer is right at every position.

    Where the outputs have one axis more than the truth, the answer at a position is the class with the highest output;
    otherwise it is the output itself, rounded.

    Args:
        outputs: shape (n, ..., classes) or (n, ...).
        truth: shape (n, ...), integers; of ragged answers padded with -1, which is not looked at.

    Raises:
        DataError: the shapes do not match.

    Examples:
        >>> exact_match(np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.8, 0.2]]]), np.array([[0, 1], [0, 1]]))
        0.5
    """
    truth = np.asarray(truth)
    answers = outputs.argmax(axis=-1) if outputs.ndim == truth.ndim + 1 else np.rint(outputs)
    if answers.shape != truth.shape:
        raise DataError(f"Each answer has one true value. Received: {answers.shape} and {truth.shape}.")
    right = (answers == truth) | (truth == -1)
    return float(np.mean(right.reshape(len(right), -1).all(axis=1)))


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that says how good answers are.

    Attributes:
        name: as it is asked for and as the record names it.
        function: takes the outputs (by name, real numbers), the truth and the binary threshold, and returns the number.
        truth: what it is compared with: "classes" (integer labels), "values" (arrays), or "boxes".
        is_share: whether it lies in [0, 1], more being better, and may stand in an accuracy column.
    """

    name: str
    function: Callable[[Outputs, Any, float | None], float]
    truth: str
    is_share: bool = True


def _lone(outputs: Outputs) -> np.ndarray:
    """Returns the only output of a model.

    Raises:
        DataError: it has several.
    """
    if len(outputs) != 1:
        raise DataError(
            f"Accuracy needs a model with one output. Received: {len(outputs)} ({', '.join(outputs)}). Measure it without "
            "data, or give a metric of your own (path.py:function)."
        )
    return next(iter(outputs.values()))


def _boxes(name: str, outputs: Outputs, truth: Any) -> float:
    from . import average_precision

    return float(getattr(average_precision, name)(outputs, truth))


METRICS = {
    "top1": Metric("top1", lambda o, y, t: top1_accuracy(_lone(o), y, threshold=t), "classes"),
    "top5": Metric("top5", lambda o, y, t: top_k_accuracy(_lone(o), y), "classes"),
    "auc": Metric("auc", lambda o, y, t: area_under_curve(_lone(o), y), "classes"),
    "mse": Metric("mse", lambda o, y, t: mean_squared_error(_lone(o), y), "values", is_share=False),
    "exact": Metric("exact", lambda o, y, t: exact_match(_lone(o), y), "values"),
    "coco_map": Metric("coco_map", lambda o, y, t: _boxes("coco_map", o, y), "boxes"),
    "coco_map50": Metric("coco_map50", lambda o, y, t: _boxes("coco_map50", o, y), "boxes"),
}
"""Metrics by name; the first that is asked for is the record's ``accuracy`` if it is a share."""


def resolve_metrics(metrics: str | Callable | Metric | Sequence[Any]) -> list[Metric]:
    """Returns metrics from their names, ``path.py:function``, or functions of (outputs, truth).

    A function takes the outputs by name, real numbers of shape (n, ...), and the labels as the data has them.

    Raises:
        ValueError: a name is unknown, no metric is given, or they need different kinds of truth.
        DataError: a script is missing or lacks the function.

    Examples:
        >>> [metric.name for metric in resolve_metrics("top1,top5")]
        ['top1', 'top5']
        >>> resolve_metrics("top7")
        Traceback (most recent call last):
        ...
        ValueError: metric must be one of top1, top5, auc, mse, exact, coco_map, coco_map50, or path.py:function. Received: 'top7'.
    """
    if isinstance(metrics, str):
        metrics = metrics.split(",")
    elif callable(metrics) or isinstance(metrics, Metric):
        metrics = [metrics]
    found = [_resolve(metric) for metric in metrics]
    kinds = {metric.truth for metric in found} - {"any"}
    if not found or len(kinds) > 1:
        names = ", ".join(metric.name for metric in found)
        raise ValueError(f"metric must be one or several with the same kind of labels. Received: {names or 'none'}.")
    return found


def _resolve(metric: Any) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return _own(getattr(metric, "__name__", "metric"), metric)
    if names_a_function(metric):
        return _own(metric.rpartition(":")[2], load_function(metric))
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, or path.py:function. Received: {metric!r}.")
    return METRICS[metric]


def _own(name: str, function: Callable[[Outputs, Any], float]) -> Metric:
    def call(outputs: Outputs, truth: Any, threshold: float | None) -> float:
        try:
            value = float(function(outputs, truth))
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"The metric must return a number. Received: {name} raised {error!r}.") from error
        if not np.isfinite(value):
            raise DataError(f"The metric must return a finite number. Received: {name} returned {value}.")
        return value

    return Metric(name, call, "any")
