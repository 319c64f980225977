"""What a model costs to run, counted from its layers: multiply-adds and parameters. Nothing is measured here."""

import math
from collections.abc import Iterator
from typing import Any

import keras

from .errors import ModelError

__all__ = ["multiply_adds", "multiply_adds_by_layer"]

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_PROJECTIONS = ("query_dense", "key_dense", "value_dense", "output_dense")


def multiply_adds(model: keras.Model) -> int:
    """Returns how many multiplications (each with an addition) one sample takes where weights or attention multiply.

    Args:
        model: a functional or Sequential Keras 3 model whose input shape is fixed but for the batch.

    Raises:
        ModelError: a subclassed model, or a shape with unknown sizes.

    Example:
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
        size = _size(layer)
        if not size:
            continue
        of_inputs = "Transpose" in type(layer).__name__ or hasattr(
            layer, "cell"
        )  # a cell runs at each step it is given
        positions = given[1:-1] if of_inputs else made[1:-1]
        if None in positions:
            raise ModelError(
                f"Multiply-adds need a fixed input shape. Received: {model.name!r}, where {layer.name} makes "
                f"{tuple(made)}. Build the model with keras.Input of a fixed shape."
            )
        attended = math.prod(positions) ** 2 * _attention_width(layer)
        counts[layer.name] = counts.get(layer.name, 0) + size * math.prod(positions) + attended
    return counts


def _size(layer: Any) -> int:
    """Returns how many weights multiply at each position."""
    cell = getattr(layer, "cell", None)
    if cell is not None:
        return math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)
    if _attention_width(layer):
        return sum(math.prod(getattr(layer, name).kernel.shape) for name in _PROJECTIONS)
    return sum(math.prod(getattr(layer, name).shape) for name in _KERNELS if getattr(layer, name, None) is not None)


def _attention_width(layer: Any) -> int:
    """Returns the multiply-adds of one position attending to one other, all heads together."""
    if type(layer).__name__ != "MultiHeadAttention":
        return 0
    return layer.num_heads * (layer.key_dim + layer.value_dim)


def _calls(model: keras.Model) -> Iterator[tuple[Any, tuple, tuple]]:
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
                yield node.operation, node.arguments.keras_tensors[0].shape, node.outputs[0].shape
