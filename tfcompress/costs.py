"""What a model costs to run, counted from its layers: multiply-adds and parameters. Nothing is measured here."""

import math
from collections.abc import Iterator
from typing import Any

import keras

from .errors import ModelError

__all__ = ["multiply_adds", "multiply_adds_by_layer"]

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def multiply_adds(model: keras.Model) -> int:
    """Returns how many multiplications (each with an addition) one sample takes in convolutions and Dense layers.

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
        size = sum(math.prod(getattr(layer, name).shape) for name in _KERNELS if getattr(layer, name, None) is not None)
        if not size:
            continue
        positions = given[1:-1] if "Transpose" in type(layer).__name__ else made[1:-1]
        if None in positions:
            raise ModelError(
                f"Multiply-adds need a fixed input shape. Received: {model.name!r}, where {layer.name} makes "
                f"{tuple(made)}. Build the model with keras.Input of a fixed shape."
            )
        counts[layer.name] = counts.get(layer.name, 0) + size * math.prod(positions)
    return counts


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
