"""How a float flatbuffer with ranges becomes a quantized one by ai-edge-quantizer: mixed precision, int16, int4.

A target and its precision rules become one recipe of that library; the ranges that were measured or trained here stand in
for its own calibration. Also makes weight-only files (int8, float16) out of float ``.tflite`` files. LiteRT's other
quantizer is in ``quantizers``.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConversionError
from ..tflite import flatbuffer
from .precision import Rule, choose
from .targets import Target

__all__ = ["FOUR_BITS", "float_operators", "oldest_runtime", "quantize", "quantize_weights"]

_MIN_MAX = "min_max_uniform_quantize"
_BITS = {"int8": (8, 8), "int16x8": (8, 16), "int4": (4, 8)}  # of weights and activations, by precision
FOUR_BITS = ("CONV_2D", "FULLY_CONNECTED")  # the operators with an int4 kernel


def quantize(
    content: bytes, ranges: Mapping[str, tuple[float, float]], target: Target, rules: Sequence[Rule] = ()
) -> bytes:
    """Returns the file with the precision that the target, and for some layers a rule, asks for.

    Args:
        content: bytes of a float ``.tflite`` file with unique tensor names and a signature.
        ranges: (lowest, highest) by tensor name, for every float tensor.
        target: an integer target.
        rules: exceptions by layer. Default: none.

    Raises:
        ConversionError: the quantizer refused the file.
        ValueError: a rule matches nothing.
    """
    recipe = [_entry(".*", "*", _config(target, _default(target)))]
    if target.weights == "int4":
        recipe += [_entry(".*", op, _config(target, "int4")) for op in FOUR_BITS]
    elif target.per_channel and not target.per_channel_dense:
        recipe.append(_entry(".*", "FULLY_CONNECTED", _config(target, _default(target), per_channel=False)))
    found = _operators(content)
    for operator, rule in zip(found, choose(rules, [(op.name, op.names) for op in found]), strict=True):
        if rule is not None:
            recipe.append(_ruled(operator, rule, target))
    recipe += _edges(target)
    known = {
        name: {"min": np.full((1, 1), low, np.float32), "max": np.full((1, 1), high, np.float32)}
        for name, (low, high) in ranges.items()
    }
    return _run(content, recipe, known)


def quantize_weights(content: bytes, target: Target) -> bytes:
    """Returns the file with its weights stored as the target asks for, all arithmetic in float.

    Args:
        content: bytes of a float ``.tflite`` file.
        target: one with float activations: int8 weights (activations are quantized while running) or float16 weights.

    Raises:
        ConversionError: the quantizer refused the file.
    """
    if target.weights == "float32":
        return content
    if target.weights == "float16":
        weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
        config = {"weight_tensor_config": weights, "compute_precision": "FLOAT", "explicit_dequantize": True}
        recipe = [_entry(".*", "*", config, algorithm="float_casting")]
    else:
        bits = 4 if target.weights == "int4" else 8
        config = {
            "weight_tensor_config": _weights(bits, per_channel=target.per_channel),
            "compute_precision": "INTEGER",
            "explicit_dequantize": False,
        }
        recipe = [_entry(".*", "*", config)]
    return _run(content, recipe, None)


def float_operators(content: bytes, rules: Sequence[Rule]) -> set[str]:
    """Returns the names of the output tensors of all operators that a rule leaves in float.

    Args:
        content: bytes of the float ``.tflite`` file.
        rules: in order.

    Raises:
        ValueError: a rule matches nothing.
    """
    found = _operators(content)
    chosen = choose(rules, [(op.name, op.names) for op in found])
    kept = [rule is not None and rule.precision is None for rule in chosen]
    return {name for operator, is_float in zip(found, kept, strict=True) if is_float for name in operator.outputs}


# The first runtimes with a kernel for these types: TensorFlow's lite/tools/versioning/op_version.cc and runtime_version.cc.
_EARLY_INT8 = [
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEQUANTIZE",
    "FULLY_CONNECTED",
    "L2_NORMALIZATION",
    "LOGISTIC",
    "LOG_SOFTMAX",
    "MAX_POOL_2D",
    "MAXIMUM",
    "MEAN",
    "MINIMUM",
    "MUL",
    "PACK",
    "PAD",
    "QUANTIZE",
    "RELU6",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "SOFTMAX",
    "SPLIT",
    "STRIDED_SLICE",
    "SUB",
    "TANH",
    "TRANSPOSE",
]
_HYBRID = {"CONV_2D": (2, 4, 0), "DEPTHWISE_CONV_2D": (2, 3, 0), "FULLY_CONNECTED": (2, 17, 0)}


def oldest_runtime(content: bytes, *, written: str | None = None) -> str:
    """Returns the oldest TensorFlow whose interpreter has kernels for the types in a file of ai-edge-quantizer.

    That library leaves what the float file said, which knows nothing of int4 weights or int16 activations.

    Args:
        content: bytes of the finished file.
        written: what the float file said. Default: nothing.

    Examples:
        >>> import keras
        >>> from tfcompress.lowering import lower_keras
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> oldest_runtime(lower_keras(model).content, written="1.5.0")
        '1.5.0'
    """
    model = flatbuffer.parse(content)
    found = [tuple(int(part) for part in (written or "1.5.0").split("."))]
    for graph in model.subgraphs:
        for operator in graph.operators:
            op = flatbuffer.op_name(model, operator)
            tensors = [graph.tensors[int(index)] for index in operator.inputs if int(index) >= 0]
            types = [flatbuffer.type_name(tensor) for tensor in tensors]
            results = [flatbuffer.type_name(graph.tensors[int(index)]) for index in operator.outputs]
            if "INT4" in types:
                found.append((2, 18, 0) if "INT16" in types else (2, 11, 0))
            elif "INT16" in results:
                found.append((2, 6, 0))
            elif "INT8" in results:
                found.append((1, 14, 0) if op in _EARLY_INT8 else (2, 5, 0))
            elif op in _HYBRID and types[1] == "INT8":
                found.append(_HYBRID[op])
            elif op == "DEQUANTIZE" and types[0] == "FLOAT16":
                found.append((1, 15, 0))
    return ".".join(map(str, max(found)))


class _Operator(NamedTuple):
    name: str
    outputs: tuple[str, ...]
    constants: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What a rule is compared with: the last layer's output has the signature's name, its kernel the layer's."""
        return (*self.outputs, *self.constants)


def _operators(content: bytes) -> list[_Operator]:
    model = flatbuffer.parse(content)
    tensors = model.subgraphs[0].tensors

    def named(indices: Any, *, constant: bool = False) -> tuple[str, ...]:
        present = [tensors[int(index)] for index in indices if int(index) >= 0]
        kept = [tensor for tensor in present if not constant or flatbuffer.constant(model, tensor) is not None]
        return tuple(flatbuffer.tensor_name(tensor) for tensor in kept)

    return [
        _Operator(flatbuffer.op_name(model, op), named(op.outputs), named(op.inputs, constant=True))
        for op in model.subgraphs[0].operators
    ]


def _default(target: Target) -> str:
    return "int16x8" if target.activations == "int16" else "int8"


def _weights(bits: int, *, per_channel: bool) -> dict[str, Any]:
    granularity = "CHANNELWISE" if per_channel else "TENSORWISE"
    return {"num_bits": bits, "symmetric": True, "granularity": granularity, "dtype": "INT"}


def _activations(bits: int, dtype: str = "INT") -> dict[str, Any]:
    return {"num_bits": bits, "symmetric": bits == 16, "granularity": "TENSORWISE", "dtype": dtype}


def _config(target: Target, precision: str, *, per_channel: bool | None = None) -> dict[str, Any]:
    weight_bits, activation_bits = _BITS[precision]
    if target.activations == "int16":
        activation_bits = 16
    return {
        "activation_tensor_config": _activations(activation_bits),
        "weight_tensor_config": _weights(
            weight_bits, per_channel=target.per_channel if per_channel is None else per_channel
        ),
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
    }


def _entry(regex: str, op: str, config: dict[str, Any] | None, algorithm: str = _MIN_MAX) -> dict[str, Any]:
    if config is None:
        return {"regex": regex, "operation": op, "algorithm_key": "no_quantize", "op_config": {}}
    return {"regex": regex, "operation": op, "algorithm_key": algorithm, "op_config": config}


def _ruled(operator: _Operator, rule: Rule, target: Target) -> dict[str, Any]:
    # The library searches its expression in the operator's output names, each followed by a semicolon.
    regex = "^" + re.escape("".join(f"{name};" for name in operator.outputs)) + "$"
    if rule.precision is None:
        return _entry(regex, "*", None)
    precision = rule.precision
    if precision == "int4" and operator.name not in FOUR_BITS:
        precision = "int8"
    per_channel = target.per_channel and (target.per_channel_dense or operator.name != "FULLY_CONNECTED")
    return _entry(regex, "*", _config(target, precision, per_channel=per_channel))


def _edges(target: Target) -> list[dict[str, Any]]:
    """Returns the entries for the graph's inputs and outputs, which the library treats as operators."""
    entries = []
    for op, dtype in (("INPUT", target.input_type), ("OUTPUT", target.output_type)):
        if dtype == "float32":
            entries.append(_entry(".*", op, None))
        elif dtype == "uint8":
            config = _config(target, "int8")
            entries.append(_entry(".*", op, {**config, "activation_tensor_config": _activations(8, "UINT")}))
        else:
            entries.append(_entry(".*", op, _config(target, _default(target))))
    return entries


def _run(content: bytes, recipe: list[dict[str, Any]], ranges: dict[str, Any] | None) -> bytes:
    from ai_edge_quantizer import model_modifier, quantizer

    class Quiet(quantizer.Quantizer):
        """The library's quantizer, which hands its caller's wish for no progress bar to all of its parts but this one."""

        def _get_quantized_model(self, quant_params: Any, serialize_to_path: Any = None) -> Any:
            modifier = model_modifier.ModelModifier(self._float_model)
            return modifier.modify_model(quant_params, serialize_to_path, enable_progress_bar=False)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning: Enabling `experimental_preserve_all_tensors`")
            library = Quiet(bytearray(content), recipe)
            result = library.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConversionError(
            f"ai-edge-quantizer refused the model: {reason[:300]}. Use the other back end (--backend=tensorflow) or leave "
            "the operator in float by a precision rule."
        ) from error
    return bytes(result.quantized_model)
