"""Magnitude pruning as a Keras callback: masks that move along a schedule while the model trains.

The mask is a constraint of the weight variable: Keras multiplies by it inside the compiled step, right after the
optimizer. At the end of ``fit`` the constraint is gone and the zeros stay in the weights. Which weights go is decided
in ``masks``, how many in ``schedules``.
"""

import fnmatch
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from . import interception, masks, points, schedules
from .errors import TrainingError
from .qat import check_backend

__all__ = ["MagnitudePruning", "prunable_weights"]

Layers = str | Sequence[str] | Callable[[str, Any], bool] | None


def prunable_weights(model: keras.Model) -> dict[str, Any]:
    """Returns the kernels of ``model`` that pruning applies to, by layer path.

    Those are the weights of every layer that multiplies them with its input (convolutions, depthwise ones too, Dense);
    biases and BatchNorm are left alone.

    Example:
        >>> import keras
        >>> list(prunable_weights(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])))
        ['head/kernel']
    """
    found = {}
    for path, layer in interception.layer_paths(model).items():
        rule = points.rule_for(layer)
        for weight in rule.weights if rule else ():
            variable = getattr(layer, weight.attribute, None)
            if variable is not None:
                found[f"{path}/{weight.attribute}"] = variable
    return found


_LAST_STEP = 10**9  # later than any training


class MagnitudePruning(keras.callbacks.Callback):
    """Sets the smallest weights of each layer to zero while the model trains, more of them as the schedule climbs.

    Every pruned kernel has exactly the scheduled number of zeros, also on ties, and they stay exactly zero through the
    rest of the training. ``logs`` and so ``History`` get the sparsity over all pruned kernels as "sparsity".

    Args:
        schedule: callable from the optimizer step to a sparsity in [0, 1), a constant fraction, or a schedule object of
            TensorFlow's model optimization toolkit.
        layers: which layers are pruned: a name pattern ("block_*"), several, a predicate (path, layer) -> bool, or None
            for all. Default: None.
        frequency: optimizer steps between two moves of the masks. Default: 100.
        mask: function from (weights, sparsity) to a 0/1 array. Default: ``masks.magnitude``.

    Raises:
        ValueError: a sparsity outside [0, 1), a frequency below 1; at the start of ``fit``: a pattern without a match.
        TypeError: a schedule that is not callable.
        TrainingError: Keras does not run on TensorFlow, or the model has nothing to prune.

    Example:
        >>> import keras, numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.rand(64, 4).astype("float32")
        >>> history = model.fit(x, x, verbose=0, callbacks=[MagnitudePruning(schedules.Constant(0.75))])
        >>> float(np.mean(model.get_layer("head").kernel.numpy() == 0))
        0.75

    Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
    https://arxiv.org/abs/1710.01878.
    """

    def __init__(
        self,
        schedule: Any,
        *,
        layers: Layers = None,
        frequency: int = 100,
        mask: masks.Mask = masks.magnitude,
    ) -> None:
        super().__init__()
        self.schedule = schedules.resolve(schedule)
        self._given = schedule
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency must be a number of steps from 1 on. Received: frequency={frequency!r}.")
        check_backend()
        if not callable(mask):
            raise TypeError(f"mask must be a function such as tfcompress.masks.magnitude. Received: mask={mask!r}.")
        if not (layers is None or callable(layers) or isinstance(layers, str | list | tuple) and len(layers)):
            raise TypeError(
                f"layers must be a pattern, a list of patterns or a function. Received: layers={layers!r}. Leave it out "
                "for all."
            )
        self.layers = layers
        self.frequency = frequency
        self.mask = mask
        self._pruned: dict[str, tuple[Any, Any, Any]] = {}  # name -> (variable, mask variable, former constraint)
        self._sparsity = 0.0
        self._moved_at: int | None = None

    @property
    def sparsity(self) -> dict[str, float]:
        """Fraction of exact zeros by pruned weight; empty before training."""
        return {name: masks.sparsity(np.asarray(variable)) for name, (variable, _, _) in self._pruned.items()}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts an all-ones mask on each chosen weight."""
        self._release()
        self.schedule = schedules.resolve(self._given)  # some schedules remember where they were
        for name, variable in self._chosen().items():
            former = variable.constraint
            while isinstance(former, _Masked):  # an exception kept its callback from taking it off
                former = former.former
            with self.model.distribute_strategy.scope():
                mask = keras.Variable(
                    np.ones(variable.shape, np.float32), trainable=False, dtype=variable.dtype, name="pruning_mask"
                )
            self._pruned[name] = (variable, mask, former)
            variable.constraint = _Masked(mask, former)
        self._sparsity, self._moved_at = 0.0, None
        self.model.make_train_function(force=True)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Moves the masks when the schedule asks for another sparsity and the last move is ``frequency`` steps ago."""
        step = int(self.model.optimizer.iterations)
        if self._moved_at is None or step - self._moved_at >= self.frequency:
            self._move(step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the sparsity over all pruned weights, and moves the masks a last time before training ends."""
        if epoch + 1 == self.params.get("epochs"):
            self._move(int(self.model.optimizer.iterations))
        if logs is not None and self._pruned:
            zeros = sum(int(np.sum(np.asarray(variable) == 0)) for variable, _, _ in self._pruned.values())
            logs["sparsity"] = zeros / sum(
                variable.value.shape.num_elements() for variable, _, _ in self._pruned.values()
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the masks off; the zeros stay."""
        try:
            self._move(int(self.model.optimizer.iterations))
            self._apply()  # averaged or restored weights may have come in between
            reached = min(self.sparsity.values(), default=0.0)
            final = self._final()
            if final is not None and round(reached, 3) < round(final, 3) and self._sparsity < final:
                warnings.warn(
                    f"The training ended at sparsity {reached:.1%}; the schedule would reach {final:.1%}. "
                    "Train for more steps or end the schedule earlier.",
                    stacklevel=2,
                )
        finally:
            self._release(keep=True)

    def remove(self) -> None:
        """Takes the masks off a model that an exception in ``fit`` left masked; the zeros stay."""
        self._release(keep=True)

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; what an exception left on the last one is taken off."""
        self._release(keep=True)
        super().set_model(model)

    def _final(self) -> float | None:
        """Returns what the schedule comes to, None for one that does not tell so far ahead."""
        try:
            return float(schedules.resolve(self._given)(_LAST_STEP))
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, ArithmeticError):
            return None

    def _chosen(self) -> dict[str, Any]:
        if not self.model.built:
            raise TrainingError(
                f"The model must be built before it is pruned. Received: {self.model.name!r}, not built. Begin it with a "
                "keras.Input or call it once on a batch of data."
            )
        weights = prunable_weights(self.model)
        if not weights:
            raise TrainingError(
                f"The model must have a layer to prune. Received: {self.model.name!r} without convolutions or Dense."
            )
        if self.layers is None:
            return weights
        if callable(self.layers):
            by_path = interception.layer_paths(self.model)
            choose = self.layers
            chosen = {
                name: v
                for name, v in weights.items()
                if choose(name.rpartition("/")[0], by_path[name.rpartition("/")[0]])
            }
            if not chosen:
                raise ValueError(f"layers must choose at least one layer. Known: {_paths(weights)}.")
            return chosen
        patterns = [self.layers] if isinstance(self.layers, str) else list(self.layers)
        chosen = {}
        for pattern in patterns:
            matched = {n: v for n, v in weights.items() if fnmatch.fnmatchcase(n.rpartition("/")[0], pattern)}
            if not matched:
                raise ValueError(f"Each pattern must match a layer. Received: {pattern!r}. Known: {_paths(weights)}.")
            chosen.update(matched)
        return chosen

    def _move(self, step: int) -> None:
        sparsity = self.schedule(step)
        if sparsity == self._sparsity:
            return
        for variable, mask, _ in self._pruned.values():
            mask.assign(self.mask(np.asarray(variable), sparsity))
        self._apply()
        self._sparsity, self._moved_at = sparsity, step

    def _apply(self) -> None:
        for variable, mask, _ in self._pruned.values():
            variable.assign(np.asarray(variable) * np.asarray(mask))

    def _release(self, *, keep: bool = False) -> None:
        for variable, _, former in self._pruned.values():
            if isinstance(variable.constraint, _Masked):
                variable.constraint = former
        if not keep:
            self._pruned = {}
        elif self._pruned and self.model is not None:
            self.model.train_function = None


class _Masked:
    """A constraint that applies the former one and then the mask."""

    def __init__(self, mask: Any, former: Callable[[Any], Any] | None) -> None:
        self._mask = mask
        self.former = former

    def __call__(self, variable: Any) -> Any:
        value = variable if self.former is None else self.former(variable)
        return keras.ops.multiply(value, self._mask)


def _paths(weights: dict[str, Any]) -> str:
    return ", ".join(name.rpartition("/")[0] for name in weights)
