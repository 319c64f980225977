"""The flags of ``tfcompress measure``, and which call of ``measure`` they and an earlier record make together.

A record of ``--like`` is a file like any other: it may be a stranger's. So it names settings, models, arrays and pictures; what it
names beyond that, code to be run and devices to be contacted, is refused unless the user names it again or allows the record.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from absl import flags

from ..errors import DataError
from ..system import check_regular, names_a_function
from ..system.printable import printable
from .parsing import UsageError, define_scaling, new_flags
from .progress import say
from .signing import define_require_signature, signed_model
from .wall import wall, wall_flags

__all__ = ["FILES", "arguments_of", "measure_flags"]

FILES = ("json", "json_lines", "csv", "report")
ARRAYS = (".npy", ".npz")
_NAMED_ALIKE = (
    "threads",
    "warmup",
    "runs",
    "interleave",
    "api",
    "accelerator",
    "xnnpack",
    "confusion",
    "reference",
    "profile",
    "batch",
    "workers",
    "scaling",
    "reset_state",
    "seed",
)


def measure_flags() -> flags.FlagValues:
    """Returns the command's flags with their defaults."""
    values = new_flags()

    def text(name: str, help_: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, help_, flag_values=values)

    def number(name: str, help_: str, default: int | None, least: int, most: int = 1_000_000) -> None:
        flags.DEFINE_integer(name, default, help_, lower_bound=least, upper_bound=most, flag_values=values)

    def switch(name: str, help_: str, default: bool = False) -> None:
        flags.DEFINE_bool(name, default, help_, flag_values=values)

    flags.DEFINE_list("model", None, "one or several .tflite files", flag_values=values)
    text(
        "data",
        "labelled data: .npz with x and y, a folder with one sub-folder of images per class, .tfrecord (with --features), or "
        "path.py:function",
    )
    text("features", "a JSON or YAML map from the inputs, and y, to the features of .tfrecord files")
    flags.DEFINE_list(
        "device",
        ["local"],
        "where to run: local, ssh://user@host:port, adb://serial, tflm, ethos-u55-128; several at once",
        flag_values=values,
    )
    number("threads", "threads for one inference", 1, 1, 256)
    number("warmup", "untimed runs before the timed ones; without it until the times are steady", None, 0)
    number("runs", "timed runs", 100, 1)
    switch("interleave", "run several models in turns, A B A B, and give the ratio pair by pair")
    flags.DEFINE_enum(
        "api", None, ["interpreter", "compiled"], "LiteRT's Interpreter or CompiledModel", flag_values=values
    )
    flags.DEFINE_enum("accelerator", "cpu", ["cpu", "gpu", "npu"], "what computes", flag_values=values)
    switch("xnnpack", "let XNNPACK take over parts of the graph", True)
    flags.DEFINE_list("cpus", [], "numbers of the processors to run on, for instance 0,1", flag_values=values)
    flags.DEFINE_list(
        "metric",
        ["top1"],
        "top1, top5, auc, mse, exact, coco_map, coco_map50, or path.py:function; several",
        flag_values=values,
    )
    switch("confusion", "count answers by label")
    text("reference", "outputs (.npz, .npy) or a .tflite file to compare the answers with")
    switch("profile", "time each op with LiteRT's own profiler")
    number("batch", "samples per inference while accuracy is measured", 32, 1)
    number("workers", "batches that run at once; 0 for as many as there are cores for", 0, 0, 256)
    define_scaling(values)
    switch("reset_state", "start each labelled sample from a zero state in models that keep one (LSTM)")
    number("seed", "of the made-up inputs", 0, 0)
    text("like", "a record (JSON) to repeat: its model, data, device and settings, unless flags say otherwise")
    switch("allow_record", "let the record name scripts that are run and devices that are contacted; prints them first")
    switch("install", "make a Python environment on a board that has none, in its cache folder")
    text("benchmark_model", "LiteRT's benchmark_model for the phone's processor, to measure with on adb:// devices")
    flags.DEFINE_float(
        "timeout_seconds",
        None,
        "after which a device without a sign of life is given up",
        lower_bound=0.0,
        flag_values=values,
    )
    define_require_signature(values)
    switch("allow_unsafe", "load arrays that bring pickles along; only from people you trust")
    text("json", "also write the records as a JSON array; - is stdout")
    text("json_lines", "also write the records as lines of JSON, for a database; - is stdout")
    text("csv", "also write comma-separated values; - is stdout")
    text("report", "also write a self-contained HTML page with plots")
    switch("overwrite", "replace existing output files")
    wall_flags(values)
    return values


def arguments_of(values: flags.FlagValues) -> tuple[dict[str, Any], list[Any]]:
    """Returns the arguments of ``measure`` by name, and the records that are to be repeated.

    Args:
        values: the command's flags, parsed.

    Raises:
        DataError: the record is damaged, or cannot be repeated as it is.
        UsageError: a flag is malformed.
    """
    earlier = _read_records(values.like) if values.like else []
    settings = {name: values[name].value for name in _NAMED_ALIKE}
    settings |= {"model": values.model, "data": values.data, "device": values.device}
    settings |= {"metric": ",".join(values.metric), "cpus": values.cpus}
    if earlier:
        given = {name for name in values if values[name].present}
        settings |= _changes_of(earlier, given, is_allowed=values.allow_record)
        if values.allow_record:
            told = (f"--{name}={settings[name]}" for name in ("data", "metric", "device") if name not in given)
            say(f"repeating {values.like}: {printable(' '.join(told))}")
    try:
        settings["cpus"] = [int(number) for number in settings["cpus"]]
    except (ValueError, TypeError) as error:
        raise UsageError(f"--cpus must be numbers. Received: {settings['cpus']}. Write --cpus=0,1.") from error
    if earlier and not values["model"].present:
        _check_same_files(earlier)
    key, reference = values.require_signature, settings["reference"]
    settings["model"] = [signed_model(path, key) for path in settings["model"]]
    if reference and Path(reference).suffix not in ARRAYS:  # a model, which is run as well
        settings["reference"] = signed_model(reference, key)
    return _arguments(settings, values), earlier


def _arguments(settings: dict[str, Any], values: flags.FlagValues) -> dict[str, Any]:
    """Returns settings, which flags and records hold one by one, as the arguments of ``measure``."""
    from ..data import TFRecords
    from ..measurement import ConnectionOptions, EvaluationOptions, LatencyOptions, RuntimeOptions

    settings = {**settings, "allow_pickle": values.allow_unsafe}
    if settings["data"] is not None and values.features is not None:
        settings["data"] = TFRecords(settings["data"], values.features)
    connection = ConnectionOptions(
        install=values.install,
        benchmark_model=values.benchmark_model or None,
        timeout_seconds=values.timeout_seconds or None,
        sandbox=wall(values, ()),
    )
    arguments: dict[str, Any] = {"connection": connection, "debug": values.debug}
    for name, kind in (("latency", LatencyOptions), ("evaluation", EvaluationOptions), ("runtime", RuntimeOptions)):
        arguments[name] = kind(**{field.name: settings.pop(field.name) for field in dataclasses.fields(kind)})
    known = ("model", "data", "device", "threads", "metric", "reference", "scaling")
    return {**{name: settings[name] for name in known}, **arguments}


def _read_records(path: str) -> list[Any]:
    """Returns the measurements in a file that are to be repeated.

    Raises:
        DataError: it cannot be read, holds something else, or does not say how they were made.
    """
    from ..measurement import measurements_from_json

    check_regular(path, "The record", DataError)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The record must be readable. Received: {path} ({error}). Check the path.") from error
    records = measurements_from_json(text)
    if not records or not records[0].call:
        raise DataError(f"A record to repeat says how it was made. Received: {path} without it. Measure anew.")
    return records


def _changes_of(records: list[Any], given: set[str], *, is_allowed: bool) -> dict[str, Any]:
    """Returns the settings of the first record, with the models and devices of all, that no flag was given for.

    Args:
        records: of ``_read_records``.
        given: names of the flags that were given.
        is_allowed: whether a record may name code and devices.

    Raises:
        DataError: it names what was in memory, or code or a device that the user did not name.
    """
    call = dict(records[0].call)
    models = list(dict.fromkeys(record.call.get("model") for record in records))
    if None in models and "model" not in given:
        raise DataError("A record to repeat names its file. Received: a model that was given as bytes. Pass --model.")
    if call.get("data") is None and records[0].samples and "data" not in given:
        raise DataError("A record to repeat names its data. Received: data that was in memory. Pass --data.")
    if call.get("reference") is None and records[0].reference is not None and "reference" not in given:
        raise DataError("A record to repeat names its reference. Received: one that was in memory. Pass --reference.")
    devices = list(dict.fromkeys(record.device.name for record in records))
    changes = {name: value for name, value in {**call, "model": models, "device": devices}.items() if name not in given}
    reaching = _reaching(changes)
    if reaching and not is_allowed:
        flags = " ".join(f"--{name}={printable(value)}" for name, value in reaching)
        raise DataError(
            f"A record may not choose what is run or contacted. Received: one that names {flags}. Give these flags yourself, or "
            "pass --allow_record for a record of your own."
        )
    return changes


def _reaching(changes: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns what of a record's settings runs code or reaches another machine, as (flag, value)."""
    found = [("data", changes["data"])] if names_a_function(changes.get("data") or "") else []
    metric = changes.get("metric", "")
    if any(names_a_function(name) for name in metric.split(",")) or names_a_function(metric):
        found.append(("metric", metric))
    devices = [name for name in changes.get("device", []) if name != "local"]
    return [*found, *([("device", ",".join(devices))] if devices else [])]


def _check_same_files(records: list[Any]) -> None:
    """Refuses to repeat a measurement on files that have changed with a ``DataError``."""
    from ..tflite import read_model

    for record in records:
        found = hashlib.sha256(read_model(record.call["model"])[1]).hexdigest()
        if found != record.model_sha256:
            raise DataError(
                f"A repeated measurement is of the same file. Received: {record.call['model']} with sha256 {found[:12]}, "
                f"recorded {record.model_sha256[:12]}. Pass --model to measure it all the same."
            )
