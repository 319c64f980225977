"""How good are answers, and how far apart are two arrays?

In: arrays of answers and of labels. Out: numbers. NumPy alone; runs no model.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .average_precision import coco_map as coco_map
    from .classification import area_under_curve as area_under_curve
    from .classification import check_labels as check_labels
    from .classification import class_scores as class_scores
    from .classification import confusion_matrix as confusion_matrix
    from .classification import predicted_classes as predicted_classes
    from .classification import top1_accuracy as top1_accuracy
    from .classification import top_k_accuracy as top_k_accuracy
    from .confidence import are_probabilities as are_probabilities
    from .confidence import expected_calibration_error as expected_calibration_error
    from .confidence import probabilities as probabilities
    from .confidence import wilson_interval as wilson_interval
    from .differences import Difference as Difference
    from .differences import argmax_agreement as argmax_agreement
    from .differences import cosine as cosine
    from .differences import decibels as decibels
    from .differences import step_difference as step_difference
    from .named_metrics import METRICS as METRICS
    from .named_metrics import Metric as Metric
    from .named_metrics import MetricName as MetricName
    from .named_metrics import resolve_metrics as resolve_metrics
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "average_precision": ["coco_map"],
            "classification": [
                "area_under_curve",
                "check_labels",
                "class_scores",
                "confusion_matrix",
                "predicted_classes",
                "top1_accuracy",
                "top_k_accuracy",
            ],
            "confidence": ["are_probabilities", "expected_calibration_error", "probabilities", "wilson_interval"],
            "differences": ["Difference", "argmax_agreement", "cosine", "decibels", "step_difference"],
            "named_metrics": ["METRICS", "Metric", "MetricName", "resolve_metrics"],
        },
    )
