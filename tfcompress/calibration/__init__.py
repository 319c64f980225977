"""Which range does each tensor need?

In: a float flatbuffer and samples. Out: a ``Calibration``: the range of each tensor, by an observer, with a hash of both.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .calibrated_ranges import Calibration as Calibration
    from .calibrator import calibrate as calibrate
    from .observer_choice import Overrides as Overrides
    from .observers import OBSERVERS as OBSERVERS
    from .observers import Entropy as Entropy
    from .observers import MeanSquaredError as MeanSquaredError
    from .observers import MinMax as MinMax
    from .observers import MovingAverage as MovingAverage
    from .observers import Observer as Observer
    from .observers import Percentile as Percentile

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "calibrator": ["calibrate"],
        "calibrated_ranges": ["Calibration"],
        "observer_choice": ["Overrides"],
        "observers": ["Entropy", "MeanSquaredError", "MinMax", "MovingAverage", "OBSERVERS", "Observer", "Percentile"],
    },
)
