"""From a model to a finished ``.tflite`` file that says what was done to it: the whole conversion in one call.

The call and the order of its stages; each stage has its own place in ``plan``, ``stages`` and ``finishing``. It does not train
and does not measure.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from ..calibration import Calibration, CalibrationOptions, Observer, ObserverName, resolve_calibration
from ..data import Scaling, ScalingName
from ..detection import Detections
from ..lowering import SourceOptions, open_source
from ..quantization import Backend, Rule, Target, TargetName
from ..quantization.targets import resolve as resolve_target
from ..system import checked_arguments, option_or_default
from ..tflite import Metadata
from . import finishing, stages, verification
from .finishing import AllowFloat
from .plan import Progress, make_plan
from .repair import RepairMethod
from .result import Conversion

__all__ = ["convert"]


@checked_arguments
def convert(
    model: Any,
    *,
    target: TargetName | Target | None = None,
    representative_data: Any = None,
    scaling: ScalingName | Scaling | None = None,
    calibration: ObserverName | Observer | Calibration | CalibrationOptions | None = None,
    rules: str | os.PathLike | Sequence[Rule | tuple | dict] | None = None,
    backend: Backend | None = None,
    repair: Literal["auto"] | RepairMethod | Sequence[RepairMethod] | None = None,
    allow_float: AllowFloat = None,
    metadata: Metadata | None = None,
    detections: Detections | None = None,
    source: SourceOptions | None = None,
    progress: Progress | None = None,
    debug: bool = False,
) -> Conversion:
    """Returns the ``.tflite`` file of a model for a target, with an account of what was done.

    Args:
        model: a Keras 3 or tf_keras model, a ``tf.function`` or module, a PyTorch module or exported program (the extra
            ``[torch]``), or a path to a ``.keras``, ``.h5``, float ``.tflite``, ``.pt2`` or ``.pt`` file or a SavedModel
            folder.
        target: a name from ``tfcompress.TARGETS`` or a ``Target``. Default: the one that ranges were trained for,
            "cpu-int8" when there is representative data, else "dynamic".
        representative_data: what the model will see: ``.npy``, ``.npz``, a folder of images, ``TFRecords``, arrays, or a
            ``tf.data.Dataset``; labels of (x, y) pairs are dropped. About 100 samples. Default: None.
        scaling: how pixels of images become inputs: "zero_one", "minus_one_one", "raw", "imagenet_torch",
            "imagenet_caffe", or a ``Scaling``. Default: see ``tfcompress.data.load_representative``.
        calibration: how ranges are found: an observer ("min_max", "moving_average", "percentile", "mean_squared_error",
            "entropy" or an ``Observer``), a ``Calibration`` of this very model that was measured before, or
            ``CalibrationOptions``. Default: the ranges that training stored, others by "min_max".
        rules: precision of single layers as an ordered list of ``precision.Rule`` or (pattern, op, precision), the last
            match wins, or the path of a ``.json`` or ``.yaml`` file of them. Default: none.
        backend: which quantizer: "tensorflow" or "ai-edge-quantizer". Default: the first, unless int16, int4 or rules
            need the second.
        repair: what may be done for the accuracy of an integer file: "auto" tries every repair and keeps what helps on
            samples held out, or names from ``repair.METHODS``. Default: nothing.
        allow_float: which float tensors may be left in an integer file: False for none, True for any, or shell patterns
            of operators that TFLite has in float only, such as "NON_MAX_SUPPRESSION*" or "RFFT*". Default: the target's
            own rule, which is none for every integer target.
        metadata: what the file says about itself: name, version, labels of the classes. Default: ``Metadata()``.
        detections: how the boxes of a detector with outputs "boxes" and "logits" are chosen inside the file; see
            ``postprocessing.attach_detections``. That one op computes in float: an integer target needs
            ``allow_float="TFLite_Detection_PostProcess"``. Default: none, the file answers as the model does.
        source: how the model is opened: fixed input shapes, a signature, a PyTorch model's sample inputs and layout,
            whether a file may bring code along. Default: ``SourceOptions()``.
        progress: told of each stage and of the samples calibrated; ``print``, or any ``Progress``. Default: nothing.
        debug: whether TensorFlow's log lines are shown. Default: False.

    Raises:
        ModelError: the model cannot be opened.
        DataError: the representative data does not fit.
        ConversionError: no ranges for an integer target, ranges of other weights, or an op that TFLite does not have.
        StrictError: float tensors were left in an integer file.
        ValueError: an unknown target, observer or scaling.
        TypeError: an unknown argument; the message has the nearest one.

    Examples:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> result = convert(model, target="cpu-int8", representative_data=np.random.rand(64, 4).astype("float32"))
        >>> result.ops, len(result.float_tensors), str(result.points)
        ({'FULLY_CONNECTED': 1}, 0, '0 trained, 2 calibrated, 0 missing')

    Warns:
        UserWarning: the representative data does not look like what the model was trained on.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, https://arxiv.org/abs/1712.05877.
    """
    how = resolve_calibration(calibration)
    described = option_or_default("metadata", metadata, Metadata)
    allowed = finishing.check_allow_float(allow_float)
    wanted = None if target is None else resolve_target(target)
    tell = _silent if progress is None else progress
    tell(f"opening {model if isinstance(model, str | os.PathLike) else type(model).__name__}")
    opened = open_source(model, options=option_or_default("source", source, SourceOptions), debug=debug)
    plan = make_plan(
        opened,
        wanted,
        how,
        has_data=representative_data is not None,
        rules=rules,
        backend=backend,
        repair=repair,
        progress=tell,
        debug=debug,
    )
    lowered = stages.lower(plan)
    samples = stages.load_samples(plan, lowered, representative_data, scaling)
    found = stages.find_ranges(plan, lowered, samples)
    repaired = stages.repair(plan, found, samples)
    quantized = stages.quantize(plan, lowered, found, repaired, samples)
    finished = finishing.finish(plan, lowered, quantized, described=described, detections=detections, scaling=scaling)
    finishing.check(plan, lowered, finished, allowed)
    parity = finishing.compare_answers(plan, lowered, quantized, finished, samples)
    if found.doubts:
        warnings.warn(found.doubts, stacklevel=3)  # past the check of the arguments, at the caller
    return Conversion(
        finished.tflite,
        opened.name,
        plan.target,
        found.points,
        verification.walk(finished.tflite),
        parity,
        found.calibration,
        lowered.skipped if plan.target.integer else {},
        plan.quantizer,
        repairs=repaired.steps,
        notes=lowered.notes,
        warnings=(found.doubts,) if found.doubts else (),
        hub=lowered.content,
        samples=samples.first() if samples is not None else None,
        origins=found.origins,
    )


def _silent(stage: str, done: int = 0, total: int | None = None, /) -> None:
    """Tells nobody."""
