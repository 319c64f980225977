"""The flags of ``tfcompress convert``, and the arguments of ``convert`` that they stand for."""

import dataclasses
import json
from typing import Any

from absl import flags

from ..errors import DataError, reason
from ..quantization import TARGETS, Target
from ..quantization.targets import BACKENDS
from ..system import check_regular
from .parsing import UsageError, define_scaling, new_flags, parse_overrides, parse_shapes
from .signing import define_require_signature
from .wall import SECONDS, wall_flags

__all__ = ["arguments_of", "convert_flags", "origin_of"]


def convert_flags() -> flags.FlagValues:
    """Returns the command's flags with their defaults."""
    values = new_flags()
    for define in (
        _source_flags,
        _target_flags,
        _data_flags,
        _calibration_flags,
        _precision_flags,
        _output_flags,
        _origin_flags,
    ):
        define(values)
    return values


def _source_flags(values: flags.FlagValues) -> None:
    """What is converted, and how it is opened."""
    flags.DEFINE_string(
        "model", None, "a .keras, .h5, float .tflite, .pt2 or .pt file, or a SavedModel folder", flag_values=values
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
    define_require_signature(values)
    flags.DEFINE_bool(
        "allow_unsafe",
        False,
        "load files that bring code or pickles along; only from people you trust",
        flag_values=values,
    )
    wall_flags(values)
    flags.DEFINE_float(
        "timeout_seconds", SECONDS, "after which the conversion is ended", lower_bound=1.0, flag_values=values
    )


def _target_flags(values: flags.FlagValues) -> None:
    """What the file is for."""
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


def _data_flags(values: flags.FlagValues) -> None:
    """What the model will see."""
    flags.DEFINE_string(
        "representative_data",
        None,
        "what the model will see: .npy, .npz, .tfrecord (with --features), a folder of images, or script.py:function",
        flag_values=values,
    )
    define_scaling(values)
    flags.DEFINE_string(
        "features", None, "a JSON or YAML map from the inputs to the features of .tfrecord files", flag_values=values
    )


def _calibration_flags(values: flags.FlagValues) -> None:
    """Where ranges come from."""
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


def _precision_flags(values: flags.FlagValues) -> None:
    """How precise the file is, and who quantizes it."""
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
    flags.DEFINE_bool("strict", True, "fail when a float tensor is left in an integer file", flag_values=values)


def _output_flags(values: flags.FlagValues) -> None:
    """What is written, and what the file says of itself."""
    flags.DEFINE_string("output", None, "where the .tflite file goes", flag_values=values)
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


def _origin_flags(values: flags.FlagValues) -> None:
    """What a bundle says of its file that nobody can read off it."""
    flags.DEFINE_string("license", None, "for the bundle: the licence, such as Apache-2.0", flag_values=values)
    flags.DEFINE_string(
        "parent", None, "for the bundle: the model that training started from or that was distilled", flag_values=values
    )
    flags.DEFINE_string(
        "training", None, "for the bundle: how the model was trained, a JSON object of texts", flag_values=values
    )
    flags.DEFINE_string(
        "measurement", None, "for the bundle: what measure --json wrote of this very file", flag_values=values
    )


def origin_of(values: flags.FlagValues) -> Any:
    """Returns what the flags say of a file's origin; None without a bundle.

    Raises:
        UsageError: they are given without a bundle.
        DataError: how it was trained cannot be read.
    """
    asked = {name: values[name].value for name in ("license", "parent", "training", "measurement")}
    given = [name for name, value in asked.items() if value is not None]
    if not values.bundle:
        if given:
            raise UsageError(f"--{given[0]} is told in a bundle. Received: no --bundle. Name a folder.")
        return None
    from ..bundling import Origin

    return Origin(**{**asked, "training": _training(values.training)})


def _training(path: str | None) -> dict[str, str]:
    """Returns how a model was trained, as a JSON file tells it."""
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            stated = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"--training must be a JSON file. Received: {path} ({reason(error)}). Check the path."
        ) from error
    if not isinstance(stated, dict):
        raise DataError(f"--training must be a JSON object. Received: {path}, a {type(stated).__name__}.")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in stated.items()}


def arguments_of(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of ``conversion.convert`` that the flags stand for, the model among them.

    Args:
        values: the command's flags, parsed.

    Raises:
        UsageError: a malformed flag.
        DataError: labels or a feature map that cannot be read.
        ValueError: an unknown observer.
    """
    from ..calibration import CalibrationOptions
    from ..data import TFRecords
    from ..lowering import SourceOptions
    from ..tflite import Metadata

    data: Any = values.representative_data
    overrides: Any = parse_overrides(values.observe)  # CalibrationOptions checks the names
    if data is not None and values.features is not None:
        data = TFRecords(data, values.features)
    return {
        "model": values.model,
        "target": _target(values),
        "representative_data": data,
        "scaling": values.scaling,
        "calibration": CalibrationOptions(
            values.observer, overrides=overrides, ranges=values.ranges, saved=values.calibration
        ),
        "rules": values.rules,
        "backend": values.backend,
        "repair": "auto" if values.repair == ["auto"] else values.repair or None,
        "allow_float": (values.allow_float or None) if values.strict else True,
        "metadata": Metadata(values.name, values.version, labels=_labels(values.labels)),
        "source": SourceOptions(
            input_shapes=parse_shapes(values.input_shape),
            signature=values.signature,
            sample_inputs=values.sample_inputs,
            nhwc=values.nhwc,
            allow_unsafe=values.allow_unsafe,
        ),
        "debug": values.debug,
    }


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


def _labels(path: str | None) -> list[str] | None:
    """Returns the lines of a text file of class names."""
    if path is None:
        return None
    check_regular(path, "The labels", DataError)
    try:
        with open(path, encoding="utf-8") as file:
            labels = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise DataError(f"The labels must be readable. Received: {path} ({reason}). Check the path.") from error
    while labels and not labels[-1].strip():
        labels.pop()
    return labels
