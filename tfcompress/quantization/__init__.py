"""What does the device accept, how is a value rounded, and which quantizer writes the file?

In: a float flatbuffer with ranges, and a ``Target``. Out: the integer flatbuffer. Where the ranges come from is the business of
``calibration`` and ``qat``.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .precision import Precision as Precision
    from .precision import Rule as Rule
    from .targets import TARGETS as TARGETS
    from .targets import Backend as Backend
    from .targets import Target as Target
    from .targets import TargetName as TargetName
    from .trained_ranges import RangeAsset as RangeAsset
    from .trained_ranges import TrainedRanges as TrainedRanges
    from .trained_ranges import hash_weights as hash_weights
    from .trained_ranges import read_archive as read_archive
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "precision": ["Precision", "Rule"],
            "targets": ["Backend", "TARGETS", "Target", "TargetName"],
            "trained_ranges": ["RangeAsset", "TrainedRanges", "hash_weights", "read_archive"],
        },
    )
