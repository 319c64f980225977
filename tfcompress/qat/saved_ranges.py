"""Where ranges go when weights are saved: into the file of a whole model, and beside the file of weights alone.

``RangeAssets`` are those of finished models, which ``model.save`` writes into the ``.keras`` archive. Keras's ``BackupAndRestore``
and weights-only checkpoints keep weights but no assets: a ``StateFile`` goes beside them. What the ranges are is the matter of
``range_trackers``, and how an asset is written and read that of ``quantization``.
"""

import functools
import json
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import interception
from ..quantization import RangeAsset, TrainedRanges
from ..system import write_atomically
from ..system.documents import read_document

__all__ = ["RangeAssets", "Ranges", "StateFile"]

_SAVES = 8  # more than the backups that one fit keeps; a whole history would grow with the training


class Ranges(Protocol):
    """What keeps the ranges while a model trains."""

    def recall(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Goes back to a snapshot; ``ValueError`` for one of another model."""


class RangeAssets:
    """The ranges of every model that one callback has trained: each model's file gets its own, whatever was trained since.

    Args:
        refresh: called before a model's ranges are read; keeps those that are learned just now.
    """

    def __init__(self, refresh: Callable[[keras.Model], None]) -> None:
        self._refresh = refresh
        self._kept: weakref.WeakKeyDictionary[keras.Model, TrainedRanges] = weakref.WeakKeyDictionary()

    def attach(self, model: keras.Model) -> None:
        """Makes ``model.save`` and ``convert`` find the ranges that are kept for ``model``."""
        interception.attach_asset(model, RangeAsset(functools.partial(self._of, weakref.ref(model))))

    def keep(self, model: keras.Model, ranges: TrainedRanges) -> None:
        """Keeps the ranges that belong to the weights of ``model`` as they are."""
        self._kept[model] = ranges

    def _of(self, reference: "weakref.ref[keras.Model]") -> TrainedRanges | None:
        model = reference()
        if model is None:
            return None
        self._refresh(model)
        return self._kept.get(model)


class StateFile:
    """The file of one fit: the ranges of the last eight steps at which weights were saved, and of the last epoch.

    Weights may be saved at any step and are, when a fit is killed, older than the last epoch.

    Args:
        path: of the file, replaced where it exists.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._saved: dict[int, Any] = {}
        self._is_read = False

    def write(self, step: int, snapshot: Mapping[str, np.ndarray], *, saved: bool) -> None:
        """Writes the state of a step beside those of earlier saves, whole or not at all.

        Args:
            step: ``optimizer.iterations``.
            snapshot: float arrays by name.
            saved: whether weights are saved at this step, so that the state is to stay in the file.
        """
        state = {name: values.tolist() for name, values in snapshot.items()}
        states = {**{earlier: kept for earlier, kept in self._saved.items() if earlier < step}, step: state}
        if saved:
            self._saved = states = dict(list(states.items())[-_SAVES:])
        record = {"states": [{"iterations": each, "trackers": kept} for each, kept in states.items()]}
        write_atomically(self._path, json.dumps(record), overwrite=True)

    def resume(self, step: int, ranges: Ranges) -> None:
        """Gives ``ranges`` the state of the step at which an interrupted fit goes on; only the first call of a fit does anything.

        Args:
            step: the step that the weights are of, once other callbacks have restored them.
            ranges: what takes the state.

        Raises:
            TrainingError: the file is damaged, or without this step, or of another model.
        """
        is_first, self._is_read = not self._is_read, True
        if not is_first or not os.path.exists(self._path):
            return
        try:
            found = read_document(self._path)
            states = {int(each["iterations"]): dict(each["trackers"]) for each in found["states"]}
            snapshots = {
                each: {str(name): np.asarray(values, np.float32) for name, values in kept.items()}
                for each, kept in states.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise TrainingError(
                f"The state of quantization-aware training is damaged: {self._path} ({error}). Delete it to learn the "
                "ranges anew."
            ) from error
        try:
            if step not in snapshots:
                steps = ", ".join(str(each) for each in snapshots)
                raise ValueError(
                    f"Received: the ranges of step{'s' if len(snapshots) > 1 else ''} {steps} for weights of step {step}."
                )
            ranges.recall(snapshots[step])
        except ValueError as error:
            raise TrainingError(
                f"The state of quantization-aware training must be of this model and step: {self._path}. {error} Restore "
                "the weights of that step, or delete the file to learn the ranges anew."
            ) from error
        self._saved = {each: kept for each, kept in states.items() if each <= step}

    def delete(self) -> None:
        """Deletes the file of a fit that is done."""
        if os.path.exists(self._path):
            os.remove(self._path)
