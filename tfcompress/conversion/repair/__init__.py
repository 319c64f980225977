"""How is accuracy that int8 cost won back without training? By four repairs of the float file, each kept if it helps.

``repair`` tries them; ``equalization``, ``clipping``, ``rounding`` and ``bias`` are one each. All work on the float
flatbuffer and its ranges and leave both fit for ``quantization.quantize``. Quantization-aware training is elsewhere.
"""

from .scores import Score
from .selection import METHODS, MOST_SAMPLES, Repaired, RepairMethod, Step, check_methods, repair

__all__ = ["METHODS", "MOST_SAMPLES", "RepairMethod", "Repaired", "Score", "Step", "check_methods", "repair"]
