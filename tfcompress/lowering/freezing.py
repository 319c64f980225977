"""How one traced TensorFlow function becomes a float flatbuffer: variables to constants, then TFLite's converter.

Freezing first is several times faster than the converter's own path from Keras. What the converter cannot express is
told by op and by the layer that it belongs to. Only this module, ``quantization.quantizers`` and
``calibration.converter_calibrator`` touch ``tf.lite``.
"""

import re
from collections.abc import Collection
from typing import Any

from ..errors import ConversionError
from ..system import converter_silenced

__all__ = ["DynamicListError", "to_flatbuffer"]

_ASSIGNING = re.compile(r"^(Assign|Resource(Scatter|StridedSliceAssign))")
_TABLES = re.compile(r"^(Mutable)?(HashTable|DenseHashTable|LookupTable)")
_LONGEST_REASON = 300


class DynamicListError(ConversionError):
    """A loop that collects tensors of a dynamic size, as recurrent layers with a dynamic batch do."""


def to_flatbuffer(
    function: Any,
    *,
    weights: str = "float32",
    name: str,
    layers: Collection[str] = (),
    keep_fake_quantization: bool = True,
    batch: int | None = None,
    debug: bool = False,
) -> bytes:
    """Returns the float ``.tflite`` file of a concrete function, without a signature.

    Args:
        function: a ``tf.types.experimental.ConcreteFunction``.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        name: how messages name the model.
        layers: names of the model's layers, by which messages tell where an op comes from. Default: none.
        keep_fake_quantization: whether the graph's fake quantization becomes QUANTIZE/DEQUANTIZE pairs; otherwise it
            is left out. Default: True.
        batch: the fixed batch, which loops then collect their steps in, as a graph that was traced with a dynamic one
            does not say. Default: as the graph says.
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        DynamicListError: a recurrent layer with a dynamic batch.
        ConversionError: text inputs, variables that change, or an op that TFLite does not have.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError
    from tensorflow.lite.python.lite import TFLiteConverterBaseV2

    captured = {internal.name for _, internal in function.graph.captures}
    inputs = [tensor for tensor in function.inputs if tensor.name not in captured]
    _check(function, inputs, name)
    with converter_silenced(debug=debug):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        if weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            graph = _freeze(function)
            if not keep_fake_quantization:
                _drop_fake_quantization(graph)
            if batch is not None:
                _fix_lists(graph, batch)
            # The converter's own entry goes by a SavedModel on disk and builds the frozen function twice; its base class
            # takes the frozen graph as it is.
            return TFLiteConverterBaseV2.convert(converter, graph, inputs, function.outputs)
        except (ConverterError, ValueError, RuntimeError, tf.errors.OpError) as error:
            if "TensorList" in str(error) and "static" in str(error):
                raise DynamicListError(
                    f"A recurrent layer needs a fixed batch in TFLite. Received: {name} with a dynamic one. Fix it with "
                    "--input_shape, or build the layer with unroll=True."
                ) from error
            raise ConversionError(
                f"The model cannot be expressed in TFLite's ops: {name} ({_reason(error, layers)}). "
                "Replace the layer that is named, or run with --debug for the converter's own log."
            ) from error


def _nodes(graph: Any) -> list[Any]:
    """Returns the nodes of a GraphDef and of the functions that it calls, not of those that training left beside."""
    library = {function.signature.name: function.node_def for function in graph.library.function}
    found, remaining = [], [graph.node]
    while remaining:
        for node in remaining.pop():
            found.append(node)
            for value in node.attr.values():
                for called in (value.func, *value.list.func):
                    if called.name in library:
                        remaining.append(library.pop(called.name))
    return found


def _check(function: Any, inputs: list[Any], name: str) -> None:
    import tensorflow as tf

    for tensor in inputs:
        if tensor.dtype == tf.string:
            raise ConversionError(
                f"Inputs must be numbers. Received: {tensor.name.split(':')[0]} of {name}, which holds text. "
                "Move text preprocessing out of the model."
            )
    for node in _nodes(function.graph.as_graph_def()):
        if _ASSIGNING.match(node.op):
            raise ConversionError(
                f"A model must not change its variables when it runs. Received: {node.op} at {node.name} in {name}. "
                "Make the state an input and an output, or call the model with training=False."
            )
        if _TABLES.match(node.op):
            raise ConversionError(
                f"A model to convert must not look up tables. Received: {node.op} at {node.name} in {name}. "
                "Move the lookup out of the model."
            )


def _freeze(function: Any) -> Any:
    """Returns the graph of ``function`` with its variables as constants; its tensors keep their names."""
    from tensorflow.python.framework import convert_to_constants

    # The public convert_variables_to_constants_v2 does these two steps and then builds a function that nobody calls,
    # which takes as long as all the rest of the lowering.
    data = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=False, aggressive_inlining=False
    )
    graph = convert_to_constants._replace_variables_by_constants(converter_data=data)[0]
    _embed_captured_values(function, graph)
    return graph


def _embed_captured_values(function: Any, graph: Any) -> None:
    """Makes constants of the tensors that a layer keeps outside of variables, as Normalization does its statistics."""
    import tensorflow as tf

    values = {
        internal.op.name: external
        for external, internal in function.graph.captures
        if internal.dtype not in (tf.resource, tf.variant) and hasattr(external, "numpy")
    }
    for node in graph.node:
        if node.op == "Placeholder" and node.name in values:
            value = tf.make_tensor_proto(values[node.name].numpy())
            node.op = "Const"
            del node.input[:]
            node.attr.clear()
            node.attr["dtype"].type = value.dtype
            node.attr["value"].tensor.CopyFrom(value)


def _drop_fake_quantization(graph: Any) -> None:
    for node in _nodes(graph):
        if node.op.startswith("FakeQuantWithMinMax"):
            kept = [node.input[0], *(name for name in node.input if name.startswith("^"))]
            node.op = "Identity"
            del node.input[:]
            node.input.extend(kept)
            node.attr.clear()
            node.attr["T"].type = 1  # DT_FLOAT


def _fix_lists(graph: Any, batch: int) -> None:
    """Writes the batch into the shapes (-1, units) of the lists in which loops collect their steps."""
    import tensorflow as tf

    constants = {node.name: node for node in graph.node if node.op == "Const"}
    places = {"TensorListReserve": 0, "TensorListFromTensor": 1, "TensorListStack": 1}
    for node in graph.node:
        if node.op not in places:
            continue
        shape = constants.get(node.input[places[node.op]].split(":")[0])
        if shape is None:
            continue
        values = tf.make_ndarray(shape.attr["value"].tensor)
        if values.ndim == 1 and values[:1] == -1 and (values[1:] >= 0).all():
            shape.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([batch, *values[1:]], values.dtype))


def _reason(error: BaseException, layers: Collection[str]) -> str:
    """Returns the op that failed and where it comes from, in one line; else the most telling line of the error."""
    found: dict[str, str] = {}
    for entry in getattr(error, "errors", None) or []:
        op = entry.operator.name.removeprefix("tf.")
        place = next((call.name for call in entry.location.call if call.name), "")
        if op and (op not in found or not found[op]):
            found[op] = place
    if found:
        return "; ".join(f"{op}{_layer(place, layers)}" for op, place in sorted(found.items()))[:_LONGEST_REASON]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error:" in line or "op is neither" in line), lines[0] if lines else "")
    return telling.rpartition("error: ")[2][:_LONGEST_REASON] or type(error).__name__


def _layer(place: str, layers: Collection[str]) -> str:
    """Returns " of layer ..." for a node's name; Keras numbers the scopes of repeated calls (conv_1)."""
    parts = place.split(";")[0].split("/")[:-1]
    for part in reversed(parts):
        known = next((name for name in (part, re.sub(r"_\d+$", "", part)) if name in layers), None)
        if known is not None:
            return f" of layer {known!r}"
    return f" at {place}" if place else ""
