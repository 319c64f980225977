"""How does a package offer its public names without loading what they need? Each is imported when it is first used.

So ``tfcompress --help`` answers before TensorFlow has loaded, and a board needs only the modules that run there. For type
checkers each package imports its names under ``TYPE_CHECKING`` and calls ``lazy_exports`` in the other branch: they would take any
name for one that ``__getattr__`` finds.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, homes: Mapping[str, Sequence[str]], *, modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns ``__getattr__``, ``__dir__`` and ``__all__`` for a package whose names live in its modules (PEP 562).

    Args:
        package: the package's ``__name__``.
        homes: public names by the module below the package that defines them.
        modules: modules below the package that are public by their last name, such as "pruning.masks". Default: none.

    Returns:
        Two functions and a list, to be bound to those three names in the package.

    Examples:
        >>> find, names, public = lazy_exports("tfcompress.quantization", {"targets": ["TARGETS", "Target"]})
        >>> find("TARGETS")["cpu-int8"].name, public
        ('cpu-int8', ['TARGETS', 'Target'])
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    module_of = {module.rpartition(".")[2]: module for module in modules}

    def find(name: str) -> Any:
        if name in module_of:
            value: Any = importlib.import_module(f"{package}.{module_of[name]}")
        elif name in home_of:
            value = getattr(importlib.import_module(f"{package}.{home_of[name]}"), name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    public = sorted({*home_of, *module_of})
    return find, lambda: public, public
