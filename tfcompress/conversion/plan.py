"""What do the arguments and the opened model decide before any work is done? Wrong combinations end here.

A ``Plan`` is what every stage of a conversion reads and none changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..calibration import Calibration, CalibrationOptions
from ..lowering import Source
from ..quantization import Backend, Rule, Target, TrainedRanges, precision, quantizers
from . import range_sources
from . import repair as repairing
from .repair import RepairMethod

__all__ = ["Plan", "Progress", "make_plan"]


class Progress(Protocol):
    """What a conversion calls while it works; ``print`` will do."""

    def __call__(self, stage: str, done: int = 0, total: int | None = None, /) -> None:
        """Is told what is done next, such as "lowering model.keras"; while calibrating, how many samples of how many.

        Args:
            stage: what is being done. Should a native library take the process with it, the last one says where.
            done: samples that were calibrated. Default: 0, the stage begins.
            total: how many there are. Default: None, unknown.
        """


@dataclass(frozen=True)
class Plan:
    """Every decision about one conversion.

    Args:
        source: the opened model.
        target: what the file is for.
        calibration: how ranges are found.
        saved: ranges that were measured before, None where there are none.
        stored: ranges that training left with a Keras model, None where there are none to use.
        rules: precision of single layers.
        quantizer: which one writes the file, None for a target without integer activations.
        repairs: "auto" or the repairs by name; none where it is empty.
        progress: told of each stage.
        debug: whether log lines of native libraries are shown.
    """

    source: Source
    target: Target
    calibration: CalibrationOptions
    saved: Calibration | None
    stored: TrainedRanges | None = field(repr=False)
    rules: tuple[Rule, ...]
    quantizer: Backend | None
    repairs: tuple[RepairMethod, ...] | Literal["auto"]
    progress: Progress = field(repr=False)
    debug: bool


def make_plan(
    source: Source,
    target: Target | None,
    calibration: CalibrationOptions,
    *,
    has_data: bool,
    rules: Any,
    backend: Backend | None,
    repair: RepairMethod | Sequence[RepairMethod] | Literal["auto"] | None,
    progress: Progress,
    debug: bool,
) -> Plan:
    """Returns what is done with a model, or says why it cannot be done.

    Args:
        source: the opened model.
        target: what the file is for; None for what the model was trained for, else int8 where there are ranges or data.
        calibration: how ranges are found.
        has_data: whether there is representative data.
        rules: as in ``precision.read_rules``.
        backend: which quantizer; None for the one that can do it.
        repair: what may be done for the accuracy; None for nothing.
        progress: told of each stage.
        debug: whether log lines of native libraries are shown.

    Raises:
        ConversionError: no ranges and no data for an integer target, or ranges of other weights or other rules.
        DataError: a saved calibration or a file of rules is missing or damaged.
        ValueError: an unknown repair, one for a target without integer activations, or a quantizer that cannot do it.
    """
    saved = calibration.saved
    if saved is not None and not isinstance(saved, Calibration):
        saved = Calibration.load(saved)
    has_data = has_data or saved is not None
    target = target or range_sources.default_target(source, calibration.ranges, measurable=has_data)
    range_sources.check_available(source, calibration.ranges, target, has_data=has_data)
    stored = range_sources.usable_ranges(source, calibration.ranges, target) if target.integer else None
    if repair and not target.integer:
        raise ValueError(f"Repairs are for integer targets. Received: target={target.name!r}. Leave repair out.")
    repairs: Any = "auto" if repair == "auto" else repairing.check_methods(repair) if repair else ()
    found = precision.read_rules(rules)
    quantizer = quantizers.resolve_backend(backend, target, found) if target.integer else None
    return Plan(source, target, calibration, saved, stored, found, quantizer, repairs, progress, debug)
