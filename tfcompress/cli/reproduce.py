"""``tfcompress reproduce``: does the recorded conversion, done again, give the very file of a bundle?"""

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ..errors import ConversionError, ModelError
from ..system import check_writable, write_atomically
from .convert import _convert
from .convert_flags import arguments_of, convert_flags
from .parsing import help_text, new_flags, parse, show
from .recipes import INPUTS, arguments_for
from .signing import define_require_signature
from .wall import SECONDS, wall_flags

if TYPE_CHECKING:
    from ..bundling.provenance import Statement

__all__ = ["SUMMARY", "run"]

SUMMARY = "convert again by a bundle's recipe, and prove that its file comes out"
_EXAMPLE = "{program} --bundle=device/ --model=model.keras"


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string("bundle", None, "the folder that convert --bundle wrote", flag_values=values)
    for name in INPUTS:
        what = (
            "which it may run, if it is path.py:function"
            if name == "representative_data"
            else "if it lies elsewhere now"
        )
        flags.DEFINE_string(name, None, f"where the recipe's --{name} is, {what}", flag_values=values)
    flags.DEFINE_bool(
        "allow_unsafe",
        False,
        "load files that bring code or pickles along; only from people you trust",
        flag_values=values,
    )
    define_require_signature(values)
    wall_flags(values)
    flags.DEFINE_float(
        "timeout_seconds", SECONDS, "after which the conversion is ended", lower_bound=1.0, flag_values=values
    )
    flags.DEFINE_string("output", None, "where the new file goes, for a look at what differs", flag_values=values)
    flags.DEFINE_string("json", None, "also write the outcome as JSON; - is stdout", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code: 0 only if the same bytes came out."""
    values = _flags()
    if parse(values, arguments, required=("bundle",)):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    for path in (values.output, values.json):
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)
    folder = Path(values.bundle)
    statement, wanted = _read(folder, values.require_signature)
    given = {name: values[name].value for name in INPUTS}
    again, differing = arguments_for(statement.recipe, folder, given, allow_unsafe=values.allow_unsafe)  # type: ignore[arg-type]
    if differing:
        raise ConversionError(
            f"The inputs must be the recorded ones. Received: {'; '.join(differing)}. Find the others."
        )
    asked = convert_flags()
    how = [f"--sandbox={values.sandbox}", f"--timeout_seconds={values.timeout_seconds}", *(["--debug"] * values.debug)]
    parse(asked, [*again, *how], required=("model",))
    result, _ = _convert(arguments_of(asked), asked)
    if values.output:
        result.save(values.output, overwrite=values.overwrite)
    versions = _other_versions(statement)
    outcome = {
        "same": result.tflite == wanted,
        "sha256": hashlib.sha256(result.tflite).hexdigest(),
        "recorded_sha256": statement.sha256,
        "other_versions": versions,
    }
    record = json.dumps(outcome, indent=2) + "\n"
    if values.json and values.json != "-":
        write_atomically(values.json, record, overwrite=values.overwrite)
    if not outcome["same"]:
        raise ConversionError(_difference(result, statement, versions))
    if values.json == "-":
        show(record)
    else:
        same = f"{folder / 'model.tflite'}: the same {len(wanted):,} bytes again, SHA-256 {statement.sha256}"
        show("\n".join([same, *(f"  although {line}" for line in versions)]))
    return 0


def _read(folder: Path, key: str | None) -> "tuple[Statement, bytes]":
    """Returns what a bundle says of its file, and the file; refuses a statement of another file or without a recipe."""
    from ..bundling.provenance import PROVENANCE, chain, read_statement

    if key:
        from ..security import read_signed

        content, model = (read_signed(folder / name, key).tflite for name in (PROVENANCE, "model.tflite"))
    else:
        try:
            content, model = ((folder / name).read_bytes() for name in (PROVENANCE, "model.tflite"))
        except OSError as error:
            raise ModelError(
                f"A bundle must hold its file and {PROVENANCE}. Received: {error.filename} ({error.strerror})."
            ) from error
    statement = read_statement(content, str(folder / PROVENANCE))
    list(chain(statement, model))  # of this very file
    if statement.recipe is None:
        raise ConversionError(
            f"A bundle must hold the recipe of its file. Received: {folder}, written from Python or of a finished file. "
            "Write it with tfcompress convert --bundle."
        )
    return statement, model


def _other_versions(statement: "Statement") -> list[str]:
    """Returns in what this machine's tools differ from the recorded ones, one line each."""
    from ..bundling.provenance import tool_versions

    here: dict[str, Any] = tool_versions(statement.source)
    here |= {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    system = {name: statement.settings.get(name) for name in ("python", "machine", "system")}
    recorded = {**statement.versions, **system}
    names = sorted({*here, *recorded})
    return [
        f"{name} is {here.get(name) or 'absent'}, recorded {recorded.get(name) or 'none'}"
        for name in names
        if here.get(name) != recorded.get(name)
    ]


def _difference(result: Any, statement: "Statement", versions: list[str]) -> str:
    """Returns in one line where the conversion parted from the recorded one, and what may be why."""
    from ..bundling.provenance import FLOAT_MODEL

    found = {FLOAT_MODEL: hashlib.sha256(result.hub).hexdigest()}
    if result.calibration is not None:
        found["samples"] = result.calibration.data_sha256
    parted = [name for name, digest in statement.byproducts.items() if name in found and found[name] != digest]
    where = (
        f"the first to differ is {parted[0]}"
        if parted
        else "float model and samples are the same, quantization differs"
    )
    why = "; ".join(versions) or "every recorded version is the same: the processor or its number of cores may differ"
    digest = hashlib.sha256(result.tflite).hexdigest()
    return f"The same file must come out. Received: SHA-256 {digest[:12]}, recorded {statement.sha256[:12]}; {where}; {why}."
