"""What do the QUANTIZE/DEQUANTIZE pairs of a float file stand for, and how do they come off and go back on?

A converter leaves such a pair (QDQ) where a trace held fake quantization. Behind a constant it becomes the values that it
would let through; behind a computed tensor, a range. Half-precision weights come with a DEQUANTIZE alone and become plain
float32. Edits flatbuffers; runs nothing.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import affine, flatbuffer

__all__ = ["bake_weights", "fold_half_precision", "restore_pairs", "take_ranges"]


def fold_half_precision(model: Any) -> int:
    """Replaces DEQUANTIZE ops on float16 constants by float32 constants; returns how many.

    Args:
        model: the schema's object of a file, changed in place.
    """
    folded = 0
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators or []:
            stored = _dequantized(model, graph, operator)
            values = None if stored is None else flatbuffer.constant(model, stored)
            if stored is None or flatbuffer.type_name(stored) != "FLOAT16" or values is None:
                kept.append(operator)
                continue
            _store(model, graph.tensors[int(operator.outputs[0])], values.astype(np.float32))
            folded += 1
        graph.operators = kept
    return folded


def _dequantized(model: Any, graph: Any, operator: Any) -> Any:
    """Returns what a DEQUANTIZE op reads, None for another op or one that reads or makes nothing."""
    is_one = flatbuffer.op_name(model, operator) == "DEQUANTIZE" and len(operator.inputs) and len(operator.outputs)
    return (
        graph.tensors[int(operator.inputs[0])] if is_one and min(operator.inputs[0], operator.outputs[0]) >= 0 else None
    )


def bake_weights(model: Any) -> int:
    """Removes QUANTIZE/DEQUANTIZE pairs behind constants of the main subgraph; returns how many.

    The constant takes the values on the grid of the pair, round(w / scale) * scale, one scale for the tensor or for each
    channel, and keeps the grid's range as its min and max, for ``restore_pairs``. The range of weights is symmetric and narrow, [-127, 127] * scale, as TFLite's integer kernels take them.

    Args:
        model: the schema's object of a file, changed in place.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, https://arxiv.org/abs/1712.05877.
    """
    graph = model.subgraphs[0]
    quantizers = {
        int(operator.outputs[0]): operator
        for operator in graph.operators
        if flatbuffer.op_name(model, operator) == "QUANTIZE"
    }
    baked = 0
    for operator in list(graph.operators):
        if flatbuffer.op_name(model, operator) != "DEQUANTIZE" or int(operator.inputs[0]) not in quantizers:
            continue
        quantizer = quantizers[int(operator.inputs[0])]
        values = flatbuffer.constant(model, graph.tensors[int(quantizer.inputs[0])])
        if values is None or values.dtype != np.float32:
            continue
        stored, weight = graph.tensors[int(quantizer.outputs[0])], graph.tensors[int(operator.outputs[0])]
        _store(model, weight, _on_grid(values, stored))
        weight.quantization = _symmetric_range(stored)
        graph.operators.remove(operator)
        baked += 1
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    graph.operators = [
        operator
        for operator in graph.operators
        if int(operator.outputs[0]) not in quantizers or int(operator.outputs[0]) in read
    ]
    return baked


def take_ranges(model: Any) -> dict[str, tuple[float, float]]:
    """Removes the QUANTIZE/DEQUANTIZE pairs that fake-quantization nodes left and returns the ranges they stood for.

    Returns:
        (lowest, highest) by name of the tensor that was quantized; the file is a plain float model afterwards.
    """
    graph = model.subgraphs[0]
    ranges: dict[int, tuple[float, float]] = {}
    while True:
        quantizers = {
            int(operator.outputs[0]): operator
            for operator in graph.operators
            if flatbuffer.op_name(model, operator) == "QUANTIZE"
        }
        pair = next(
            (
                (operator, quantizers[int(operator.inputs[0])])
                for operator in graph.operators
                if flatbuffer.op_name(model, operator) == "DEQUANTIZE" and int(operator.inputs[0]) in quantizers
            ),
            None,
        )
        if pair is None:
            break
        dequantize, quantize = pair
        source, stored, restored = int(quantize.inputs[0]), int(quantize.outputs[0]), int(dequantize.outputs[0])
        ranges.setdefault(source, _range_of(graph.tensors[stored]))
        graph.operators.remove(dequantize)
        flatbuffer.replace_tensor(graph, restored, source)
        if not any(stored in flatbuffer.index_list(operator.inputs) for operator in graph.operators):
            graph.operators.remove(quantize)
    _take_half_pairs(model, ranges)
    position = flatbuffer.drop_unused(model)
    flatbuffer.unique_names(model)
    return {
        flatbuffer.tensor_name(graph.tensors[position[old]]): pair for old, pair in ranges.items() if old in position
    }


def _take_half_pairs(model: Any, ranges: dict[int, tuple[float, float]]) -> None:
    """Removes the QUANTIZE ops whose DEQUANTIZE the converter has moved behind a RESHAPE, or has lost there."""
    graph, floating = model.subgraphs[0], flatbuffer.schema().TensorType.FLOAT32
    for quantize in [operator for operator in graph.operators if flatbuffer.op_name(model, operator) == "QUANTIZE"]:
        source, stored = int(quantize.inputs[0]), int(quantize.outputs[0])
        if graph.tensors[source].type != floating:
            continue
        ranges.setdefault(source, _range_of(graph.tensors[stored]))
        graph.operators.remove(quantize)
        flatbuffer.replace_tensor(graph, stored, source)
    changed = True
    while changed:
        changed = False
        for operator in list(graph.operators):
            if (
                flatbuffer.op_name(model, operator) == "DEQUANTIZE"
                and graph.tensors[int(operator.inputs[0])].type == floating
            ):
                graph.operators.remove(operator)
                flatbuffer.replace_tensor(graph, int(operator.outputs[0]), int(operator.inputs[0]))
                changed = True
            elif (
                flatbuffer.op_name(model, operator) == "RESHAPE"
                and graph.tensors[int(operator.inputs[0])].type == floating
            ):
                moved = graph.tensors[int(operator.outputs[0])]
                if moved.type != floating:
                    moved.type, moved.quantization = floating, None
                    changed = True


def restore_pairs(content: bytes, ranges: Mapping[str, tuple[float, float]] | None = None) -> bytes:
    """Returns the file with the QUANTIZE/DEQUANTIZE pairs that ``bake_weights`` and ``take_ranges`` took out.

    TensorFlow's quantizer keeps to the scale of such a pair. Without it, weights are rounded once more, to the scale of
    each channel's largest value, and a tensor behind a pooling takes the scale of the one before. The interpreter does
    not run a pair with a scale for each channel, so the hub is without them.

    Args:
        content: bytes of a float ``.tflite`` file with unique tensor names.
        ranges: (lowest, highest) by tensor name of the activations that were marked. Default: weights only.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    marked: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
    for index, tensor in enumerate(graph.tensors):
        name = flatbuffer.tensor_name(tensor)
        if flatbuffer.constant(model, tensor) is None:
            if ranges and name in ranges:
                parameters = affine.from_range(*ranges[name])
                marked[index] = np.array([parameters.scale], np.float32), np.array([parameters.zero_point]), 0
        elif getattr(tensor.quantization, "min", None) is not None:
            scales = (np.asarray(tensor.quantization.max) / 127).astype(np.float32)
            marked[index] = scales, np.zeros(len(scales), np.int64), tensor.quantization.quantizedDimension
            tensor.quantization = None
    if not marked:
        return content
    restored = {index: _add_pair(model, index, *parameters) for index, parameters in marked.items()}
    after = {index: pair for index, (pair, _) in restored.items()}
    moved = {index: output for index, (_, output) in restored.items()}
    operators = graph.operators
    made = {int(index) for operator in operators for index in operator.outputs}
    graph.operators = [step for index, pair in after.items() if index not in made for step in pair]
    for operator in operators:
        operator.inputs = np.array([moved.get(int(index), int(index)) for index in operator.inputs], np.int32)
        graph.operators.append(operator)
        graph.operators += [step for index in operator.outputs for step in after.get(int(index), ())]
    graph.outputs = np.array([moved.get(int(index), int(index)) for index in graph.outputs], np.int32)
    for signature in model.signatureDefs or []:
        for entry in signature.outputs:
            entry.tensorIndex = moved.get(int(entry.tensorIndex), int(entry.tensorIndex))
    return flatbuffer.pack(model)


def _add_pair(model: Any, index: int, scales: np.ndarray, zero_points: np.ndarray, axis: int) -> tuple[list[Any], int]:
    """Returns the two ops behind the tensor, not yet among the operators, and the index of what they make of it."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[index]
    stored, output = copy.copy(tensor), copy.copy(tensor)
    stored.buffer = output.buffer = 0  # the empty buffer of every file
    name = flatbuffer.tensor_name(tensor)
    stored.name, output.name = f"{name}/quantized".encode(), f"{name}/restored".encode()
    stored.type, output.quantization = flatbuffer.schema().TensorType.INT8, None
    stored.quantization = flatbuffer.schema().QuantizationParametersT()
    stored.quantization.scale, stored.quantization.zeroPoint = scales, zero_points
    stored.quantization.quantizedDimension = axis
    graph.tensors += [stored, output]
    last = len(graph.tensors) - 1
    pair = [
        flatbuffer.new_operator(model, "QUANTIZE", [index], [last - 1]),
        flatbuffer.new_operator(model, "DEQUANTIZE", [last - 1], [last]),
    ]
    return pair, last


def _symmetric_range(stored: Any) -> Any:
    """Returns min and max for each channel where the pair is symmetric, as weights are; None otherwise."""
    zero = 128 if flatbuffer.type_name(stored) == "UINT8" else 0
    if not (np.asarray(stored.quantization.zeroPoint) == zero).all():
        return None
    parameters = flatbuffer.schema().QuantizationParametersT()
    parameters.max = 127 * np.asarray(stored.quantization.scale, np.float32)
    parameters.min = -parameters.max
    parameters.quantizedDimension = stored.quantization.quantizedDimension if len(parameters.max) > 1 else 0
    return parameters


def _on_grid(values: np.ndarray, stored: Any) -> np.ndarray:
    unsigned = flatbuffer.type_name(stored) == "UINT8"
    scale = np.asarray(stored.quantization.scale, np.float32)
    zero = np.asarray(stored.quantization.zeroPoint, np.float32)
    symmetric = bool((zero == (128 if unsigned else 0)).all())
    lowest, highest = (0, 255) if unsigned else (-128, 127)
    if scale.size > 1:
        along = [1] * values.ndim
        along[int(stored.quantization.quantizedDimension)] = -1
        scale, zero = scale.reshape(along), zero.reshape(along)
    steps = np.clip(np.round(values / scale), (lowest - zero) + symmetric, highest - zero)
    return (steps * scale).astype(np.float32)


def _range_of(tensor: Any) -> tuple[float, float]:
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    lowest, highest = (0, 255) if flatbuffer.type_name(tensor) == "UINT8" else (-128, 127)
    return (lowest - zero_point) * scale, (highest - zero_point) * scale


def _store(model: Any, tensor: Any, values: np.ndarray) -> None:
    buffer = flatbuffer.new_buffer(model, values)
    tensor.buffer, tensor.quantization = buffer, None
    tensor.shape, tensor.shapeSignature = np.array(values.shape, np.int32), None
