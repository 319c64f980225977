"""What makes a quantized file one that can be handed out? Fixed shapes, the choice of boxes, metadata, and three checks.

``finish`` writes, ``check`` refuses what the target does not allow, ``compare_answers`` runs the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data import SCALINGS, RememberingSamples, Scaling, ScalingName, resolve_scaling
from ..detection import Detections, postprocessing
from ..errors import StrictError
from ..lowering import Lowered, Source
from ..quantization import Target, ai_edge_quantizer
from ..tflite import Metadata, Normalisation, metadata, static_shapes
from . import compatibility, verification
from .plan import Plan
from .stages import LOWERED_AS_FLOAT32, Quantized

__all__ = ["AllowFloat", "Finished", "check", "check_allow_float", "compare_answers", "finish"]

AllowFloat = bool | str | Sequence[str] | None
"""None for the target's own rule, False for no float tensor, True for any, or shell patterns of operators."""

_PLAIN_SCALINGS = {"raw": (0.0, 1.0), "zero_one": (0.0, 255.0), "minus_one_one": (127.5, 127.5)}


@dataclass(frozen=True)
class Finished:
    """A file with everything in it.

    Args:
        tflite: its bytes.
        answering: the same without metadata, before boxes are chosen inside it: it answers as the model does.
        has_detections: whether boxes are chosen inside it, so that it answers otherwise.
    """

    tflite: bytes = field(repr=False)
    answering: bytes = field(repr=False)
    has_detections: bool


def finish(
    plan: Plan,
    lowered: Lowered,
    quantized: Quantized,
    *,
    described: Metadata,
    detections: Detections | None,
    scaling: ScalingName | Scaling | None,
) -> Finished:
    """Returns the file with fixed shapes where the target needs them, its choice of boxes and its metadata.

    Args:
        plan: what was decided.
        lowered: the float flatbuffer that the file was made from.
        quantized: the file as the quantizer wrote it.
        described: what the file is to say about itself.
        detections: how boxes are chosen inside it; None for not at all.
        scaling: how pixels become inputs, which the metadata say where they have words for it.
    """
    place, answering = plan.source.name, quantized.tflite
    if plan.target.static:
        answering = static_shapes.fix_batch(answering, place=place, debug=plan.debug)
    tflite = answering
    if detections is not None:
        tflite = postprocessing.attach_detections(tflite, detections, place=place, debug=plan.debug)
    tflite = metadata.attach(
        tflite,
        name=described.name or _own_name(plan.source),
        version=described.version,
        normalisation=_normalisation(lowered, scaling),
        labels=described.labels,
        min_runtime_version=_oldest_runtime(plan, tflite),
        labelled="classes" if detections is not None else None,
    )
    return Finished(tflite, answering, detections is not None)


def check_allow_float(allow_float: AllowFloat) -> AllowFloat:
    """Returns the argument, patterns as a tuple.

    Raises:
        TypeError: neither None, a bool nor patterns.

    Examples:
        >>> check_allow_float("RFFT*"), check_allow_float(True)
        (('RFFT*',), True)
    """
    if allow_float is None or isinstance(allow_float, bool):
        return allow_float
    patterns = (allow_float,) if isinstance(allow_float, str) else tuple(allow_float)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            f"allow_float must be True, False or patterns of operators. Received: {allow_float!r}. Write "
            '["NON_MAX_SUPPRESSION*"].'
        )
    return patterns


def check(plan: Plan, lowered: Lowered, finished: Finished, allow_float: AllowFloat) -> None:
    """Refuses a file that its device cannot run, or with float tensors that its target does not allow.

    Args:
        plan: what was decided.
        lowered: the float flatbuffer that the file was made from.
        finished: the file.
        allow_float: which float tensors may be left in an integer file, as ``check_allow_float`` returns it.

    Raises:
        ConversionError: the device lacks an operator, or a shape is not fixed.
        StrictError: float tensors were left.
    """
    compatibility.check(finished.tflite, plan.target, plan.source.name)
    patterns = allow_float if isinstance(allow_float, tuple) else ()
    strict = plan.target.strict if allow_float is None else allow_float is not True
    if not strict:
        return
    kept = ai_edge_quantizer.float_operators(lowered.content, plan.rules) if plan.rules else set()
    forbidden = verification.forbidden_floats(finished.tflite, plan.target, allow_float=patterns, kept=kept)
    if forbidden:
        raise StrictError(_left_in_float(finished.tflite, plan.target, forbidden))


def compare_answers(
    plan: Plan, lowered: Lowered, quantized: Quantized, finished: Finished, samples: RememberingSamples | None
) -> verification.Parity | None:
    """Runs the finished file; returns how far its answers are from the model's, None without samples."""
    plan.progress(f"running the finished file of {plan.source.name}")
    parity = None
    if samples is not None:
        first = samples.first()
        expected = quantized.expected if quantized.expected is not None else lowered.reference(first)
        parity = verification.parity(finished.answering, lowered.outputs, expected, first, debug=plan.debug)
    if samples is None or finished.has_detections:
        verification.run_once(finished.tflite, debug=plan.debug)
    return parity


def _oldest_runtime(plan: Plan, tflite: bytes) -> str | None:
    """Returns the oldest runtime where TensorFlow's converter did not write it itself."""
    target = plan.target
    by_library = not target.integer and plan.source.kind in LOWERED_AS_FLOAT32 and target.weights != "float32"
    if plan.quantizer != "ai-edge-quantizer" and not by_library:
        return None
    return ai_edge_quantizer.oldest_runtime(tflite, written=metadata.stated_runtime(tflite))


def _own_name(source: Source) -> str:
    """Returns the model's name: a Keras model's own, so that its file gives the same bytes, otherwise the file's."""
    if source.kind in ("keras", "tf_keras"):
        return str(source.value.name)
    return Path(source.name).stem


def _normalisation(lowered: Lowered, scaling: ScalingName | Scaling | None) -> Mapping[str, Normalisation] | None:
    """Returns by input name how pixels become the input, where the caller said so and metadata has words for it."""
    named = resolve_scaling(scaling)
    if isinstance(named, str) and named in _PLAIN_SCALINGS:
        mean, deviation = _PLAIN_SCALINGS[named]
        value = Normalisation((mean,), (deviation,))
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
        value = Normalisation(mean_of_each, std_of_each)
    return {spec.name: value for spec in lowered.inputs}


def _left_in_float(tflite: bytes, target: Target, forbidden: Sequence[str]) -> str:
    names = list(dict.fromkeys(name.split(";")[0] for name in forbidden))  # without what the converter fused into each
    ops = [f"{op} (layer {_few(layers, 3)})" for op, layers in verification.float_operators(tflite).items()]
    because = f" What stayed in float: {_few(ops, 5)}." if ops else ""
    return (
        f"A {target.name} file must not hold float tensors. Received {len(forbidden)}: {_few(names, 5)}.{because} "
        'Replace the layer, allow the operator by name (allow_float=["OP*"], --allow_float=OP*), or pass allow_float=True '
        "(--nostrict) to keep them all."
    )


def _few(names: Sequence[str], count: int) -> str:
    return ", ".join([*names[:count], *(["..."] if len(names) > count else [])])
