"""Ops that TFLite computes in float only, replaced in the float flatbuffer by ones that it also has in integers.

Each replacement is exact in float. Which ops may stay in float is decided elsewhere.
"""

from typing import Any

import numpy as np

from ..tflite import flatbuffer

__all__ = ["substitute"]


def substitute(model: Any) -> None:
    """Replaces what has an integer equal in the main subgraph, in place.

    - -x becomes x * -1, as in LayerNormalization;
    - EXPAND_DIMS, which makes a picture of a series, becomes the RESHAPE that every runtime and quantizer knows, where at
      most one axis is dynamic.

    Args:
        model: the schema's object of a float ``.tflite`` file.

    Examples:
        >>> import keras
        >>> from tfcompress.tflite import flatbuffer
        >>> from tfcompress import lowering
        >>> x = keras.Input((4,), name="x")
        >>> lowered = lowering.lower_keras(keras.Model(x, keras.layers.LayerNormalization()(x)))
        >>> "NEG" in flatbuffer.op_counts(flatbuffer.parse(lowered.content))
        False

    Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/kernels/neg.cc knows float32, int32 and
    int64 only.
    """
    graph = model.subgraphs[0]
    for position, operator in enumerate(graph.operators):
        name = flatbuffer.op_name(model, operator)
        if name == "NEG" and graph.tensors[int(operator.inputs[0])].type == flatbuffer.schema().TensorType.FLOAT32:
            graph.operators[position] = _product(model, operator)
        elif name == "EXPAND_DIMS":
            graph.operators[position] = _reshape(model, operator) or operator


def _product(model: Any, operator: Any) -> Any:
    schema, factor = flatbuffer.schema(), _minus_one(model)
    product = flatbuffer.new_operator(model, "MUL", [int(operator.inputs[0]), factor], [int(operator.outputs[0])])
    product.builtinOptionsType = schema.BuiltinOptions.MulOptions
    product.builtinOptions = schema.MulOptionsT()
    return product


def _reshape(model: Any, operator: Any) -> Any | None:
    schema, output = flatbuffer.schema(), model.subgraphs[0].tensors[int(operator.outputs[0])]
    sizes = output.shapeSignature if output.shapeSignature is not None else output.shape
    shape = np.asarray(sizes, np.int32)
    if np.sum(shape == -1) > 1:
        return None
    target = flatbuffer.add_constant(model, shape)
    reshape = flatbuffer.new_operator(model, "RESHAPE", [int(operator.inputs[0]), target], [int(operator.outputs[0])])
    reshape.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    reshape.builtinOptions = schema.ReshapeOptionsT()
    reshape.builtinOptions.newShape = shape
    return reshape


def _minus_one(model: Any) -> int:
    """Returns the index of the constant -1, which it adds once."""
    graph, values = model.subgraphs[0], np.array([-1.0], np.float32)
    found = (i for i, tensor in enumerate(graph.tensors) if flatbuffer.tensor_name(tensor) == "minus_one")
    if (index := next(found, None)) is not None:
        return index
    tensor = flatbuffer.schema().TensorT()
    tensor.name, tensor.buffer = b"minus_one", flatbuffer.new_buffer(model, values)
    tensor.shape, tensor.type = np.array(values.shape, np.int32), flatbuffer.schema().TensorType.FLOAT32
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1
