"""``tfcompress convert``: a model file becomes a ``.tflite`` file."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ..errors import ConversionError, DataError
from ..quantization import TARGETS, Target
from ..quantization.targets import BACKENDS
from ..system import check_writable, write_atomically
from ..system.files import check_distinct, check_exists
from .parsing import PAGES, UsageError, check_report, help_text, new_flags, parse, parse_overrides, parse_shapes, show
from .progress import Progress

if TYPE_CHECKING:
    from ..system.isolation import Reporter

__all__ = ["SUMMARY", "run"]

SUMMARY = "make a .tflite file from a Keras or PyTorch model or a SavedModel"
_EXAMPLE = "{program} --model=model.keras --representative_data=images/ --output=model.tflite"


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string(
        "model", None, "a .keras, .h5, float .tflite, .pt2 or .pt file, or a SavedModel folder", flag_values=values
    )
    flags.DEFINE_string("output", None, "where the .tflite file goes", flag_values=values)
    flags.DEFINE_string(
        "representative_data",
        None,
        "what the model will see: .npy, .npz, .tfrecord (with --features), a folder of images, or script.py:function",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "target",
        None,
        list(TARGETS),
        "what the file is for: "
        + "; ".join(f"{name}, {target.purpose}" for name, target in TARGETS.items())
        + ". Without it cpu-int8 where ranges or data are there, else dynamic",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "per_channel",
        None,
        "one scale for each channel of the weights of convolutions and Dense, or with --noper_channel one for all, as older "
        "runtimes need it. Without it as the target has it",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "per_channel_dense",
        None,
        "the same for Dense alone, as TFLite Micro's older kernels need it",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "input_shape",
        [],
        "fix the dynamic axes of an input, NAME:1,224,224,3 with the batch axis first; any keeps an axis dynamic; once for "
        "each input",
        flag_values=values,
    )
    flags.DEFINE_string(
        "signature", None, "which signature of a SavedModel or .tflite file, where it has several", flag_values=values
    )
    flags.DEFINE_enum(
        "ranges",
        None,
        ["trained", "calibrated"],
        "where ranges come from: those training stored even if the weights changed since, or the data. Without it the "
        "stored ones, refused when they belong to other weights",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "observer",
        "min_max",
        ["min_max", "moving_average", "percentile", "mean_squared_error", "entropy"],
        "how calibrated ranges are measured",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "observe",
        [],
        "another observer for some tensors, PATTERN=OBSERVER, for instance *logits*=percentile; the last match wins",
        flag_values=values,
    )
    flags.DEFINE_string(
        "calibration", None, "ranges of this very model that --save_calibration wrote before", flag_values=values
    )
    flags.DEFINE_string("save_calibration", None, "where the measured ranges go, as JSON", flag_values=values)
    flags.DEFINE_string(
        "scaling",
        None,
        "how pixels of images become inputs: zero_one, minus_one_one, raw, imagenet_torch, imagenet_caffe, or "
        "mean=R,G,B;std=R,G,B",
        flag_values=values,
    )
    flags.DEFINE_string(
        "features", None, "a JSON or YAML map from the inputs to the features of .tfrecord files", flag_values=values
    )
    flags.DEFINE_string(
        "rules",
        None,
        "precision of single layers: a .json or .yaml list of {pattern, op, precision}, the last match wins; precision is "
        "int8, int16x8, int4 or null for float",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "backend",
        None,
        list(BACKENDS),
        "which quantizer. Without it tensorflow, unless int16, int4 or rules need the other",
        flag_values=values,
    )
    flags.DEFINE_list(
        "repair",
        [],
        "for the accuracy of an integer file: auto tries every repair and keeps what helps, or a list of equalization, "
        "clipping, rounding and bias",
        flag_values=values,
    )
    flags.DEFINE_list(
        "allow_float",
        [],
        "operators that may stay in float in an integer file, by name or pattern: NON_MAX_SUPPRESSION*,RFFT*",
        flag_values=values,
    )
    flags.DEFINE_string(
        "sample_inputs",
        None,
        "inputs that a PyTorch model is exported on, a .npy or .npz file; without it those of a .pt2 file, or --input_shape",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "nhwc",
        False,
        "a PyTorch model's pictures come channels last, as TFLite has them; --input_shape stays as forward takes it, "
        "channels first",
        flag_values=values,
    )
    flags.DEFINE_bool("strict", True, "fail when a float tensor is left in an integer file", flag_values=values)
    flags.DEFINE_bool(
        "allow_unsafe",
        False,
        "load files that bring code or pickles along; only from people you trust",
        flag_values=values,
    )
    flags.DEFINE_string(
        "labels", None, "a text file with one class name a line, packed into the file", flag_values=values
    )
    flags.DEFINE_string(
        "name",
        None,
        "the model's name in the file's metadata. Without it a Keras model's own, else the file's",
        flag_values=values,
    )
    flags.DEFINE_string("version", "1", "the model's version in the file's metadata", flag_values=values)
    flags.DEFINE_string(
        "bundle",
        None,
        "also write a folder for the device: file, labels, model card, C array, Python and Kotlin with its scales",
        flag_values=values,
    )
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    flags.DEFINE_string(
        "report",
        None,
        "also write the account, layer by layer: .html a self-contained page, .json, or .txt",
        flag_values=values,
    )
    flags.DEFINE_string(
        "json", None, "also write the account of the conversion as JSON; - is stdout", flag_values=values
    )
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = _flags()
    if parse(values, arguments, required=("model", "output")):
        print(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
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
    request = {
        "model": values.model,
        "target": _target(values),
        "representative_data": values.representative_data,
        "input_shapes": parse_shapes(values.input_shape),
        "signature": values.signature,
        "ranges": values.ranges,
        "observer": values.observer,
        "overrides": parse_overrides(values.observe),
        "calibration": values.calibration,
        "scaling": values.scaling,
        "features": values.features,
        "rules": values.rules,
        "backend": values.backend,
        "repair": "auto" if values.repair == ["auto"] else values.repair or None,
        "allow_float": values.allow_float,
        "strict": None if values.strict else False,
        "name": values.name,
        "version": values.version,
        "labels": _labels(values.labels),
        "sample_inputs": values.sample_inputs,
        "nhwc": values.nhwc,
        "allow_unsafe": values.allow_unsafe,
        "debug": values.debug,
    }
    if values.bundle:
        from ..bundling.device_folder import check_folder

        check_folder(Path(values.bundle), overwrite=values.overwrite)
    from ..system import run_isolated

    # In a process of its own: what crashes inside the native converter must not take files or the terminal with it.
    with Progress("calibrating", "samples") as progress, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Representative data must look like")  # the account has it
        wants_layers = bool(values.report or values.json)
        result, layers = run_isolated(
            "tfcompress.cli.convert:convert_in_child",
            {"arguments": request, "layers": wants_layers},
            on_progress=progress,
            debug=values.debug,
        )
    if values.save_calibration and result.calibration is None:
        raise ConversionError("There must be measured ranges to save. Received: a model whose ranges are all trained.")
    result.save(values.output, overwrite=values.overwrite)
    if values.save_calibration:
        result.calibration.save(values.save_calibration, overwrite=values.overwrite)
    written = [values.output]
    if values.bundle:
        from ..bundling import device_folder

        facts: dict[str, str] = {}
        for word, text in result.facts:  # a card has one row for each word
            facts[word] = f"{facts[word]}; {text}" if word in facts else text
        device_folder.write(
            result.tflite,
            values.bundle,
            source=values.model,
            target=result.target.name,
            facts=facts,
            labels=request["labels"],
            samples=result.samples,
            overwrite=values.overwrite,
        )
        written.append(values.bundle)
    account = result.to_json()
    if wants_layers:
        from ..reporting import conversion_record

        account = conversion_record(result, layers)
    record = json.dumps({**account, "output": values.output}, indent=2)
    if values.report:
        _report(result, layers, record, values)
        written.append(values.report)
    if values.json and values.json != "-":
        write_atomically(values.json, record + "\n", overwrite=values.overwrite)
    show(record if values.json == "-" else "\n".join([str(result), *(f"wrote    {path}" for path in written)]))
    return 0


def _target(values: flags.FlagValues) -> Target | str | None:
    """Returns the target with the scales that the flags ask for; the flag for Dense goes before the one for all weights."""
    dense = values.per_channel if values.per_channel_dense is None else values.per_channel_dense
    asked = {"per_channel": values.per_channel, "per_channel_dense": dense}
    changes = {name: value for name, value in asked.items() if value is not None}
    if not changes:
        return values.target
    if values.target is None:
        raise UsageError("--per_channel and --per_channel_dense change a target. Received: no --target. Name it.")
    return dataclasses.replace(TARGETS[values.target], **changes)


def _report(result: Any, layers: tuple, record: str, values: flags.FlagValues) -> None:
    """Writes the account as what its file's name ends in."""
    from ..reporting import conversion_report, conversion_text

    suffix = Path(values.report).suffix.lower()
    if suffix in PAGES:
        conversion_report(result, values.report, layers=layers, overwrite=values.overwrite)
    else:
        text = record if suffix == ".json" else conversion_text(result, layers)
        write_atomically(values.report, text + "\n", overwrite=values.overwrite)


def convert_in_child(request: Mapping[str, Any], report: "Reporter") -> tuple[Any, tuple]:
    """Returns the conversion and, where asked for, its layers; runs in the child process.

    Args:
        request: "arguments" of ``conversion.convert``, and "layers", whether they are wanted.
        report: told of each stage, and of samples calibrated.
    """
    debug = request["arguments"]["debug"]
    _import_quietly(debug=debug)
    from ..conversion import convert

    arguments = dict(request["arguments"])
    result = convert(arguments.pop("model"), on_progress=report, on_stage=report.stage, **arguments)
    if not request["layers"]:
        return result, ()
    report.stage("comparing the layers with the float file")
    return result, result.layers(debug=debug)


def _labels(path: str | None) -> list[str] | None:
    """Returns the lines of a text file of class names."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            labels = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise DataError(f"The labels must be readable. Received: {path} ({reason}). Check the path.") from error
    while labels and not labels[-1].strip():
        labels.pop()
    return labels


def _import_quietly(*, debug: bool) -> None:
    """Imports TensorFlow and Keras while descriptor 2 is silenced: their first log lines precede every log level."""
    from ..system import native_stderr_silenced

    with native_stderr_silenced(debug=debug):
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
