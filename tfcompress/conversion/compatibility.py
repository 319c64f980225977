"""Can the device run this file? Checked by the rules its runtime or compiler documents, operator by operator.

The interpreter of this machine says whether a file runs at all; this module knows what the device at the other end lacks.
Nothing is changed here.
"""

from typing import Any

from ..errors import ConversionError
from ..quantization import Target
from ..tflite import flatbuffer, op_summaries

__all__ = ["check", "complaints"]

_SHOWN = 3
_QUANTIZED = ("INT8", "UINT8", "INT16")
_INNERMOST = 3  # of an Edge TPU's tensors; every axis before them has length 1


def check(content: bytes, target: Target, place: str) -> None:
    """Refuses a file that the target's device cannot run.

    Args:
        content: bytes of a ``.tflite`` file.
        target: what it is for.
        place: how the message names the model.

    Raises:
        ConversionError: names the operators and the layers that they come from.
    """
    found = complaints(content, target)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ConversionError(
            f"{target.name} cannot run {place}: {'; '.join(found[:_SHOWN])}{more}. Replace the layer or choose another "
            "target."
        )


def complaints(content: bytes, target: Target) -> list[str]:
    """Returns why the device cannot run the file, a line for each reason; empty when nothing speaks against it.

    Args:
        content: bytes of a ``.tflite`` file.
        target: what it is for.
    """
    model = flatbuffer.parse(content)
    found = []
    if target.static:
        found += _dynamic(model)
    if target.operators is not None:
        for graph in model.subgraphs:
            for operator, layer in zip(graph.operators or [], op_summaries.op_layers(graph), strict=True):
                op = flatbuffer.op_name(model, operator)
                if op not in target.operators:
                    found.append(f"it has no {op} (layer {layer})")
                elif op in target.in_float and _is_integer(graph, operator):
                    found.append(f"its {op} takes float32 only (layer {layer})")
    if target.name == "edge-tpu":
        found += _too_deep(model)
    return list(dict.fromkeys(found))


def _is_integer(graph: Any, operator: Any) -> bool:
    return any(flatbuffer.type_name(graph.tensors[int(index)]) in _QUANTIZED for index in operator.outputs)


def _dynamic(model: Any) -> list[str]:
    graph = model.subgraphs[0]
    found = []
    for index in graph.inputs:
        tensor = graph.tensors[int(index)]
        signature = tensor.shapeSignature
        if signature is not None and any(int(size) < 0 for size in signature):
            name = flatbuffer.tensor_name(tensor)
            shape = ",".join("any" if int(size) < 0 else str(int(size)) for size in signature)
            found.append(f"it needs fixed shapes and input {name} is ({shape}): pass --input_shape={name}:1,...")
    return found


def _too_deep(model: Any) -> list[str]:
    found = []
    for graph in model.subgraphs:
        for operator, layer in zip(graph.operators or [], op_summaries.op_layers(graph), strict=True):
            op = flatbuffer.op_name(model, operator)
            for index in operator.outputs:
                shape = graph.tensors[int(index)].shape
                outer = [] if shape is None else [int(size) for size in shape][:-_INNERMOST]
                if any(size != 1 for size in outer):
                    found.append(f"only the three innermost axes of {op} may be longer than 1 (layer {layer})")
    return found
