"""How a float flatbuffer with ranges becomes an integer one: by TFLiteConverter's own MLIR quantizer.

Also which tensors need no range of their own, because TFLite prescribes it or because the op only moves values. Ranges
are measured in ``calibration`` or learned in training.
"""

from collections.abc import Mapping
from typing import Any

from . import flatbuffer
from .errors import ConversionError
from .lowering import converter_silenced
from .targets import Target

__all__ = ["complete_ranges", "needed_ranges", "quantize"]

_SAME_SCALE = frozenset(
    [
        "RESHAPE",
        "MAX_POOL_2D",
        "AVERAGE_POOL_2D",
        "PAD",
        "PADV2",
        "MIRROR_PAD",
        "TRANSPOSE",
        "SQUEEZE",
        "EXPAND_DIMS",
        "STRIDED_SLICE",
        "SLICE",
        "SPLIT",
        "SPLIT_V",
        "GATHER",
        "GATHER_ND",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SPACE_TO_DEPTH",
        "DEPTH_TO_SPACE",
        "BATCH_TO_SPACE_ND",
        "SPACE_TO_BATCH_ND",
        "UNPACK",
        "TILE",
        "REVERSE_V2",
        "BROADCAST_TO",
    ]
)
_MOVES_ALL = frozenset(("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"))
# Quantization specification of TFLite: scale and zero point of these outputs are prescribed.
_PRESCRIBED = {
    "LOGISTIC": (0.0, 255 / 256),
    "SOFTMAX": (0.0, 255 / 256),
    "TANH": (-1.0, 127 / 128),
    "L2_NORMALIZATION": (-1.0, 127 / 128),
    "LOG_SOFTMAX": (-255 * 16 / 256, 0.0),
}


def complete_ranges(content: bytes, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Returns ``ranges`` with those that follow from them: prescribed ones, and those of ops that only move values.

    Args:
        content: bytes of a float ``.tflite`` file with unique tensor names.
        ranges: (lowest, highest) by tensor name.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    floats = set(flatbuffer.activation_tensors(model))
    known = {
        index: ranges[flatbuffer.tensor_name(graph.tensors[index])]
        for index in floats
        if flatbuffer.tensor_name(graph.tensors[index]) in ranges
    }
    uses: dict[int, int] = {}
    steps = []
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        incoming = [int(index) for index in operator.inputs if int(index) in floats]
        outgoing = [int(index) for index in operator.outputs if int(index) in floats]
        for index in incoming:
            uses[index] = uses.get(index, 0) + 1
        if name in _PRESCRIBED:
            for index in outgoing:
                known.setdefault(index, _PRESCRIBED[name])
        elif name in _SAME_SCALE and incoming:
            steps.append((name, incoming[0], outgoing))
    settled = -1
    while settled != len(known):
        settled = len(known)
        for name, source, outgoing in steps:
            if source in known:
                for index in outgoing:
                    known.setdefault(index, known[source])
            elif name in _MOVES_ALL and uses[source] == 1 and outgoing and outgoing[0] in known:
                known[source] = known[outgoing[0]]
    return {flatbuffer.tensor_name(graph.tensors[index]): pair for index, pair in known.items()}


def needed_ranges(content: bytes) -> list[str]:
    """Returns the names of the tensors that need a range from training or calibration: the points of the file."""
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    free: set[int] = set()
    for operator in graph.operators:
        if flatbuffer.op_name(model, operator) in _SAME_SCALE or flatbuffer.op_name(model, operator) in _PRESCRIBED:
            free.update(int(index) for index in operator.outputs)
    names = flatbuffer.activation_tensors(model)
    return [flatbuffer.tensor_name(graph.tensors[index]) for index in names if index not in free]


def quantize(
    content: bytes, ranges: Mapping[str, tuple[float, float]], target: Target, *, debug: bool = False
) -> bytes:
    """Returns the integer file: int8 weights and activations, inputs and outputs of the target's types.

    Args:
        content: bytes of a float ``.tflite`` file with a signature.
        ranges: (lowest, highest) by tensor name.
        target: an integer target.
        debug: whether the quantizer's log lines are shown. Default: False.

    Raises:
        ConversionError: the quantizer refused the file.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    model = flatbuffer.parse(content)
    flatbuffer.set_ranges(model, ranges)
    inputs, outputs = _signature_names(model)
    model.signatureDefs = None
    with converter_silenced(debug=debug):
        try:
            quantized = mlir_quantize(
                flatbuffer.pack(model),
                disable_per_channel=not target.per_channel,
                disable_per_channel_for_dense_layers=not target.per_channel_dense,
                input_data_type=tf.as_dtype(target.input_type),
                output_data_type=tf.as_dtype(target.output_type),
            )
        except (RuntimeError, ValueError) as error:
            raise ConversionError(f"TensorFlow's quantizer refused the model: {error}. Run with --debug.") from error
    finished = flatbuffer.parse(quantized)
    flatbuffer.set_signature(finished, inputs, outputs)
    return flatbuffer.pack(finished)


def _signature_names(model: Any) -> tuple[list[str], list[str]]:
    signature = model.signatureDefs[0]

    def names(entries: Any) -> list[str]:
        return [entry.name.decode() if isinstance(entry.name, bytes) else entry.name for entry in entries]

    return names(signature.inputs), names(signature.outputs)
