"""How are ranges found? The choices that ``convert`` takes as one value, checked when they are made."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

from ..system import checked_fields, repr_without_defaults
from .calibrated_ranges import Calibration
from .observer_choice import Overrides, resolve_observer
from .observers import OBSERVERS, Observer, ObserverName

__all__ = ["CalibrationOptions", "RangeOrigin", "resolve_calibration"]

RangeOrigin = Literal["trained", "calibrated"]


@checked_fields
@dataclass(frozen=True, repr=False)
class CalibrationOptions:
    """Where the range of each tensor comes from, and how it is measured.

    Args:
        observer: how calibrated ranges are measured: "min_max", "moving_average", "percentile", "mean_squared_error",
            "entropy" or an ``Observer``. Default: "min_max".
        overrides: (pattern of tensor names, observer) in order, for tensors that have another one; the last match wins.
            Default: none.
        ranges: "trained" uses the ranges that training stored even if the weights changed since, "calibrated" ignores
            them. Default: None, the stored ones, refused when they belong to other weights.
        saved: ranges of this very model that were measured before: a ``Calibration`` or the path of a saved one.
            Default: None.

    Raises:
        ValueError: an unknown observer, an override that is no pair, or another word for ``ranges``.
        TypeError: ``observer`` is no observer, or ``saved`` is neither a calibration nor a path.

    Examples:
        >>> CalibrationOptions("percentile", overrides=[("*logits*", "min_max")])
        CalibrationOptions(observer='percentile', overrides=(('*logits*', 'min_max'),))
        >>> CalibrationOptions("percentil")
        Traceback (most recent call last):
        ...
        ValueError: Unknown observer 'percentil'. Known: min_max, moving_average, percentile, ... Did you mean percentile?
    """

    observer: ObserverName | Observer = "min_max"
    overrides: Overrides = ()
    ranges: RangeOrigin | None = None
    saved: Calibration | str | os.PathLike | None = None

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        resolve_observer(self.observer)
        overrides = tuple(self.overrides)
        for pair in overrides:
            if isinstance(pair, str) or len(pair) != 2 or not isinstance(pair[0], str):
                raise ValueError(
                    f"Each override must be (pattern, observer). Received: {pair!r}. Write ('*logits*', 'min_max')."
                )
            resolve_observer(pair[1])
        object.__setattr__(self, "overrides", overrides)
        if self.ranges not in (None, *get_args(RangeOrigin)):
            raise ValueError(
                f"ranges must be 'trained' or 'calibrated'. Received: ranges={self.ranges!r}. Leave it out for those that "
                "training stored, where there are some."
            )
        if not isinstance(self.saved, Calibration | str | os.PathLike | None):
            raise TypeError(
                f"saved must be a Calibration or the path of one. Received: {type(self.saved).__name__}. Pass what "
                "convert(...).calibration was, or where it was saved."
            )


def resolve_calibration(
    calibration: ObserverName | Observer | Calibration | CalibrationOptions | None,
) -> CalibrationOptions:
    """Returns the options that a short form stands for: an observer, or ranges that were measured before.

    Raises:
        ValueError: the name of no observer.
        TypeError: none of these.

    Examples:
        >>> resolve_calibration("entropy")
        CalibrationOptions(observer='entropy')
        >>> resolve_calibration("ranges.json")
        Traceback (most recent call last):
        ...
        ValueError: calibration must name an observer: min_max, ... Received: 'ranges.json'. Saved ranges are
        calibration=CalibrationOptions(saved='ranges.json').
    """
    if calibration is None:
        return CalibrationOptions()
    if isinstance(calibration, CalibrationOptions):
        return calibration
    if isinstance(calibration, Calibration):
        return CalibrationOptions(saved=calibration)
    if isinstance(calibration, os.PathLike) or (isinstance(calibration, str) and calibration.endswith(".json")):
        path = os.fspath(calibration)
        raise ValueError(
            f"calibration must name an observer: {', '.join(OBSERVERS)}. Received: {path!r}. Saved ranges are "
            f"calibration=CalibrationOptions(saved={path!r})."
        )
    return CalibrationOptions(calibration)
