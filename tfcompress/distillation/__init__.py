"""How does a small model learn from a large one?

In: a student and a teacher. Out: one model to ``fit``, on which every callback works.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .distiller import distill as distill
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "distiller": ["distill"],
        },
    )
