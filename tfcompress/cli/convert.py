"""``tfcompress convert``: a model file becomes a ``.tflite`` file."""

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ..errors import ConversionError
from ..system import check_distinct, check_exists, check_writable, write_atomically
from ..system.printable import printable_lines
from .convert_flags import arguments_of, convert_flags, origin_of
from .parsing import PAGES, check_report, help_text, parse, show
from .progress import Progress
from .recipes import inputs_of, recipe_of
from .signing import signed_copy
from .wall import temporary_folder, wall

if TYPE_CHECKING:
    from ..system import Reporter

__all__ = ["SUMMARY", "run"]

SUMMARY = "make a .tflite file from a Keras or PyTorch model or a SavedModel"
_EXAMPLE = "{program} --model=model.keras --representative_data=images/ --output=model.tflite"


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = convert_flags()
    if parse(values, arguments, required=("model", "output")):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    _check_paths(values)
    origin_of(values)  # what is wrong with it is said before the work
    request = arguments_of(values)
    inputs = inputs_of(values, values.bundle) if values.bundle else ()
    with contextlib.ExitStack() as stack:
        request["model"] = signed_copy(stack, values.model, values.require_signature)
        result, layers = _convert(request, values)
    result = dataclasses.replace(result, source=values.model) if values.require_signature else result
    if values.save_calibration and result.calibration is None:
        raise ConversionError("There must be measured ranges to save. Received: a model whose ranges are all trained.")
    result.save(values.output, overwrite=values.overwrite)
    if values.save_calibration:
        result.calibration.save(values.save_calibration, overwrite=values.overwrite)
    written = [values.output]
    if values.bundle:
        _bundle(values, result, request["metadata"].labels, inputs)
        written.append(values.bundle)
    record = json.dumps({**_account(result, layers, values), "output": values.output}, indent=2)
    if values.report:
        _report(result, layers, record, values)
        written.append(values.report)
    if values.json and values.json != "-":
        write_atomically(values.json, record + "\n", overwrite=values.overwrite)
    show(record if values.json == "-" else "\n".join([str(result), *(f"wrote    {path}" for path in written)]))
    return 0


def _bundle(values: flags.FlagValues, result: Any, labels: Any, inputs: Sequence[Any]) -> None:
    """Writes the folder for the device, with where its file comes from."""
    from ..bundling import bundle

    bundle(
        result,
        values.bundle,
        source=values.model,
        labels=labels,
        recipe=recipe_of(values, inputs, result.tflite),
        origin=origin_of(values),
        overwrite=values.overwrite,
    )


def _check_paths(values: flags.FlagValues) -> None:
    """Refuses, before any work, paths that are missing, taken, or one and the same."""
    check_distinct(
        model=values.model,
        output=values.output,
        json=values.json,
        report=values.report,
        save_calibration=values.save_calibration,
    )
    check_exists(values.model)
    check_writable(values.output, overwrite=values.overwrite)
    check_report(values.report)
    for path in (values.json, values.report, values.save_calibration):
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)
    if values.bundle:
        from ..bundling import check_folder

        check_folder(Path(values.bundle), overwrite=values.overwrite)


def _convert(request: Mapping[str, Any], values: flags.FlagValues) -> tuple[Any, tuple]:
    """Converts in a process of its own: what crashes inside the native converter must not take files or the terminal along.

    A script that was named as data runs outside of the wall; its samples are handed over.
    """
    from ..data.handing_over import files_of, portable
    from ..system import run_isolated

    named = (request["model"], values.sample_inputs, values.rules, values.calibration, values.features)
    with temporary_folder() as folder, Progress("calibrating", "samples") as progress, warnings.catch_warnings():
        data = portable(request["representative_data"], folder, debug=values.debug)
        warnings.filterwarnings("ignore", message="Representative data must look like")  # the account has it
        return run_isolated(
            "tfcompress.cli.convert:convert_in_child",
            {
                "arguments": {**request, "representative_data": data},
                "layers": bool(values.report or values.json),
            },
            on_progress=progress,
            timeout_seconds=values.timeout_seconds,
            sandbox=wall(values, [*named, *files_of(data)]),
            debug=values.debug,
        )


def _account(result: Any, layers: tuple, values: flags.FlagValues) -> dict[str, Any]:
    """Returns the account of a conversion, with its layers where a file of it is wanted."""
    if not (values.report or values.json):
        return result.to_json()
    from ..reporting import conversion_record

    return conversion_record(result, layers)


def _report(result: Any, layers: tuple, record: str, values: flags.FlagValues) -> None:
    """Writes the account as what its file's name ends in."""
    from ..reporting import conversion_report, conversion_text

    suffix = Path(values.report).suffix.lower()
    if suffix in PAGES:
        conversion_report(result, values.report, layers=layers, overwrite=values.overwrite)
    else:
        text = record if suffix == ".json" else printable_lines(conversion_text(result, layers))
        write_atomically(values.report, text + "\n", overwrite=values.overwrite)


def convert_in_child(request: Mapping[str, Any], report: "Reporter") -> tuple[Any, tuple]:
    """Returns the conversion and, where asked for, its layers; runs in the child process.

    Args:
        request: "arguments" of ``conversion.convert``, with the data as ``data.handing_over`` makes it portable; "layers",
            whether they are wanted.
        report: told of each stage, and of samples calibrated.
    """
    debug = request["arguments"]["debug"]
    _import_quietly(debug=debug)
    from ..conversion import convert
    from ..data.handing_over import opened

    arguments = dict(request["arguments"])
    arguments["representative_data"] = opened(arguments["representative_data"])

    def tell(stage: str, done: int = 0, total: int | None = None, /) -> None:
        if done:
            report(done, total)
        else:
            report.stage(stage)

    result = convert(arguments.pop("model"), progress=tell, **arguments)
    if not request["layers"]:
        return result, ()
    report.stage("comparing the layers with the float file")
    return result, result.layers(debug=debug)


def _import_quietly(*, debug: bool) -> None:
    """Imports TensorFlow and Keras while descriptor 2 is silenced: their first log lines precede every log level."""
    from ..system import native_stderr_silenced

    with native_stderr_silenced(debug=debug):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
