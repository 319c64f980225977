"""Where does the range of each tensor come from: from training, or from representative data?

Decides and counts; measuring is done in ``calibration``, and which tensors need a range is known to ``quantization``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..calibration import Calibration, Observer, Overrides, RangeOrigin, converter_calibrator, data_checks
from ..calibration import calibrator as calibrating
from ..data import RememberingSamples
from ..errors import ConversionError
from ..lowering import Lowered, Source
from ..quantization import TARGETS, Target, TrainedRanges, quantizers
from .result import PointCounts

__all__ = ["Found", "check_available", "default_target", "find_ranges", "usable_ranges"]


def default_target(source: Source, ranges: RangeOrigin | None, *, measurable: bool) -> Target:
    """Returns what a model is converted for when nobody says: what it was trained for, int8 where there are ranges or data.

    Args:
        source: the model.
        ranges: as in ``usable_ranges``.
        measurable: whether there is representative data or a saved calibration.

    Raises:
        ConversionError: it was trained for a target of somebody's own, of which the model holds the name only.
    """
    has_ranges = (source.stored is not None or source.fake_quantized) and ranges != "calibrated"
    if not has_ranges or source.stored is None:
        return TARGETS["cpu-int8" if has_ranges or measurable else "dynamic"]
    known = TARGETS.get(source.stored.target)
    if known is None or known.rounding != source.stored.rounding:
        raise ConversionError(
            f"A target that is none of tfcompress.TARGETS must be named again. Received: {source.name}, trained for "
            f"{source.stored.target}, and no target. Pass target= with the Target it was trained for."
        )
    return known


def usable_ranges(source: Source, ranges: RangeOrigin | None, target: Target) -> TrainedRanges | None:
    """Returns the ranges that training stored with the model; None where there are none to use.

    Args:
        source: the model.
        ranges: "trained" uses them whatever the weights are now, "calibrated" ignores them. None refuses those of other
            weights or of a target that rounds otherwise.
        target: what the file is for.

    Raises:
        ConversionError: the ranges belong to other weights or to a target of other rules, or are asked for and not there.
    """
    if ranges == "calibrated":
        return None
    if source.stored is None:
        if source.fake_quantized:
            return None  # the graph itself holds them
        if ranges == "trained":
            raise ConversionError(
                f"There must be trained ranges to use. Received: {source.name} without any. Train it with "
                "QuantizationAwareTraining, or pass representative data."
            )
        return None
    if not source.same_weights and ranges is None:
        raise ConversionError(
            f"The trained ranges must belong to the model's weights. Received: {source.name}, whose weights changed after "
            "quantization-aware training. Pass --ranges=calibrated with representative data to measure new ones, or "
            "--ranges=trained to use them all the same."
        )
    different = [name for name, value in target.rounding.items() if source.stored.rounding.get(name) != value]
    if different and ranges is None:
        raise ConversionError(
            f"A model must be converted by the rules it was trained for. Received: {source.name}, trained for "
            f"{source.stored.target}, and the target {target.name}, which differs in {', '.join(different)}. Train it with "
            f"QuantizationAwareTraining(target={target.name!r}), or pass --ranges=calibrated with representative data."
        )
    return source.stored


def check_available(source: Source, ranges: RangeOrigin | None, target: Target, *, has_data: bool) -> None:
    """Refuses, before any work, an integer target for a model without ranges and without data.

    Args:
        source: the model.
        ranges: as in ``usable_ranges``.
        target: what the file is for.
        has_data: whether there is representative data or a saved calibration.

    Raises:
        ConversionError: there is nothing to take ranges from.
    """
    if (
        not target.integer or has_data or source.kind == "function"
    ):  # a function's own ranges are seen once it is lowered
        return
    if ranges == "calibrated" or (source.stored is None and not source.fake_quantized):
        raise ConversionError(
            f"{target.name} needs a range for each tensor. Received: {source.name} with neither trained ranges nor "
            "representative data. Pass --representative_data=FOLDER_OR_NPZ (representative_data=images), about 100 samples."
        )


@dataclass(frozen=True)
class Found:
    """Every range of a model, and how it came about.

    Args:
        ranges: (lowest, highest) by tensor name.
        points: the counts.
        hub: the float file that is quantized: the lowered one, with ranges written into it where only TFLiteConverter's
            calibrator sees inside.
        calibration: what was measured or loaded. Default: None, all ranges were trained.
        doubts: what the representative data looks like and should not. Default: None, nothing.
        origins: where the range of each of the hub's tensors came from: "trained", "calibrated", "prescribed" or
            "follows". Default: not counted.
    """

    ranges: dict[str, tuple[float, float]]
    points: PointCounts
    hub: bytes = field(repr=False)
    calibration: Calibration | None = None
    doubts: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)


def find_ranges(
    lowered: Lowered,
    samples: RememberingSamples | None,
    target: Target,
    name: str,
    *,
    observer: Observer | None = None,
    overrides: Overrides = (),
    saved: Calibration | None = None,
    model: Any = None,
    on_progress: Callable[[int, int | None], None] | None = None,
    debug: bool = False,
) -> Found:
    """Returns the range of every tensor: trained ones first, then a saved calibration's, then those measured on data.

    Args:
        lowered: the float flatbuffer, with the ranges that training left in it.
        samples: the representative data, None where there is none.
        target: what the file is for.
        name: how messages name the model.
        observer: what turns values into a range. Default: ``MinMax()``.
        overrides: (pattern of tensor names, observer) for tensors that have another one. Default: none.
        saved: a calibration of this very model. Default: none.
        model: the Keras model, whose normalization layers know what data they were trained on. Default: none.
        on_progress: called with (samples calibrated, total or None). Default: nothing.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ConversionError: a tensor has no range or is not finite on the data, or the calibration is of another model.
        DataError: the data does not fit.
    """
    trained = quantizers.complete_ranges(lowered.content, lowered.trained) if lowered.trained else {}
    needed = quantizers.needed_ranges(lowered.content)
    missing = [tensor for tensor in needed if tensor not in trained]
    learned = len(needed) - len(missing)
    if not missing and trained:
        if samples is not None:
            samples.read_first()
        return Found(trained, PointCounts(trained=learned), lowered.content)
    points = PointCounts(trained=learned, calibrated=len(missing))
    if saved is not None:
        saved = calibrating.usable(saved, lowered.content)
        hub = converter_calibrator.with_ranges(lowered.content, saved) if saved.calibrator == "converter" else None
        ranges = quantizers.complete_ranges(lowered.content, {**saved.ranges, **trained})
        if hub is not None or all(tensor in ranges for tensor in missing):
            return Found(ranges, points, hub or lowered.content, saved)
    if samples is None:
        raise ConversionError(
            f"Every tensor of a {target.name} file needs a range. Received: {name} with {learned} trained and "
            f"{len(missing)} missing ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). "
            "Pass --representative_data=FOLDER_OR_NPZ (representative_data=images) for those."
        )
    evidence = data_checks.Evidence()
    done = 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, samples.count)

    seeing: dict[str, Any] = {"on_batch": on_batch, "on_inputs": evidence.add, "debug": debug}
    hub = None
    if converter_calibrator.needs_converter(lowered.content):
        hub, measured = converter_calibrator.calibrate_by_converter(lowered.content, samples, **seeing)
    else:
        wanted = set(missing) if trained else None
        measured = calibrating.calibrate(
            lowered.content, samples, observer=observer, overrides=overrides, tensors=wanted, **seeing
        )
    doubts = data_checks.doubts(evidence, first=samples.first(), model=model, content=lowered.content)
    ranges = quantizers.complete_ranges(lowered.content, {**measured.ranges, **trained})
    return Found(ranges, points, hub or lowered.content, measured, doubts)
