"""What would a processor do that is not here?

In: a file. Out: what TensorFlow Lite Micro's interpreter or Arm's compiler Vela says of it, in child processes of this machine.
"""

from typing import TYPE_CHECKING

from ....system.lazy import lazy_exports

if TYPE_CHECKING:
    from .ethos_u import EthosUDevice as EthosUDevice
    from .tflm import TflmDevice as TflmDevice
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "ethos_u": ["EthosUDevice"],
            "tflm": ["TflmDevice"],
        },
    )
