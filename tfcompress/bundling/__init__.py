"""What goes to a device besides the file?

In: a ``Conversion`` or a finished file, and what was measured of it. Out: a folder with code, card and labels that a colleague
can run, as a ``Bundle``.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .bill_of_materials import Origin as Origin
    from .device_folder import Bundle as Bundle
    from .device_folder import bundle as bundle
    from .device_folder import check_folder as check_folder
    from .op_resolver import resolver_code as resolver_code
    from .provenance import Input as Input
    from .provenance import Recipe as Recipe
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "bill_of_materials": ["Origin"],
            "device_folder": ["Bundle", "bundle", "check_folder"],
            "op_resolver": ["resolver_code"],
            "provenance": ["Input", "Recipe"],
        },
    )
