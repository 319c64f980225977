"""How do channels flow through a model? Their labels are followed layer by layer.

A convolution makes new labels; an addition ties those of its inputs, a concatenation puts them side by side, a Flatten
repeats them, groups must lose equal numbers (``channel_labels``). What cannot be followed keeps its channels. A channel
counts as removable only if zero parameters make it zero wherever a weight reads it, so that leaving it out changes no
output. What follows for pruning is gathered in ``channel_groups``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .channel_labels import Balance, Labels

__all__ = ["ChannelTracer", "Known", "layer_graph"]

_MOVING = frozenset(
    f"{kind}{rank}D"
    for kind in (
        "MaxPooling",
        "AveragePooling",
        "GlobalMaxPooling",
        "GlobalAveragePooling",
        "ZeroPadding",
        "Cropping",
        "UpSampling",
        "SpatialDropout",
    )
    for rank in (1, 2, 3)
) | frozenset(
    ["Dropout", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity", "InputLayer"]
)
_ZERO_AT_ZERO = frozenset(
    [
        "ReLU",
        "LeakyReLU",
        "ELU",
        "Relu",
        "Relu6",
        "Silu",
        "HardSilu",
        "Gelu",
        "Tanh",
        "Elu",
        "LeakyRelu",
        "Selu",
        "Celu",
        "Softsign",
    ]
)
_NOT_ZERO_AT_ZERO = frozenset(["Sigmoid", "HardSigmoid", "Softplus", "Exp"])
_MERGING = frozenset(["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"])
_CONVOLUTIONS = frozenset(["Conv1D", "Conv2D", "Conv3D", "Dense"])
_DEPTHWISE = frozenset(["DepthwiseConv1D", "DepthwiseConv2D"])
_SEPARABLE = frozenset(["SeparableConv1D", "SeparableConv2D"])
_TRANSPOSED = frozenset(["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"])


@dataclass
class Known:
    """The channels of a tensor: label of each, and whether it is zero once its label is removed.

    They are its last axis, or its last two behind a Reshape that divides them.
    """

    labels: np.ndarray
    zero: np.ndarray


def layer_graph(model: Any) -> Any:
    """Returns the model with the nodes of its layers' calls, None for one without: subclassed, or not built."""
    graph = getattr(model, "_functional", None) or model
    return graph if hasattr(graph, "_nodes_by_depth") and hasattr(graph, "outputs") else None


class ChannelTracer:
    """Follows labels from a model's inputs to its outputs, op by op.

    Args:
        paths: path of each layer by its ``id``, see ``interception.layer_paths``.

    Attributes:
        labels: the labels of all channels.
        known: the channels of each tensor by its ``id``.
        parameters: labels by axis, and the axis that is the layer's own, by the layer's ``id`` and the attribute.
        made: labels of each output channel by the ``id`` of the layer that has their number in its configuration.
        kept: paths of layers whose channels all stay, with the reason.
    """

    def __init__(self, paths: dict[int, str]) -> None:
        self.labels = Labels()
        self._balance = Balance(self.labels)
        self.known: dict[int, Known] = {}
        self.paths = paths
        self.parameters: dict[tuple[int, str], tuple[dict[int, np.ndarray], int | None]] = {}
        self.made: dict[int, np.ndarray] = {}
        self.kept: dict[str, str] = {}

    def know_fixed(self, tensor: Any) -> None:
        """Gives the tensor channels that stay."""
        size = tensor.shape[-1] if len(tensor.shape) > 1 else None
        labels = self.labels.new(size or 0)
        self.labels.fix(labels)
        self.known[id(tensor)] = Known(labels, np.zeros(len(labels), bool))

    def walk(self, graph: Any) -> None:
        """Follows every call of ``graph``, whose inputs are known."""
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if not node.is_input:
                    self._call(node)

    def _call(self, node: Any) -> None:
        given = [self.known[id(tensor)] for tensor in node.arguments.keras_tensors]
        operation = node.operation
        inner = layer_graph(operation) if isinstance(operation, keras.Model) else None
        if inner is not None:
            for known in given:
                self.labels.fix(known.labels)
            for tensor in inner.inputs:
                self.know_fixed(tensor)
            self.walk(inner)
            for outer, tensor in zip(node.outputs, inner.outputs, strict=True):
                self.known[id(outer)] = self.known[id(tensor)]
            return
        made = self._follow(node, given)
        if made is None:
            reason = f"channels cannot be followed through {type(operation).__name__}"
            self.kept[self.paths.get(id(operation), operation.name)] = reason
            for known in given:
                self.labels.fix(known.labels)
            for tensor in node.outputs:
                self.know_fixed(tensor)
        else:
            self.known[id(node.outputs[0])] = made

    def _follow(self, node: Any, given: Sequence[Known]) -> Known | None:
        """Returns the channels of the one output, None where they cannot be followed."""
        layer, kind = node.operation, _kind(node.operation)
        if len(node.outputs) != 1 or not given or getattr(layer, "data_format", None) == "channels_first":
            return None
        tensors, out = node.arguments.keras_tensors, node.outputs[0]
        if any(known.labels.ndim > 1 for known in given):
            return self._divided(layer, kind, given[0], tensors[0].shape[1:], out.shape[1:])
        if kind in _CONVOLUTIONS | _TRANSPOSED | _SEPARABLE:
            return self._convolution(layer, kind, given[0])
        if kind in _DEPTHWISE:
            return self._depthwise(layer, given[0])
        if kind == "BatchNormalization":
            return self._batch_norm(layer, given[0], len(out.shape))
        if kind == "Concatenate":
            return self._concatenate(layer, given, tensors, out)
        if kind in _MERGING:
            return self._merge(node, kind, given)
        if kind in ("Reshape", "Flatten"):
            return self._reshape(layer, kind, given[0], tensors[0].shape[1:], out.shape[1:])
        if out.shape[-1] != tensors[0].shape[-1]:
            return None
        if kind == "Mean" or kind == "Max":
            return given[0] if len(out.shape) == len(tensors[0].shape) or _keeps_last(layer, tensors[0]) else None
        if kind in _MOVING or kind in _ZERO_AT_ZERO:
            return given[0]
        if kind in _NOT_ZERO_AT_ZERO:
            return Known(given[0].labels, np.zeros_like(given[0].zero))
        if kind == "Activation":
            return self._activated(given[0], layer.activation)
        if kind == "PReLU":
            self._use(layer, "alpha", {-1: given[0].labels}, None)
            return given[0]
        if kind == "Rescaling":
            plain = np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0
            return Known(given[0].labels, given[0].zero & (layer.offset == 0)) if plain else None
        return None

    def _convolution(self, layer: Any, kind: str, given: Known) -> Known | None:
        groups, path = getattr(layer, "groups", 1), self.paths[id(layer)]
        if groups != 1 and kind not in _CONVOLUTIONS:
            return None
        self._read(given)
        width = layer.units if kind == "Dense" else layer.filters
        made = self.made.setdefault(id(layer), self.labels.new(int(width)))
        if groups != 1:
            self._balance.divide(path, given.labels, groups, rows_alike=True)
            self._balance.divide(path, made, groups)
        if kind in _SEPARABLE:
            self._use(layer, "depthwise_kernel", {-2: given.labels}, None)
            self._use(layer, "pointwise_kernel", {-2: np.repeat(given.labels, layer.depth_multiplier), -1: made}, -1)
        elif kind in _TRANSPOSED:
            self._use(layer, "kernel", {-1: given.labels, -2: made}, -2)
        else:
            # the inputs of the first group stand for those of each: the kernel has one axis for all
            self._use(layer, "kernel", {-2: given.labels[: len(given.labels) // groups], -1: made}, -1)
        self._use(layer, "bias", {-1: made}, -1)
        return self._activated(Known(made, np.ones(len(made), bool)), layer.activation)

    def _depthwise(self, layer: Any, given: Known) -> Known:
        self._read(given)
        made = np.repeat(given.labels, layer.depth_multiplier)
        self._use(layer, "kernel", {-2: given.labels}, -2)
        self._use(layer, "bias", {-1: made}, -1)
        return self._activated(Known(made, np.ones(len(made), bool)), layer.activation)

    def _batch_norm(self, layer: Any, given: Known, rank: int) -> Known | None:
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        if axis % rank != rank - 1:
            return None
        for name in ("gamma", "beta", "moving_mean"):
            self._use(layer, name, {-1: given.labels}, -1)
        self._use(layer, "moving_variance", {-1: given.labels}, None)
        # With a scale of zero the answer is the offset, zero too; without a scale it follows the input.
        return Known(given.labels, np.ones_like(given.zero) if layer.scale else given.zero)

    def _concatenate(self, layer: Any, given: Sequence[Known], tensors: Sequence[Any], out: Any) -> Known | None:
        axis = getattr(layer, "axis", -1)
        if axis % len(out.shape) == len(out.shape) - 1:
            return Known(np.concatenate([known.labels for known in given]), np.concatenate([k.zero for k in given]))
        return self._tied(given, np.logical_and)

    def _merge(self, node: Any, kind: str, given: Sequence[Known]) -> Known | None:
        width = node.outputs[0].shape[-1]
        if len(given) == 1:
            if not _constants_are_scalars(node):
                return None
            known = given[0]
            return known if kind == "Multiply" else Known(known.labels, np.zeros_like(known.zero))
        whole = [known for known in given if len(known.labels) == width]
        for known in given:
            if len(known.labels) != width:
                self.labels.fix(known.labels)  # one channel spread over all
        if not whole:
            return None
        if kind == "Multiply":
            return self._tied(whole, np.logical_or)
        together = self._tied(whole, np.logical_and)
        if together is None or len(whole) == len(given):
            return together
        return Known(together.labels, np.zeros_like(together.zero))

    def _tied(self, given: Sequence[Known], zero: Callable[..., Any]) -> Known | None:
        first = given[0]
        result = first.zero
        for other in given[1:]:
            if len(other.labels) != len(first.labels):
                return None
            self.labels.tie(first.labels, other.labels)
            result = zero(result, other.zero)
        return Known(first.labels, result)

    def _reshape(self, layer: Any, kind: str, given: Known, before: tuple, after: tuple) -> Known | None:
        if None in before[:-1] or None in after[:-1]:
            return None
        known: Known | None = None
        if after[-1] == before[-1]:
            known = given
        elif len(after) == 1:
            repeats = math.prod(before[:-1])
            known = Known(np.tile(given.labels, repeats), np.tile(given.zero, repeats))
        elif len(after) > 1 and after[:-2] == before[:-1] and isinstance(layer, keras.layers.Layer):
            known = Known(given.labels.reshape(after[-2:]), given.zero.reshape(after[-2:]))
            self._balance.divide(self.paths[id(layer)], given.labels, after[-2])
        if known is not None and kind == "Reshape":
            self.made.setdefault(id(layer), known.labels)
        return known

    def _divided(self, layer: Any, kind: str, given: Known, before: tuple, after: tuple) -> Known | None:
        """Follows channels on two axes: they are swapped, or become one axis again."""
        rank = len(before)
        if kind == "Permute" and tuple(layer.dims) == (*range(1, rank - 1), rank, rank - 1):
            self._balance.shuffle(given.labels)
            return Known(given.labels.T, given.zero.T)
        if kind == "Reshape" and isinstance(layer, keras.layers.Layer) and after == (*before[:-2], given.labels.size):
            self.made.setdefault(id(layer), given.labels.ravel())
            return Known(given.labels.ravel(), given.zero.ravel())
        return None

    def _activated(self, known: Known, activation: Any) -> Known:
        if activation is None or bool(np.all(np.asarray(activation(keras.ops.zeros((1, 2)))) == 0)):
            return known
        return Known(known.labels, np.zeros_like(known.zero))

    def _read(self, known: Known) -> None:
        """A weight reads these channels: those that would not be zero stay."""
        self.labels.fix(known.labels[~known.zero])

    def _use(self, layer: Any, attribute: str, labels: dict[int, np.ndarray], own: int | None) -> None:
        if getattr(layer, attribute, None) is None:
            return
        before = self.parameters.setdefault((id(layer), attribute), (labels, own))[0]
        for axis, these in labels.items():
            if before[axis] is not these:  # a shared layer
                self.labels.tie(before[axis], these)

    def settle(self) -> None:
        """Ties what must go in equal numbers, once everything has been followed."""
        self.kept.update(self._balance.settle())


def _kind(operation: Any) -> str:
    """Returns the class name of the nearest ancestor that Keras defines, "" for a subclass that does more than it.

    A subclass with a constructor of its own is not followed either: nobody knows whether it can be made narrower.
    """
    for ancestor in type(operation).__mro__:
        if ancestor.__module__.split(".")[0] == "keras":
            return ancestor.__name__
        if {"__init__", "build", "call", "get_config", "from_config"} & set(vars(ancestor)):
            return ""
    return ""


def _keeps_last(operation: Any, tensor: Any) -> bool:
    axis = getattr(operation, "axis", None)
    axes = () if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    return bool(axes) and all(one % len(tensor.shape) != len(tensor.shape) - 1 for one in axes)


def _constants_are_scalars(node: Any) -> bool:
    tensors = {id(tensor) for tensor in node.arguments.keras_tensors}
    others = [
        value for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)) if id(value) not in tensors
    ]
    return all(value is None or isinstance(value, str | bool) or np.ndim(value) == 0 for value in others)
