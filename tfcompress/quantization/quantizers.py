"""How a float flatbuffer with ranges becomes an integer one: by one of LiteRT's two quantizers.

TFLiteConverter's own MLIR quantizer is called here, ai-edge-quantizer in ``ai_edge_quantizer``; both get the same ranges. Also which
tensors need no range of their own, because TFLite prescribes it or because the op only moves values. Ranges are measured
in ``calibration`` or learned in training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConversionError
from ..system import converter_silenced
from ..tflite import flatbuffer
from . import ai_edge_quantizer
from .precision import Rule
from .targets import BACKENDS, Backend, Target

__all__ = ["complete_ranges", "needed_ranges", "origins", "quantize", "resolve_backend"]


_SAME_SCALE = frozenset(
    [
        "RESHAPE",
        "MAX_POOL_2D",
        "AVERAGE_POOL_2D",
        "REDUCE_MAX",
        "REDUCE_MIN",
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
    names = flatbuffer.activation_tensors(model)
    computed = set(names)
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        # What is moved out of a constant, such as an embedding's rows, follows no computed tensor.
        follows = name in _SAME_SCALE and any(int(index) in computed for index in operator.inputs)
        if follows or name in _PRESCRIBED:
            free.update(int(index) for index in operator.outputs)
    return [flatbuffer.tensor_name(graph.tensors[index]) for index in names if index not in free]


def origins(
    content: bytes, ranges: Mapping[str, object], trained: Mapping[str, object], measured: Mapping[str, object]
) -> dict[str, str]:
    """Returns where the range of each tensor came from.

    Args:
        content: bytes of the float ``.tflite`` file.
        ranges: every range, by tensor name.
        trained: those that were learned.
        measured: those that were calibrated.

    Returns:
        By tensor name "trained", "prescribed" (by TFLite, for the operator), "follows" (the operator only moves values)
        or "calibrated".
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    kinds: dict[str, str] = {}
    for operator in graph.operators:
        op = flatbuffer.op_name(model, operator)
        kind = "prescribed" if op in _PRESCRIBED else "follows" if op in _SAME_SCALE else None
        for index in operator.outputs if kind else ():
            kinds[flatbuffer.tensor_name(graph.tensors[int(index)])] = str(kind)
    found = {}
    for name in ranges:
        if name in trained:
            found[name] = "trained"
        else:
            found[name] = kinds.get(name, "calibrated" if name in measured else "follows")
    return found


def resolve_backend(backend: str | None, target: Target, rules: Sequence[Rule] = ()) -> Backend:
    """Returns the quantizer for a target: TensorFlow's where it can, ai-edge-quantizer for the rest.

    Args:
        backend: "tensorflow" or "ai-edge-quantizer". None: the first, unless the target has int16 activations or int4
            weights, or there are precision rules.
        target: an integer target.
        rules: precision rules. Default: none.

    Raises:
        ValueError: an unknown name, or TensorFlow's quantizer for what it does not do.

    Examples:
        >>> from .targets import TARGETS
        >>> resolve_backend(None, TARGETS["cpu-int8"]), resolve_backend(None, TARGETS["cpu-int16x8"])
        ('tensorflow', 'ai-edge-quantizer')
    """
    if backend not in (None, *BACKENDS):
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}. Received: backend={backend!r}.")
    reasons = [
        *(["int16 activations"] if target.activations == "int16" else []),
        *(["int4 weights"] if target.weights == "int4" else []),
        *(["precision rules"] if rules else []),
    ]
    if backend == "tensorflow" and reasons:
        raise ValueError(
            f"TensorFlow's quantizer has one precision, int8. Received: backend='tensorflow' with {reasons[0]}. "
            "Leave backend out."
        )
    if backend is None:
        return "ai-edge-quantizer" if reasons else "tensorflow"
    return "tensorflow" if backend == "tensorflow" else "ai-edge-quantizer"


def quantize(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]] | None,
    target: Target,
    *,
    rules: Sequence[Rule] = (),
    backend: str | None = None,
    debug: bool = False,
) -> bytes:
    """Returns the integer file: weights, activations, inputs and outputs of the target's types.

    Args:
        content: bytes of a float ``.tflite`` file with a signature.
        ranges: (lowest, highest) by tensor name; None when the file holds them already (TensorFlow's quantizer only).
        target: an integer target.
        rules: precision of single layers. Default: none.
        backend: as in ``resolve_backend``. Default: None.
        debug: whether the quantizer's log lines are shown. Default: False.

    Raises:
        ConversionError: the quantizer refused the file.
        ValueError: a backend that cannot do it, or a rule that matches nothing.
    """
    chosen = resolve_backend(backend, target, rules)
    if chosen == "ai-edge-quantizer":
        if ranges is None:
            raise ConversionError(
                "ai-edge-quantizer needs a range for each tensor. Received: a model whose inner tensors only "
                "TFLiteConverter's calibrator sees. Choose an int8 target without precision rules."
            )
        with converter_silenced(debug=debug):
            return ai_edge_quantizer.quantize(content, ranges, target, rules)
    return _quantize_by_tensorflow(content, ranges, target, debug)


def _quantize_by_tensorflow(
    content: bytes, ranges: Mapping[str, tuple[float, float]] | None, target: Target, debug: bool
) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    model = flatbuffer.parse(content)
    if ranges is not None:
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
