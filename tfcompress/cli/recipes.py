"""Which flags of ``tfcompress convert`` decide the bytes of a file? They become a recipe, and a recipe becomes them again.

Every flag is in one of four lists, so that a recipe from somebody else's bundle can name none but those that only steer numbers.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ..errors import DataError
from ..system.user_functions import names_a_function
from .parsing import UsageError

if TYPE_CHECKING:
    from ..bundling import Input, Recipe

__all__ = ["CONSENTS", "INPUTS", "RUN_ONLY", "SETTINGS", "arguments_for", "inputs_of", "recipe_of"]

INPUTS = ("model", "representative_data", "calibration", "rules", "labels", "features", "sample_inputs")
"""Flags that name files which are read: recorded with their hashes."""
SETTINGS = (
    "input_shape",
    "signature",
    "nhwc",
    "target",
    "per_channel",
    "per_channel_dense",
    "scaling",
    "ranges",
    "observer",
    "observe",
    "backend",
    "repair",
    "allow_float",
    "strict",
    "name",
    "version",
)
"""Flags that steer the bytes: recorded with their values."""
CONSENTS = ("allow_unsafe",)
"""Flags by which a user trusts a file: recorded, and never taken from a recipe."""
RUN_ONLY = (
    "help",
    "h",
    "debug",
    "sandbox",
    "timeout_seconds",
    "require_signature",
    "output",
    "save_calibration",
    "bundle",
    "overwrite",
    "report",
    "json",
    "license",
    "parent",
    "training",
    "measurement",
)
"""Flags that change no byte of the file: not recorded."""


def inputs_of(values: flags.FlagValues, bundle: str) -> "tuple[Input, ...]":
    """Returns the files that a conversion is going to read, with their hashes.

    Args:
        values: the flags of ``convert``, parsed.
        bundle: where the bundle is to be: paths are kept from the folder that holds it.

    Raises:
        DataError: one of them cannot be read.
    """
    from ..bundling import Input
    from ..bundling.provenance import digest_of

    found = []
    for flag in INPUTS:
        text = values[flag].value
        if text is None:
            continue
        function = ""
        if names_a_function(text):
            text, _, function = text.rpartition(":")
        found.append(Input(flag, _relative(text, bundle), digest_of(text), function))
    return tuple(found)


def recipe_of(values: flags.FlagValues, inputs: "Sequence[Input]", tflite: bytes) -> "Recipe":
    """Returns how a file was converted.

    Args:
        values: the flags of ``convert``, parsed.
        inputs: the files that were read.
        tflite: the finished file, which says how it was named where no flag did.
    """
    from ..bundling import Recipe
    from ..tflite import metadata

    given = {name: values[name].value for name in (*SETTINGS, *CONSENTS) if values[name].value != values[name].default}
    stored = metadata.read(tflite)
    if stored is not None and stored.name:
        given["name"] = stored.name
    return Recipe(given, tuple(inputs))


def arguments_for(
    recipe: "Recipe", bundle: Path, given: Mapping[str, str | None], *, allow_unsafe: bool
) -> tuple[list[str], list[str]]:
    """Returns the arguments of ``convert`` that a recipe stands for, and what differs from what was recorded.

    Nothing of a recipe is run or read before its hash was found to be the recorded one.

    Args:
        recipe: how the file was made, from a bundle that anybody may have written.
        bundle: its folder.
        given: paths that the user names, by flag; None where none.
        allow_unsafe: whether the user trusts the model's code.

    Raises:
        DataError: the recipe has a flag or value that no recipe has.
        UsageError: an input is not where it was, is a script, or needs consent.
    """
    from ..bundling.provenance import digest_of

    arguments, differing = [], []
    for flag, value in recipe.flags.items():
        if flag in CONSENTS:
            if value is True and not allow_unsafe:
                raise UsageError(f"The recipe needs --{flag}. Received: no such flag. Give it if you trust the model.")
            arguments += [f"--{flag}"] * bool(allow_unsafe)
        elif flag in SETTINGS:
            arguments += _flag(flag, value)
        else:
            raise DataError(
                f"A recipe steers numbers alone. Received: the flag {flag!r}. It was not written by convert."
            )
    for each in recipe.inputs:
        if each.flag not in INPUTS:
            raise DataError(
                f"A recipe reads what convert reads. Received: {each.flag!r}. It was not written by convert."
            )
        text = given.get(each.flag) or _found(each, bundle)
        path = text.rpartition(":")[0] if names_a_function(text) else text
        digest = digest_of(path)
        if digest != each.sha256:
            differing.append(f"--{each.flag}={path} has SHA-256 {digest[:12]}, recorded {each.sha256[:12]}")
        arguments.append(f"--{each.flag}={text}")
    return arguments, differing


def _relative(text: str, bundle: str) -> str:
    """Returns a path from the folder that holds the bundle, and no more than its name where it lies elsewhere."""
    path, folder = Path(text).absolute(), Path(bundle).absolute().parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _found(each: "Input", bundle: Path) -> str:
    """Returns where a recorded input lies: beside the bundle or in the working folder, and nowhere else."""
    missing = f"Name it: --{each.flag}={shlex.quote(each.path)}" + (f":{each.function}" if each.function else "")
    if each.is_script:
        raise UsageError(f"A script that a bundle names is not run unasked. Received: {each.path}. {missing}")
    for folder in (bundle.absolute().parent, Path.cwd()):
        path = folder / each.path
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            return str(path)
    raise UsageError(f"Every recorded input must be there. Received: no {each.path}. {missing}")


def _flag(name: str, value: Any) -> list[str]:
    if value is True or value is False:
        return [f"--{'' if value else 'no'}{name}"]
    if isinstance(value, str):
        return [f"--{name}={value}"]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return (
            [f"--{name}={each}" for each in value]
            if name in ("input_shape", "observe")
            else [f"--{name}={','.join(value)}"]
        )
    raise DataError(f"A recipe's values are those of flags. Received: {name}={value!r}. It was not written by convert.")
