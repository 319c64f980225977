"""Pruning as Keras callbacks: masks that move along a schedule while the model trains.

The mask is a constraint of the weight variable: Keras multiplies by it inside the compiled step, right after the
optimizer. At the end of ``fit`` the constraint is gone and the zeros stay in the weights. Which weights go is decided
in ``masks`` and ``importance``, how many in ``schedules``; whole channels are chosen by ``removal``.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from . import channels, importance, interception, layer_choice, masks, phases, points, removal, schedules
from .errors import TrainingError
from .layer_choice import Layers
from .qat import check_backend

__all__ = ["ChannelPruning", "MagnitudePruning", "prunable_weights"]


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


class _Pruning(keras.callbacks.Callback):
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
        self._pruned: dict[str, tuple[Any, Any, Any]] = {}  # name -> (variable, mask variable, former constraint)
        self._sparsity = 0.0
        self._moved_at: int | None = None
        self._subject: Any = None

    def settled(self) -> bool:
        """Returns whether the schedule's final sparsity is reached."""
        final = self._final()
        return final is None or self._sparsity >= final - 1e-9

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the masks as they are, to go back to with ``recall``."""
        return {name: interception.read(mask).copy() for name, (_, mask, _) in self._pruned.items()}

    def recall(self, snapshot: dict[str, np.ndarray]) -> None:
        """Applies masks that belong to weights which somebody has restored."""
        for name, values in snapshot.items():
            variable, mask, _ = self._pruned[name]
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
        return {name: masks.sparsity(interception.read(variable)) for name, (variable, _, _) in self._pruned.items()}

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
        phases.enter(self.model, self)
        self.model.make_train_function(force=True)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Moves the masks when the schedule asks for another sparsity and the last move is ``frequency`` steps ago."""
        step = int(interception.read(self.model.optimizer.iterations))
        if self._moved_at is None or step - self._moved_at >= self.frequency:
            self._move(step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the sparsity over all pruned weights, and moves the masks a last time before training ends."""
        if epoch + 1 == self.params.get("epochs"):
            self._move(int(interception.read(self.model.optimizer.iterations)))
        if logs is not None and self._pruned:
            values = {name: interception.read(variable) for name, (variable, _, _) in self._pruned.items()}
            logs.update({f"sparsity/{name}": masks.sparsity(array) for name, array in values.items()})
            logs["sparsity"] = sum(int(np.sum(v == 0)) for v in values.values()) / sum(v.size for v in values.values())

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the masks off; the zeros stay."""
        try:
            self._move(int(interception.read(self.model.optimizer.iterations)))
            self._apply()  # averaged or restored weights may have come in between
            reached = self._reached()
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
        self._subject = interception.subject(model)

    def _final(self) -> float | None:
        """Returns what the schedule comes to, None for one that does not tell so far ahead."""
        try:
            return float(schedules.resolve(self._given)(_LAST_STEP))
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, ArithmeticError):
            return None

    def _move(self, step: int) -> None:
        sparsity = self.schedule(step)
        if sparsity == self._sparsity:
            return
        for name, values in self._masks(sparsity).items():
            self._pruned[name][1].assign(values)
        self._apply()
        self._sparsity, self._moved_at = sparsity, step

    def _apply(self) -> None:
        for variable, mask, _ in self._pruned.values():
            variable.assign(interception.read(variable) * interception.read(mask))

    def _release(self, *, keep: bool = False) -> None:
        phases.leave(self)
        for variable, _, former in self._pruned.values():
            if isinstance(variable.constraint, _Masked):
                variable.constraint = former
        if not keep:
            self._pruned = {}
        elif self._pruned and self.model is not None:
            self.model.train_function = None


class MagnitudePruning(_Pruning):
    """Sets the smallest weights of each layer to zero while the model trains, more of them as the schedule climbs.

    Every pruned kernel has exactly the scheduled number of zeros, also on ties, and they stay exactly zero through the
    rest of the training. ``logs`` and so ``History`` and TensorBoard get the sparsity over all pruned kernels as
    "sparsity" and that of each as "sparsity/<layer>/kernel".

    Args:
        schedule: callable from the optimizer step to a sparsity in [0, 1), a constant fraction, or a schedule object of
            TensorFlow's model optimization toolkit.
        layers: which layers are pruned: a name pattern ("block_*"), several, a predicate (path, layer) -> bool, or None
            for all. Default: None.
        frequency: optimizer steps between two moves of the masks. Default: 100.
        mask: function from (weights, sparsity) to a 0/1 array: ``masks.magnitude``, ``masks.Block((1, 4))``,
            ``masks.NofM(2, 4)`` or one of your own. Default: ``masks.magnitude``.
        scope: "layer" gives each layer the scheduled sparsity, "global" ranks the weights of all chosen layers together.
            Default: "layer".
        protect: the layers that stay dense: "first", "last" or both. Default: none.
        importance: what is ranked: "magnitude" or an ``importance.Taylor``. Default: "magnitude".

    Raises:
        ValueError: a sparsity outside [0, 1), a frequency below 1, an unknown scope; at the start of ``fit``: a pattern
            without a match, or a schedule that goes beyond an n:m pattern.
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
        scope: str = "layer",
        protect: str | Sequence[str] = (),
        importance: Any = "magnitude",
    ) -> None:
        super().__init__(schedule, layers, frequency)
        if not callable(mask):
            raise TypeError(f"mask must be a function such as tfcompress.masks.magnitude. Received: mask={mask!r}.")
        _check_scope(scope)
        if scope == "global" and mask is not masks.magnitude and not isinstance(mask, masks.Block):
            raise ValueError(f"scope='global' needs masks.magnitude or masks.Block. Received: mask={mask!r}.")
        ends = (protect,) if isinstance(protect, str) else tuple(protect)
        if not set(ends) <= {"first", "last"}:
            raise ValueError(f"protect must be 'first', 'last' or both. Received: protect={protect!r}.")
        if importance != "magnitude" and not callable(importance):
            raise ValueError(f"importance must be 'magnitude' or a Taylor. Received: importance={importance!r}.")
        self.mask = mask
        self.scope = scope
        self.protect = ends
        self.importance = importance

    def _chosen(self) -> dict[str, Any]:
        _check_built(self._subject)
        weights = prunable_weights(self._subject)
        if not weights:
            raise TrainingError(
                f"The model must have a layer to prune. Received: {self._subject.name!r} without convolutions or Dense."
            )
        final = self._final()
        if isinstance(self.mask, masks.NofM) and final is not None:
            self.mask(np.zeros((1, self.mask.m)), final)  # refuses what goes beyond
        by_path = interception.layer_paths(self._subject)
        known = {name.rpartition("/")[0]: by_path[name.rpartition("/")[0]] for name in weights}
        chosen = layer_choice.matching(known, self.layers)
        ends = [path for end, path in (("first", next(iter(known))), ("last", list(known)[-1])) if end in self.protect]
        found = {}
        for name, variable in weights.items():
            path = name.rpartition("/")[0]
            if path in chosen and path not in ends:
                found[name] = variable
        if not found:
            raise TrainingError(
                f"There must be a layer to prune beside the protected ones. Received: {', '.join(known)}, of which "
                f"{', '.join(ends)} stay dense."
            )
        return found

    def _masks(self, sparsity: float) -> Mapping[str, np.ndarray]:
        variables = {name: variable for name, (variable, _, _) in self._pruned.items()}
        if self.importance == "magnitude":
            arrays = {name: interception.read(variable) for name, variable in variables.items()}
        else:
            scores = self.importance(self._subject, list(variables.values()))
            arrays = {name: np.abs(values) for name, values in zip(variables, scores, strict=True)}
        if not getattr(self.mask, "matrix", False):
            if self.scope == "global":
                return masks.jointly(self.mask, arrays, sparsity)
            return {name: self.mask(values, sparsity) for name, values in arrays.items()}
        layers = interception.layer_paths(self._subject)
        orders = {name: _matrix_axes(layers[name.rpartition("/")[0]], arrays[name].ndim) for name in arrays}
        matrices = {name: _to_matrix(values, *orders[name]) for name, values in arrays.items()}
        if self.scope == "global":
            found = masks.jointly(self.mask, matrices, sparsity)
        else:
            found = {name: self.mask(matrix, sparsity) for name, matrix in matrices.items()}
        return {name: _from_matrix(mask, arrays[name].shape, *orders[name]) for name, mask in found.items()}

    def _reached(self) -> float:
        if self.scope == "layer" or not self._pruned:
            return super()._reached()
        arrays = [interception.read(variable) for variable, _, _ in self._pruned.values()]
        return sum(int(np.sum(array == 0)) for array in arrays) / sum(array.size for array in arrays)


class ChannelPruning(_Pruning):
    """Empties whole channels while the model trains, so that ``remove_channels`` can leave them out afterwards.

    A channel's mask covers all that could make it other than zero: the kernels that make it, bias, and scale, offset and
    mean of BatchNorm; channels that a residual ties go together or not at all. The number kept in each layer is rounded
    up to ``multiple_of``. ``logs`` and so ``History`` get the share of channels that are gone as "channel_sparsity".

    Args:
        schedule: see ``MagnitudePruning``; the fraction of channels.
        layers: which layers may lose channels, see ``MagnitudePruning``. Default: all.
        frequency: optimizer steps between two moves of the masks. Default: 100.
        multiple_of: kept channels come in multiples of this. Default: 8.
        importance: "l1", "l2", "batch_norm" or an ``importance.Taylor``. Default: "l1".
        scope: "layer" gives each layer the scheduled sparsity, "global" ranks the channels of all together.
            Default: "layer".

    Raises:
        ValueError: see ``MagnitudePruning``; an unknown importance.
        TrainingError: a subclassed model, or one without channels that can go.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(1, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.rand(64, 4).astype("float32")
        >>> history = model.fit(x, x[:, :1], verbose=0, callbacks=[ChannelPruning(0.5)])
        >>> plan = channels.plan(model)
        >>> removal.remove(model, plan, removal.emptied(plan, model)).get_layer("hidden").units
        16

    Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", 2017,
    https://arxiv.org/abs/1608.08710.
    """

    def __init__(
        self,
        schedule: Any,
        *,
        layers: Layers = None,
        frequency: int = 100,
        multiple_of: int = 8,
        importance: Any = "l1",
        scope: str = "layer",
    ) -> None:
        super().__init__(schedule, layers, frequency)
        if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
            raise ValueError(f"multiple_of must be a whole number from 1 on. Received: multiple_of={multiple_of!r}.")
        _check_scope(scope)
        _check_channel_importance(importance)
        self.multiple_of = multiple_of
        self.importance = importance
        self.scope = scope
        self._plan: channels.ChannelPlan | None = None
        self._removed: set[int] = set()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the share of channels that are gone, beside the sparsity of weights."""
        super().on_epoch_end(epoch, logs)
        if logs is not None and self._plan is not None:
            logs["channel_sparsity"] = len(self._removed) / sum(len(block.labels) for block in self._plan.blocks)

    def _chosen(self) -> dict[str, Any]:
        _check_built(self._subject)
        self._plan, self._removed = channels.plan(self._subject), set()
        if not self._plan.blocks:
            raise TrainingError(
                f"The model must have channels that can go. Received: {self._subject.name!r}, whose channels all reach an "
                "output or an operation through which they cannot be followed."
            )
        removal.choose(
            self._plan, dict.fromkeys(self._labels(), 1.0), 0.0, layers=self.layers, model=self._subject
        )  # refuses a pattern without a match
        return {name: variable for name, (variable, _) in self._with(set()).items()}

    def _labels(self) -> list[int]:
        return [label for block in self._plan.blocks for label in block.labels.tolist()]  # type: ignore[union-attr]

    def _with(self, removed: set[int]) -> dict[str, tuple[Any, np.ndarray]]:
        return removal.masks_without(self._plan, removed, self._subject)  # type: ignore[arg-type]

    def _masks(self, sparsity: float) -> Mapping[str, np.ndarray]:
        plan = self._plan
        assert plan is not None
        self._removed = removal.choose(
            plan,
            importance.channel_scores(self._subject, plan, self.importance),
            sparsity,
            multiple_of=self.multiple_of,
            jointly=self.scope == "global",
            layers=self.layers,
            model=self._subject,
        )
        return {name: mask for name, (_, mask) in self._with(self._removed).items()}

    def _reached(self) -> float:
        return self._sparsity  # the number kept is rounded up, so that zeros alone do not tell


def _check_built(model: keras.Model) -> None:
    if not model.built:
        raise TrainingError(
            f"The model must be built before it is pruned. Received: {model.name!r}, not built. Begin it with a "
            "keras.Input or call it once on a batch of data."
        )


def _check_scope(scope: str) -> None:
    if scope not in ("layer", "global"):
        raise ValueError(f"scope must be 'layer' or 'global'. Received: scope={scope!r}.")


def _check_channel_importance(by: Any) -> None:
    if not callable(by) and by not in importance.CHANNEL_SCORES:
        known = ", ".join(importance.CHANNEL_SCORES)
        raise ValueError(f"importance must be one of {known} or a Taylor. Received: importance={by!r}.")


def _matrix_axes(layer: Any, rank: int) -> tuple[tuple[int, ...], int]:
    """Returns the order of axes in which TFLite stores a kernel, and how many of the last are its columns."""
    name = type(layer).__name__
    if name.startswith("Depthwise"):
        return tuple(range(rank)), 2  # (height, width, channels x multiplier)
    if name.endswith("Transpose"):
        return (rank - 2, *range(rank - 2), rank - 1), 1
    return (rank - 1, *range(rank - 1)), 1


def _to_matrix(values: np.ndarray, order: tuple[int, ...], columns: int) -> np.ndarray:
    turned = values.transpose(order)
    return turned.reshape(-1, int(np.prod(turned.shape[len(order) - columns :])))


def _from_matrix(matrix: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...], columns: int) -> np.ndarray:
    turned = matrix.reshape([shape[axis] for axis in order])
    return turned.transpose(np.argsort(order))


class _Masked:
    """A constraint that applies the former one and then the mask."""

    def __init__(self, mask: Any, former: Callable[[Any], Any] | None) -> None:
        self._mask = mask
        self.former = former

    def __call__(self, variable: Any) -> Any:
        value = variable if self.former is None else self.former(variable)
        return keras.ops.multiply(value, self._mask)
