"""Which range does each tensor need?

In: a float flatbuffer and samples. Out: a ``Calibration``: the range of each tensor, by an observer, with a hash of both.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .calibrated_ranges import Calibration as Calibration
    from .calibrator import calibrate as calibrate
    from .observer_choice import Overrides as Overrides
    from .observer_choice import resolve_observer as resolve_observer
    from .observers import OBSERVERS as OBSERVERS
    from .observers import Entropy as Entropy
    from .observers import MeanSquaredError as MeanSquaredError
    from .observers import MinMax as MinMax
    from .observers import MovingAverage as MovingAverage
    from .observers import Observer as Observer
    from .observers import ObserverName as ObserverName
    from .observers import Percentile as Percentile
    from .options import CalibrationOptions as CalibrationOptions
    from .options import RangeOrigin as RangeOrigin
    from .options import resolve_calibration as resolve_calibration
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "calibrator": ["calibrate"],
            "calibrated_ranges": ["Calibration"],
            "observer_choice": ["Overrides", "resolve_observer"],
            "observers": [
                "Entropy",
                "MeanSquaredError",
                "MinMax",
                "MovingAverage",
                "OBSERVERS",
                "Observer",
                "ObserverName",
                "Percentile",
            ],
            "options": ["CalibrationOptions", "RangeOrigin", "resolve_calibration"],
        },
    )
