"""How does a PyTorch model become a float flatbuffer?

In: a module or a file of one. Out: ``Lowered``, channels last, any batch.
"""

from typing import TYPE_CHECKING

from ...system.lazy import lazy_exports

if TYPE_CHECKING:
    from .export import count_transposes as count_transposes
    from .export import is_torch as is_torch
    from .export import lower_torch as lower_torch
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "export": ["count_transposes", "is_torch", "lower_torch"],
        },
    )
