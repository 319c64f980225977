"""Which channels of a model belong together, so that all of them can go at once.

Channels that a residual ties, or that groups lose in equal numbers, are one; those that the same layers make are ranked
against each other. How channels are followed through layers is known to ``channel_tracing``. Nothing here trains or builds
models.
"""

from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import interception
from .channel_tracing import ChannelTracer, layer_graph

__all__ = ["Block", "ChannelPlan", "Parameter", "plan"]


@dataclass(frozen=True)
class Parameter:
    """One variable of a layer and what the indices of its axes stand for.

    Args:
        path: the layer's path, see ``interception.layer_paths``.
        attribute: the layer's attribute that holds the variable.
        labels: label of each index, by axis.
        own: the axis whose channels this parameter belongs to: zero it there and the channel is zero. None for a
            parameter that only reads channels.
    """

    path: str
    attribute: str
    labels: dict[int, np.ndarray]
    own: int | None


@dataclass(frozen=True)
class Block:
    """Channels that are ranked against each other: those that the same layers make.

    Args:
        name: path of the first layer that makes them.
        makers: paths of all of them; more than one where a residual ties them.
        labels: the labels, int64 (n,).
        copies: how many channels of one layer a label stands for; more than one where groups lose equal numbers. Default: 1.
    """

    name: str
    makers: tuple[str, ...]
    labels: np.ndarray
    copies: int = 1


@dataclass(frozen=True)
class ChannelPlan:
    """The channels of a model.

    Args:
        parameters: every variable that has channels.
        blocks: the channels that can be removed.
        widths: label of each output channel by path of a layer whose configuration holds their number; (groups, channels of
            a group) for a Reshape that divides them.
        kept: paths of layers whose channels all stay, with the reason.
    """

    parameters: tuple[Parameter, ...]
    blocks: tuple[Block, ...]
    widths: dict[str, np.ndarray]
    kept: dict[str, str]


def plan(model: keras.Model) -> ChannelPlan:
    """Returns which channels of ``model`` belong together.

    Args:
        model: a functional or Sequential Keras 3 model, channels last; models inside it keep what crosses their border.

    Raises:
        TrainingError: a subclassed model, or one that is not built.

    Examples:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="conv"), keras.layers.BatchNormalization(),
        ...     keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="head")])
        >>> [(block.name, len(block.labels)) for block in plan(model).blocks]
        [('conv', 16)]
    """
    graph = layer_graph(model)
    if graph is None:
        raise TrainingError(
            f"Channels are followed along the layers' graph. Received: {model.name!r}, a subclassed model or one that is "
            "not built. Build it with keras.Model(inputs, outputs) or a Sequential that begins with keras.Input."
        )
    tracer = ChannelTracer({id(layer): path for path, layer in interception.layer_paths(model).items()})
    for tensor in graph.inputs:
        tracer.know_fixed(tensor)
    tracer.walk(graph)
    for tensor in graph.outputs:
        tracer.labels.fix(tracer.known[id(tensor)].labels)
    return _gathered(tracer)


def _gathered(tracer: ChannelTracer) -> ChannelPlan:
    """Returns the plan once everything has been followed."""
    tracer.settle()
    parameters = tuple(
        Parameter(tracer.paths[layer], name, {axis: tracer.labels.roots(these) for axis, these in labels.items()}, own)
        for (layer, name), (labels, own) in tracer.parameters.items()
    )
    widths = {
        tracer.paths[layer]: tracer.labels.roots(labels.ravel()).reshape(labels.shape)
        for layer, labels in tracer.made.items()
    }
    fixed = tracer.labels.fixed()
    makers: dict[int, list[str]] = {}
    copies: dict[int, int] = {}
    for parameter in parameters:
        if parameter.attribute.endswith("kernel") and parameter.own is not None and parameter.path in widths:
            for label, count in Counter(parameter.labels[parameter.own].tolist()).items():
                makers.setdefault(label, []).append(parameter.path)
                copies[label] = min(count, copies.get(label, count))
    blocks: dict[tuple[str, ...], list[int]] = {}
    for label, paths in makers.items():
        if label not in fixed:
            blocks.setdefault(tuple(dict.fromkeys(paths)), []).append(label)
    return ChannelPlan(
        parameters,
        tuple(
            Block(paths[0], paths, np.array(labels, np.int64), copies[labels[0]]) for paths, labels in blocks.items()
        ),
        widths,
        tracer.kept,
    )
