"""How much a weight or a channel matters: what pruning ranks by.

Magnitudes need the weights alone; ``Taylor`` needs data and gradients. Which of them go is decided elsewhere.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import interception
from . import channel_groups

__all__ = ["CHANNEL_SCORES", "ChannelScore", "Taylor", "WeightScores", "channel_scores"]

ChannelScore = Literal["l1", "l2", "batch_norm"]
WeightScores = Callable[[keras.Model, Sequence[Any]], list[np.ndarray]]
"""(model, variables) -> how much each weight matters, signed, arrays of the variables' shapes: a ``Taylor``."""
CHANNEL_SCORES: tuple[str, ...] = get_args(ChannelScore)
"""Names of channel importance; a ``Taylor`` does as well."""


class Taylor:
    """How much the loss would change without a weight, to first order: |weight * gradient|.

    Args:
        x: inputs (n, ...), an array or whatever structure the model takes.
        y: targets (n, ...), an array or the structure of the model's outputs.
        loss: function from (targets, answers) to a scalar or one value for each sample. Default: the compiled model's.
        batch_size: samples at a time. Default: 32.

    Raises:
        ValueError: a batch size below 1.

    Examples:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x = np.ones((8, 4), np.float32)
        >>> kernel = model.get_layer("head").kernel
        >>> Taylor(x, np.zeros((8, 1)))(model, [kernel])[0].shape
        (4, 1)

    Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance estimation for neural network pruning", 2019,
    https://arxiv.org/abs/1906.10771.
    """

    def __init__(self, x: Any, y: Any, *, loss: Any = None, batch_size: int = 32) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number from 1 on. Received: batch_size={batch_size!r}.")
        self._x, self._y, self._loss, self._batch = x, y, loss, batch_size

    def __call__(self, model: keras.Model, variables: Sequence[Any]) -> list[np.ndarray]:
        """Returns weight times gradient of each variable, in its shape, signed.

        Args:
            model: the model; compiled unless a loss was given.
            variables: Keras variables of it.

        Raises:
            TrainingError: no loss was given and the model is not compiled.
        """
        import tensorflow as tf

        if self._loss is None and not model.compiled:
            raise TrainingError("Taylor importance needs a loss. Received: a model that is not compiled. Pass loss=.")
        count = len(keras.tree.flatten(self._x)[0])
        inner = [variable._value for variable in variables]
        totals = [np.zeros(tuple(variable.shape), np.float64) for variable in variables]
        for start in range(0, count, self._batch):

            def cut(values: Any, start: int = start) -> Any:
                return values[start : start + self._batch]

            x, y = keras.tree.map_structure(cut, self._x), keras.tree.map_structure(cut, self._y)
            with tf.GradientTape() as tape:
                answers = model(x, training=False)
                if self._loss is not None:
                    loss = tf.reduce_mean(self._loss(y, answers))
                else:
                    loss = model.compute_loss(x=x, y=keras.tree.map_structure(tf.convert_to_tensor, y), y_pred=answers)
            for total, gradient in zip(totals, tape.gradient(loss, inner), strict=True):
                if gradient is not None:
                    total += np.asarray(gradient)
        return [interception.read(variable) * total for variable, total in zip(variables, totals, strict=True)]


def channel_scores(
    model: keras.Model, plan: channel_groups.ChannelPlan, by: ChannelScore | WeightScores = "l1"
) -> dict[int, float]:
    """Returns the importance of each removable channel, by label.

    Channels that a residual ties are scored jointly: the mean over all kernels that make them, each divided by its
    layer's mean, so that a layer of large weights does not outvote the others.

    Args:
        model: the model.
        plan: its channels.
        by: "l1" or "l2" (norm of the kernel that makes the channel), "batch_norm" (|scale| behind it) or a ``Taylor``.
            Default: "l1".

    Raises:
        ValueError: an unknown name.
        TrainingError: "batch_norm" where a channel has no BatchNorm with a scale.

    Source: Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets", 2017,
    https://arxiv.org/abs/1608.08710 (L1); Liu et al., "Learning efficient convolutional networks through network slimming",
    2017, https://arxiv.org/abs/1708.06519 (BatchNorm scale).
    """
    if not callable(by) and by not in CHANNEL_SCORES:
        raise ValueError(f"Importance must be one of {', '.join(CHANNEL_SCORES)} or a Taylor. Received: {by!r}.")
    layers = interception.layer_paths(model)
    makers = {path for block in plan.blocks for path in block.makers}
    parameters = [
        parameter
        for parameter in plan.parameters
        if parameter.own is not None
        and (parameter.attribute == "gamma" if by == "batch_norm" else parameter.path in makers)
        and (by == "batch_norm" or parameter.attribute.endswith("kernel"))
    ]
    variables = [getattr(layers[parameter.path], parameter.attribute) for parameter in parameters]
    arrays = by(model, variables) if callable(by) else [interception.read(variable) for variable in variables]
    found: dict[int, list[float]] = {}
    for parameter, values in zip(parameters, arrays, strict=True):
        own = parameter.own % values.ndim  # type: ignore[operator]
        axes = tuple(axis for axis in range(values.ndim) if axis != own)
        if callable(by):
            each = np.abs(np.sum(values, axis=axes))
        elif by == "l2":
            each = np.sqrt(np.sum(np.square(values), axis=axes))
        else:
            each = np.sum(np.abs(values), axis=axes)
        each = each / (float(np.mean(each)) or 1.0)
        for label, score in zip(parameter.labels[parameter.own].tolist(), each.tolist(), strict=True):  # type: ignore[index]
            found.setdefault(label, []).append(score)
    scores = {label: float(np.mean(values)) for label, values in found.items()}
    missing = [block.name for block in plan.blocks if not set(block.labels.tolist()) <= set(scores)]
    if missing:
        raise TrainingError(
            f"Importance by batch_norm needs a BatchNorm with a scale behind each layer. Received: none behind "
            f"{', '.join(missing[:5])}. Use 'l1' or leave these layers out."
        )
    return scores
