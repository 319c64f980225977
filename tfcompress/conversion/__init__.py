"""How does a model become a finished file that says what was done to it?

In: any source of ``lowering``, samples, a target. Out: a ``Conversion``: the ``.tflite`` bytes and an honest account.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .converter import Conversion as Conversion
    from .converter import convert as convert

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "converter": ["Conversion", "convert"],
    },
)
