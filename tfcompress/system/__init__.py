"""How are files, native libraries, child processes, the terminal and misspelt arguments dealt with, once for all packages?

In: bytes, work to be done, rows of text, ``path.py:function``. Out: files that are whole or absent, quiet libraries, what work
that may crash answered in a child process, aligned columns (``text_tables``), the user's function. Knows nothing of models.
"""

from typing import TYPE_CHECKING

from .lazy import lazy_exports

if TYPE_CHECKING:
    from .arguments import checked_arguments as checked_arguments
    from .arguments import checked_fields as checked_fields
    from .arguments import option_or_default as option_or_default
    from .arguments import repr_without_defaults as repr_without_defaults
    from .files import check_distinct as check_distinct
    from .files import check_exists as check_exists
    from .files import check_regular as check_regular
    from .files import check_writable as check_writable
    from .files import write_atomically as write_atomically
    from .isolated_child import ChildExit as ChildExit
    from .isolated_child import Reporter as Reporter
    from .isolation import run_isolated as run_isolated
    from .quiet import converter_silenced as converter_silenced
    from .quiet import native_stderr_silenced as native_stderr_silenced
    from .sandbox import Sandbox as Sandbox
    from .user_functions import call_function as call_function
    from .user_functions import load_function as load_function
    from .user_functions import names_a_function as names_a_function
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "arguments": ["checked_arguments", "checked_fields", "option_or_default", "repr_without_defaults"],
            "files": ["check_distinct", "check_exists", "check_regular", "check_writable", "write_atomically"],
            "isolated_child": ["ChildExit", "Reporter"],
            "isolation": ["run_isolated"],
            "quiet": ["converter_silenced", "native_stderr_silenced"],
            "sandbox": ["Sandbox"],
            "user_functions": ["call_function", "load_function", "names_a_function"],
        },
    )
