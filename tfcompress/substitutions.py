"""Ops that TFLite computes in float only, replaced in the float flatbuffer by ones that it also has in integers.

Each replacement is exact in float. Which ops may stay in float is decided elsewhere.
"""

from typing import Any

import numpy as np

from . import flatbuffer

__all__ = ["substitute"]


def substitute(model: Any) -> None:
    """Replaces what has an integer equal in the main subgraph, in place: -x becomes x * -1, as in LayerNormalization.

    Args:
        model: the schema's object of a float ``.tflite`` file.

    Example:
        >>> import keras
        >>> from tfcompress import flatbuffer, lowering
        >>> x = keras.Input((4,), name="x")
        >>> lowered = lowering.lower_keras(keras.Model(x, keras.layers.LayerNormalization()(x)))
        >>> "NEG" in flatbuffer.op_counts(flatbuffer.parse(lowered.content))
        False

    Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/kernels/neg.cc knows float32, int32 and
    int64 only.
    """
    graph, schema = model.subgraphs[0], flatbuffer.schema()
    minus_one = None
    for position, operator in enumerate(graph.operators):
        if flatbuffer.op_name(model, operator) != "NEG":
            continue
        if graph.tensors[int(operator.inputs[0])].type != schema.TensorType.FLOAT32:
            continue
        if minus_one is None:
            minus_one = _float_constant(model, np.array([-1.0], np.float32))
        product = flatbuffer.new_operator(
            model, "MUL", [int(operator.inputs[0]), minus_one], [int(operator.outputs[0])]
        )
        product.builtinOptionsType = schema.BuiltinOptions.MulOptions
        product.builtinOptions = schema.MulOptionsT()
        graph.operators[position] = product


def _float_constant(model: Any, values: np.ndarray) -> int:
    graph, tensor = model.subgraphs[0], flatbuffer.schema().TensorT()
    tensor.name, tensor.buffer = b"minus_one", flatbuffer.new_buffer(model, values)
    tensor.shape, tensor.type = np.array(values.shape, np.int32), flatbuffer.schema().TensorType.FLOAT32
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
