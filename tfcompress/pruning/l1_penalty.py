"""An L1 penalty on weights or BatchNorm scales while a model trains: lambda times the sum of magnitudes, in the loss.

What the penalty has made small can then be pruned, see ``channel_pruning`` and ``magnitude_pruning``.
"""

from collections.abc import Callable
from typing import Any, Literal

import keras

from ..errors import TrainingError
from ..layers import Layers, active_callbacks, check_backend, interception, layer_choice, recovery
from ..system.arguments import checked_arguments
from .masked_training import check_built

__all__ = ["L1Penalty", "PenaltyPart"]

PenaltyPart = Literal["batch_norm", "kernel"]
"""Which weights of a layer a penalty is on."""

_PARTS: dict[PenaltyPart, str] = {"batch_norm": "gamma", "kernel": "kernel"}


class L1Penalty(keras.callbacks.Callback):
    """Adds ``strength * sum(|w|)`` to the loss for the duration of ``fit``.

    Args:
        strength: lambda, above 0.
        on: "batch_norm" (the scales, as network slimming does) or "kernel". Default: "batch_norm".
        layers: which layers: patterns, classes or a predicate, see ``MagnitudePruning``. Default: all that have such a
            weight.

    Raises:
        ValueError: a strength that is not above 0, or an unknown part; at the start of ``fit``: a pattern or class without a
            match.
        TrainingError: the model is not built or has no such weight.

    Examples:
        >>> import numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="norm")])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> x = np.random.rand(64, 4).astype("float32")
        >>> history = model.fit(x, x, epochs=20, verbose=0, callbacks=[L1Penalty(1.0)])
        >>> bool(model.get_layer("norm").gamma.numpy().max() < 0.3)
        True

    Source: Liu, Li, Shen, Huang, Yan and Zhang, "Learning efficient convolutional networks through network slimming",
    2017, https://arxiv.org/abs/1708.06519.
    """

    @checked_arguments
    def __init__(self, strength: float, *, on: PenaltyPart = "batch_norm", layers: Layers = None) -> None:
        super().__init__()
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not strength > 0:
            raise ValueError(f"strength must be a number above 0. Received: strength={strength!r}. Try 1e-4.")
        if on not in _PARTS:
            raise ValueError(f"on must be one of {', '.join(_PARTS)}. Received: on={on!r}.")
        check_backend()
        layer_choice.check(layers)
        self.strength = float(strength)
        self.on = on
        self.layers = layers
        self._chosen: list[Any] = []
        self._penalised: list[Any] = []

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; what an exception left on the last one is taken off."""
        self.remove()
        super().set_model(model)

    def settled(self) -> bool:
        """Returns True: a penalty leads nowhere in particular."""
        return True

    def snapshot(self) -> None:
        """Weights that are penalised carry it themselves."""

    def recall(self, snapshot: None) -> None:
        """Nothing to go back to."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts the penalty on."""
        self.remove()
        subject = interception.subject(self.model)
        check_built(subject)
        attribute = _PARTS[self.on]
        known = {
            path: layer
            for path, layer in interception.layer_paths(subject).items()
            if getattr(layer, attribute, None) is not None
            and (self.on != "batch_norm" or isinstance(layer, keras.layers.BatchNormalization))
        }
        if not known:
            raise TrainingError(f"The model must have a {attribute} to penalise. Received: {self.model.name!r}.")
        self._chosen = [getattr(known[path], attribute) for path in layer_choice.matching(known, self.layers)]
        self._attach()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Sees to it that a step that fails leaves nothing behind."""
        if not self._penalised:  # a conversion in the middle of the fit has taken the penalty off
            self._attach()
        recovery.guard(self.model)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the penalty off."""
        self.remove()

    def remove(self, model: keras.Model | None = None) -> None:
        """Takes the penalty off ``model`` (default: the last one trained), also after an exception in ``fit``."""
        active_callbacks.leave(self)
        for variable in [*(model.variables if model is not None else ()), *self._penalised]:
            if isinstance(variable.regularizer, _Penalty):
                variable.regularizer = variable.regularizer.former
        for each in (self.model, model):
            if each is not None and (self._penalised or each is model):
                each.train_function = None
        self._penalised = []

    def _attach(self) -> None:
        for variable in self._chosen:
            variable.regularizer = _Penalty(self.strength, variable.regularizer)
        self._penalised = list(self._chosen)
        active_callbacks.enter(self.model, self)
        self.model.make_train_function(force=True)


class _Penalty:
    """The former regularizer plus an L1 one."""

    def __init__(self, strength: float, former: Callable[[Any], Any] | None) -> None:
        self._strength = strength
        self.former = former

    def __call__(self, values: Any) -> Any:
        loss = self._strength * keras.ops.sum(keras.ops.abs(values))
        return loss if self.former is None else loss + self.former(values)
