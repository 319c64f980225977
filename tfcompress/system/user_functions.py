"""How does ``path.py:function`` on a command line become what the function returns?

The code runs with the rights of the process. It is the user's own and named by the user, which is why no further consent is
asked for; a file that merely came with a model is never run this way.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError, reason

__all__ = ["call_function", "load_function", "names_a_function"]

_FORM = re.compile(r"(?P<path>.+\.py):(?P<name>[^\W\d]\w*)", re.DOTALL)


def names_a_function(text: str) -> bool:
    """Is this ``path.py:function``?

    Examples:
        >>> names_a_function("data/load.py:samples"), names_a_function("load.py"), names_a_function("C:/load.npy")
        (True, False, False)
    """
    return _FORM.fullmatch(text) is not None


def load_function(text: str) -> Callable[..., Any]:
    """Returns the function that ``path.py:function`` names; runs the file, with its folder on the import path meanwhile.

    Raises:
        DataError: no such file, the file fails, or it has no such function.

    Examples:
        >>> load_function("/no/such/file.py:samples")
        Traceback (most recent call last):
        ...
        tfcompress.errors.DataError: The script must exist. Received: /no/such/file.py. Check the path.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise DataError(f"A function is named as path.py:function. Received: {text}.")
    path, name = Path(match["path"]), match["name"]
    if not path.is_file():
        raise DataError(f"The script must exist. Received: {path}. Check the path.")
    spec = importlib.util.spec_from_file_location(f"_tfcompress_script_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"The script must be a Python file. Received: {path}.")
    module = importlib.util.module_from_spec(spec)
    folder = os.fspath(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        raise DataError(
            f"The script must run. Received: {path} ({type(error).__name__}: {reason(error)}). Run it with python first."
        ) from error
    finally:
        sys.path.remove(folder)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise DataError(
            f"The script must define the function. Received: {path} without {name!r}. It has: {', '.join(known) or 'none'}."
        )
    return function


def call_function(text: str) -> Any:
    """Returns what the function that ``path.py:function`` names returns when it is called without arguments.

    Raises:
        DataError: as ``load_function``, or the function raised.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "load.py"
        >>> _ = path.write_text("def samples(): return [1, 2]")
        >>> call_function(f"{path}:samples")
        [1, 2]
    """
    function = load_function(text)
    try:
        return function()
    except Exception as error:  # the user's code may raise anything
        raise DataError(
            f"The function must return data. Received: {text} raised {type(error).__name__}: {reason(error)}."
        ) from error
