"""Prune and quantize Keras 3 models during ``model.fit``, convert them to TFLite, and measure the files.

Names are imported when they are first used, so that ``import tfcompress`` loads neither Keras nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ChannelPruning": "channel_pruning",
    "L1Penalty": "penalties",
    "MagnitudePruning": "pruning",
    "after_schedule": "waiting",
    "distill": "distillation",
    "remove_channels": "shrinking",
    "QuantizationAwareTraining": "qat",
    "Conversion": "conversion",
    "convert": "conversion",
    "Measurement": "records",
    "measure": "measurement",
    "report": "reporting",
    "Target": "targets",
    "TARGETS": "targets",
    "WeightClustering": "clustering",
    "TfcompressError": "errors",
}
_MODULES = ("errors", "importance", "masks", "metrics", "observers", "points", "schedules", "targets", "zoo")

__all__ = [
    "TARGETS",
    "ChannelPruning",
    "Conversion",
    "L1Penalty",
    "MagnitudePruning",
    "Measurement",
    "QuantizationAwareTraining",
    "Target",
    "TfcompressError",
    "WeightClustering",
    "__version__",
    "after_schedule",
    "convert",
    "distill",
    "errors",
    "importance",
    "masks",
    "measure",
    "metrics",
    "observers",
    "points",
    "remove_channels",
    "report",
    "schedules",
    "targets",
    "zoo",
]

if TYPE_CHECKING:
    from . import errors, importance, masks, metrics, observers, points, schedules, targets, zoo
    from .channel_pruning import ChannelPruning
    from .clustering import WeightClustering
    from .conversion import Conversion, convert
    from .distillation import distill
    from .errors import TfcompressError
    from .measurement import measure
    from .penalties import L1Penalty
    from .pruning import MagnitudePruning
    from .qat import QuantizationAwareTraining
    from .records import Measurement
    from .reporting import report
    from .shrinking import remove_channels
    from .targets import TARGETS, Target
    from .waiting import after_schedule


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'tfcompress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
