"""``tfcompress scan``: what a model file is, what it would run, and whether it may be opened, as text, JSON or SARIF."""

import json
from collections.abc import Sequence

from absl import flags

from ..system import check_distinct, check_writable, write_atomically
from .parsing import help_text, new_flags, parse, show

__all__ = ["SUMMARY", "run"]

SUMMARY = "say what a model file would run, without opening it; exit code 4 if it is refused"
FOUND = 4
"""The exit code for a file that ``convert`` would refuse; 1 and 2 are those of every command."""


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code: 0 for a clean file, 4 for one that is refused."""
    values = new_flags()
    flags.DEFINE_string(
        "model",
        None,
        "a .keras, .h5, .tflite, .pt2, .pt, .pth or .ptl file, or a SavedModel folder",
        flag_values=values,
    )
    flags.DEFINE_string("json", None, "also write the findings as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("sarif", None, "also write them as SARIF 2.1.0; - is stdout", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    if parse(values, arguments, required=("model",)):
        show(help_text(values, program=program, summary=SUMMARY, example=f"{program} --model=model.keras"))
        return 0
    outputs = {"json": values.json, "sarif": values.sarif}
    check_distinct(**outputs)
    for path in outputs.values():
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)
    from ..security import scan

    found = scan(values.model)
    records = {"json": found.to_json(), "sarif": found.to_sarif()}
    if "-" not in outputs.values():
        show(str(found))
    for name, path in outputs.items():
        text = json.dumps(records[name], indent=2, allow_nan=False) + "\n"
        if path == "-":
            show(text)
        elif path:
            write_atomically(path, text, overwrite=values.overwrite)
    return FOUND if found.refused else 0
