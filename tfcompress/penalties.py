"""An L1 penalty on weights or BatchNorm scales while a model trains: lambda times the sum of magnitudes, in the loss.

What the penalty has made small can then be pruned, see ``pruning``.
"""

from collections.abc import Callable
from typing import Any

import keras

from . import interception, layer_choice
from .backend import check_backend
from .errors import TrainingError

__all__ = ["L1Penalty"]

_PARTS = {"batch_norm": "gamma", "kernel": "kernel"}


class L1Penalty(keras.callbacks.Callback):
    """Adds ``strength * sum(|w|)`` to the loss for the duration of ``fit``.

    Args:
        strength: lambda, above 0.
        on: "batch_norm" (the scales, as network slimming does) or "kernel". Default: "batch_norm".
        layers: which layers, see ``MagnitudePruning``. Default: all that have such a weight.

    Raises:
        ValueError: a strength that is not above 0, or an unknown part; at the start of ``fit``: a pattern without a match.
        TrainingError: the model has no such weight.

    Example:
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

    def __init__(self, strength: float, *, on: str = "batch_norm", layers: layer_choice.Layers = None) -> None:
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
        self._penalised: list[tuple[Any, Callable[[Any], Any] | None]] = []

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; what an exception left on the last one is taken off."""
        self.remove()
        super().set_model(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts the penalty on."""
        self.remove()
        attribute = _PARTS[self.on]
        known = {
            path: layer
            for path, layer in interception.layer_paths(interception.subject(self.model)).items()
            if getattr(layer, attribute, None) is not None
            and (self.on != "batch_norm" or isinstance(layer, keras.layers.BatchNormalization))
        }
        if not known:
            raise TrainingError(f"The model must have a {attribute} to penalise. Received: {self.model.name!r}.")
        for path in layer_choice.matching(known, self.layers):
            variable = getattr(known[path], attribute)
            former = variable.regularizer
            self._penalised.append((variable, former))
            variable.regularizer = _Penalty(self.strength, former)
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the penalty off."""
        self.remove()

    def remove(self) -> None:
        """Takes the penalty off a model, also one that an exception in ``fit`` left with it."""
        for variable, former in self._penalised:
            variable.regularizer = former
        if self._penalised and self.model is not None:
            self.model.train_function = None
        self._penalised = []


class _Penalty:
    """The former regularizer plus an L1 one."""

    def __init__(self, strength: float, former: Callable[[Any], Any] | None) -> None:
        self._strength = strength
        self._former = former

    def __call__(self, values: Any) -> Any:
        loss = self._strength * keras.ops.sum(keras.ops.abs(values))
        return loss if self._former is None else loss + self._former(values)
