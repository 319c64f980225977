"""``tfcompress compare``: how far two ``.tflite`` files agree, and the first tensor where they part."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ..system import check_writable, write_atomically
from .parsing import UsageError, define_scaling, help_text, new_flags, parse, show
from .signing import define_require_signature, signed_copy
from .wall import temporary_folder, wall, wall_flags

__all__ = ["SUMMARY", "run"]

SUMMARY = "compare the answers of two .tflite files, tensor by tensor"
_EXAMPLE = "{program} --model=float.tflite,int8.tflite --data=test.npz"
_FILES = 2


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_list("model", None, "two .tflite files, the reference first", flag_values=values)
    flags.DEFINE_string(
        "data",
        None,
        "what both see: .npy, .npz, a folder of images, or script.py:function; without it random inputs from the input's "
        "range",
        flag_values=values,
    )
    flags.DEFINE_integer("samples", None, "how many samples; without it 32, or 8 random ones", 1, flag_values=values)
    define_scaling(values)
    flags.DEFINE_float("threshold_db", 20.0, "tensors part below this SQNR in decibels", flag_values=values)
    flags.DEFINE_float("steps", 1.0, "tensors differ above this many quantization steps", 0.0, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the random inputs", 0, flag_values=values)
    define_require_signature(values)
    flags.DEFINE_bool(
        "allow_unsafe", False, "load arrays that bring pickles along; only from people you trust", flag_values=values
    )
    flags.DEFINE_string("json", None, "also write everything as JSON; - is stdout", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    wall_flags(values)
    flags.DEFINE_float("timeout_seconds", 600.0, "after which it is ended", lower_bound=1.0, flag_values=values)
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = _flags()
    if parse(values, arguments, required=("model",)):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    if len(values.model) != _FILES:
        raise UsageError(f"--model takes two files, with a comma between them. Received: {len(values.model)}.")
    if values.json and values.json != "-":
        check_writable(values.json, overwrite=values.overwrite)
    for path in values.model:
        _check_header(path)
    from ..data.handing_over import files_of, portable
    from ..tflite import run_interpreter

    request = {
        "scaling": values.scaling,
        "samples": values.samples,
        "threshold_db": values.threshold_db,
        "steps": values.steps,
        "seed": values.seed,
        "allow_pickle": values.allow_unsafe,
        "debug": values.debug,
    }
    with contextlib.ExitStack() as stack:
        first, second = (signed_copy(stack, path, values.require_signature) for path in values.model)
        data = portable(values.data, stack.enter_context(temporary_folder()), debug=values.debug)
        found = run_interpreter(
            "tfcompress.comparison.agreement:answer",
            {"first": first, "second": second, "data": data, **request},
            place=" or ".join(values.model),
            timeout_seconds=values.timeout_seconds,
            sandbox=wall(values, [first, second, *files_of(data)]),
            debug=values.debug,
        )
    record = json.dumps(found["json"], indent=2, allow_nan=False) + "\n"
    if values.json == "-":
        show(record)
    else:
        show(found["text"])
        if values.json:
            write_atomically(values.json, record, overwrite=values.overwrite)
    return 0


def _check_header(path: str) -> None:
    """Refuses a file that is not there or not TFLite before a child process starts."""
    from ..tflite.model_files import SMALLEST_HEADER, read_file

    read_file(Path(path), SMALLEST_HEADER)
