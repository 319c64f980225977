"""How is accuracy that int8 cost won back without training? By four repairs of the float file, each kept if it helps.

``selection`` tries them; ``equalization``, ``weight_clipping``, ``adaptive_rounding`` and ``bias_correction`` are one each. All work
on the float flatbuffer and its ranges and leave both fit for ``quantizers.quantize``. Quantization-aware training is
elsewhere.
"""

from .scores import Score
from .selection import METHODS, MOST_SAMPLES, Repaired, RepairMethod, Step, check_methods, repair

__all__ = ["METHODS", "MOST_SAMPLES", "RepairMethod", "Repaired", "Score", "Step", "check_methods", "repair"]
