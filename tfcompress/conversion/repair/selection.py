"""Which repairs help this model? Each is tried in turn on one half of the samples and judged on the other.

Order matters: equalization changes what the weights are, clipping what their steps are, rounding which integers they
become, and bias correction what is left.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from ...calibration import MinMax, Observer, calibrator
from ...data import InputSpec, Samples, SampleSpec
from ...errors import DataError
from ...quantization import Target, quantizers
from . import adaptive_rounding, bias_correction, equalization, weight_clipping
from .scores import Score, answers, score

__all__ = ["METHODS", "RepairMethod", "Repaired", "Step", "check_methods", "repair"]

MOST_SAMPLES = 256

RepairMethod = Literal["equalization", "clipping", "rounding", "bias"]
"""The names of ``METHODS``, which a type checker completes."""

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Step:
    """One repair that was tried.

    Args:
        method: its name in ``METHODS``.
        before: score of the integer file before it, on the samples held out.
        after: score with it.
        kept: whether the result has it.
        reason: why, and what it did.
    """

    method: str
    before: Score
    after: Score
    kept: bool
    reason: str

    def __str__(self) -> str:
        verdict = "kept" if self.kept else "left out"
        return f"{self.method:13} {verdict:8}  {self.before}  ->  {self.after}  ({self.reason})"


@dataclass(frozen=True)
class Repaired:
    """A float file that loses less when it is quantized.

    Args:
        content: the bytes of the float file.
        ranges: (lowest, highest) by tensor name, complete.
        steps: what was tried, in order.
    """

    content: bytes = field(repr=False)
    ranges: Ranges = field(repr=False)
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps)) or "nothing was tried"


@dataclass(frozen=True)
class _State:
    """What a repair starts from; ``reference`` is the float file of the same graph whose answers are wanted."""

    content: bytes
    ranges: Ranges
    reference: bytes
    samples: Mapping[str, np.ndarray]
    collected: Mapping[str, np.ndarray]  # these and the ones held out: ranges come from all, as those given did
    target: Target
    observer: Observer
    inputs: Sequence[InputSpec]
    seed: int
    debug: bool


def _equalize(state: _State) -> tuple[_State, str]:
    done = equalization.equalize(state.content, state.target, state.samples, debug=state.debug)
    if not done.pairs:
        return state, "no pair of layers to equalize"
    measured = calibrator.calibrate(
        done.content,
        _stream(state.collected, state.inputs),
        observer=state.observer,
        tensors=set(done.changed),
        debug=state.debug,
    )
    kept = {name: pair for name, pair in state.ranges.items() if name not in done.changed}
    ranges = quantizers.complete_ranges(done.content, {**kept, **measured.ranges})
    note = f"{done.pairs} pairs, factors up to {done.largest_factor:.3g}"
    return replace(state, content=done.content, reference=done.content, ranges=ranges), note


def _clip(state: _State) -> tuple[_State, str]:
    content, fraction = weight_clipping.clip_weights(state.content, state.target, state.samples, debug=state.debug)
    return replace(state, content=content), f"{fraction:.0%} of the channels clipped"


def _round(state: _State) -> tuple[_State, str]:
    done = adaptive_rounding.round_weights(
        state.content,
        state.ranges,
        state.target,
        state.samples,
        reference=state.reference,
        seed=state.seed,
        debug=state.debug,
    )
    if not done.ratios:
        return state, "no layer to round"
    note = (
        f"error of a layer's outputs down to {np.median(list(done.ratios.values())):.0%}, median of {len(done.ratios)}"
    )
    return replace(state, content=done.content), note + (f", {len(done.skipped)} too large" if done.skipped else "")


def _correct(state: _State) -> tuple[_State, str]:
    integer = quantizers.quantize(state.content, state.ranges, state.target, debug=state.debug)
    done = bias_correction.correct_bias(
        state.content, integer, state.samples, reference=state.reference, debug=state.debug
    )
    return replace(state, content=done.content), f"{len(done.shifts)} layers"


METHODS: Mapping[str, Callable[[_State], tuple[_State, str]]] = MappingProxyType(
    {"equalization": _equalize, "clipping": _clip, "rounding": _round, "bias": _correct}
)
"""The repairs by name, in the order in which they are applied."""


def check_methods(methods: RepairMethod | Sequence[RepairMethod] | Literal["auto"]) -> tuple[str, ...]:
    """Returns the names of the repairs in the order in which they are applied; "auto" stands for all.

    Raises:
        ValueError: an unknown name, or none.

    Examples:
        >>> check_methods(["bias", "equalization"])
        ('equalization', 'bias')
    """
    if methods == "auto":
        return tuple(METHODS)
    chosen = [methods] if isinstance(methods, str) else list(methods)
    unknown = [name for name in chosen if name not in METHODS]
    if unknown or not chosen:
        raise ValueError(
            f"repair must be 'auto' or some of {', '.join(METHODS)}. Received: {', '.join(map(str, unknown)) or 'none'}."
        )
    return tuple(name for name in METHODS if name in chosen)


def repair(
    content: bytes,
    samples: Samples,
    target: Target,
    *,
    ranges: Ranges,
    methods: Sequence[RepairMethod] | Literal["auto"] = "auto",
    observer: Observer | None = None,
    seed: int = 0,
    on_step: Callable[[Step], None] | None = None,
    debug: bool = False,
) -> Repaired:
    """Returns a float file and ranges that lose less than the given ones when they are quantized.

    Up to 256 samples are read. Those at even places are what the repairs see (ranges that a repair changes are measured
    on all, as the given ones were); the others are what their result is judged by: the integer file's answers against
    those of the float file as it was given. "auto" tries every repair on top of those kept so far and keeps it if the
    signal to noise ratio of the outputs (of the logits, where there are any) rises by 0.1 dB or more and their arg-max
    agrees no less often than without any repair. Named repairs are all kept, and measured in the same way.

    Args:
        content: bytes of a float ``.tflite`` file with unique tensor names and a signature.
        samples: the representative data; read once.
        target: an integer target.
        ranges: (lowest, highest) by tensor name, complete.
        methods: "auto", or names from ``METHODS``; their order is always that of the table. Default: "auto".
        observer: how ranges that a repair changes are measured. Default: ``MinMax()``.
        seed: decides which output positions of large layers count. Default: 0.
        on_step: called with each step when it is done. Default: nothing.
        debug: whether log lines of TensorFlow and the interpreter are shown. Default: False.

    Raises:
        ValueError: an unknown method, or a target without integer activations.
        DataError: fewer than two samples.
        ConversionError: the quantizer refused a file.
    """
    chosen = check_methods(methods)
    if not target.integer:
        raise ValueError(f"Repairs are for integer targets. Received: target={target.name!r}. Leave repair out.")
    collected = _collect(samples)
    # Even and odd places, so that both halves of sorted data look alike.
    seen, held_out = ({name: values[start::2] for name, values in collected.items()} for start in (0, 1))
    wanted = answers(content, held_out, debug=debug)
    observer = observer or MinMax()
    state = _State(content, dict(ranges), content, seen, collected, target, observer, samples.inputs, seed, debug)
    before = start = _score(state, held_out, wanted)
    steps = []
    for name in chosen:
        tried, note = METHODS[name](state)
        after = before if tried is state else _score(tried, held_out, wanted)
        helps = after.is_better_than(before) and after.agreement >= start.agreement
        kept = tried is not state and (methods != "auto" or helps)
        reason = note if tried is state else f"{note}; {_verdict(methods == 'auto', kept, before, after)}"
        steps.append(Step(name, before, after, kept, reason))
        if on_step is not None:
            on_step(steps[-1])
        if kept:
            state, before = tried, after
    return Repaired(state.content, state.ranges, tuple(steps))


def _verdict(is_auto: bool, kept: bool, before: Score, after: Score) -> str:
    gain = f"{after.sqnr_db - before.sqnr_db:+.2f} dB on samples held out"
    if not is_auto:
        return f"{gain}; asked for"
    if not kept and after.is_better_than(before):
        return f"{gain}, but the arg-max agrees less often than without repair"
    return gain


def _collect(samples: Samples) -> dict[str, np.ndarray]:
    """Returns the first samples by input name, (n, ...)."""
    blocks: list[dict[str, np.ndarray]] = []
    count = 0
    for batch in samples.batches(32):
        blocks.append({name: np.array(values) for name, values in batch.items()})
        count += len(next(iter(batch.values())))
        if count >= MOST_SAMPLES:
            break
    if count < 2:
        raise DataError(f"Repairs need at least 2 samples, better 100. Received: {count}. Add representative data.")
    if len({tuple(values.shape[1:] for values in block.values()) for block in blocks}) > 1:
        raise DataError("Repairs need samples of one shape. Received: several. Pad or resize them.")
    return {name: np.concatenate([block[name] for block in blocks])[:MOST_SAMPLES] for name in blocks[0]}


def _stream(arrays: Mapping[str, np.ndarray], inputs: Sequence[InputSpec]) -> Samples:
    return Samples.of_arrays(arrays, SampleSpec(inputs))


def _score(state: _State, held_out: Mapping[str, np.ndarray], wanted: Sequence[np.ndarray]) -> Score:
    integer = quantizers.quantize(state.content, state.ranges, state.target, debug=state.debug)
    return score(answers(integer, held_out, debug=state.debug), wanted)
