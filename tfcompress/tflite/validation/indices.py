"""Does every number in a file that names a tensor, buffer, op code, subgraph or axis name one that is there?

Reads the schema's objects only.
"""

from collections.abc import Iterable
from typing import Any

from .calls import called_subgraphs, check_no_circle
from .shapes import check_tensor
from .sizes import Contradiction

__all__ = ["check_indices"]

LEFT_OUT = -1  # an optional input that an op does without


def check_indices(model: Any) -> None:
    """Refuses a file in which a number leads nowhere.

    Args:
        model: the schema's ``ModelT``, whose lists are lists.

    Raises:
        Contradiction: one does; or weights are said to be in other files; or subgraphs call each other in a circle; or a tensor is larger than any file may ask for.

    Examples:
        >>> from types import SimpleNamespace
        >>> check_indices(SimpleNamespace(subgraphs=[]))
        Traceback (most recent call last):
        ...
        tfcompress.tflite.validation.sizes.Contradiction: it has no subgraph
    """
    if not model.subgraphs:
        raise Contradiction("it has no subgraph")
    for number, graph in enumerate(model.subgraphs):
        place = f"subgraph {number}"
        _all_there(graph.inputs, len(graph.tensors), f"an input of {place}", "tensor")
        _all_there(graph.outputs, len(graph.tensors), f"an output of {place}", "tensor")
        for index, tensor in enumerate(graph.tensors):
            _there(tensor.buffer, len(model.buffers), f"tensor {index} of {place}", "buffer")
            check_tensor(tensor, f"tensor {index} of {place}", tensors=len(graph.tensors))
        for index, operator in enumerate(graph.operators):
            _check_operator(model, graph, operator, f"op {index} of {place}")
    for entry in model.metadata or []:
        _there(entry.buffer, len(model.buffers), "a metadata entry", "buffer")
    for number, signature in enumerate(model.signatureDefs or []):
        place = f"signature {number}"
        _there(signature.subgraphIndex, len(model.subgraphs), place, "subgraph")
        tensors = len(model.subgraphs[signature.subgraphIndex].tensors)
        _all_there((e.tensorIndex for e in signature.inputs or []), tensors, f"an input of {place}", "tensor")
        _all_there((e.tensorIndex for e in signature.outputs or []), tensors, f"an output of {place}", "tensor")
    if model.externalBuffers or any(tensor.externalBuffer for graph in model.subgraphs for tensor in graph.tensors):
        raise Contradiction("it keeps its weights in other files, which are not read")
    check_no_circle([called_subgraphs(model, graph) for graph in model.subgraphs])


def _check_operator(model: Any, graph: Any, operator: Any, place: str) -> None:
    _there(operator.opcodeIndex, len(model.operatorCodes), place, "op code")
    for indices in (operator.inputs, operator.outputs, operator.intermediates):
        if indices is not None:
            _all_there(indices, len(graph.tensors), place, "tensor", least=LEFT_OUT)
    for called in called_subgraphs(model, graph, [operator]):
        _there(called, len(model.subgraphs), place, "subgraph")


def _all_there(indices: Iterable[Any], count: int, place: str, what: str, *, least: int = 0) -> None:
    for index in indices:
        _there(int(index), count, place, what, least=least)


def _there(index: int, count: int, place: str, what: str, *, least: int = 0) -> None:
    if not least <= index < count:
        raise Contradiction(f"{place} names {what} {index} of {count}")
