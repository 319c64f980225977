"""How good, how small and how fast is a ``.tflite`` file on a device?

Every figure comes from the device itself, accuracy included; this machine only reads the data, asks and judges. Imports
neither Keras nor TensorFlow. ``sessions`` measures on one device, ``devices`` is where.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, overload

from ..data import Scaling, ScalingName
from ..metrics import Metric, MetricName, resolve_metrics
from ..system import checked_arguments, option_or_default
from ..tflite import ModelSource
from ..tflite.interpreter import check_threads
from ..tflite.model_files import is_in_memory
from .devices.device import Device
from .devices.opening import open_device
from .options import ConnectionOptions, EvaluationOptions, LatencyOptions, RuntimeOptions
from .parallel_devices import measure_all
from .records import Measurement, Result, last_part
from .sessions import Job, Plan

__all__ = ["measure"]

BYTES_NAME = "model.tflite"
PROFILE_RUNS = 50
KERAS = {"keras", "tf_keras"}


class KerasModel(Protocol):
    """A Keras model, for type checkers that do not know Keras."""

    def count_params(self) -> int:
        """Returns the number of weights."""

    def get_weights(self) -> list[Any]:
        """Returns the weights."""


Model: TypeAlias = ModelSource | KerasModel
MetricChoice: TypeAlias = MetricName | Metric | Callable[..., Any]


@overload
def measure(  # type: ignore[overload-overlap]  # a str is a sequence of str: the first that fits counts
    model: Model,
    data: Any = None,
    *,
    label: str = "",
    device: str | Device = "local",
    threads: int = 1,
    metric: MetricChoice | Sequence[MetricChoice] = "top1",
    reference: Model | None = None,
    scaling: ScalingName | Scaling | None = None,
    latency: LatencyOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    runtime: RuntimeOptions | None = None,
    connection: ConnectionOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    debug: bool = False,
) -> Measurement: ...


@overload
def measure(
    model: Iterable[Model],
    data: Any = None,
    *,
    label: str | Sequence[str] = "",
    device: str | Device | Sequence[str | Device] = "local",
    threads: int = 1,
    metric: MetricChoice | Sequence[MetricChoice] = "top1",
    reference: Model | None = None,
    scaling: ScalingName | Scaling | None = None,
    latency: LatencyOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    runtime: RuntimeOptions | None = None,
    connection: ConnectionOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    debug: bool = False,
) -> list[Result]: ...


@overload
def measure(
    model: Model,
    data: Any = None,
    *,
    label: str = "",
    device: Sequence[str | Device],
    threads: int = 1,
    metric: MetricChoice | Sequence[MetricChoice] = "top1",
    reference: Model | None = None,
    scaling: ScalingName | Scaling | None = None,
    latency: LatencyOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    runtime: RuntimeOptions | None = None,
    connection: ConnectionOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    debug: bool = False,
) -> list[Result]: ...


@checked_arguments
def measure(
    model: Model | Iterable[Model],
    data: Any = None,
    *,
    label: str | Sequence[str] = "",
    device: str | Device | Sequence[str | Device] = "local",
    threads: int = 1,
    metric: MetricChoice | Sequence[MetricChoice] = "top1",
    reference: Model | None = None,
    scaling: ScalingName | Scaling | None = None,
    latency: LatencyOptions | None = None,
    evaluation: EvaluationOptions | None = None,
    runtime: RuntimeOptions | None = None,
    connection: ConnectionOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    debug: bool = False,
) -> Measurement | list[Result]:
    """Measures one file or several, on one device or several.

    Latency is that of one inference at the file's own batch size (1 where it is free), on made-up inputs, in a process of
    its own; ``peak_bytes`` is the peak resident size of that process.

    Args:
        model: path of a ``.tflite`` file, its bytes, a ``Conversion``, a Keras model, which is measured as the float32 file
            that ``convert`` makes of it, or a list of them.
        data: labelled samples: whatever ``convert`` takes as representative data, with labels (``data.load_labelled``): ``.npz``
            with ``x`` and ``y``, a folder with one sub-folder of images per class, ``(x, y)``, a ``tf.data.Dataset`` or a
            generator of ``(x, y)``, ``TFRecords``, ``path.py:function``. None measures no accuracy. Default: None.
        label: what the file is, for tables and reports; for a list of models a list. Default: "".
        device: where to run: "local" is this machine; "ssh://user@host:port", "adb://serial", "tflm", "ethos-u55-128", an
            object of your own (``devices.device.Device``), or a list of them. Default: "local".
        threads: threads for one inference. Default: 1.
        metric: name, names, ``path.py:function`` or functions, as ``metrics.resolve_metrics`` takes them; the first is the
            record's accuracy. Default: "top1".
        reference: what to compare the answers with: a ``.npz`` or ``.npy`` of outputs, or a model as above, which is run
            here. Default: None.
        scaling: how 8-bit pixels become numbers, as ``data.resolve_scaling`` takes it. Default: None.
        latency: how it is timed. Default: ``LatencyOptions()``.
        evaluation: how answers to labelled samples are obtained. Default: ``EvaluationOptions()``.
        runtime: what LiteRT runs it with. Default: ``RuntimeOptions()``.
        connection: how a device is reached. Default: ``ConnectionOptions()``.
        progress: called with the model's name, done and total samples while accuracy is measured. Default: None.
        debug: lets the interpreter's own log lines through. Default: False.

    Returns:
        A ``Measurement``; for a list of models or devices a list, by model and then by device, where a ``Failure`` stands for
        what could not be measured.

    Raises:
        ModelError: a file is missing, damaged or refused by LiteRT (one model on one device only).
        DataError: the data is malformed or does not match the model's inputs or outputs (likewise).
        DeviceError: the interpreter failed or crashed (likewise).
        ConversionError: a Keras model cannot be converted.
        ValueError: the device is unknown, or an argument is out of range.
        TypeError: an argument that there is not, or a model of no known kind.
        Interrupted: Ctrl-C; it has the records so far.

    Examples:
        >>> record = measure("models/digits/digits_int8.tflite", latency=LatencyOptions(runs=5, warmup=0))
        >>> record.name, record.settings.runs
        ('digits_int8.tflite', 5)
        >>> measure("model.tflite", threads=0)
        Traceback (most recent call last):
        ...
        ValueError: threads must be a whole number from 1 to 256. Received: threads=0.
    """
    check_threads(threads)
    latency = option_or_default("latency", latency, LatencyOptions)
    evaluation = option_or_default("evaluation", evaluation, EvaluationOptions)
    runtime = option_or_default("runtime", runtime, RuntimeOptions)
    connection = option_or_default("connection", connection, ConnectionOptions)
    several_models = not is_one_model(model)
    models: list[Any] = list(model) if several_models else [model]  # type: ignore[arg-type]
    several_devices = isinstance(device, Sequence) and not isinstance(device, str)
    devices: list[Any] = list(device) if several_devices else [device]  # type: ignore[arg-type]
    labels = check_names(label, len(models), several_models)
    if latency.interleave and len(models) < 2:
        raise ValueError("interleave runs several models in turns. Received: one. Give a list of models.")
    metrics = resolve_metrics(metric)
    with contextlib.ExitStack() as stack:
        compared = None if reference is None else file_of(stack, reference, debug=debug)[0]
        request = request_of(threads, runtime, evaluation, latency, debug)
        plan = Plan(
            request,
            latency.runs,
            latency.warmup,
            replayed(data),
            metrics,
            evaluation.confusion,
            scaling,
            evaluation.allow_pickle,
            compared,
            PROFILE_RUNS if latency.profile else 0,
            progress,
        )
        call = {
            **call_of(request, latency, evaluation),
            "data": path_text(data),
            "metric": metric if isinstance(metric, str) else ",".join(each.name for each in metrics),
            "reference": path_text(reference),
            "scaling": scaling if isinstance(scaling, str) else None,
        }
        jobs = [job(stack, each, name, call, debug) for each, name in zip(models, labels, strict=True)]
        opened = [stack.enter_context(open_device(each, connection=connection, debug=debug)) for each in devices]
        lone = not (several_models or several_devices)
        table = measure_all(opened, plan, jobs, latency.interleave, lone=lone)
    rows = [table[d, m] for m in range(len(jobs)) for d in range(len(opened))]
    return rows[0] if lone else rows  # type: ignore[return-value]  # a lone failure was raised


def request_of(
    threads: int, runtime: RuntimeOptions, evaluation: EvaluationOptions, latency: LatencyOptions, debug: bool
) -> dict[str, Any]:
    """Returns the part of each request that is always the same, as ``devices.on_device.agent`` takes it."""
    return {
        "threads": threads,
        "xnnpack": runtime.xnnpack,
        "api": runtime.chosen_api,
        "accelerator": runtime.accelerator,
        "cpus": list(runtime.cpus),
        "batch": evaluation.batch,
        "workers": evaluation.workers,
        "reset_state": evaluation.reset_state,
        "seed": latency.seed,
        "debug": debug,
    }


def call_of(request: dict[str, Any], latency: LatencyOptions, evaluation: EvaluationOptions) -> dict[str, Any]:
    """Returns how a measurement can be repeated, for the record: what of it is no source of models or data."""
    return {
        **{key: value for key, value in request.items() if key != "debug"},
        "warmup": latency.warmup,
        "runs": latency.runs,
        "interleave": latency.interleave,
        "confusion": evaluation.confusion,
        "profile": latency.profile,
    }


def is_one_model(model: Any) -> bool:
    """Whether this is one model, rather than several.

    Examples:
        >>> is_one_model("a.tflite"), is_one_model(b"..."), is_one_model(["a.tflite"])
        (True, True, False)
    """
    return isinstance(model, str | bytes | os.PathLike) or not isinstance(model, Iterable)


def job(stack: contextlib.ExitStack, model: Any, label: str, call: dict[str, Any], debug: bool) -> Job:
    """Returns one file to be measured; what is in memory gets a temporary file for the time of the stack."""
    path, name = file_of(stack, model, debug=debug)
    return Job(Path(path), name, label, {"model": path_text(model), **call})


def file_of(stack: contextlib.ExitStack, model: Any, *, debug: bool = False) -> tuple[str, str]:
    """Returns the path of a model's file and its name; what is in memory gets a temporary file for the time of the stack.

    Raises:
        TypeError: it is no model.
    """
    if isinstance(model, str | os.PathLike):
        return os.fspath(model), os.fspath(model)
    if isinstance(model, bytes):
        name, content = BYTES_NAME, model
    else:
        name, content = in_memory(model, debug=debug)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfcompress-"))
    path = Path(folder) / f"{last_part(name).removesuffix('.tflite')}.tflite"
    path.write_bytes(content)
    return str(path), name


def in_memory(model: Any, *, debug: bool = False) -> tuple[str, bytes]:
    """Returns the name and the bytes of a ``Conversion``, or of the float32 file of a Keras model.

    Raises:
        TypeError: it is neither.
        ConversionError: the model cannot be converted.

    Examples:
        >>> in_memory(3)
        Traceback (most recent call last):
        ...
        TypeError: model must be a .tflite file, its bytes, a Conversion, or a Keras model. Received: int. Pass one, or a list.
    """
    if not is_in_memory(model):
        if KERAS.isdisjoint(base.__module__.partition(".")[0] for base in type(model).__mro__):
            raise TypeError(
                "model must be a .tflite file, its bytes, a Conversion, or a Keras model. "
                f"Received: {type(model).__name__}. Pass one, or a list."
            )
        from ..conversion import convert

        model = convert(model, target="float32", debug=debug)
    return model.name, model.tflite


def replayed(data: Any) -> Any:
    """Returns labelled data that each of several files can read; a generator, which tells its samples once, is kept.

    Examples:
        >>> again = replayed((i, i % 2) for i in range(3))
        >>> list(again()) == list(again())
        True
    """
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], Iterator):
        return replayed(data[0]), data[1]
    if not isinstance(data, Iterator):
        return data
    kept = list(data)
    return lambda: iter(kept)


def path_text(source: Any) -> str | None:
    """Returns a path as text, None for what is no path.

    Examples:
        >>> path_text(Path("x.npz")), path_text([1, 2])
        ('x.npz', None)
    """
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def check_names(label: str | Sequence[str], models: int, several: bool) -> list[str]:
    """Returns one label per model.

    Examples:
        >>> check_names("", 2, several=True)
        ['', '']
    """
    if isinstance(label, str):
        return [label] * models
    if not several or len(label) != models:
        raise ValueError(f"label must be one text per model. Received: {len(label)} for {models} models.")
    return list(label)
