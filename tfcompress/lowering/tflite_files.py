"""How an existing float ``.tflite`` file, from whatever converter, becomes the hub of a conversion.

One signature is chosen, half-precision weights become float32, and dynamic axes are fixed where that is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ModelError
from ..layers import signatures
from ..tflite import flatbuffer, qdq, static_shapes
from . import subgraphs
from .lowered import Lowered, finish

__all__ = ["lower_flatbuffer"]

_QUANTIZED_TYPES = ("INT4", "INT8", "UINT8", "INT16", "INT2")


def lower_flatbuffer(
    content: bytes,
    *,
    place: str,
    signature: str | None = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    debug: bool = False,
) -> Lowered:
    """Returns an existing float ``.tflite`` file as the hub; its signature is kept, or made from its tensor names.

    Args:
        content: the bytes of the file.
        place: how messages name it.
        signature: which one of several. Default: "serving_default", or the only one.
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ValueError: ``signature`` or ``input_shapes`` does not fit.
        ModelError: damaged, quantized already, or several signatures and no choice.
        ConversionError: the graph cannot take the shapes, or an input holds text.
    """
    parsed = flatbuffer.parse(content, place=place)
    interface = subgraphs.choose(parsed, signature, place=place)
    _check_float(parsed, place)
    graph = parsed.subgraphs[0]
    if qdq.fold_half_precision(parsed):
        flatbuffer.drop_dead(parsed)
    inputs = signatures.unique_names(interface.inputs)
    outputs = signatures.unique_names(interface.outputs)
    known = {name: _shape(graph.tensors[int(index)]) for name, index in zip(inputs, graph.inputs, strict=True)}
    fixed = static_shapes.fix_shapes(known, input_shapes, place=place)
    if fixed != known:
        by_index = {int(index): fixed[name] for name, index in zip(inputs, graph.inputs, strict=True)}
        static_shapes.fix_inputs(parsed, by_index, place=place, debug=debug)
    finished: list[Lowered] = []

    def reference(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        from ..tflite import open_model

        results = open_model(finished[0].content, debug=debug).run(dict(arrays))
        return [results[name] for name in outputs]

    finished.append(finish(parsed, [(name, fixed[name]) for name in inputs], outputs, reference))
    return finished[0]


def _check_float(model: Any, place: str) -> None:
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            scale = getattr(tensor.quantization, "scale", None)
            if flatbuffer.type_name(tensor) in _QUANTIZED_TYPES and scale is not None and len(scale):
                raise ModelError(
                    f"A model to convert must be float. Received: {place}, quantized already "
                    f"({flatbuffer.tensor_name(tensor)} is {flatbuffer.type_name(tensor)}). Use its float source."
                )


def _shape(tensor: Any) -> static_shapes.Shape:
    has_signature = tensor.shapeSignature is not None and len(tensor.shapeSignature)
    sizes = tensor.shapeSignature if has_signature else tensor.shape
    return tuple(None if size < 0 else int(size) for size in ([] if sizes is None else sizes))
