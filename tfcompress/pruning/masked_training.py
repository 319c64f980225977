"""What every kind of pruning shares: masks on weights that move along a schedule while the model trains.

The mask is a constraint of the weight variable. At the end of ``fit`` the constraint is gone and the zeros stay in the
weights. Which weights go is decided by the callbacks of ``magnitude_pruning`` and ``channel_pruning``, how many in ``schedules``.
"""

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import (
    Layers,
    active_callbacks,
    check_backend,
    constraints,
    interception,
    layer_choice,
    recovery,
    weight_averages,
    weight_files,
)
from . import masks, schedules

__all__ = ["MaskedTraining", "Scope", "check_built", "check_scope"]

Scope = Literal["layer", "global"]
"""Whether each layer gets the scheduled sparsity, or all of them together."""

_LAST_STEP = 10**9  # later than any training


class MaskedTraining(keras.callbacks.Callback):
    """What every kind of pruning shares: a schedule, masks on variables, and their way on and off a model."""

    def __init__(self, schedule: Any, layers: Layers, frequency: int) -> None:
        super().__init__()
        self.schedule = schedules.resolve(schedule)
        self._given = schedule
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency must be a number of steps from 1 on. Received: frequency={frequency!r}.")
        check_backend()
        layer_choice.check(layers)
        self.layers = layers
        self.frequency = frequency
        self._pruned: dict[str, tuple[Any, Any]] = {}  # name -> (variable, mask variable)
        self._on = False
        self._sparsity = 0.0
        self._moved_at: int | None = None
        # optimizer steps that can be the last, where Keras knows the number of batches
        self._last_of_fit: tuple[int, ...] = ()
        self._subject: Any = None
        self._has_begun = False
        self._restored: dict[str, np.ndarray] | None = None  # what the weights that a backup restored came with

    def settled(self) -> bool:
        """Returns whether the schedule's final sparsity is reached."""
        final = self._final()
        return final is None or self._sparsity >= final - 1e-9

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the masks as they are, to go back to with ``recall``."""
        return {name: interception.read(mask).copy() for name, (_, mask) in self._pruned.items()}

    def recall(self, snapshot: dict[str, np.ndarray]) -> None:
        """Applies masks that belong to weights which somebody has restored."""
        for name, values in snapshot.items():
            variable, mask = self._pruned[name]
            mask.assign(values)
            variable.assign(interception.read(variable) * values)

    def _chosen(self) -> dict[str, Any]:
        """Returns the variables that get a mask, by name; refuses what cannot be pruned."""
        raise NotImplementedError

    def _masks(self, sparsity: float) -> Mapping[str, np.ndarray]:
        """Returns the masks at a sparsity, by name."""
        raise NotImplementedError

    def _reached(self) -> float:
        """Returns the sparsity that the weights have now, as the schedule counts it."""
        return min(self.sparsity.values(), default=0.0)

    @property
    def sparsity(self) -> dict[str, float]:
        """Fraction of exact zeros by pruned weight; empty before training."""
        return {name: masks.sparsity(interception.read(variable)) for name, (variable, _) in self._pruned.items()}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts an all-ones mask on each chosen weight."""
        self.remove()
        self.schedule = schedules.resolve(self._given)  # some schedules remember where they were
        self._pruned = {}
        steps = (self.params.get("steps") or 0) * (self.params.get("epochs") or 0)
        now = int(interception.read(self.model.optimizer.iterations))
        ends = (now + steps, steps) if steps else ()  # the second in a fit from initial_epoch on
        self._last_of_fit = tuple(step for end in ends for step in (end, end - 1))
        for name, variable in self._chosen().items():
            with self.model.distribute_strategy.scope():
                mask = keras.Variable(
                    np.ones(variable.shape, np.float32), trainable=False, dtype=variable.dtype, name="pruning_mask"
                )
            self._pruned[name] = (variable, mask)
        self._sparsity, self._moved_at = 0.0, None
        self._has_begun = True
        self._go_on()
        self._attach()

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Leaves a model that is not trained alone."""
        if not self._has_begun:
            weight_files.listen(self.model, self)

    on_predict_begin = on_test_begin

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Moves the masks when the schedule asks for another sparsity and the last move is ``frequency`` steps ago.

        A schedule that says itself when to prune is asked at every step.
        """
        if not self._on:  # a conversion in the middle of the fit has taken the masks off
            self._attach()
        recovery.guard(self.model)
        step = int(interception.read(self.model.optimizer.iterations))
        paces_itself = getattr(self.schedule, "paces_itself", False)
        if paces_itself or self._moved_at is None or step - self._moved_at >= self.frequency:
            self._move(step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the sparsity over all pruned weights, and moves the masks a last time before training ends."""
        if epoch + 1 == self.params.get("epochs"):
            self._move_at_the_end()
        if logs is not None and self._pruned:
            values = {name: interception.read(variable) for name, (variable, _) in self._pruned.items()}
            logs.update({f"sparsity/{name}": masks.sparsity(array) for name, array in values.items()})
            logs["sparsity"] = sum(int(np.sum(v == 0)) for v in values.values()) / sum(v.size for v in values.values())

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the masks off; the zeros stay."""
        try:
            self._move_at_the_end()
            dense = self._fill()  # restored weights may have come in between
            final = self._final()
            if final is not None and round(self._reached(), 3) < round(final, 3) and self._sparsity < final:
                warnings.warn(
                    f"The training ended at sparsity {self._reached():.1%}; the schedule would reach {final:.1%}. "
                    "Train for more steps or end the schedule earlier.",
                    stacklevel=2,
                )
            elif dense:
                _warn_of_restored(self._sparsity)
            else:
                recovery.at_the_end(self.model, self._check_again)
        finally:
            self._has_begun = False
            self.remove()

    def _check_again(self) -> None:
        """Masks weights that a callback further down the list has restored."""
        if self._fill():
            _warn_of_restored(self._sparsity)

    def remove(self, model: keras.Model | None = None) -> None:
        """Takes the masks off ``model`` (default: the last one trained), also after an exception in ``fit``; zeros stay."""
        active_callbacks.leave(self)
        if self.model is not None:
            weight_files.listen(self.model, self)
        for variable, _ in self._pruned.values():
            constraints.detach(variable, _Masked)
        for variable in model.variables if model is not None else ():
            constraints.detach(variable, _Masked)
        for each in (self.model, model):
            if each is not None and (self._on or each is model):
                each.train_function = None
        self._on = False

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; what an exception left on the last one is taken off."""
        self.remove()
        super().set_model(model)
        self._subject = interception.subject(model)
        self._has_begun, self._restored = False, None
        self._listen()

    def _attach(self) -> None:
        """Puts the masks on, as they are."""
        for variable, mask in self._pruned.values():
            average = functools.partial(weight_averages.average_of, self.model.optimizer, variable)
            constraints.attach(variable, _Masked(mask, average))
        self._on = True
        self._listen()
        active_callbacks.enter(self.model, self)
        self.model.make_train_function(force=True)

    def _listen(self) -> None:
        """Sees to it that the masks go with weights that are saved, and come with weights that a backup restores."""
        weight_files.listen(self.model, self, after_save=self._save, after_load=self._restore)

    def _extra(self) -> weight_files.Extra:
        names = "\n".join(sorted(self._pruned if self._has_begun else self._chosen()))
        return weight_files.Extra(f"{type(self).__name__}-{hashlib.sha256(names.encode()).hexdigest()[:16]}")

    def _state(self) -> dict[str, Any]:
        """Returns where the schedule is, as JSON has it."""
        memory = getattr(self.schedule, "memory", None)
        return {"sparsity": self._sparsity, "moved_at": self._moved_at, "schedule": memory}

    def _recall_state(self, state: Mapping[str, Any]) -> None:
        self._sparsity, self._moved_at = state["sparsity"], state["moved_at"]
        if state["schedule"] is not None and isinstance(self.schedule, schedules._Resolved):
            self.schedule.remember(state["schedule"])

    def _save(self, path: str) -> None:
        if not self._pruned:
            return
        arrays = {f"mask/{name}": np.packbits(values != 0) for name, values in self.snapshot().items()}
        state = np.frombuffer(json.dumps(self._state()).encode(), np.uint8)
        self._extra().write(path, {**arrays, "state": state})

    def _restore(self, path: str) -> None:
        self._restored = self._extra().read(path)
        if self._has_begun:
            self._go_on()

    def _go_on(self) -> None:
        """Goes on where the weights that a backup restored were saved."""
        arrays, self._restored = self._restored, None
        if arrays is None:
            return
        for name, (variable, mask) in self._pruned.items():
            values = np.unpackbits(arrays[f"mask/{name}"], count=int(np.prod(variable.shape)))
            mask.assign(values.reshape(variable.shape).astype(np.float32))
        self._recall_state(json.loads(arrays["state"].tobytes()))

    def _final(self) -> float | None:
        """Returns what the schedule comes to, at the end of this fit if it cannot say so beyond, None if not even then."""
        for step in (_LAST_STEP, *self._last_of_fit):
            try:
                answer = self._given(step) if callable(self._given) else self._given
                sparsity = float(answer[1] if isinstance(answer, tuple | list) else answer)
            except (ValueError, TypeError, IndexError, KeyError, OverflowError, ArithmeticError):
                continue
            if 0 <= sparsity < 1:
                return sparsity
        return None

    def _move(self, step: int) -> None:
        sparsity = self.schedule(step)
        if sparsity == self._sparsity:
            return
        for name, values in self._masks(sparsity).items():
            self._pruned[name][1].assign(values)
        self._apply()
        self._sparsity, self._moved_at = sparsity, step

    def _move_at_the_end(self) -> None:
        """Moves the masks to where the schedule is behind the last step, which one that is a table does not know."""
        step = int(interception.read(self.model.optimizer.iterations))
        try:
            self.schedule(step)
        except (IndexError, KeyError):
            return
        self._move(step)

    def _apply(self) -> None:
        for variable, mask in self._pruned.values():
            values = interception.read(mask)
            for each in (variable, weight_averages.average_of(self.model.optimizer, variable)):
                if each is not None:
                    each.assign(interception.read(each) * values)

    def _fill(self) -> bool:
        """Applies the masks; returns whether a weight that should have been zero was not."""
        dense = any(np.any(interception.read(v)[interception.read(m) == 0]) for v, m in self._pruned.values())
        if dense:
            self._apply()
        return dense


class _Masked(constraints.Stacked):
    """Multiplies by the mask, the weight's moving average too where the optimizer keeps one."""

    def __init__(self, mask: Any, find_average: Callable[[], Any]) -> None:
        super().__init__()
        self._mask = mask
        self._find_average = find_average  # which the optimizer has only once it has been built

    def apply(self, value: Any) -> Any:
        average = self._find_average()
        if average is not None:
            average.assign(keras.ops.multiply(average, self._mask))
        return keras.ops.multiply(value, self._mask)


def _warn_of_restored(sparsity: float) -> None:
    warnings.warn(
        f"Another callback restored weights of less than the sparsity {sparsity:.1%} when training ended, and they were "
        "masked anew. Wrap it in tfcompress.after_schedule, so that it keeps epochs of the final sparsity only.",
        stacklevel=3,
    )


def check_built(model: keras.Model) -> None:
    """Raises ``TrainingError`` unless the model is built."""
    if not model.built:
        raise TrainingError(
            f"The model must be built before it is pruned. Received: {model.name!r}, not built. Begin it with a "
            "keras.Input or call it once on a batch of data."
        )


def check_scope(scope: Scope) -> None:
    """Raises ``ValueError`` for an unknown scope."""
    if scope not in get_args(Scope):
        raise ValueError(f"scope must be 'layer' or 'global'. Received: scope={scope!r}.")
