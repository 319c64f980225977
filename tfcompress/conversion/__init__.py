"""How does a model become a finished file that says what was done to it?

In: any source of ``lowering``, samples, a target. Out: a ``Conversion``: the ``.tflite`` bytes and an honest account.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .converter import convert as convert
    from .plan import Progress as Progress
    from .repair.selection import RepairMethod as RepairMethod
    from .result import Conversion as Conversion
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "converter": ["convert"],
            "plan": ["Progress"],
            "repair.selection": ["RepairMethod"],
            "result": ["Conversion"],
        },
    )
