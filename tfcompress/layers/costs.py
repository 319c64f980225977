"""What a model costs to run, counted from its layers: multiply-adds and parameters. Nothing is measured here."""

import math
from collections.abc import Iterator
from typing import Any

import keras

from ..errors import ModelError

__all__ = ["multiply_adds", "multiply_adds_by_layer"]

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_CELL_KERNELS = ("kernel", "recurrent_kernel")
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def multiply_adds(model: keras.Model) -> int:
    """Returns how many multiplications (each with an addition) one sample takes where weights or attention multiply.

    Args:
        model: a functional or Sequential Keras 3 model whose input shape is fixed but for the batch.

    Raises:
        ModelError: a subclassed model, or a shape with unknown sizes.

    Examples:
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, padding="same")])
        >>> multiply_adds(model) == 8 * 8 * 3 * 3 * 3 * 4
        True

    Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017,
    https://arxiv.org/abs/1704.04861, which counts "mult-adds" in this way.
    """
    return sum(multiply_adds_by_layer(model).values())


def multiply_adds_by_layer(model: keras.Model) -> dict[str, int]:
    """Returns the multiply-adds of one sample by layer name, layers without any left out.

    Args:
        model: see ``multiply_adds``.

    Raises:
        ModelError: see ``multiply_adds``.
    """
    counts: dict[str, int] = {}
    for layer, given, made in _calls(model):
        count = _count(layer, given, made, model.name)
        if count:
            counts[layer.name] = counts.get(layer.name, 0) + count
    return counts


def _count(layer: Any, given: list[tuple], made: tuple, name: str) -> int:
    """Returns the multiply-adds of one call: its inputs' shapes, its output's shape, with the batch."""
    if isinstance(layer, keras.layers.Bidirectional):
        return _count(layer.forward_layer, given, made, name) + _count(layer.backward_layer, given, made, name)
    cell = getattr(layer, "cell", None)
    if isinstance(layer, keras.layers.MultiHeadAttention):
        queries, keys = (_positions(shape, layer, name) for shape in (given[0], given[1] if given[1:] else given[0]))
        rows = {"query_dense": queries, "key_dense": keys, "value_dense": keys, "output_dense": queries}
        projected = sum(count * math.prod(getattr(layer, each).kernel.shape) for each, count in rows.items())
        return projected + queries * keys * layer.num_heads * (layer.key_dim + layer.value_dim)
    if cell is not None:  # it runs at each step that it is given
        size = sum(math.prod(getattr(cell, each).shape) for each in _CELL_KERNELS if hasattr(cell, each))
        return size and size * _positions(given[0], layer, name)
    if isinstance(layer, keras.layers.EinsumDense):
        return math.prod(layer.kernel.shape) * _positions(_beside_kernel(layer, given[0]), layer, name)
    size = sum(math.prod(getattr(layer, each).shape) for each in _KERNELS if getattr(layer, each, None) is not None)
    return size and size * _positions(given[0] if isinstance(layer, _TRANSPOSED) else made, layer, name)


def _positions(shape: tuple, layer: Any, name: str) -> int:
    """Returns at how many places of a sample the same weights multiply."""
    if None in shape[1:-1]:
        raise ModelError(
            f"Multiply-adds need a fixed input shape. Received: {name!r}, where {layer.name} has {tuple(shape)}. "
            "Build the model with keras.Input of a fixed shape."
        )
    return math.prod(shape[1:-1])


def _beside_kernel(layer: Any, shape: tuple) -> tuple:
    """Returns the axes of an einsum's input that its kernel does not have, between the batch and a last one to be left out."""
    of_input, of_kernel = layer.equation.partition("->")[0].split(",")
    labels = of_input.replace("...", "." * (len(shape) - len(of_input.replace("...", ""))))
    return (None, *(size for label, size in list(zip(labels, shape, strict=True))[1:] if label not in of_kernel), None)


def _calls(model: keras.Model) -> Iterator[tuple[Any, list[tuple], tuple]]:
    graph = getattr(model, "_functional", None) or model
    if not hasattr(graph, "_nodes_by_depth"):
        raise ModelError(
            f"Multiply-adds are counted along the layers' graph. Received: {model.name!r}, a subclassed model. Build it "
            "with keras.Model(inputs, outputs)."
        )
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if isinstance(node.operation, keras.Model):
                yield from _calls(node.operation)
            elif node.arguments.keras_tensors:
                yield node.operation, [each.shape for each in node.arguments.keras_tensors], node.outputs[0].shape
