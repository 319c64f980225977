"""Channel pruning as a Keras callback: whole channels become zero along a schedule, to be removed afterwards.

Which channels belong together is found by ``channel_groups``, which go by ``rebuilding``; how masks get on and off a model is in
``masked_training``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import TrainingError
from ..layers import End, Layers, layer_choice
from ..system.arguments import checked_arguments
from . import channel_groups, importance, rebuilding
from .importance import ChannelScore, WeightScores
from .magnitude_pruning import prunable_weights
from .masked_training import MaskedTraining, Scope, check_built, check_scope

__all__ = ["ChannelPruning"]


class ChannelPruning(MaskedTraining):
    """Empties whole channels while the model trains, so that ``remove_channels`` can leave them out afterwards.

    A channel's mask covers all that could make it other than zero: the kernels that make it, bias, and scale, offset and
    mean of BatchNorm; channels that a residual ties go together or not at all. The number kept in each layer is rounded
    up to ``multiple_of``. ``logs`` and so ``History`` get the share of channels that are gone as "channel_sparsity".

    Args:
        schedule: see ``MagnitudePruning``; the fraction of channels.
        layers: which layers may lose channels: patterns, classes or a predicate, see ``MagnitudePruning``. Default: all.
        frequency: optimizer steps between two moves of the masks. Default: 100.
        multiple_of: kept channels come in multiples of this. Default: 8.
        importance: "l1", "l2", "batch_norm" or an ``importance.Taylor``. Default: "l1".
        scope: "layer" gives each layer the scheduled sparsity, "global" ranks the channels of all together.
            Default: "layer".
        protect: the layers that keep all their channels: "first", "last" or both, of those that ``MagnitudePruning`` could
            prune; the channels of a model's outputs stay in any case. Default: none.

    Raises:
        ValueError: see ``MagnitudePruning``; an unknown importance.
        TrainingError: a subclassed model, or one without channels that can go.

    Examples:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([
        ...     keras.Input((4,)), keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(1, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x = np.random.rand(64, 4).astype("float32")
        >>> history = model.fit(x, x[:, :1], verbose=0, callbacks=[ChannelPruning(0.5)])
        >>> plan = channel_groups.plan(model)
        >>> rebuilding.remove(model, plan, rebuilding.emptied(plan, model)).get_layer("hidden").units
        16

    Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", 2017,
    https://arxiv.org/abs/1608.08710.
    """

    @checked_arguments
    def __init__(
        self,
        schedule: Any,
        *,
        layers: Layers = None,
        frequency: int = 100,
        multiple_of: int = 8,
        importance: ChannelScore | WeightScores = "l1",
        scope: Scope = "layer",
        protect: End | Sequence[End] = (),
    ) -> None:
        super().__init__(schedule, layers, frequency)
        if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
            raise ValueError(f"multiple_of must be a whole number from 1 on. Received: multiple_of={multiple_of!r}.")
        check_scope(scope)
        _check_channel_importance(importance)
        self.multiple_of = multiple_of
        self.importance = importance
        self.scope = scope
        self.protect = layer_choice.check_ends(protect)
        self._plan: channel_groups.ChannelPlan | None = None
        self._ranked: channel_groups.ChannelPlan | None = None  # the same, with the blocks that may lose channels only
        self._removed: set[int] = set()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports the share of channels that are gone, beside the sparsity of weights."""
        super().on_epoch_end(epoch, logs)
        if logs is not None and self._plan is not None:
            logs["channel_sparsity"] = len(self._removed) / sum(len(block.labels) for block in self._plan.blocks)

    def _chosen(self) -> dict[str, Any]:
        check_built(self._subject)
        self._plan, self._removed = channel_groups.plan(self._subject), set()
        if not self._plan.blocks:
            raise TrainingError(
                f"The model must have channels that can go. Received: {self._subject.name!r}, whose channels all reach an "
                "output or an operation through which they cannot be followed."
            )
        known = list(dict.fromkeys(name.rpartition("/")[0] for name in prunable_weights(self._subject)))
        ends = layer_choice.ends(known, self.protect)
        self._ranked = rebuilding.eligible(self._plan, self._subject, self.layers, protected=ends)
        if ends and not self._ranked.blocks:
            raise TrainingError(
                f"There must be a layer to prune beside the protected ones. Received: {', '.join(known)}, of which "
                f"{', '.join(ends)} keep their channels."
            )
        return {name: variable for name, (variable, _) in self._with(set()).items()}

    def _with(self, removed: set[int]) -> dict[str, tuple[Any, np.ndarray]]:
        return rebuilding.masks_without(self._plan, removed, self._subject)  # type: ignore[arg-type]

    def _masks(self, sparsity: float) -> Mapping[str, np.ndarray]:
        plan = self._ranked
        assert plan is not None
        self._removed = rebuilding.choose(
            plan,
            importance.channel_scores(self._subject, plan, self.importance),
            sparsity,
            multiple_of=self.multiple_of,
            jointly=self.scope == "global",
        )
        return {name: mask for name, (_, mask) in self._with(self._removed).items()}

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "removed": sorted(self._removed)}

    def _recall_state(self, state: Mapping[str, Any]) -> None:
        super()._recall_state(state)
        self._removed = set(state["removed"])

    def _reached(self) -> float:
        return self._sparsity  # the number kept is rounded up, so that zeros alone do not tell


def _check_channel_importance(by: Any) -> None:
    if not callable(by) and by not in importance.CHANNEL_SCORES:
        known = ", ".join(importance.CHANNEL_SCORES)
        raise ValueError(f"importance must be one of {known} or a Taylor. Received: importance={by!r}.")
