"""``tfcompress robustness``: what compression does to a model under attack and in bad weather."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ..system import check_distinct, check_writable, write_atomically
from .parsing import PAGES, UsageError, define_scaling, help_text, new_flags, parse, show
from .signing import define_require_signature, signed_copy
from .wall import temporary_folder, wall, wall_flags

__all__ = ["SUMMARY", "run"]

SUMMARY = "attack and corrupt what .tflite files see, side by side"
_EXAMPLE = "{program} --model=float.tflite,int8.tflite --data=test.npz --keras_model=model.keras"
_PAIR = 2


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_list("model", None, ".tflite files, the float one first", flag_values=values)
    flags.DEFINE_string(
        "data",
        None,
        "labelled samples: .npz with x and y, a folder with one sub-folder of images per class, or script.py:function",
        flag_values=values,
    )
    flags.DEFINE_string(
        "keras_model", None, "the Keras model whose gradients FGSM and PGD follow; without it none", flag_values=values
    )
    flags.DEFINE_float(
        "eps", 8 / 255, "largest change of a value, as a share of black to white: 0.03 is 8 of 255", flag_values=values
    )
    flags.DEFINE_integer("steps", 20, "of PGD from each start", flag_values=values)
    flags.DEFINE_integer("restarts", 2, "starts of PGD", flag_values=values)
    flags.DEFINE_integer("queries", 500, "answers that Square asks of each sample at most", flag_values=values)
    flags.DEFINE_integer("samples", 500, "how many are attacked and corrupted", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the draw of samples, of starts, squares and noise", flag_values=values)
    flags.DEFINE_list(
        "input_range",
        None,
        "what black and white are to the model: LOW,HIGH; without it from the scaling or the data",
        flag_values=values,
    )
    define_scaling(values)
    define_require_signature(values)
    wall_flags(values)
    flags.DEFINE_integer("threads", 1, "threads for one inference", 1, flag_values=values)
    flags.DEFINE_float("timeout_seconds", 3600.0, "how long all of it may take", 1.0, flag_values=values)
    flags.DEFINE_bool(
        "allow_unsafe",
        False,
        "load a Keras file or arrays that bring code along; only from people you trust",
        flag_values=values,
    )
    flags.DEFINE_string("json", None, "also write everything as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("report", None, "also write an HTML page", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code. The files and the Keras model are opened in a child process."""
    values = _flags()
    if parse(values, arguments, required=("model", "data")):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    input_range = _input_range(values.input_range)
    _check_outputs(values)
    from ..data.handing_over import files_of, portable
    from ..security import AttackOptions, Robustness
    from ..tflite import run_interpreter

    options = {name: values[name].value for name in ("eps", "steps", "restarts", "queries", "samples", "seed")}
    request = {
        "keras_model": values.keras_model,
        "attacks": vars(AttackOptions(**options)),
        "input_range": input_range,
        "scaling": values.scaling,
        "threads": values.threads,
        "allow_unsafe": values.allow_unsafe,
        "debug": values.debug,
    }
    with contextlib.ExitStack() as stack:
        models = [signed_copy(stack, path, values.require_signature) for path in values.model]
        data = portable(values.data, stack.enter_context(temporary_folder()), debug=values.debug)
        answer: Any = run_interpreter(
            "tfcompress.security.robustness.assessment:answer",
            {"model": models, "data": data, **request},
            place=" or ".join(values.model),
            timeout_seconds=values.timeout_seconds,
            sandbox=wall(values, [*models, values.keras_model, *files_of(data)]),
            debug=values.debug,
        )
    found = Robustness.from_json(answer)
    record = json.dumps(answer, indent=2, allow_nan=False) + "\n"
    if values.json and values.json != "-":
        write_atomically(values.json, record, overwrite=values.overwrite)
    if values.report:
        from ..reporting import robustness_report

        robustness_report(found, values.report, overwrite=values.overwrite)
    if values.json == "-":
        show(record)
    else:
        show(str(found))
    return 0


def _input_range(given: Sequence[str] | None) -> tuple[float, float] | None:
    if not given:
        return None
    try:
        low, high = map(float, given) if len(given) == _PAIR else (0.0, 0.0)
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise UsageError(f"--input_range must be LOW,HIGH. Received: {','.join(given)!r}. Write --input_range=0,255.")
    return low, high


def _check_outputs(values: flags.FlagValues) -> None:
    """Refuses files to read that are not there, and files to write that clash or exist, before anything is run."""
    from ..tflite.model_files import SMALLEST_HEADER, read_file

    if values.report and Path(values.report).suffix.lower() not in PAGES:
        raise UsageError(f"--report must name a {' or '.join(PAGES)} file. Received: {values.report!r}.")
    outputs = {name: values[name].value for name in ("json", "report") if values[name].value not in (None, "-")}
    check_distinct(**outputs)
    for path in values.model:
        check_distinct(model=path, **outputs)
        read_file(Path(path), SMALLEST_HEADER)
    for path in outputs.values():
        check_writable(path, overwrite=values.overwrite)
