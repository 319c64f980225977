"""What does a model on a device answer to the user's samples, and how good is that?

The samples travel in parts, so that a board needs room for one of them only. ``sessions`` asks, ``metrics`` judges.
"""

import dataclasses
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Labelled, read_npy, read_npz
from ..errors import DataError, DeviceError
from ..metrics import Metric, argmax_agreement, check_labels, class_scores, confusion_matrix
from ..tflite import TensorInfo, from_raw, to_raw
from .devices.device import Device
from .records import Reference

__all__ = ["Answers", "answers_of", "reference_agreement", "scores_of"]

PART_BYTES = 64_000_000
SIGMOID = "LOGISTIC"
PASSING = ("DELEGATE", "DEQUANTIZE", "QUANTIZE", "RESHAPE")
PROBABILITY_THRESHOLD = 0.5
STATEFUL = ("LSTM", "RNN", "SVDF", "VAR_HANDLE")


@dataclasses.dataclass(frozen=True)
class File:
    """What the host knows of a model that a device has opened.

    Attributes:
        inputs: what goes in.
        outputs: what comes out.
        operations: names of its operations.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operations: tuple[str, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "File":
        """Returns it from a device's answer to "latency".

        Raises:
            DeviceError: the device tells nothing of the file.
        """
        if not answer.get("inputs") or not answer.get("outputs"):
            raise DeviceError("Accuracy needs to know the model's inputs. Received: a device that does not tell them.")
        inputs, outputs = ([TensorInfo.from_json(info) for info in answer[key]] for key in ("inputs", "outputs"))
        return cls(tuple(inputs), tuple(outputs), tuple(answer.get("operations", ())))

    @property
    def threshold(self) -> float | None:
        """The threshold of a binary model that ends in a sigmoid, or None to tell by the values."""
        names = [name for name in self.operations if name not in PASSING]
        return PROBABILITY_THRESHOLD if names and names[-1] == SIGMOID else None

    @property
    def is_stateful(self) -> bool:
        """Whether an operation keeps a state from one inference to the next."""
        return any(word in name for name in self.operations for word in STATEFUL)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a device answered.

    Attributes:
        values: real numbers by output name, shape (n, ...).
        samples: how many samples were answered; fewer than asked after Ctrl-C.
        state: "none", "reset" or "carried".
        seconds: that the device needed for them.
        interrupted: whether it was ended early.
    """

    values: dict[str, np.ndarray]
    samples: int
    state: str
    seconds: float
    interrupted: bool


def answers_of(
    device: Device,
    request: Mapping[str, Any],
    path: Path,
    file: File,
    labelled: Labelled,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """Returns what a model on a device answers to all samples.

    Args:
        device: where it runs.
        request: threads and the like, as ``devices.on_device.agent`` takes them.
        path: of the model.
        file: what is known of it.
        labelled: the samples and their labels.
        progress: called with (done, total). Default: None.

    Raises:
        DataError: the samples do not fit.
        DeviceError: the device failed.
    """
    size = sum(np.asarray(labelled.x[info.name]).size * info.dtype.itemsize for info in file.inputs)
    parts = 1 if file.is_stateful and not request["reset_state"] else max(1, -(-size // PART_BYTES))
    length = -(-labelled.samples // parts)
    found: list[Mapping[str, np.ndarray]] = []
    done, seconds, state, interrupted = 0, 0.0, "none", False
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        while done < labelled.samples and not interrupted:
            part = {i.name: to_raw(np.asarray(labelled.x[i.name][done : done + length]), i) for i in file.inputs}
            with open(inputs, "wb") as target:
                np.savez(target, **part)  # type: ignore[arg-type]
            outputs.unlink(missing_ok=True)
            answer = device.run(
                {**request, "kind": "outputs"},
                {"model": path, "inputs": inputs},
                {"outputs": outputs},
                progress=None if progress is None else _continued(progress, done, labelled.samples),
            )
            found.append(_read(outputs, file, answer["samples"]))
            done, seconds, state = done + answer["samples"], seconds + answer["seconds"], answer["state"]
            interrupted = bool(answer.get("interrupted"))
            if progress is not None:
                progress(done, labelled.samples)
    names = {info.name: info for info in file.outputs}
    values = {n: from_raw(np.concatenate([part[n] for part in found]), info) for n, info in names.items()}
    return Answers(values, done, state, seconds, interrupted)


def _continued(progress: Callable[[int, int], None], start: int, samples: int) -> Callable[[int, int], None]:
    """Returns the progress of one part as progress of all samples."""

    def call(done: int, total: int) -> None:
        progress(start + done, samples)

    return call


def _read(path: Path, file: File, samples: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {info.name: arrays[info.name] for info in file.outputs}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DeviceError(f"A device must bring its outputs whole. Received: {error}. Try again.") from error
    for info in file.outputs:
        array = found[info.name]
        if array.dtype != info.dtype or len(array) != samples:
            raise DeviceError(
                f"Output '{info.name}' has {samples} rows of {info.dtype}. Received: {array.shape} of {array.dtype}."
            )
    return found


def check_label_range(file: File, labelled: Labelled, metrics: Sequence[Metric], name: str) -> None:
    """Refuses labels that the output has no place for, before an hour of inference, with a ``DataError``."""
    if len(file.outputs) != 1 or metrics[0].labels != "classes":
        return
    shape = file.outputs[0].shape
    if None not in shape[1:]:
        try:
            columns = class_scores(np.empty((1, *(size or 1 for size in shape[1:])))).shape[1]
            check_labels(labelled.y, samples=labelled.samples, columns=columns)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def scores_of(
    answers: Answers, labelled: Labelled, metrics: Sequence[Metric], file: File, name: str, *, confusion: bool = False
) -> tuple[dict[str, float], tuple[tuple[int, ...], ...] | None]:
    """Returns every metric by name, and the confusion matrix if it was asked for.

    Args:
        answers: of the device.
        labelled: at least as many samples.
        metrics: at least one.
        file: what is known of the model.
        name: of the model, for messages.
        confusion: whether answers are counted by label. Default: False.

    Raises:
        DataError: labels do not fit the answers.
    """
    y = labelled.first(answers.samples)
    try:
        scores = {metric.name: metric.function(answers.values, y, file.threshold) for metric in metrics}
        if not confusion:
            return scores, None
        matrix = confusion_matrix(next(iter(answers.values.values())), y, threshold=file.threshold)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return scores, tuple(tuple(int(number) for number in row) for row in matrix)


def load_reference(path: str | os.PathLike, file: File) -> dict[str, np.ndarray]:
    """Returns the reference outputs in a ``.npz`` (by output name) or ``.npy`` file (of the only output).

    Args:
        path: of the file.
        file: the model that is compared with it; outputs go by name, or by their order where names differ.

    Raises:
        DataError: the file is missing, malformed, or lacks an output.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"The reference must exist. Received: {path}. Check the path.")
    names = [info.name for info in file.outputs]
    if path.suffix == ".npy":
        return {names[0]: read_npy(path)}
    if path.suffix != ".npz":
        raise DataError(f"A reference is a .npz, .npy or .tflite file. Received: {path}.")
    arrays = read_npz(path)
    if not set(names) <= set(arrays) and len(arrays) != len(names):
        raise DataError(f"A reference has the outputs {names}. Received: {path} with {sorted(arrays)}.")
    return {n: arrays[n] if n in arrays else list(arrays.values())[i] for i, n in enumerate(names)}


def reference_agreement(answers: Answers, reference: Mapping[str, np.ndarray], file: File, **names: str) -> Reference:
    """Returns how far answers are from those of a reference: the same class, and the largest difference of any output.

    Args:
        answers: of the device.
        reference: real numbers by output name, of at least as many samples.
        file: what is known of the model.
        **names: ``file`` and ``sha256`` of the reference.

    Raises:
        DataError: shapes differ.
    """
    largest, steps, means, same = 0.0, [], [], []
    for info, other in zip(file.outputs, reference.values(), strict=True):
        mine = answers.values[info.name]
        other = np.asarray(other)[: answers.samples]
        if other.size != mine.size:
            raise DataError(f"A reference holds outputs of one shape. Received: {mine.shape} and {other.shape}.")
        other = other.reshape(mine.shape)
        apart = np.abs(mine.astype(np.float64) - other.astype(np.float64))
        largest = max(largest, float(apart.max()))
        if info.scale:
            steps.append(round(float(apart.max() / info.scale), 6))
            means.append(round(float(apart.mean() / info.scale), 6))
        if mine.ndim > 1 and mine.shape[-1] > 1:
            same.append(argmax_agreement(mine, other))
    return Reference(
        names["name"],
        names["sha256"],
        round(min(same), 6) if same else None,
        round(largest, 9),
        max(steps) if steps else None,
        max(means) if means else None,
    )
