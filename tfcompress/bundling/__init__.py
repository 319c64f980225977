"""What goes to a device besides the file?

In: a finished file and what was measured of it. Out: a folder with code, card and labels that a colleague can run.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .op_resolver import resolver_code as resolver_code

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "op_resolver": ["resolver_code"],
    },
)
