"""Does every number in a file that names a tensor, buffer, op code, subgraph or axis name one that is there?

Can each tensor be what it says, and does no subgraph run itself? LiteRT has no stack for a subgraph that calls itself: it overflows the
process's own. Whether a tensor's scales are as many as its channels is LiteRT's own rule, which ``inspect`` shows. Reads the schema's
objects only.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

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


# LiteRT reads options that an op lacks as all 0: subgraph 0.
_CALLERS = ("WHILE", "IF", "CALL", "CALL_ONCE")
_NAMES_ONE = ("SubgraphIndex", "SubgraphIndices")
_NAMES_ONE_TOO = ("subgraph", "calledComputations")


@functools.cache
def _caller_codes() -> frozenset[int]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return frozenset(getattr(BuiltinOperator, name) for name in _CALLERS)


def called_subgraphs(model: Any, graph: Any, operators: Iterable[Any] | None = None) -> list[int]:
    """Returns the numbers of the subgraphs that ops run.

    Args:
        model: the schema's ``ModelT``.
        graph: one of its subgraphs.
        operators: some of its ops. Default: None, all.
    """
    found: list[int] = []
    for operator in graph.operators if operators is None else operators:
        named = [
            *_named(operator.builtinOptions),
            *_named(operator.builtinOptions2),
        ]
        code = model.operatorCodes[operator.opcodeIndex]
        if not named and max(code.builtinCode, code.deprecatedBuiltinCode) in _caller_codes():
            named = [0]
        found += named
    return found


def _named(options: Any) -> list[int]:
    if options is None:
        return []
    found: list[int] = []
    for name, value in vars(options).items():
        if name.endswith(_NAMES_ONE) or name in _NAMES_ONE_TOO:
            found += [] if value is None else [int(each) for each in np.atleast_1d(value)]
    return found


def check_no_circle(calls: Sequence[Sequence[int]]) -> None:
    """Refuses subgraphs that run themselves.

    Args:
        calls: for each subgraph the numbers of those that it runs, each of them there.

    Raises:
        Contradiction: there is a circle.

    Examples:
        >>> check_no_circle([[1, 2], [2], []])
        >>> check_no_circle([[1], [0]])
        Traceback (most recent call last):
        ...
        tfcompress.tflite.validation.sizes.Contradiction: subgraph 0 runs itself
    """
    done: set[int] = set()
    for start in range(len(calls)):
        path: list[tuple[int, list[int]]] = [(start, list(calls[start]))] if start not in done else []
        running = {start}
        while path:
            here, waiting = path[-1]
            if not waiting:
                path.pop()
                running.discard(here)
                done.add(here)
                continue
            called = waiting.pop()
            if called in running:
                raise Contradiction(f"subgraph {called} runs itself")
            if called not in done:
                running.add(called)
                path.append((called, list(calls[called])))


MOST_TENSOR_BYTES = (1 << 31) - 1  # of a flatbuffer; more in one tensor is damage, and would be allocated
MOST_AXES = 1 << 8
_ITEM_BYTES = {
    "FLOAT64": 8,
    "INT64": 8,
    "UINT64": 8,
    "COMPLEX64": 8,
    "COMPLEX128": 16,
    "FLOAT32": 4,
    "INT32": 4,
    "UINT32": 4,
}
DENSE, SPARSE = 0, 1  # DimensionType


def check_tensor(tensor: Any, place: str, *, tensors: int) -> None:
    """Refuses a tensor of the schema whose parts contradict each other.

    Args:
        tensor: of the schema.
        place: which one it is, for the message.
        tensors: how many its subgraph has.

    Raises:
        Contradiction: a size is negative or the sizes multiply to 2 GiB or more; or its scales are of a tensor that is not there;
            or a sparse one's order is not that of its axes.
    """
    shape = _sizes(tensor.shape)
    if min(shape, default=0) < 0:
        raise Contradiction(f"{place} has the shape {_short(shape)}")
    signature = _sizes(tensor.shapeSignature)
    item = _ITEM_BYTES.get(_type_names().get(tensor.type, ""), 1)
    for sizes in (shape, signature):
        if min(sizes, default=0) < -1 or len(sizes) > MOST_AXES:
            raise Contradiction(f"{place} has the shape {_short(sizes)}")
        if item * math.prod(abs(size) for size in sizes) > MOST_TENSOR_BYTES:
            raise Contradiction(f"{place} has the shape {_short(sizes)}, which takes 2 GiB or more")
    if tensor.quantization is not None:
        _check_blocks(tensor.quantization, place, tensors)
    if tensor.sparsity is not None:
        _check_sparsity(tensor.sparsity, shape, place)


_TYPES: dict[int, str] = {}


def _type_names() -> dict[int, str]:
    if not _TYPES:
        from ai_edge_litert.schema_py_generated import TensorType

        _TYPES.update({number: name for name, number in vars(TensorType).items() if isinstance(number, int)})
    return _TYPES


def _sizes(array: Any) -> list[int]:
    return [] if array is None else [int(size) for size in array]


def _short(sizes: list[int]) -> str:
    return str(sizes) if len(sizes) <= 8 else f"of {len(sizes)} axes"


def _check_blocks(quantization: Any, place: str, tensors: int) -> None:
    for name in ("scales", "zeroPoints"):
        index = getattr(quantization.details, name, 0)
        if not -1 <= index < tensors:
            raise Contradiction(f"{place} names tensor {index} of {tensors} for its {name}")


def _check_sparsity(sparsity: Any, shape: list[int], place: str) -> None:
    order, blocks = _sizes(sparsity.traversalOrder), _sizes(sparsity.blockMap)
    dimensions = sparsity.dimMetadata or []
    is_order = sorted(order) == list(range(len(shape) + len(blocks)))
    if not is_order or len(dimensions) != len(order) or not all(0 <= axis < len(shape) for axis in blocks):
        raise Contradiction(f"{place} is stored sparsely in an order that is not that of its axes")
    for dimension in dimensions:
        if dimension.format not in (DENSE, SPARSE) or dimension.denseSize < 0:
            raise Contradiction(f"{place} is stored sparsely in a form that there is not")
        if dimension.format == SPARSE:
            segments = np.asarray(getattr(dimension.arraySegments, "values", None), np.float64).reshape(-1)
            indices = np.asarray(getattr(dimension.arrayIndices, "values", None), np.float64).reshape(-1)
            rises = len(segments) > 0 and segments[0] == 0 and bool((np.diff(segments) >= 0).all())
            if not rises or segments[-1] != len(indices) or (len(indices) and indices.min() < 0):
                raise Contradiction(f"{place} is stored sparsely with segments that are not those of its indices")
