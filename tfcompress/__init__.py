"""Prune and quantize Keras 3 models during ``model.fit``, convert them to TFLite, and measure the files.

Names are imported when they are first used, so that ``import tfcompress`` loads neither Keras nor TensorFlow.
"""

from typing import TYPE_CHECKING

from .system.lazy import lazy_exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import errors as errors
    from . import metrics as metrics
    from . import zoo as zoo
    from .bundling import Bundle as Bundle
    from .bundling import bundle as bundle
    from .calibration import CalibrationOptions as CalibrationOptions
    from .calibration import observers as observers
    from .comparison import Agreement as Agreement
    from .comparison import compare as compare
    from .conversion import Conversion as Conversion
    from .conversion import convert as convert
    from .data import TFRecords as TFRecords
    from .distillation import distill as distill
    from .errors import TfcompressError as TfcompressError
    from .layers import after_schedule as after_schedule
    from .layers import quantization_points as quantization_points
    from .lowering import SourceOptions as SourceOptions
    from .measurement import ConnectionOptions as ConnectionOptions
    from .measurement import EvaluationOptions as EvaluationOptions
    from .measurement import LatencyOptions as LatencyOptions
    from .measurement import Measurement as Measurement
    from .measurement import RuntimeOptions as RuntimeOptions
    from .measurement import measure as measure
    from .pruning import ChannelPruning as ChannelPruning
    from .pruning import L1Penalty as L1Penalty
    from .pruning import MagnitudePruning as MagnitudePruning
    from .pruning import WeightClustering as WeightClustering
    from .pruning import importance as importance
    from .pruning import masks as masks
    from .pruning import remove_channels as remove_channels
    from .pruning import schedules as schedules
    from .qat import QuantizationAwareTraining as QuantizationAwareTraining
    from .quantization import TARGETS as TARGETS
    from .quantization import Target as Target
    from .quantization import targets as targets
    from .reporting import report as report
    from .security import AdversarialTraining as AdversarialTraining
    from .security import AttackOptions as AttackOptions
    from .security import Robustness as Robustness
    from .security import scan as scan
    from .security.robustness import robustness as robustness
    from .tflite import Inspection as Inspection
    from .tflite import Metadata as Metadata
    from .tflite import inspect as inspect
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "bundling": ["Bundle", "bundle"],
            "calibration": ["CalibrationOptions"],
            "comparison": ["Agreement", "compare"],
            "conversion": ["Conversion", "convert"],
            "data": ["TFRecords"],
            "distillation": ["distill"],
            "errors": ["TfcompressError"],
            "layers": ["after_schedule"],
            "lowering": ["SourceOptions"],
            "measurement": [
                "ConnectionOptions",
                "EvaluationOptions",
                "LatencyOptions",
                "Measurement",
                "RuntimeOptions",
                "measure",
            ],
            "pruning": ["ChannelPruning", "L1Penalty", "MagnitudePruning", "WeightClustering", "remove_channels"],
            "qat": ["QuantizationAwareTraining"],
            "quantization": ["TARGETS", "Target"],
            "reporting": ["report"],
            "security": ["AdversarialTraining", "AttackOptions", "Robustness", "scan"],
            "security.robustness": ["robustness"],
            "tflite": ["Inspection", "Metadata", "inspect"],
        },
        modules=[
            "calibration.observers",
            "errors",
            "layers.quantization_points",
            "metrics",
            "pruning.importance",
            "pruning.masks",
            "pruning.schedules",
            "quantization.targets",
            "zoo",
        ],
    )
