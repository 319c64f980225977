"""What part does each constant of a ``.tflite`` file play, and how much arithmetic does each op do?

Weights are what an op multiplies its input with, biases what it adds; a table says at which input they stand. Everything
else that is stored (shapes, axes, tables of unfused arithmetic) is another constant. Reads the schema's objects only.
"""

import math
from collections.abc import Sequence
from typing import Any

from . import flatbuffer

__all__ = ["BIAS", "WEIGHTS", "buffer_roles", "input_roles", "multiply_adds"]

WEIGHTS = "weights"
BIAS = "biases"

_LSTM_WEIGHTS = (*range(1, 12), 16)
_LSTM_BIASES = (12, 13, 14, 15, 17)
_BACKWARD = 17  # a bidirectional LSTM repeats the weights and biases this many inputs later

_WEIGHT_SLOTS: dict[str, tuple[int, ...]] = {
    "CONV_2D": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "TRANSPOSE_CONV": (1,),
    "CONV_3D": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "FULLY_CONNECTED": (1,),
    "BATCH_MATMUL": (0, 1),
    "EMBEDDING_LOOKUP": (1,),
    "GATHER": (0,),
    "RNN": (1, 2),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
    "SVDF": (1, 2),
    "LSTM": _LSTM_WEIGHTS,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM_WEIGHTS,
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*_LSTM_WEIGHTS, *(slot + _BACKWARD for slot in _LSTM_WEIGHTS)),
}
_BIAS_SLOTS: dict[str, tuple[int, ...]] = {
    "CONV_2D": (2,),
    "DEPTHWISE_CONV_2D": (2,),
    "TRANSPOSE_CONV": (3,),
    "CONV_3D": (2,),
    "CONV_3D_TRANSPOSE": (3,),
    "FULLY_CONNECTED": (2,),
    "RNN": (3,),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (3,),
    "SVDF": (3,),
    "LSTM": _LSTM_BIASES,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM_BIASES,
    "BIDIRECTIONAL_SEQUENCE_LSTM": (*_LSTM_BIASES, *(slot + _BACKWARD for slot in _LSTM_BIASES)),
}
_PASSES_CONSTANTS = frozenset(("DEQUANTIZE", "DENSIFY"))  # between stored half-precision or sparse weights and their op


def input_roles(op: str) -> dict[int, str]:
    """Returns ``WEIGHTS`` or ``BIAS`` by the number of the op's input; activations and other constants are left out.

    Examples:
        >>> input_roles("TRANSPOSE_CONV")
        {1: 'weights', 3: 'biases'}
    """
    return dict.fromkeys(_WEIGHT_SLOTS.get(op, ()), WEIGHTS) | dict.fromkeys(_BIAS_SLOTS.get(op, ()), BIAS)


def buffer_roles(model: Any) -> dict[int, str]:
    """Returns ``WEIGHTS`` or ``BIAS`` by the number of the buffer; a buffer that is both counts as weights.

    Args:
        model: the schema's object of a file.
    """
    found: dict[int, str] = {}
    for graph in model.subgraphs:
        roles: dict[int, str] = {}
        for operator in reversed(graph.operators or []):
            op = flatbuffer.op_name(model, operator)
            inputs = [] if operator.inputs is None else [int(index) for index in operator.inputs]
            if op in _PASSES_CONSTANTS and inputs and len(operator.outputs):
                role = roles.get(int(operator.outputs[0]))
                if role is not None:
                    roles.setdefault(inputs[0], role)
            for slot, role in input_roles(op).items():
                if slot < len(inputs) and inputs[slot] >= 0 and roles.get(inputs[slot]) != WEIGHTS:
                    roles[inputs[slot]] = role
        for index, role in roles.items():
            number = graph.tensors[index].buffer
            if found.get(number) != WEIGHTS:
                found[number] = role
    return found


def multiply_adds(op: str, inputs: Sequence[Sequence[int] | None], outputs: Sequence[Sequence[int]]) -> int:
    """Returns how many multiplications of an activation with a weight (or of two activations) the op does.

    Convolutions, matrix products and recurrent layers count; elementwise arithmetic, pooling and activations count as 0.
    A convolution of ``kh x kw`` over ``c`` channels does ``kh * kw * c`` of them for each of its outputs.

    Args:
        op: as in the schema.
        inputs: shape of each input, None for an input that is left out.
        outputs: shape of each output.

    Examples:
        >>> multiply_adds("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3), (16,)], [(1, 8, 8, 16)])
        27648
    """
    shapes = [None if shape is None else [abs(int(size)) for size in shape] for shape in inputs]
    results = [[abs(int(size)) for size in shape] for shape in outputs]
    count = _COUNTERS.get(op)
    try:
        return count(shapes, results) if count is not None else 0
    except (IndexError, TypeError, ZeroDivisionError):  # shapes that this op cannot have: a damaged file
        return 0


def _convolution(inputs: list, outputs: list) -> int:
    return math.prod(outputs[0]) * math.prod(inputs[1][1:])  # weights (out, kh, kw, in)


def _depthwise(inputs: list, outputs: list) -> int:
    return math.prod(outputs[0]) * math.prod(inputs[1][1:3])  # weights (1, kh, kw, out)


def _transposed(inputs: list, outputs: list) -> int:
    return math.prod(inputs[2]) * math.prod(inputs[1]) // inputs[1][3]  # weights (out, kh, kw, in), input third


def _convolution_3d(inputs: list, outputs: list) -> int:
    return math.prod(outputs[0]) * math.prod(inputs[1][:4])  # weights (d, h, w, in, out)


def _transposed_3d(inputs: list, outputs: list) -> int:
    return math.prod(inputs[2]) * math.prod(inputs[1][:4])  # weights (d, h, w, out, in)


def _dense(inputs: list, outputs: list) -> int:
    return math.prod(outputs[0]) * inputs[1][1]  # weights (out, in)


def _matrix_product(inputs: list, outputs: list) -> int:
    rows = outputs[0][-2]
    return math.prod(outputs[0]) * (inputs[0][-1] * inputs[0][-2] // rows)  # right also where the first is transposed


def _recurrent(slots: Sequence[int]) -> Any:
    def count(inputs: list, outputs: list) -> int:
        matrices = [inputs[slot] for slot in slots if slot < len(inputs) and inputs[slot] is not None]
        steps = math.prod(inputs[0][:-1])  # batch and time
        return steps * sum(math.prod(shape) for shape in matrices)

    return count


_COUNTERS: dict[str, Any] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D": _convolution_3d,
    "CONV_3D_TRANSPOSE": _transposed_3d,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matrix_product,
    **{
        op: _recurrent(_WEIGHT_SLOTS[op])
        for op in (
            "RNN",
            "UNIDIRECTIONAL_SEQUENCE_RNN",
            "SVDF",
            "LSTM",
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            "BIDIRECTIONAL_SEQUENCE_LSTM",
        )
    },
}
