"""``tfcompress inspect``: what a ``.tflite`` file holds, whoever made it, as text, JSON or a page."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ..system import check_writable, write_atomically
from ..system.printable import printable_lines
from .parsing import PAGES, check_report, help_text, new_flags, parse, show
from .signing import define_require_signature, signed_model
from .wall import wall, wall_flags

__all__ = ["SUMMARY", "run"]

SUMMARY = "show what a .tflite file holds, layer by layer"
_EXAMPLE = "{program} --model=model.tflite --report=model.html"


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string("model", None, "a .tflite file, also one that LiteRT refuses", flag_values=values)
    flags.DEFINE_bool("run", True, "try in a child process whether LiteRT runs the file", flag_values=values)
    flags.DEFINE_string("json", None, "also write everything as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string(
        "report",
        None,
        "also write it to a file: .html a self-contained page with plots, .json, or .txt",
        flag_values=values,
    )
    define_require_signature(values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    wall_flags(values)
    flags.DEFINE_float("timeout_seconds", 120.0, "after which it is ended", lower_bound=1.0, flag_values=values)
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = _flags()
    if parse(values, arguments, required=("model",)):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    check_report(values.report)
    for path in (values.json, values.report):
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)
    found = _inspected(values)
    record = json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n"
    if values.json == "-":
        show(record)
    else:
        show(str(found))
        if values.json:
            write_atomically(values.json, record, overwrite=values.overwrite)
    if values.report and Path(values.report).suffix.lower() in PAGES:
        from ..reporting import inspection_report

        inspection_report(found, values.report, overwrite=values.overwrite)
    elif values.report:
        text = record if Path(values.report).suffix.lower() == ".json" else printable_lines(f"{found}\n")
        write_atomically(values.report, text, overwrite=values.overwrite)
    return 0


def _inspected(values: flags.FlagValues) -> Any:
    """Returns the inspection, made in a child; a file on which LiteRT crashes is read once more without running it."""
    from ..errors import DeviceError
    from ..tflite import run_interpreter
    from ..tflite.model_files import SMALLEST_HEADER, read_file
    from ..tflite.trial import refused

    model = signed_model(values.model, values.require_signature)
    if isinstance(model, str):
        read_file(Path(model), SMALLEST_HEADER)
    request = {"model": model, "run": values.run, "debug": values.debug}
    settings: dict[str, Any] = {"place": "the file", "timeout_seconds": values.timeout_seconds, "debug": values.debug}
    settings["sandbox"] = wall(values, [values.model])
    function = "tfcompress.tflite.inspection:inspect_in_child"
    try:
        return run_interpreter(function, request, **settings)
    except DeviceError as error:
        if not values.run:
            raise
        found = run_interpreter(function, {**request, "run": False}, **settings)
        return dataclasses.replace(found, trial=refused(str(error)))
