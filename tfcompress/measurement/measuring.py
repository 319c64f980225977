"""How good, how small and how fast is a ``.tflite`` file on a device?

Every figure comes from the device itself, accuracy included; this machine only reads the data, asks and judges. Imports
neither Keras nor TensorFlow. ``sessions`` measures on one device, ``devices`` is where.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

from ..metrics import resolve_metrics
from ..tflite.interpreter import DEFAULT_BATCH, check_threads
from .conditions import ACCELERATORS, APIS
from .devices.device import Device
from .fleet import Interrupted, measure_all, open_device
from .records import Measurement, Result
from .sessions import Job, Plan

__all__ = ["Interrupted", "Source", "measure"]

Source = str | os.PathLike | bytes
BYTES_NAME = "model.tflite"
PROFILE_RUNS = 50


@overload
def measure(
    model: Source, data: Any = None, *, label: str = ..., device: str | Device = ..., **settings: Any
) -> Measurement: ...


@overload
def measure(
    model: Sequence[Source],
    data: Any = None,
    *,
    label: str | Sequence[str] = ...,
    device: str | Device | Sequence[str | Device] = ...,
    **settings: Any,
) -> list[Measurement]: ...


def measure(  # type: ignore[misc]  # the overloads shorten the settings to Any, which mypy takes for a difference
    model: Source | Sequence[Source],
    data: Any = None,
    *,
    label: str | Sequence[str] = "",
    device: str | Device | Sequence[str | Device] = "local",
    threads: int = 1,
    warmup: int | None = None,
    runs: int = 100,
    interleave: bool = False,
    api: str | None = None,
    accelerator: str = "cpu",
    xnnpack: bool = True,
    cpus: Sequence[int] = (),
    metric: Any = "top1",
    confusion: bool = False,
    reference: str | os.PathLike | None = None,
    profile: bool = False,
    batch: int = DEFAULT_BATCH,
    workers: int = 0,
    scaling: str | None = None,
    reset_state: bool = False,
    allow_pickle: bool = False,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    debug: bool = False,
    **device_settings: Any,
) -> Measurement | list[Result]:
    """Measures one file or several, on one device or several.

    Latency is that of one inference at the file's own batch size (1 where it is free), on made-up inputs, in a process of
    its own; ``peak_bytes`` is the peak resident size of that process.

    Args:
        model: path of a ``.tflite`` file, its bytes, or a list of them.
        data: labelled samples as ``data.load_labelled`` takes them (``.npz`` with ``x`` and ``y``, a folder with one
            sub-folder of images per class, a tuple ``(x, y)``, ``path.py:function``); for metrics of values or boxes as
            ``truth.load_truth`` does. None measures no accuracy. Default: None.
        label: what the file is, for tables and reports; for a list of models a list. Default: "".
        device: where to run: "local" is this machine; "ssh://user@host:port", "adb://serial", "tflm", "ethos-u55-128", an
            object of your own (``devices.device.Device``), or a list of them. Default: "local".
        threads: threads for one inference. Default: 1.
        warmup: untimed runs, besides the very first; None until the times are steady (``figures.is_steady``), for at most
            5 seconds. Default: None.
        runs: timed runs. Default: 100.
        interleave: whether several models run in turns, A B A B, so that both meet the same disturbances; each record then
            has its ``ratio`` to the first. Default: False.
        api: "interpreter", or "compiled" for LiteRT's CompiledModel. Default: None, which is the interpreter on a CPU.
        accelerator: "cpu", "gpu" or "npu", by way of CompiledModel. Default: "cpu".
        xnnpack: whether XNNPACK may take over parts of the graph. Default: True.
        cpus: numbers of the processors to run on; empty for all. Default: ().
        metric: name, names, ``path.py:function`` or functions, as ``scoring.resolve_metrics`` takes them; the first is the
            record's accuracy. Default: "top1".
        confusion: whether to count answers by label. Default: False.
        reference: a ``.npz`` or ``.npy`` of outputs, or a ``.tflite`` that is run here, to compare the answers with.
            Default: None.
        profile: whether to time each op with LiteRT's own profiler. Default: False.
        batch: samples per inference while accuracy is measured, where the file lets itself be resized. Default: 32.
        workers: how many batches run at once; 0 for as many as the device has cores for. Default: 0.
        scaling: how 8-bit pixels become numbers, as ``data.load_labelled`` takes it. Default: None.
        reset_state: whether an LSTM's state and other variable tensors are set to zero before each labelled sample. Off,
            one sample leaves traces in the next, as with an interpreter that is merely called again. Default: False.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.
        seed: of the made-up inputs. Default: 0.
        progress: called with the model's name, done and total samples while accuracy is measured. Default: None.
        debug: lets the interpreter's own log lines through. Default: False.
        **device_settings: for ``devices.seam.resolve``: ``install``, ``benchmark_model``, ``timeout_seconds``.

    Returns:
        A ``Measurement``; for a list of models or devices a list, by model and then by device, where a ``Failure`` stands for
        what could not be measured.

    Raises:
        ModelError: a file is missing, damaged or refused by LiteRT (one model on one device only).
        DataError: the data is malformed or does not match the model's inputs or outputs (likewise).
        DeviceError: the interpreter failed or crashed (likewise).
        ValueError: the device is unknown, or a setting is out of range.
        Interrupted: Ctrl-C; it has the records so far.

    Examples:
        >>> measure("model.tflite", threads=0)
        Traceback (most recent call last):
        ...
        ValueError: threads must be a whole number from 1 to 256. Received: threads=0.
    """
    api = api or ("interpreter" if accelerator == "cpu" else "compiled")
    check_settings(threads, warmup, runs, batch, workers)
    check_choices(api, accelerator)
    several_models = not isinstance(model, str | bytes | os.PathLike)
    models: list[Source] = list(model) if several_models else [model]  # type: ignore[list-item, arg-type]
    several_devices = isinstance(device, Sequence) and not isinstance(device, str)
    devices: list[str | Device] = list(device) if several_devices else [device]  # type: ignore[arg-type, list-item]
    labels = check_names(label, len(models), several_models)
    if interleave and len(models) < 2:
        raise ValueError("interleave runs several models in turns. Received: one. Give a list of models.")
    metrics = resolve_metrics(metric)
    request = {
        "threads": threads,
        "xnnpack": xnnpack,
        "api": api,
        "accelerator": accelerator,
        "cpus": list(cpus),
        "batch": batch,
        "workers": workers,
        "reset_state": reset_state,
        "seed": seed,
        "debug": debug,
    }
    plan = Plan(
        request,
        runs,
        warmup,
        data,
        metrics,
        confusion,
        scaling,
        allow_pickle,
        None if reference is None else os.fspath(reference),
        PROFILE_RUNS if profile else 0,
        progress,
    )
    call = {
        **{key: value for key, value in request.items() if key != "debug"},
        "warmup": warmup,
        "runs": runs,
        "interleave": interleave,
        "data": os.fspath(data) if isinstance(data, str | os.PathLike) else None,
        "metric": metric if isinstance(metric, str) else ",".join(each.name for each in metrics),
        "confusion": confusion,
        "reference": plan.reference,
        "profile": profile,
        "scaling": scaling if isinstance(scaling, str) else None,
    }
    with contextlib.ExitStack() as stack:
        jobs = [job(stack, source, name, call) for source, name in zip(models, labels, strict=True)]
        opened = [stack.enter_context(open_device(each, debug, device_settings)) for each in devices]
        table = measure_all(opened, plan, jobs, interleave, lone=not (several_models or several_devices))
    rows = [table[d, m] for m in range(len(jobs)) for d in range(len(opened))]
    return rows if several_models or several_devices else rows[0]  # type: ignore[return-value]


def job(stack: contextlib.ExitStack, source: Source, label: str, call: dict[str, Any]) -> Job:
    """Returns one file to be measured; bytes get a temporary file for the time of the stack."""
    if not isinstance(source, bytes):
        return Job(Path(source), os.fspath(source), label, {"model": os.fspath(source), **call})
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfcompress-"))
    path = Path(folder) / BYTES_NAME
    path.write_bytes(source)
    return Job(path, BYTES_NAME, label, {"model": None, **call})


def check_settings(threads: int, warmup: int | None, runs: int, batch: int, workers: int = 0) -> None:
    """Refuses counts that cannot be measured with by a ``ValueError``.

    Examples:
        >>> check_settings(1, None, 1, 1)
    """
    check_threads(threads)
    least = {"warmup": (0 if warmup is None else warmup, 0), "runs": (runs, 1), "batch": (batch, 1)}
    for name, (value, lowest) in {**least, "workers": (workers, 0)}.items():
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}. Received: {name}={value}.")


def check_choices(api: str, accelerator: str) -> None:
    """Refuses an interface or an accelerator that LiteRT does not have with a ``ValueError``.

    Examples:
        >>> check_choices("interpreter", "gpu")
        Traceback (most recent call last):
        ...
        ValueError: A gpu needs api='compiled'. Received: api='interpreter'. Leave api out.
    """
    for name, value, known in (("api", api, APIS), ("accelerator", accelerator, ACCELERATORS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}.")
    if accelerator != "cpu" and api != "compiled":
        raise ValueError(f"A {accelerator} needs api='compiled'. Received: api={api!r}. Leave api out.")


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
