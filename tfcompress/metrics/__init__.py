"""How good are answers, and how far apart are two arrays?

In: arrays of answers and of labels. Out: numbers. NumPy alone; runs no model.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .answers import argmax_agreement as argmax_agreement
    from .answers import check_labels as check_labels
    from .answers import class_scores as class_scores
    from .answers import cosine as cosine
    from .answers import decibels as decibels
    from .answers import predicted_classes as predicted_classes
    from .answers import step_difference as step_difference
    from .answers import top1_accuracy as top1_accuracy
    from .average_precision import coco_map as coco_map
    from .metric import METRICS as METRICS
    from .metric import Metric as Metric
    from .metric import MetricName as MetricName
    from .metric import area_under_curve as area_under_curve
    from .metric import confusion_matrix as confusion_matrix
    from .metric import resolve_metrics as resolve_metrics
    from .metric import top_k_accuracy as top_k_accuracy
    from .tensor_differences import Difference as Difference

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "answers": [
            "argmax_agreement",
            "check_labels",
            "class_scores",
            "cosine",
            "decibels",
            "predicted_classes",
            "step_difference",
            "top1_accuracy",
        ],
        "average_precision": ["coco_map"],
        "metric": [
            "METRICS",
            "Metric",
            "MetricName",
            "area_under_curve",
            "confusion_matrix",
            "resolve_metrics",
            "top_k_accuracy",
        ],
        "tensor_differences": ["Difference"],
    },
)
