"""How do channels of very different size come to share one scale without loss? By scaling pairs of layers.

Dividing an output channel of one layer by s > 0 and multiplying what the next layer does with it by s changes nothing,
because relu(x / s) = relu(x) / s. The file computes the same function afterwards, with ranges that suit one scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...quantization import Target
from ...tflite import flatbuffer
from .activations import channel_bounds
from .linear_layers import NO_ACTIVATION, RELU, RELU6, Layer, assign, bias_of, find_layers, is_per_channel, weights_of

__all__ = ["Equalized", "Pair", "balance", "equalize", "find_pairs", "rescale"]

# Ops that treat every channel (last axis) alike and commute with a positive factor.
_TRANSPARENT = frozenset(("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RESHAPE"))
_SWEEPS = 50
_SETTLED = 1e-3  # a change of all factors below this ends the sweeps
_LARGEST_FACTOR = 1e6  # a channel that is almost always 0 would otherwise be blown up beyond float32's comfort
_CLIP = 6.0  # of RELU6


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing between them that a factor for each channel would not pass through.

    Args:
        first: the layer whose output channels are divided.
        second: the layer whose inputs are multiplied.
        between: indices of the tensors whose values change.
    """

    first: Layer
    second: Layer
    between: tuple[int, ...]


@dataclass(frozen=True)
class Equalized:
    """A float file with equalized channels.

    Args:
        content: the bytes of the file.
        pairs: number of pairs of layers that were scaled.
        changed: names of the tensors whose ranges no longer hold.
        largest_factor: the largest of all factors and their inverses; 1 if nothing was scaled.
    """

    content: bytes
    pairs: int
    changed: frozenset[str]
    largest_factor: float


def balance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the factor by which each channel is divided in the first layer and multiplied in the second.

    s = sqrt(first / second), so that both have the range sqrt(first * second) afterwards. A channel of which one range
    is 0 costs nothing there; its other one becomes the median of the channels that have both.

    Args:
        first: range of each channel before, (C,), not negative.
        second: range of what reads it, (C,), not negative.

    Examples:
        >>> balance(np.array([8.0, 0.5, 0.0]), np.array([2.0, 2.0, 1.0])).tolist()
        [2.0, 0.5, 2.5]

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019,
    https://arxiv.org/abs/1906.04721, equation 11.
    """
    usable = (first > 0) & (second > 0)
    if not usable.any():
        return np.ones(len(first))
    factors = np.ones(len(first))
    factors[usable] = np.sqrt(first[usable] / second[usable])
    middle = np.median(np.sqrt(first[usable] * second[usable]))
    unread, silent = (first > 0) & ~usable, (second > 0) & ~usable
    factors[unread] = first[unread] / middle
    factors[silent] = middle / second[silent]
    return np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def find_pairs(model: Any) -> tuple[Pair, ...]:
    """Returns the pairs of a parsed float file that can be equalized.

    The first layer has no activation, RELU or RELU6, and its output goes nowhere but into the second, directly or
    through padding, pooling, a mean over positions or a reshape that keeps channels innermost.
    """
    graph = model.subgraphs[0]
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers.setdefault(int(index), []).append(operator)
    outputs = {int(index) for index in graph.outputs}
    layers = find_layers(model)
    by_operator = {id(graph.operators[layer.number]): layer for layer in layers}
    pairs = []
    for first in layers:
        if first.activation not in (NO_ACTIVATION, RELU, RELU6):
            continue
        between, index = [first.output], first.output
        while index not in outputs and len(readers.get(index, ())) == 1:
            reader = readers[index][0]
            second = by_operator.get(id(reader))
            if second is not None:
                if second.source == index and _reads_channels(second, first.channels):
                    pairs.append(Pair(first, second, tuple(between)))
                break
            if not _is_transparent(model, reader, index, first.channels):
                break
            index = int(reader.outputs[0])
            between.append(index)
    return tuple(pairs)


def _reads_channels(second: Layer, channels: int) -> bool:
    if second.op == "DEPTHWISE_CONV_2D":
        return second.groups == channels
    if second.op == "FULLY_CONNECTED":
        return second.shape[1] % channels == 0
    return second.groups == 1 and second.shape[3] == channels


def _is_transparent(model: Any, operator: Any, source: int, channels: int) -> bool:
    graph = model.subgraphs[0]
    name = flatbuffer.op_name(model, operator)
    if name not in _TRANSPARENT or int(operator.inputs[0]) != source:
        return False
    options = operator.builtinOptions
    if getattr(options, "fusedActivationFunction", NO_ACTIVATION) not in (NO_ACTIVATION, RELU):
        return False
    incoming = graph.tensors[source].shape
    outgoing = graph.tensors[int(operator.outputs[0])].shape
    if name == "MEAN":
        axes = flatbuffer.constant(model, graph.tensors[int(operator.inputs[1])])
        return axes is not None and all(int(axis) % len(incoming) != len(incoming) - 1 for axis in np.ravel(axes))
    if name == "PAD":
        amounts = flatbuffer.constant(model, graph.tensors[int(operator.inputs[1])])
        return amounts is not None and not np.any(amounts[-1])
    return len(outgoing) > 0 and int(outgoing[-1]) % channels == 0


def _column_ranges(second: Layer, weights: np.ndarray, channels: int) -> np.ndarray:
    """Returns the largest absolute weight that meets each input channel."""
    if second.op == "DEPTHWISE_CONV_2D":
        return np.abs(weights).max(axis=(1, 2))  # (C, multiplier, K)
    return np.abs(weights).reshape(-1, channels).max(axis=0)  # the channel is the innermost part of K


def _scale_columns(second: Layer, weights: np.ndarray, factors: np.ndarray) -> np.ndarray:
    if second.op == "DEPTHWISE_CONV_2D":
        return weights * factors[:, None, None]
    return (weights.reshape(-1, len(factors)) * factors).reshape(weights.shape)


def equalize(content: bytes, target: Target, samples: Mapping[str, np.ndarray], *, debug: bool = False) -> Equalized:
    """Returns the file with the channels of all pairs equalized; it computes the same function.

    Where the first layer has one scale for its whole weight tensor, its channels' ranges are those of its weights, as
    in the paper. Where it has a scale for each channel they no longer matter, and the ranges are those of its outputs
    on the samples, as those share one scale; what reads them with a scale for each channel (a depthwise layer) does not
    matter either, so that all outputs come to have the same range. Pairs are swept until the factors settle.

    A RELU6 stays as it is: a channel that it clips on the samples is not scaled, and others only so far that their
    largest value does not reach the clip. The function is then preserved on the samples and, for values that the
    samples never reach, clipped elsewhere than at 6. Without RELU6 it is preserved for every input.

    Args:
        content: bytes of a float file with a signature.
        target: what the file will be quantized for.
        samples: by input name, (n, ...), real numbers.
        debug: whether the interpreter's log lines are shown. Default: False.

    Source: Nagel et al., 2019, https://arxiv.org/abs/1906.04721, section 4.1; the square root of activation over weight
    range is that of Xiao et al., "SmoothQuant", 2022, https://arxiv.org/abs/2211.10438. Ours keeps RELU6 where the
    former replaces it by RELU.
    """
    model = flatbuffer.parse(content)
    pairs = find_pairs(model)
    if not pairs:
        return Equalized(content, 0, frozenset(), 1.0)
    bounds = channel_bounds(model, samples, [pair.first.output for pair in pairs], debug=debug)
    layers = {layer.number: layer for pair in pairs for layer in (pair.first, pair.second)}
    weights = {number: weights_of(model, layer) for number, layer in layers.items()}
    total = {pair.first.number: np.ones(pair.first.channels) for pair in pairs}
    fixed = {
        pair.first.number: bounds[pair.first.output] >= _CLIP * (1 - 1e-6)
        for pair in pairs
        if pair.first.activation == RELU6
    }
    for _ in range(_SWEEPS):
        moved = 0.0
        for pair in pairs:
            number = pair.first.number
            factors = _factors(pair, weights, bounds[pair.first.output], target)
            if number in fixed:
                lowest = bounds[pair.first.output] / _CLIP
                factors = np.where(fixed[number], 1.0, np.maximum(factors, lowest))
            bounds[pair.first.output] = bounds[pair.first.output] / factors
            rows = factors.reshape(pair.first.groups, -1, 1)
            weights[number] = weights[number] / rows
            weights[pair.second.number] = _scale_columns(pair.second, weights[pair.second.number], factors)
            total[number] *= factors
            moved = max(moved, float(np.abs(np.log(factors)).max()))
        if moved < _SETTLED:
            break
    changed = {flatbuffer.tensor_name(model.subgraphs[0].tensors[index]) for pair in pairs for index in pair.between}
    largest = max(float(np.exp(np.abs(np.log(factors)).max())) for factors in total.values())
    scaled = rescale(content, {pair.first.name: total[pair.first.number] for pair in pairs})
    return Equalized(scaled, len(pairs), frozenset(changed), largest)


def rescale(content: bytes, factors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the file with each pair's first layer divided by factors and its second multiplied by them.

    Args:
        content: bytes of a float file.
        factors: by name of the first layer's output tensor (channels,), above 0; other pairs stay as they are. Where a
            RELU6 lies between, the function changes unless it clips neither before nor after.
    """
    model = flatbuffer.parse(content)
    weights: dict[int, np.ndarray] = {}
    layers: dict[int, Layer] = {}
    for pair in find_pairs(model):
        if pair.first.name not in factors:
            continue
        by = np.asarray(factors[pair.first.name], np.float64)
        for layer in (pair.first, pair.second):
            layers[layer.number] = layer
            weights.setdefault(layer.number, weights_of(model, layer))
        weights[pair.first.number] = weights[pair.first.number] / by.reshape(pair.first.groups, -1, 1)
        weights[pair.second.number] = _scale_columns(pair.second, weights[pair.second.number], by)
        if pair.first.bias is not None:
            assign(model, pair.first, 2, (bias_of(model, pair.first) / by).astype(np.float32))
    for number, layer in layers.items():
        assign(model, layer, 1, layer.stored(weights[number]).astype(np.float32))
    return flatbuffer.pack(model)


def _factors(pair: Pair, weights: Mapping[int, np.ndarray], bounds: np.ndarray, target: Target) -> np.ndarray:
    first = bounds
    if not is_per_channel(pair.first, target):
        first = np.abs(weights[pair.first.number]).max(axis=2).ravel()
        both, bare = (first > 0) & (bounds > 0), (first == 0) & (bounds > 0)
        if both.any():  # a channel without weights answers its bias, which shares a scale with the other outputs
            first = np.where(bare, bounds * np.median(first[both] / bounds[both]), first)
    if pair.second.op == "DEPTHWISE_CONV_2D" and is_per_channel(pair.second, target):
        return _even(first)
    return balance(first, _column_ranges(pair.second, weights[pair.second.number], len(bounds)))


def _even(ranges: np.ndarray) -> np.ndarray:
    """Returns factors after which all ranges equal their geometric mean; 1 for a channel that is always 0."""
    usable = ranges > 0
    if not usable.any():
        return np.ones_like(ranges)
    middle = np.exp(np.log(ranges[usable]).mean())
    return np.clip(np.where(usable, ranges / middle, 1.0), 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
