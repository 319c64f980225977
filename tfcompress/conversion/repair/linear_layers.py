"""Which layers of a file have weights, and how are their weights and inputs one matrix product?

Every convolution, depthwise convolution and fully connected layer is, for each of its groups, outputs = patches @
weights.T + bias. A depthwise layer has one group for each input channel. Reads float and int8 files alike; decides
nothing about rounding.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...quantization import Target
from ...quantization.ai_edge_quantizer import FOUR_BITS
from ...tflite import constant_tensors as stored
from ...tflite import flatbuffer

__all__ = [
    "Layer",
    "assign",
    "bias_of",
    "find_layers",
    "is_per_channel",
    "largest_integer",
    "mean_patch",
    "patches",
    "scales_of",
    "weights_of",
]

NO_ACTIVATION, RELU, RELU6 = 0, 1, 3  # schema.fbs, ActivationFunctionType
SAME = 0  # schema.fbs, Padding
_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Layer:
    """One layer with weights that no other layer shares.

    Args:
        number: its operator's place in the main subgraph.
        op: "CONV_2D", "DEPTHWISE_CONV_2D" or "FULLY_CONNECTED".
        name: name of its output tensor.
        source: index of its input tensor.
        output: index of its output tensor.
        weights: index of its weight tensor.
        bias: index of its bias tensor, None without one.
        shape: of the weights as stored.
        groups: number of groups G; each has O outputs and K inputs to a product.
        strides: (rows, columns).
        dilations: (rows, columns).
        is_same: whether the input is padded so that the output keeps its size.
        activation: number of the fused activation in the schema.

    Examples:
        >>> Layer(0, "FULLY_CONNECTED", "y", 0, 3, 1, 2, (10, 64)).matrix(np.zeros((10, 64))).shape
        (1, 10, 64)
    """

    number: int
    op: str
    name: str
    source: int
    output: int
    weights: int
    bias: int | None
    shape: tuple[int, ...]
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    is_same: bool = False
    activation: int = NO_ACTIVATION

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[-1] if self.op == "DEPTHWISE_CONV_2D" else self.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        """(rows, columns) of a convolution's kernel."""
        return self.shape[1], self.shape[2]

    def matrix(self, weights: np.ndarray) -> np.ndarray:
        """Returns stored weights as (G, O, K); output channel c is row c of the first two axes flattened."""
        if self.op == "DEPTHWISE_CONV_2D":
            return weights.reshape(-1, self.groups, self.channels // self.groups).transpose(1, 2, 0)
        return weights.reshape(self.groups, self.channels // self.groups, -1)

    def stored(self, matrix: np.ndarray) -> np.ndarray:
        """Returns a (G, O, K) matrix in the shape in which the file stores it."""
        if self.op == "DEPTHWISE_CONV_2D":
            return matrix.transpose(2, 0, 1).reshape(self.shape)
        return matrix.reshape(self.shape)


def find_layers(model: Any) -> tuple[Layer, ...]:
    """Returns the layers with constant weights of a parsed file's main subgraph, in order.

    Layers that share one weight tensor are left out: a repair for one of them would be another's damage.
    """
    graph = model.subgraphs[0]
    uses = Counter(int(index) for operator in graph.operators for index in operator.inputs)
    found = []
    for number, operator in enumerate(graph.operators):
        op = flatbuffer.op_name(model, operator)
        if op not in _OPS or uses[int(operator.inputs[1])] > 1:
            continue
        weights = stored.integers(model, graph.tensors[int(operator.inputs[1])])
        if weights is None or weights.dtype not in (np.float32, np.int8):
            continue
        bias = int(operator.inputs[2]) if len(operator.inputs) > 2 and int(operator.inputs[2]) >= 0 else None
        found.append(_layer(graph, number, operator, op, weights.shape, bias))
    return tuple(found)


def _layer(graph: Any, number: int, operator: Any, op: str, shape: tuple[int, ...], bias: int | None) -> Layer:
    options = operator.builtinOptions
    source, output = int(operator.inputs[0]), int(operator.outputs[0])
    name = flatbuffer.tensor_name(graph.tensors[output])
    common = (number, op, name, source, output, int(operator.inputs[1]), bias, shape)
    if op == "FULLY_CONNECTED":
        return Layer(*common, activation=int(options.fusedActivationFunction))
    incoming = int(graph.tensors[source].shape[-1])
    return Layer(
        *common,
        groups=incoming if op == "DEPTHWISE_CONV_2D" else incoming // shape[-1],
        strides=(int(options.strideH), int(options.strideW)),
        dilations=(int(options.dilationHFactor), int(options.dilationWFactor)),
        is_same=int(options.padding) == SAME,
        activation=int(options.fusedActivationFunction),
    )


def is_per_channel(layer: Layer, target: Target) -> bool:
    """Returns whether the target gives each of the layer's output channels a scale of its own."""
    return target.per_channel and (layer.op != "FULLY_CONNECTED" or target.per_channel_dense)


def largest_integer(layer: Layer, target: Target) -> int:
    """Returns the largest integer that the target has for the layer's weights: 127, or 7 with four bits."""
    return 7 if target.weights == "int4" and layer.op in FOUR_BITS else 127


def scales_of(matrix: np.ndarray, *, per_channel: bool, largest: int = 127) -> np.ndarray:
    """Returns the size of a weight's step of each output channel, as the quantizers choose it: max |w| / largest.

    Args:
        matrix: weights (G, O, K), float.
        per_channel: whether each output channel has its own.
        largest: the largest integer of the weights. Default: 127.

    Returns:
        (G, O, 1) float64, above 0; 1 where all weights are 0.

    Examples:
        >>> scales_of(np.array([[[1.0, -2.54], [0.0, 1.27]]]), per_channel=True).ravel().tolist()
        [0.02, 0.01]
    """
    most = np.abs(matrix.astype(np.float64)).max(axis=2 if per_channel else None, keepdims=True)
    return np.broadcast_to(np.where(most > 0, most / largest, 1.0), (*matrix.shape[:2], 1)).copy()


def weights_of(model: Any, layer: Layer) -> np.ndarray:
    """Returns the layer's weights as float64 (G, O, K): those stored, or what its integers stand for."""
    return layer.matrix(_real(model, layer.weights, axis=3 if layer.op == "DEPTHWISE_CONV_2D" else 0))


def bias_of(model: Any, layer: Layer) -> np.ndarray:
    """Returns the layer's bias as float64 (channels,), zeros without one."""
    return np.zeros(layer.channels) if layer.bias is None else _real(model, layer.bias, axis=0)


def _real(model: Any, index: int, *, axis: int) -> np.ndarray:
    tensor = model.subgraphs[0].tensors[index]
    values = stored.integers(model, tensor)
    real = np.asarray(values, np.float64)
    if real.size and np.asarray(values).dtype.kind == "i":
        scale = np.asarray(tensor.quantization.scale, np.float64)
        real = real * (scale.reshape([-1 if i == axis else 1 for i in range(real.ndim)]) if scale.size > 1 else scale)
    return real


def assign(model: Any, layer: Layer, slot: int, values: np.ndarray) -> None:
    """Writes ``values`` as the layer's weights (slot 1) or bias (slot 2), in a buffer of its own.

    A converter stores equal constants once, so that the zero biases of two layers may be one tensor.

    Args:
        model: a parsed file, changed in place.
        layer: one of its layers.
        slot: 1 or 2.
        values: in the shape and dtype as the file stores them.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    operator = graph.operators[layer.number]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    inputs = [int(index) for index in operator.inputs]
    inputs += [-1] * (slot + 1 - len(inputs))
    uses = sum(int(index) == inputs[slot] for other in graph.operators for index in other.inputs)
    if inputs[slot] >= 0 and uses == 1:
        held = graph.tensors[inputs[slot]].buffer
        if held and sum(tensor.buffer == held for part in model.subgraphs for tensor in part.tensors) == 1:
            model.buffers[held] = buffer  # what nobody reads any more would stay in the file
            return
        model.buffers.append(buffer)
        graph.tensors[inputs[slot]].buffer = len(model.buffers) - 1
        return
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name = f"{layer.name}/{'weights' if slot == 1 else 'bias'}/repaired".encode()
    tensor.buffer, tensor.shape = len(model.buffers) - 1, np.array(values.shape, np.int32)
    tensor.type = schema.TensorType.FLOAT32
    if inputs[slot] >= 0:
        tensor.type, tensor.quantization = graph.tensors[inputs[slot]].type, graph.tensors[inputs[slot]].quantization
    graph.tensors.append(tensor)
    inputs[slot] = len(graph.tensors) - 1
    operator.inputs = np.array(inputs, np.int32)


def _windows(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Returns the view (n, rows, columns, C, kernel rows, kernel columns) of all that a convolution reads."""
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(layer.kernel, layer.dilations, strict=True)]
    if layer.is_same:
        missing = []
        for size, stride, far in zip(values.shape[1:3], layer.strides, reach, strict=True):
            total = max((-(-size // stride) - 1) * stride + far - size, 0)
            missing.append((total // 2, total - total // 2))
        values = np.pad(values, [(0, 0), *missing, (0, 0)])
    view = np.lib.stride_tricks.sliding_window_view(values, reach, axis=(1, 2))
    (down, right), (tall, wide) = layer.strides, layer.dilations
    return view[:, ::down, ::right, :, ::tall, ::wide]


def patches(layer: Layer, values: np.ndarray, *, positions: int, seed: int = 0) -> np.ndarray:
    """Returns what meets the weights: (G, M, K) float32, for at most ``positions`` places of each sample.

    Args:
        layer: the layer.
        values: its input, (n, ...) float.
        positions: largest number of output positions of a sample; the same ones for all samples.
        seed: which positions. Default: 0.

    Examples:
        >>> layer = Layer(0, "CONV_2D", "y", 0, 3, 1, 2, (8, 3, 3, 2), is_same=True)
        >>> patches(layer, np.ones((4, 5, 5, 2)), positions=10).shape
        (1, 40, 18)
    """
    if layer.op == "FULLY_CONNECTED":
        return values.reshape(1, -1, layer.shape[1]).astype(np.float32)
    view = _windows(layer, values)
    rows, columns = view.shape[1:3]
    chosen = np.arange(rows * columns)
    if positions < chosen.size:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, positions, replace=False))
    taken = view[:, chosen // columns, chosen % columns].astype(np.float32)  # (n, P, C, kh, kw)
    taken = taken.reshape(-1, layer.groups, taken.shape[2] // layer.groups, *layer.kernel)  # (M, G, C/G, kh, kw)
    return taken.transpose(1, 0, 3, 4, 2).reshape(layer.groups, taken.shape[0], -1)


def mean_patch(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Returns the mean of all patches over samples and positions: (G, K) float64.

    Examples:
        >>> layer = Layer(0, "CONV_2D", "y", 0, 3, 1, 2, (8, 1, 1, 2))
        >>> mean_patch(layer, np.arange(8.0).reshape(1, 2, 2, 2)).tolist()
        [[3.0, 4.0]]
    """
    if layer.op == "FULLY_CONNECTED":
        return values.reshape(1, -1, layer.shape[1]).mean(axis=1, dtype=np.float64)
    mean = _windows(layer, values).mean(axis=(0, 1, 2), dtype=np.float64)  # (C, kh, kw)
    mean = mean.reshape(layer.groups, -1, *layer.kernel)
    return mean.transpose(0, 2, 3, 1).reshape(layer.groups, -1)
