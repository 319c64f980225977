"""From a model to a finished ``.tflite`` file that says what was done to it: the whole conversion in one call.

Lowering, calibration, quantization and verification each have a module; this one puts them in order and decides where
each range comes from. It does not train and does not measure.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import Calibration, Observer, Overrides
from ..calibration import calibrator as calibrating
from ..data import SCALINGS, Samples, Scaling, loading, resolve_scaling, tfrecords
from ..detection import Detections, postprocessing
from ..errors import DataError, StrictError
from ..lowering import Lowered, lower, sources
from ..quantization import Target, ai_edge_quantizer, precision, quantizers
from ..quantization.targets import resolve as resolve_target
from ..tflite import metadata, qdq, static_shapes
from . import compatibility, range_sources, verification
from . import repair as repairing
from .result import Conversion, PointCounts

__all__ = ["Conversion", "PointCounts", "convert"]


def convert(
    model: Any,
    *,
    target: str | Target | None = None,
    representative_data: Any = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    signature: str | None = None,
    ranges: range_sources.Choice | None = None,
    observer: str | Observer = "min_max",
    overrides: Overrides = (),
    calibration: str | os.PathLike | Calibration | None = None,
    scaling: str | Scaling | None = None,
    features: Any = None,
    rules: Any = None,
    backend: str | None = None,
    repair: str | Sequence[str] | None = None,
    strict: bool | None = None,
    allow_float: Sequence[str] = (),
    name: str | None = None,
    version: str = "1",
    labels: Sequence[str] | None = None,
    detections: Detections | None = None,
    sample_inputs: Any = None,
    nhwc: bool = False,
    allow_unsafe: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    debug: bool = False,
) -> Conversion:
    """Returns the ``.tflite`` file of a model for a target, with an account of what was done.

    Args:
        model: a Keras 3 or tf_keras model, a ``tf.function`` or module, a PyTorch module or exported program (the extra
            ``[torch]``), or a path to a ``.keras``, ``.h5``, float ``.tflite``, ``.pt2`` or ``.pt`` file or a SavedModel
            folder.
        target: a name from ``tfcompress.TARGETS`` or a ``Target``. Default: the one that ranges were trained for,
            "cpu-int8" when there is representative data, else "dynamic".
        representative_data: what the model will see: ``.npy``, ``.npz``, a folder of images, arrays, or a
            ``tf.data.Dataset``; labels of (x, y) pairs are dropped. About 100 samples. Default: None.
        input_shapes: whole shapes by input name, the batch axis first, that fix dynamic axes: ``{"image": (1, 96, 96, 3)}``.
            Default: as the model has them; a target with fixed shapes fixes the batch to 1.
        signature: which signature of a SavedModel, a module or a ``.tflite`` file. Default: the only one, or
            "serving_default".
        ranges: "trained" uses the ranges that training stored even if the weights changed since, "calibrated" ignores
            them. Default: the stored ones, refused when they belong to other weights.
        observer: how calibrated ranges are measured: "min_max", "moving_average", "percentile", "mean_squared_error",
            "entropy" or an ``Observer``. Default: "min_max".
        overrides: (pattern of tensor names, observer) in order, for tensors that have another one; the last match wins.
            Default: none.
        calibration: ranges of this very model that were measured before: a ``Calibration`` or the path of a saved one.
            Default: none.
        scaling: how pixels of images become inputs: "zero_one", "minus_one_one", "raw", "imagenet_torch",
            "imagenet_caffe", "mean=...;std=..." or an ``scalings.Scaling``. Default: see
            ``tfcompress.data.loading.load_representative``.
        features: which feature of TFRecords feeds which input; see ``tfrecords.load``. Default: none.
        rules: precision of single layers as an ordered list of ``precision.Rule`` or (pattern, op, precision), the last
            match wins, or the path of a ``.json`` or ``.yaml`` file of them. Default: none.
        backend: which quantizer: "tensorflow" or "ai-edge-quantizer". Default: the first, unless int16, int4 or rules
            need the second.
        repair: what may be done for the accuracy of an integer file: "auto" tries every repair and keeps what helps on
            samples held out, or names from ``repair.METHODS``. Default: nothing.
        strict: whether a float tensor left in an integer file is an error. Default: the target's own rule, which is True
            for every integer target.
        allow_float: shell patterns of operators that TFLite has in float only and strict mode lets pass, such as
            "NON_MAX_SUPPRESSION*" or "RFFT*". Default: none.
        name: the model's name in the file's metadata. Default: a Keras model's own, otherwise that of the
            function or file.
        version: its version there. Default: "1".
        labels: names of the classes in order of their index, packed into the file. Default: none.
        detections: how the boxes of a detector with outputs "boxes" and "logits" are chosen inside the file; see
            ``postprocessing.attach_detections``. That one op computes in float: an integer target needs
            ``allow_float=["TFLite_Detection_PostProcess"]``. Default: none, the file answers as the model does.
        sample_inputs: inputs that a PyTorch model is exported on: arrays by input name, a list in order, or the path of
            a ``.npy`` or ``.npz`` file. Default: those of a ``.pt2`` file, or made from ``input_shapes``.
        nhwc: whether a PyTorch model's pictures come as (n, h, w, c), as TFLite has them. Default: False, as in PyTorch.
        allow_unsafe: whether a file may bring code or pickles along. Default: False.
        on_progress: called with (samples calibrated, total or None) now and then. Default: nothing.
        on_stage: called with what is done next, such as "quantizing model.keras for cpu-int8": should a native library take
            the process with it, the last one says where. Default: nothing.
        debug: whether TensorFlow's log lines are shown. Default: False.

    Raises:
        ModelError: the model cannot be opened.
        DataError: the representative data does not fit.
        ConversionError: no ranges for an integer target, ranges of other weights, or an op that TFLite does not have.
        StrictError: float tensors were left in an integer file.
        ValueError: an unknown target, observer or scaling.

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
    if ranges not in (None, "trained", "calibrated"):
        raise ValueError(f"ranges must be 'trained' or 'calibrated'. Received: ranges={ranges!r}.")
    chosen_observer = calibrating.resolve_observer(observer)
    chosen = resolve_target(target) if target is not None else None
    on_stage(f"opening {model if isinstance(model, str | os.PathLike) else type(model).__name__}")
    source = sources.open_source(
        model,
        signature=signature,
        input_shapes=input_shapes,
        sample_inputs=sample_inputs,
        nhwc=nhwc,
        allow_unsafe=allow_unsafe,
        debug=debug,
    )
    if chosen is None:
        measurable = representative_data is not None or calibration is not None
        chosen = range_sources.default_target(source, ranges, measurable=measurable)
    saved = Calibration.load(calibration) if isinstance(calibration, str | os.PathLike) else calibration
    has_data = representative_data is not None or saved is not None
    range_sources.check_available(source, ranges, chosen, has_data=has_data)
    stored = range_sources.usable_ranges(source, ranges, chosen) if chosen.integer else None
    if repair and chosen.integer and repair != "auto":
        repairing.check_methods([repair] if isinstance(repair, str) else list(repair))
    precision_rules = precision.read_rules(rules)
    quantizer = quantizers.resolve_backend(backend, chosen, precision_rules) if chosen.integer else None
    on_stage(f"lowering {source.name}")
    lowered = _lower(source, stored, chosen, debug)
    on_stage(f"calibrating {source.name}")
    samples = None
    if representative_data is not None:
        if features is not None:
            loaded = tfrecords.load(representative_data, lowered.inputs, features, scaling=scaling)
        else:
            loaded = loading.load_representative(
                representative_data, lowered.inputs, scaling=scaling, allow_pickle=allow_unsafe
            )
        samples = range_sources.RememberingSamples(loaded, keep=repairing.MOST_SAMPLES if repair else 0)
    measured = None
    origins: dict[str, str] = {}
    repairs: tuple[repairing.Step, ...] = ()
    doubts = None
    expected: Future[list[np.ndarray]] | None = None
    points = PointCounts()
    tflite = lowered.content
    if chosen.integer:
        if ranges == "calibrated":
            lowered = dataclasses.replace(lowered, trained={})
        outcome = range_sources.find_ranges(
            lowered,
            samples,
            chosen,
            source.name,
            observer=chosen_observer,
            overrides=overrides,
            saved=saved,
            model=source.value if source.kind == "keras" else None,
            on_progress=on_progress,
            debug=debug,
        )
        found, measured, points, doubts = outcome.ranges, outcome.calibration, outcome.points, outcome.doubts
        origins = quantizers.origins(lowered.content, found, lowered.trained, measured.ranges if measured else {})
        hub = outcome.hub or lowered.content
        if repair:
            on_stage(f"repairing {source.name}")
            repaired = _repair(hub, found, samples, chosen, repair, chosen_observer, debug)
            hub, found, repairs = repaired.content, dict(repaired.ranges), repaired.steps
        if source.kind != "keras" and lowered.trained and quantizer == "tensorflow":
            # Fake quantization of the model's own: TensorFlow's quantizer keeps to its scales where it finds it.
            hub = qdq.restore_pairs(hub, lowered.trained)
            found = {
                name: pair
                for name, pair in (measured.ranges if measured else {}).items()
                if name not in lowered.trained
            }
        on_stage(f"quantizing {source.name} for {chosen.name}")
        # The quantizer leaves all cores but one to the source model's answers.
        with ThreadPoolExecutor(1) as background:
            if samples is not None:
                expected = background.submit(lowered.reference, samples.first())
            tflite = quantizers.quantize(hub, found, chosen, rules=precision_rules, backend=quantizer, debug=debug)
    elif repair:
        raise ValueError(f"Repairs are for integer targets. Received: target={chosen.name!r}. Leave repair out.")
    elif source.kind in _LOWERED_IN_FLOAT:
        tflite = ai_edge_quantizer.quantize_weights(lowered.content, chosen)
    if chosen.static:
        tflite = static_shapes.fix_batch(tflite, place=source.name, debug=debug)
    heads = tflite
    if detections is not None:
        tflite = postprocessing.attach_detections(tflite, detections, place=source.name, debug=debug)
    tflite = metadata.attach(
        tflite,
        name=name or _own_name(source),
        version=version,
        normalisation=_normalisation(lowered, scaling),
        labels=labels,
        min_runtime_version=_oldest_runtime(tflite, quantizer, source, chosen),
        labelled="classes" if detections is not None else None,
    )
    compatibility.check(tflite, chosen, source.name)
    kept = ai_edge_quantizer.float_operators(lowered.content, precision_rules) if precision_rules else set()
    forbidden = verification.forbidden_floats(tflite, chosen, allow_float=allow_float, kept=kept)
    if forbidden and (chosen.strict if strict is None else strict):
        raise StrictError(_left_in_float(tflite, chosen, forbidden))
    parity = None
    on_stage(f"running the finished file of {source.name}")
    if samples is not None:
        first = samples.first()
        answers = expected.result() if expected is not None else lowered.reference(first)
        parity = verification.parity(heads, lowered.outputs, answers, first, debug=debug)
    if samples is None or detections is not None:
        verification.run_once(tflite, debug=debug)
    if doubts:
        warnings.warn(doubts, stacklevel=2)
    return Conversion(
        tflite,
        source.name,
        chosen,
        points,
        verification.walk(tflite),
        parity,
        measured,
        lowered.skipped if chosen.integer else {},
        quantizer,
        repairs=repairs,
        notes=lowered.notes,
        warnings=(doubts,) if doubts else (),
        hub=lowered.content,
        samples=samples.first() if samples is not None else None,
        origins=origins,
    )


_LOWERED_IN_FLOAT = ("tflite", "torch")  # sources whose weights are made smaller in the finished float file


def _oldest_runtime(tflite: bytes, quantizer: str | None, source: sources.Source, target: Target) -> str | None:
    """Returns the oldest runtime where TensorFlow's converter did not write it itself."""
    by_library = not target.integer and source.kind in _LOWERED_IN_FLOAT and target.weights != "float32"
    if quantizer != "ai-edge-quantizer" and not by_library:
        return None
    return ai_edge_quantizer.oldest_runtime(tflite, written=metadata.stated_runtime(tflite))


def _own_name(source: sources.Source) -> str:
    """Returns the model's name: a Keras model's own, so that its file gives the same bytes, otherwise the file's."""
    if source.kind in ("keras", "tf_keras"):
        return str(source.value.name)
    return Path(source.name).stem


_PLAIN_SCALINGS = {"raw": (0.0, 1.0), "zero_one": (0.0, 255.0), "minus_one_one": (127.5, 127.5)}


def _normalisation(lowered: Lowered, scaling: str | Scaling | None) -> dict[str, metadata.Normalisation] | None:
    """Returns by input name how pixels become the input, where the caller said so and metadata has words for it."""
    named = resolve_scaling(scaling)
    if isinstance(named, str) and named in _PLAIN_SCALINGS:
        mean, deviation = _PLAIN_SCALINGS[named]
        value = metadata.Normalisation((mean,), (deviation,))
    else:
        pixels = SCALINGS[named] if isinstance(named, str) else named
        if not isinstance(pixels, Scaling) or pixels.bgr:
            return None  # nothing was said, or blue comes first, for which metadata has no word
        channels = max(len(pixels.mean), len(pixels.std))
        mean_of_each, std_of_each = (
            values * channels if len(values) == 1 else values for values in (pixels.mean, pixels.std)
        )
        if min(std_of_each) <= 0:
            return None
        value = metadata.Normalisation(mean_of_each, std_of_each)
    return {spec.name: value for spec in lowered.inputs}


def _repair(
    hub: bytes,
    ranges: Mapping[str, tuple[float, float]],
    samples: range_sources.RememberingSamples | None,
    target: Target,
    methods: str | Sequence[str],
    observer: Observer,
    debug: bool,
) -> repairing.Repaired:
    if samples is None:
        raise DataError("A repair needs representative data. Received: none. Pass about 100 samples.")
    kept = samples.first(repairing.MOST_SAMPLES)
    chosen = "auto" if methods == "auto" else [methods] if isinstance(methods, str) else list(methods)
    return repairing.repair(
        hub,
        Samples(lambda size: iter([kept]), samples.inputs),
        target,
        ranges=ranges,
        methods=chosen,  # type: ignore[arg-type]
        observer=observer,
        debug=debug,
    )


def _left_in_float(tflite: bytes, target: Target, forbidden: Sequence[str]) -> str:
    names = list(dict.fromkeys(name.split(";")[0] for name in forbidden))  # without what the converter fused into each
    ops = [f"{op} (layer {_few(layers, 3)})" for op, layers in verification.float_operators(tflite).items()]
    because = f" What stayed in float: {_few(ops, 5)}." if ops else ""
    return (
        f"A {target.name} file must not hold float tensors. Received {len(forbidden)}: {_few(names, 5)}.{because} "
        "Replace the layer, allow the operator by name (--allow_float=OP*), or pass strict=False (--nostrict) to keep them."
    )


def _few(names: Sequence[str], count: int) -> str:
    return ", ".join([*names[:count], *(["..."] if len(names) > count else [])])


def _lower(source: sources.Source, stored: Any, target: Target, debug: bool) -> Lowered:
    in_the_hub = not target.integer and source.kind not in _LOWERED_IN_FLOAT
    weights = target.weights if in_the_hub else "float32"
    return lower(source, ranges=stored, weights=weights, debug=debug)
