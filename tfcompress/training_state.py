"""The state file of a quantization-aware training: the ranges of the last epoch, tied to the optimizer's step.

Keras's ``BackupAndRestore`` and weights-only checkpoints keep weights but no assets; this file goes beside them.
"""

import json
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from .errors import TrainingError
from .files import write_atomically

__all__ = ["Ranges", "read", "write"]


class Ranges(Protocol):
    """What keeps the ranges while a model trains."""

    def recall(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Goes back to a snapshot; ``ValueError`` for one of another model."""


def write(path: str, step: int, snapshot: Mapping[str, np.ndarray]) -> None:
    """Writes the state of a step, whole or not at all.

    Args:
        path: of the file, replaced where it exists.
        step: ``optimizer.iterations``.
        snapshot: float arrays by name.
    """
    record = {"iterations": step, "trackers": {name: values.tolist() for name, values in snapshot.items()}}
    write_atomically(path, json.dumps(record), overwrite=True)


def read(path: str, step: int, ranges: Ranges) -> None:
    """Gives ``ranges`` the state in the file.

    Args:
        path: of the file.
        step: the step that the weights are of.
        ranges: what takes the state.

    Raises:
        TrainingError: the file is damaged, or of another step or model.
    """
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        written = int(record["iterations"])
        snapshot = {str(name): np.asarray(values, np.float32) for name, values in record["trackers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"The state of quantization-aware training is damaged: {path} ({error}). Delete it to learn the ranges anew."
        ) from error
    try:
        if written != step:
            raise ValueError(f"Received: the ranges of step {written} for weights of step {step}.")
        ranges.recall(snapshot)
    except ValueError as error:
        raise TrainingError(
            f"The state of quantization-aware training must be of this model and step: {path}. {error} Restore the weights "
            "of that step, or delete the file to learn the ranges anew."
        ) from error
