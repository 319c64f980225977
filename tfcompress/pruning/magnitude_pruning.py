"""Magnitude pruning as a Keras callback: weights become zero one by one, in blocks, or n of m, along a schedule.

Which weights go is decided in ``masks`` and ``importance``; how masks get on and off a model in ``masked_training``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import End, Layers, interception, layer_choice, quantization_points
from ..system.arguments import checked_arguments
from . import masks
from .importance import WeightScores
from .masked_training import MaskedTraining, Scope, check_built, check_scope

__all__ = ["MagnitudePruning", "prunable_weights"]

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def prunable_weights(model: keras.Model) -> dict[str, Any]:
    """Returns the kernels of ``model`` that pruning applies to, by layer path.

    Those are the weights of every layer that multiplies them with its input (convolutions, depthwise ones too, Dense);
    biases and BatchNorm are left alone.

    Examples:
        >>> import keras
        >>> list(prunable_weights(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])))
        ['head/kernel']
    """
    found = {}
    for path, layer in interception.layer_paths(model).items():
        rule = quantization_points.rule_for(layer)
        for weight in rule.weights if rule else ():
            variable = getattr(layer, weight.attribute, None)
            if variable is not None:
                found[f"{path}/{weight.attribute}"] = variable
    return found


class MagnitudePruning(MaskedTraining):
    """Sets the smallest weights of each layer to zero while the model trains, more of them as the schedule climbs.

    Every pruned kernel has exactly the scheduled number of zeros, also on ties, and they stay exactly zero through the
    rest of the training. ``logs`` and so ``History`` and TensorBoard get the sparsity over all pruned kernels as
    "sparsity" and that of each as "sparsity/<layer>/kernel".

    Args:
        schedule: callable from the optimizer step to a sparsity in [0, 1), a constant fraction, or a schedule object of
            TensorFlow's model optimization toolkit.
        layers: which layers are pruned: a name pattern ("block_*"), a layer class (``keras.layers.Conv2D``, subclasses
            too), a list of these, a predicate (path, layer) -> bool, or None for all. Default: None.
        frequency: optimizer steps between two moves of the masks. Default: 100.
        mask: function from (weights, sparsity) to a 0/1 array: ``masks.magnitude``, ``masks.Block((1, 4))``,
            ``masks.NofM(2, 4)`` or one of your own. Default: ``masks.magnitude``.
        scope: "layer" gives each layer the scheduled sparsity, "global" ranks the weights of all chosen layers together.
            Default: "layer".
        protect: the layers that stay dense: "first", "last" or both. Default: none.
        importance: what is ranked: "magnitude" or an ``importance.Taylor``. Default: "magnitude".

    Raises:
        ValueError: a sparsity outside [0, 1), a frequency below 1, an unknown scope; at the start of ``fit``: a pattern
            or class without a match, or a schedule that goes beyond an n:m pattern.
        TypeError: a schedule that is not callable, or ``layers`` of another kind.
        TrainingError: Keras does not run on TensorFlow, or the model has nothing to prune.

    Examples:
        >>> import keras, numpy as np
        >>> from tfcompress.pruning import schedules
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

    @checked_arguments
    def __init__(
        self,
        schedule: Any,
        *,
        layers: Layers = None,
        frequency: int = 100,
        mask: masks.Mask = masks.magnitude,
        scope: Scope = "layer",
        protect: End | Sequence[End] = (),
        importance: Literal["magnitude"] | WeightScores = "magnitude",
    ) -> None:
        super().__init__(schedule, layers, frequency)
        if not callable(mask):
            raise TypeError(f"mask must be a function such as tfcompress.masks.magnitude. Received: mask={mask!r}.")
        check_scope(scope)
        if scope == "global" and mask is not masks.magnitude and not isinstance(mask, masks.Block):
            raise ValueError(f"scope='global' needs masks.magnitude or masks.Block. Received: mask={mask!r}.")
        if importance != "magnitude" and not callable(importance):
            raise ValueError(f"importance must be 'magnitude' or a Taylor. Received: importance={importance!r}.")
        self.mask = mask
        self.scope = scope
        self.protect = layer_choice.check_ends(protect)
        self.importance = importance

    def _chosen(self) -> dict[str, Any]:
        check_built(self._subject)
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
        ends = layer_choice.ends(list(known), self.protect)
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
        variables = {name: variable for name, (variable, _) in self._pruned.items()}
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
        orders = {}
        for name, values in arrays.items():
            path, _, attribute = name.rpartition("/")
            orders[name] = _matrix_axes(layers[path], attribute, values.ndim)
        matrices = {name: _to_matrix(values, *orders[name]) for name, values in arrays.items()}
        if self.scope == "global":
            found = masks.jointly(self.mask, matrices, sparsity)
        else:
            found = {name: self.mask(matrix, sparsity) for name, matrix in matrices.items()}
        return {name: _from_matrix(mask, arrays[name].shape, *orders[name]) for name, mask in found.items()}

    def _reached(self) -> float:
        if self.scope == "layer" or not self._pruned:
            return super()._reached()
        arrays = [interception.read(variable) for variable, _ in self._pruned.values()]
        return sum(int(np.sum(array == 0)) for array in arrays) / sum(array.size for array in arrays)


def _matrix_axes(layer: Any, attribute: str, rank: int) -> tuple[tuple[int, ...], int]:
    """Returns the order of axes in which TFLite stores a kernel, and how many of the last are its columns."""
    if isinstance(layer, keras.layers.EinsumDense):  # becomes FULLY_CONNECTED: (outputs, inputs)
        rule = quantization_points.rule_for(layer)
        outputs = [axis % rank for axis in rule.weights[0].channel_axes]  # type: ignore[union-attr]
        inputs = [axis for axis in range(rank) if axis not in outputs]
        return (*outputs, *inputs), len(inputs)
    if isinstance(layer, _DEPTHWISE) or attribute == "depthwise_kernel":
        return tuple(range(rank)), 2  # (height, width, channels x multiplier)
    if isinstance(layer, _TRANSPOSED):
        return (rank - 2, *range(rank - 2), rank - 1), 1
    return (rank - 1, *range(rank - 1)), 1


def _to_matrix(values: np.ndarray, order: tuple[int, ...], columns: int) -> np.ndarray:
    turned = values.transpose(order)
    return turned.reshape(-1, int(np.prod(turned.shape[len(order) - columns :])))


def _from_matrix(matrix: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...], columns: int) -> np.ndarray:
    turned = matrix.reshape([shape[axis] for axis in order])
    return turned.transpose(np.argsort(order))
