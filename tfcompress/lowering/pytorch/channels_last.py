"""Which ops does PyTorch's layout (channels first) leave in a flatbuffer that TFLite's (channels last) does not need?

Each rule replaces a few ops by fewer with exactly the same answers: a channel shuffle done where the channels are, a mean
over the axes where they lie, a max-pooling whose border is not minus infinity, which no integer can hold. Nothing is run.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...tflite import flatbuffer

__all__ = ["count_transposes", "tidy"]

_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_POSITIVE_OPS = ("RELU", "RELU6", "RELU_0_TO_1", "LOGISTIC", "SOFTMAX")
_NOT_NEGATIVE = (1, 3)  # ActivationFunctionType: RELU, RELU6


def tidy(model: Any) -> None:
    """Applies every rule to the main subgraph until none fits.

    Args:
        model: a ``ModelT``; changed in place.
    """
    while any(rule(model) for rule in (_bounded_border, _shuffle, _mean, _singletons, _inverse)):
        flatbuffer.drop_dead(model)


def count_transposes(content: bytes) -> int:
    """Returns how many TRANSPOSE ops a ``.tflite`` file has: what the change of layout costs.

    Args:
        content: the bytes of the file.

    Raises:
        ModelError: damaged.
    """
    return flatbuffer.op_counts(flatbuffer.parse(content)).get("TRANSPOSE", 0)


class _Graph:
    """The main subgraph with who computes and who reads each tensor."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self.maker = {int(index): operator for operator in self.graph.operators for index in operator.outputs}
        self.readers: dict[int, list[Any]] = {}
        for operator in self.graph.operators:
            for index in operator.inputs:
                self.readers.setdefault(int(index), []).append(operator)
        self.outputs = {int(index) for index in self.graph.outputs}

    def named(self, name: str) -> Iterator[Any]:
        return (operator for operator in self.graph.operators if flatbuffer.op_name(self.model, operator) == name)

    def only_reader(self, operator: Any, name: str) -> Any:
        """Returns the op of that name that alone reads the result of ``operator``, else None."""
        if operator is None:
            return None
        index = int(operator.outputs[0])
        readers = self.readers.get(index, [])
        alone = len(readers) == 1 and index not in self.outputs and int(readers[0].inputs[0]) == index
        return readers[0] if alone and flatbuffer.op_name(self.model, readers[0]) == name else None

    def values(self, operator: Any, position: int = 1) -> list[int] | None:
        """Returns the constant integers that an op reads at that position, None if they are computed or absent."""
        if operator is None or len(operator.inputs) <= position:
            return None
        found = flatbuffer.constant(self.model, self.graph.tensors[int(operator.inputs[position])])
        return None if found is None else [int(value) for value in np.atleast_1d(found)]

    def shape(self, index: int) -> list[int]:
        shape = self.graph.tensors[int(index)].shape
        return [] if shape is None else [int(size) for size in shape]

    def reshape_to(self, operator: Any, position: int, shape: list[int]) -> None:
        """Writes the constant that an op reads and the shape of its result."""
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[position] = flatbuffer.add_constant(self.model, np.array(shape, np.int32))


def _set_shape(graph: _Graph, index: int, shape: list[int]) -> None:
    tensor = graph.graph.tensors[int(index)]
    tensor.shape, tensor.shapeSignature = np.array(shape, np.int32), None


def _reshape(graph: _Graph, operator: Any, shape: list[int]) -> None:
    graph.reshape_to(operator, 1, shape)
    _set_shape(graph, operator.outputs[0], shape)
    if operator.builtinOptions is not None:
        operator.builtinOptions.newShape = np.array(shape, np.int32)


def _bypass(graph: _Graph, operator: Any) -> None:
    """Lets everything that reads the result of ``operator`` read its input; the op is dead afterwards."""
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    for reader in graph.readers.get(result, []):
        reader.inputs = np.array([source if int(index) == result else int(index) for index in reader.inputs], np.int32)


def _shuffle(model: Any) -> bool:
    """(n,h,w,c) -> first -> (n,g,c/g,h,w) -> swap -> (n,c,h,w) -> last: done in place on (n,h,w,g,c/g)."""
    graph = _Graph(model)
    for first in graph.named("TRANSPOSE"):
        split = graph.only_reader(first, "RESHAPE")
        swap = graph.only_reader(split, "TRANSPOSE")
        join = graph.only_reader(swap, "RESHAPE")
        last = graph.only_reader(join, "TRANSPOSE")
        if last is None or graph.values(first) != _TO_FIRST or graph.values(last) != _TO_LAST:
            continue
        n, c, h, w = graph.shape(first.outputs[0])
        apart = graph.shape(split.outputs[0])
        is_split = len(apart) == 5 and apart[0] == n and apart[1] * apart[2] == c and apart[3:] == [h, w]
        if not is_split or graph.values(swap) != [0, 2, 1, 3, 4] or graph.shape(join.outputs[0]) != [n, c, h, w]:
            continue
        groups, size = apart[1:3]
        _bypass(graph, first)
        _reshape(graph, split, [n, h, w, groups, size])
        graph.reshape_to(swap, 1, [0, 1, 2, 4, 3])
        _set_shape(graph, swap.outputs[0], [n, h, w, size, groups])
        _reshape(graph, join, [n, h, w, c])
        _bypass(graph, last)
        return True
    return False


def _mean(model: Any) -> bool:
    """The mean of a transposed tensor is the mean over the axes that they were, if the others keep their order."""
    graph = _Graph(model)
    for transpose in graph.named("TRANSPOSE"):
        mean, order = graph.only_reader(transpose, "MEAN"), graph.values(transpose)
        axes = graph.values(mean)
        if axes is None or order is None or mean.builtinOptions is None:
            continue
        kept = [order[axis] for axis in range(len(order)) if axis not in {axis % len(order) for axis in axes}]
        moved = sorted(order[axis] for axis in axes)
        if mean.builtinOptions.keepDims:
            # (n, c, 1, 1) instead of (n, 1, 1, c): the readers see another shape, so only a RESHAPE may follow.
            flat = graph.only_reader(mean, "RESHAPE")
            if flat is None or kept != sorted(kept):
                continue
            shape = graph.shape(transpose.inputs[0])
            _set_shape(graph, mean.outputs[0], [1 if axis in moved else size for axis, size in enumerate(shape)])
        elif kept != sorted(kept):
            continue
        _bypass(graph, transpose)
        graph.reshape_to(mean, 1, moved)
        return True
    return False


def _singletons(model: Any) -> bool:
    """A TRANSPOSE that only moves axes of size 1, read by a RESHAPE alone, moves nothing."""
    graph = _Graph(model)
    for transpose in graph.named("TRANSPOSE"):
        order = graph.values(transpose)
        shape = graph.shape(transpose.inputs[0])
        if order is None or graph.only_reader(transpose, "RESHAPE") is None:
            continue
        # The batch may be open later on: it counts as larger than 1.
        large = [axis for axis in order if axis == 0 or shape[axis] != 1]
        if large == sorted(large):
            _bypass(graph, transpose)
            return True
    return False


def _inverse(model: Any) -> bool:
    """Two TRANSPOSE ops that undo each other."""
    graph = _Graph(model)
    for first in graph.named("TRANSPOSE"):
        order = graph.values(first)
        for second in graph.readers.get(int(first.outputs[0]), []):
            back = graph.values(second) if flatbuffer.op_name(model, second) == "TRANSPOSE" else None
            is_read = int(second.outputs[0]) in graph.readers and int(second.outputs[0]) not in graph.outputs
            if order is None or back is None or not is_read or [order[axis] for axis in back] != sorted(order):
                continue
            source, result = int(first.inputs[0]), int(second.outputs[0])
            for reader in graph.readers[result]:
                reader.inputs = np.array([source if i == result else int(i) for i in reader.inputs], np.int32)
            return True
    return False


def _bounded_border(model: Any) -> bool:
    """Max-pooling over a border of minus infinity: zeros where the input is never negative, else the edge once more.

    PyTorch pads by at most half the window, so that the copied edge lies in each window that its copy lies in.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = _Graph(model)
    for pad in graph.named("PADV2"):
        pool = graph.only_reader(pad, "MAX_POOL_2D")
        border = flatbuffer.constant(model, graph.graph.tensors[int(pad.inputs[2])])
        widths = flatbuffer.constant(model, graph.graph.tensors[int(pad.inputs[1])])
        if (
            pool is None
            or border is None
            or widths is None
            or border.size != 1
            or float(np.ravel(border)[0]) != -np.inf
        ):
            continue
        options = pool.builtinOptions
        fits = np.array_equal(widths[[0, 3]], np.zeros((2, 2))) and 2 * int(widths[1].max()) <= options.filterHeight
        if not fits or 2 * int(widths[2].max()) > options.filterWidth:
            continue
        name, kind = (
            ("PAD", "PadOptions") if _is_not_negative(graph, int(pad.inputs[0])) else ("MIRROR_PAD", "MirrorPadOptions")
        )
        pad.opcodeIndex = _operator_code(model, name)
        pad.inputs = np.array(pad.inputs[:2], np.int32)
        pad.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        pad.builtinOptions = getattr(schema, f"{kind}T")()
        if name == "MIRROR_PAD":
            pad.builtinOptions.mode = schema.MirrorPadMode.SYMMETRIC
        return True
    return False


def _operator_code(model: Any, name: str) -> int:
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _is_not_negative(graph: _Graph, index: int) -> bool:
    maker = graph.maker.get(index)
    if maker is None:
        return False
    fused = getattr(maker.builtinOptions, "fusedActivationFunction", 0)
    return fused in _NOT_NEGATIVE or flatbuffer.op_name(graph.model, maker) in _POSITIVE_OPS
