"""What happens to a model on its way to an integer file? One function for each stage, from value to value.

``lower``, ``load_samples``, ``find_ranges``, ``repair`` and ``quantize``, in this order; what makes the result a file that can be
handed out is in ``finishing``. A target without integer activations passes the same way: its stages have less to do.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..calibration import resolve_observer
from ..data import RememberingSamples, Samples, SampleSpec, Scaling, ScalingName, load_representative
from ..errors import DataError
from ..lowering import Lowered
from ..lowering import lower as lower_source
from ..quantization import ai_edge_quantizer, quantizers
from ..tflite import qdq
from . import range_sources, verification
from . import repair as repairing
from .plan import Plan
from .range_sources import Found
from .result import PointCounts

__all__ = ["LOWERED_AS_FLOAT32", "Quantized", "find_ranges", "load_samples", "lower", "quantize", "repair"]

LOWERED_AS_FLOAT32 = ("tflite", "torch")
"""Kinds of sources that are lowered to float32; their weights are made smaller in the finished float file."""


def lower(plan: Plan) -> Lowered:
    """Returns the float flatbuffer of the plan's source, with the ranges that training left in it."""
    plan.progress(f"lowering {plan.source.name}")
    in_the_hub = not plan.target.integer and plan.source.kind not in LOWERED_AS_FLOAT32
    weights = plan.target.weights if in_the_hub else "float32"
    lowered = lower_source(plan.source, ranges=plan.stored, weights=weights, debug=plan.debug)
    return replace(lowered, trained={}) if plan.calibration.ranges == "calibrated" else lowered


def load_samples(
    plan: Plan, lowered: Lowered, representative_data: Any, scaling: ScalingName | Scaling | None
) -> RememberingSamples | None:
    """Returns the representative data as samples of the model's inputs, None where there is none."""
    plan.progress(f"calibrating {plan.source.name}")
    if representative_data is None:
        return None
    samples = load_representative(
        representative_data, lowered.inputs, scaling=scaling, allow_pickle=plan.source.options.allow_unsafe
    )
    parity = verification.parity_samples([spec.shape for spec in samples.inputs])
    return RememberingSamples(samples, first=parity, keep=repairing.MOST_SAMPLES if plan.repairs else 0)


def find_ranges(plan: Plan, lowered: Lowered, samples: RememberingSamples | None) -> Found:
    """Returns the range of each tensor and the float file that is quantized by them; no range without an integer target."""
    if not plan.target.integer:
        return Found({}, PointCounts(), lowered.content)
    name = plan.source.name
    found = range_sources.find_ranges(
        lowered,
        samples,
        plan.target,
        name,
        observer=resolve_observer(plan.calibration.observer),
        overrides=plan.calibration.overrides,
        saved=plan.saved,
        model=plan.source.value if plan.source.kind == "keras" else None,
        on_progress=lambda done, total: plan.progress(f"calibrating {name}", done, total),
        debug=plan.debug,
    )
    measured = found.calibration.ranges if found.calibration else {}
    origins = quantizers.origins(lowered.content, found.ranges, lowered.trained, measured)
    return replace(found, origins=origins)


def repair(plan: Plan, found: Found, samples: RememberingSamples | None) -> repairing.Repaired:
    """Returns the float file and its ranges as the plan's repairs leave them, and what was tried."""
    if not plan.repairs:
        return repairing.Repaired(found.hub, found.ranges, ())
    plan.progress(f"repairing {plan.source.name}")
    if samples is None:
        raise DataError("A repair needs representative data. Received: none. Pass about 100 samples.")
    kept = samples.first(repairing.MOST_SAMPLES)
    return repairing.repair(
        found.hub,
        Samples.of_arrays(kept, SampleSpec(samples.inputs)),
        plan.target,
        ranges=found.ranges,
        methods=plan.repairs,
        observer=resolve_observer(plan.calibration.observer),
        debug=plan.debug,
    )


@dataclass(frozen=True)
class Quantized:
    """The file as the quantizer wrote it.

    Args:
        tflite: its bytes.
        expected: the source model's answers to the first samples, for parity; None where nobody asked it yet.
    """

    tflite: bytes = field(repr=False)
    expected: Sequence[np.ndarray] | None = field(default=None, repr=False)


def quantize(
    plan: Plan, lowered: Lowered, found: Found, repaired: repairing.Repaired, samples: RememberingSamples | None
) -> Quantized:
    """Returns the file for the plan's target: integers by the ranges that were found, or smaller weights."""
    if not plan.target.integer:
        in_float = plan.source.kind in LOWERED_AS_FLOAT32
        return Quantized(
            ai_edge_quantizer.quantize_weights(lowered.content, plan.target) if in_float else lowered.content
        )
    hub, ranges = repaired.content, dict(repaired.ranges)
    if plan.source.kind != "keras" and lowered.trained and plan.quantizer == "tensorflow":
        # Fake quantization of the model's own: TensorFlow's quantizer keeps to its scales where it finds it.
        hub = qdq.restore_pairs(hub, lowered.trained)
        measured = found.calibration.ranges if found.calibration else {}
        ranges = {name: pair for name, pair in measured.items() if name not in lowered.trained}
    plan.progress(f"quantizing {plan.source.name} for {plan.target.name}")
    # The quantizer leaves all cores but one to the source model's answers.
    with ThreadPoolExecutor(1) as background:
        answering = background.submit(lowered.reference, samples.first()) if samples is not None else None
        tflite = quantizers.quantize(
            hub, ranges, plan.target, rules=plan.rules, backend=plan.quantizer, debug=plan.debug
        )
    return Quantized(tflite, answering.result() if answering is not None else None)
