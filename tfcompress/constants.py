"""What happens to constants of a float flatbuffer that are stored in another way: each becomes plain float32.

Half-precision weights come with a DEQUANTIZE; weights of quantization-aware training with a QUANTIZE/DEQUANTIZE pair,
and get the values that this pair would let through. Edits flatbuffers; runs nothing.
"""

from typing import Any

import numpy as np

from . import flatbuffer

__all__ = ["bake_marks", "fold_half_precision"]


def fold_half_precision(model: Any) -> int:
    """Replaces DEQUANTIZE ops on float16 constants by float32 constants; returns how many.

    Args:
        model: the schema's object of a file, changed in place.
    """
    folded = 0
    for graph in model.subgraphs:
        for operator in list(graph.operators or []):
            if flatbuffer.op_name(model, operator) != "DEQUANTIZE":
                continue
            stored = graph.tensors[int(operator.inputs[0])]
            values = flatbuffer.constant(model, stored)
            if flatbuffer.type_name(stored) != "FLOAT16" or values is None:
                continue
            _store(model, graph.tensors[int(operator.outputs[0])], values.astype(np.float32))
            graph.operators.remove(operator)
            folded += 1
    return folded


def bake_marks(model: Any) -> int:
    """Removes QUANTIZE/DEQUANTIZE pairs behind constants of the main subgraph; returns how many.

    The constant takes the values on the grid of the pair, round(w / scale) * scale, one scale for the tensor or for each
    channel. The range of weights is symmetric and narrow, [-127, 127] * scale, as TFLite's integer kernels take them.

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
        stored = graph.tensors[int(quantizer.outputs[0])]
        _store(model, graph.tensors[int(operator.outputs[0])], _on_grid(values, stored))
        graph.operators.remove(operator)
        baked += 1
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    graph.operators = [
        operator
        for operator in graph.operators
        if int(operator.outputs[0]) not in quantizers or int(operator.outputs[0]) in read
    ]
    return baked


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


def _store(model: Any, tensor: Any, values: np.ndarray) -> None:
    buffer = flatbuffer.new_buffer(model, values)
    tensor.buffer, tensor.quantization = buffer, None
