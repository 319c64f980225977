"""Which metrics are there by name, and what kind of labels is each of them compared with?

Pure functions of arrays, as in ``classification``. Running the model is the business of ``measurement``.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..data import LabelKind
from ..errors import DataError
from ..system import load_function, names_a_function
from .classification import area_under_curve, top1_accuracy, top_k_accuracy

__all__ = ["METRICS", "Metric", "MetricName", "exact_match", "mean_squared_error", "resolve_metrics"]

Outputs = Mapping[str, np.ndarray]
MetricName = Literal["top1", "top5", "auc", "mse", "exact", "coco_map", "coco_map50"]


def mean_squared_error(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean square of the differences.

    Args:
        outputs: real numbers of any shape (n, ...).
        labels: as many real numbers.

    Raises:
        DataError: the numbers of values differ.

    Examples:
        >>> mean_squared_error(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
        2.0
    """
    labels = np.asarray(labels, np.float64)
    if labels.size != outputs.size or len(labels) != len(outputs):
        raise DataError(f"Each output has one true value. Received: {outputs.shape} and {labels.shape}.")
    return float(np.mean((np.asarray(outputs, np.float64) - labels.reshape(outputs.shape)) ** 2))


def exact_match(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of samples whose answer is right at every position.

    Where the outputs have one axis more than the labels, the answer at a position is the class with the highest output;
    otherwise it is the output itself, rounded.

    Args:
        outputs: shape (n, ..., classes) or (n, ...).
        labels: shape (n, ...), integers; of ragged answers padded with -1, which is not looked at.

    Raises:
        DataError: the shapes do not match.

    Examples:
        >>> exact_match(np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.8, 0.2]]]), np.array([[0, 1], [0, 1]]))
        0.5
    """
    labels = np.asarray(labels)
    answers = outputs.argmax(axis=-1) if outputs.ndim == labels.ndim + 1 else np.rint(outputs)
    if answers.shape != labels.shape:
        raise DataError(f"Each answer has one true value. Received: {answers.shape} and {labels.shape}.")
    right = (answers == labels) | (labels == -1)
    return float(np.mean(right.reshape(len(right), -1).all(axis=1)))


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that says how good answers are.

    Attributes:
        name: as it is asked for and as the record names it.
        function: takes the outputs (by name, real numbers), the labels and the binary threshold, and returns the number.
        labels: what it is compared with: "classes" (integer labels), "values" (arrays), or "boxes".
        is_share: whether it lies in [0, 1], more being better, and may stand in an accuracy column.
    """

    name: str
    function: Callable[[Outputs, Any, float | None], float]
    labels: LabelKind
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


def _boxes(name: str, outputs: Outputs, labels: Any) -> float:
    from . import average_precision

    return float(getattr(average_precision, name)(outputs, labels))


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
    """Returns metrics from their names, ``path.py:function``, or functions of (outputs, labels).

    A function takes the outputs by name, real numbers of shape (n, ...), and the labels as the data has them.

    Raises:
        ValueError: a name is unknown, no metric is given, or they need different kinds of labels.
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
    kinds = {metric.labels for metric in found} - {"any"}
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
    def call(outputs: Outputs, labels: Any, threshold: float | None) -> float:
        try:
            value = float(function(outputs, labels))
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"The metric must return a number. Received: {name} raised {error!r}.") from error
        if not np.isfinite(value):
            raise DataError(f"The metric must return a finite number. Received: {name} returned {value}.")
        return value

    return Metric(name, call, "any")
