"""How good, how small and how fast is a ``.tflite`` file on a device?

Latency and memory come from a child process of their own (``devices.agent``), accuracy from running labelled samples
here. Imports neither Keras nor TensorFlow: NumPy and LiteRT are enough.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from .data import InputSpec, Labelled, load_labelled
from .devices.local import run_agent
from .errors import DataError
from .interpreter import DEFAULT_BATCH, Model, check_threads, open_model, read_model
from .metrics import check_labels, class_scores, top1_accuracy
from .records import DeviceInfo, Latency, Measurement, Settings

__all__ = ["Source", "measure"]

Source = str | os.PathLike | bytes
DEVICES = ("local",)
GZIP_LEVEL = 9
SIGMOID = "LOGISTIC"
PROBABILITY_THRESHOLD = 0.5


@overload
def measure(model: Source, data: Any = None, *, label: str = ..., **settings: Any) -> Measurement: ...


@overload
def measure(
    model: Sequence[Source], data: Any = None, *, label: Sequence[str] = ..., **settings: Any
) -> list[Measurement]: ...


def measure(  # type: ignore[misc]  # the overloads shorten the settings to Any, which mypy takes for a difference
    model: Source | Sequence[Source],
    data: Any = None,
    *,
    label: str | Sequence[str] = "",
    threads: int = 1,
    warmup: int = 10,
    runs: int = 100,
    batch: int = DEFAULT_BATCH,
    scaling: str | None = None,
    reset_state: bool = False,
    device: str = "local",
    allow_pickle: bool = False,
    seed: int = 0,
    debug: bool = False,
) -> Measurement | list[Measurement]:
    """Measures one file, or several one after the other.

    Latency is that of one inference at the file's own batch size (1 where it is free), on made-up inputs, in a child
    process; ``peak_bytes`` is the peak resident size of that process.

    Args:
        model: path of a ``.tflite`` file, its bytes, or a list of them.
        data: labelled samples: a path (``.npz`` with ``x`` and ``y``, a folder with one sub-folder of images per
            class) or a tuple ``(x, y)``. None measures no accuracy. Default: None.
        label: what the file is, for tables and reports; for a list of models a list. Default: "".
        threads: threads for one inference. Default: 1.
        warmup: untimed runs, besides the very first. Default: 10.
        runs: timed runs. Default: 100.
        batch: samples per inference while accuracy is measured, where the file lets itself be resized. Default: 32.
        scaling: how 8-bit pixels become numbers, as ``data.load_labelled`` takes it. Default: None.
        reset_state: whether an LSTM's state and other variable tensors are set to zero before each labelled sample. Off,
            one sample leaves traces in the next, as with an interpreter that is merely called again. Default: False.
        device: where to run; "local" is this machine. Default: "local".
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.
        seed: of the made-up inputs. Default: 0.
        debug: lets the interpreter's own log lines through. Default: False.

    Returns:
        A ``Measurement``, or a list of them for a list of models.

    Raises:
        ModelError: a file is missing, damaged or refused by LiteRT.
        DataError: the data is malformed or does not match the model's inputs or outputs.
        DeviceError: the interpreter failed or crashed.
        ValueError: the device is unknown, or a count is too small.

    Example:
        >>> measure("model.tflite", device="toaster")
        Traceback (most recent call last):
        ...
        ValueError: device must be one of: local. Received: device='toaster'.
    """
    check_settings(device, threads, warmup, runs, batch)
    several = not isinstance(model, str | bytes | os.PathLike)
    models: list[Source] = [model] if isinstance(model, str | bytes | os.PathLike) else list(model)
    labels = check_names(label, len(models), several)
    request = {"threads": threads, "warmup_runs": warmup, "runs": runs, "seed": seed, "debug": debug}
    loaded: dict[tuple[InputSpec, ...], Labelled] = {}

    def measure_one(source: Source, name: str) -> Measurement:
        with as_file(source) as path:
            # The child opens the file first: what crashes the interpreter shall not crash the caller.
            record = timed(path, source, name, request)
            if data is None:
                return record
            opened = open_model(path, threads=threads, reset_state=reset_state, debug=debug)
            specs = input_specs(opened)
            if specs not in loaded:
                loaded[specs] = load_labelled(data, specs, scaling=scaling, allow_pickle=allow_pickle)
            return scored(record, opened, loaded[specs], batch)

    records = [measure_one(source, name) for source, name in zip(models, labels, strict=True)]
    return records if several else records[0]


def check_settings(device: str, threads: int, warmup: int, runs: int, batch: int) -> None:
    """Refuses settings that cannot be measured with by a ``ValueError``.

    Example:
        >>> check_settings("local", 1, 0, 1, 1)
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of: {', '.join(DEVICES)}. Received: device={device!r}.")
    check_threads(threads)
    for name, value, least in (("warmup", warmup, 0), ("runs", runs, 1), ("batch", batch, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}. Received: {name}={value}.")


def check_names(label: str | Sequence[str], models: int, several: bool) -> list[str]:
    """Returns one label per model.

    Example:
        >>> check_names("", 2, several=True)
        ['', '']
    """
    if isinstance(label, str):
        return [label] * models
    if not several or len(label) != models:
        raise ValueError(f"label must be one text per model. Received: {len(label)} for {models} models.")
    return list(label)


@contextlib.contextmanager
def as_file(source: Source) -> Iterator[str]:
    """Gives the path of a model; bytes get a temporary file for the time of the block."""
    if not isinstance(source, bytes):
        yield os.fspath(source)
        return
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(source)
        yield str(path)


def timed(path: str, source: Source, label: str, request: dict[str, Any]) -> Measurement:
    """Returns the measurement of a file without accuracy."""
    name, content = read_model(path)
    answer = run_agent({**request, "model": path})
    return Measurement(
        model="model.tflite" if isinstance(source, bytes) else name,
        label=label,
        model_sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        gzip_bytes=len(gzip.compress(content, GZIP_LEVEL, mtime=0)),
        accuracy=None,
        samples=0,
        data_sha256=None,
        latency=Latency(**answer["latency"]),
        peak_bytes=answer["peak_bytes"],
        runtime_bytes=answer["runtime_bytes"],
        input_dtypes=tuple(answer["input_dtypes"]),
        output_dtypes=tuple(answer["output_dtypes"]),
        device=DeviceInfo(**answer["device"]),
        settings=Settings(**answer["settings"]),
    )


def input_specs(model: Model) -> tuple[InputSpec, ...]:
    """Returns what the model accepts, in real numbers and any number of samples."""
    return tuple(InputSpec(info.name, (None, *info.shape[1:]), info.real_dtype) for info in model.inputs)


def scored(record: Measurement, model: Model, labelled: Labelled, batch: int) -> Measurement:
    """Returns the measurement with the accuracy on labelled samples."""
    if len(model.outputs) != 1:
        names = ", ".join(info.name for info in model.outputs)
        raise DataError(
            f"Accuracy needs a model with one output. Received: {model.name} with {len(model.outputs)} ({names}). "
            "Measure it without data."
        )
    output = model.outputs[0]
    try:
        # Known before an hour of inference, where the file states its number of classes.
        check_columns(labelled, output.shape)
        outputs = model.run(labelled.x, batch=batch)[output.name]
        accuracy = top1_accuracy(class_scores(outputs), labelled.y, threshold=sigmoid_threshold(model))
    except DataError as error:
        raise DataError(f"{model.name}: {error}") from error
    state = "none" if not model.is_stateful else "reset" if model.reset_state else "carried"
    return dataclasses.replace(
        record,
        accuracy=accuracy,
        samples=len(labelled.y),
        data_sha256=labelled.sha256,
        settings=dataclasses.replace(record.settings, state=state),
    )


def check_columns(labelled: Labelled, shape: tuple[int | None, ...]) -> None:
    """Refuses labels that the output's shape has no place for with a ``DataError``."""
    if None not in shape[1:]:
        columns = class_scores(np.empty((1, *(size or 1 for size in shape[1:])))).shape[1]
        check_labels(labelled.y, samples=len(labelled.y), columns=columns)


def sigmoid_threshold(model: Model) -> float | None:
    """Returns the threshold of a binary model that ends in a sigmoid, or None to tell by the values."""
    operations = [name for name in model.operations if name not in ("DELEGATE", "DEQUANTIZE", "QUANTIZE", "RESHAPE")]
    return PROBABILITY_THRESHOLD if operations and operations[-1] == SIGMOID else None
