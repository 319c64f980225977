"""What shape has each tensor of a flatbuffer once its inputs' shapes are fixed? The interpreter is asked.

The shapes that it infers are written into the file, and what only computed shapes becomes constants. Runs the file once
on zeros; changes no weight.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConversionError
from ..system import native_stderr_silenced
from . import flatbuffer
from .shapes import Shape

__all__ = ["fix_batch", "fix_inputs", "fold_computed_reshapes"]


def fix_batch(content: bytes, batch: int = 1, *, place: str = "the model", debug: bool = False) -> bytes:
    """Returns the file with the dynamic batch of its inputs fixed; a file with other dynamic axes is returned as it is.

    Args:
        content: bytes of a ``.tflite`` file, float or quantized.
        batch: samples per inference. Default: 1.
        place: how messages name the file. Default: "the model".
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ConversionError: the graph cannot take that batch.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    fixed: dict[int, Shape] = {}
    for index in graph.inputs:
        tensor = graph.tensors[int(index)]
        sizes = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        shape = [] if sizes is None else [int(size) for size in sizes]
        if any(size < 0 for size in shape[1:]):
            return content
        fixed[int(index)] = tuple([batch if shape[0] < 0 else shape[0], *shape[1:]] if shape else [])
    if all(graph.tensors[index].shapeSignature is None for index in fixed):
        return content
    fix_inputs(model, fixed, place=place, debug=debug)
    return flatbuffer.pack(model)


def fix_inputs(model: Any, fixed: Mapping[int, Shape], *, place: str, debug: bool = False) -> None:
    """Gives the main subgraph's inputs these shapes and every tensor behind them the shape that follows.

    Where an axis is left dynamic, shapes are inferred for size 1 and that axis stays dynamic for the inputs; tensors
    behind them are then left as they are.

    Args:
        model: the schema's object of a float file, changed in place.
        fixed: shape of each input by tensor index; None leaves an axis dynamic.
        place: how messages name the file.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ConversionError: the graph cannot take these shapes.
    """
    graph = model.subgraphs[0]
    static = all(size is not None for shape in fixed.values() for size in shape)
    interpreter = _run(model, fixed, place, debug)
    for index, shape in fixed.items():
        tensor = graph.tensors[index]
        tensor.shape = np.array([size or 1 for size in shape], np.int32)
        dynamic = np.array([-1 if size is None else size for size in shape], np.int32)
        tensor.shapeSignature = None if static else dynamic
    if not static:
        return
    for details in interpreter.get_tensor_details():
        if details["index"] < len(graph.tensors):
            tensor = graph.tensors[details["index"]]
            tensor.shape, tensor.shapeSignature = np.array(details["shape"], np.int32), None
    _fold(model, interpreter)


def fold_computed_reshapes(model: Any) -> int:
    """Replaces computed shapes of RESHAPEs, in which only one size changes with the batch, by constants with -1 there.

    Keras reshapes around a Dense on a series or an einsum with a shape that a chain of integer ops computes. A constant
    says the same, and delegates, microcontrollers and quantizers know it. Only those ops are run, a few times, each time
    with another length of the first axis of every tensor that they measure.

    Args:
        model: the schema's object of a float file, changed in place.

    Returns:
        how many.
    """
    graph = model.subgraphs[0]
    computed = [
        operator
        for operator in graph.operators
        if flatbuffer.op_name(model, operator) == "RESHAPE"
        and len(operator.inputs) > 1
        and flatbuffer.constant(model, graph.tensors[int(operator.inputs[1])]) is None
    ]
    found = _from_shapes(model, {int(operator.inputs[1]) for operator in computed})
    folded = 0
    for operator in computed:
        values = found.get(int(operator.inputs[1]))
        if values is None:
            continue
        changes = np.any(values != values[0], axis=0)
        if np.sum(changes) > 1 or not np.all(values[0]):
            continue
        shape = np.where(changes, -1, values[0]).astype(np.int32)
        operator.inputs = np.array([int(operator.inputs[0]), flatbuffer.add_constant(model, shape)], np.int32)
        if operator.builtinOptions is not None:
            operator.builtinOptions.newShape = shape
        folded += 1
    if folded:
        flatbuffer.drop_dead(model)
    return folded


def _from_shapes(model: Any, wanted: set[int], times: int = 4) -> dict[int, np.ndarray]:
    """Returns ``times`` values of each ``wanted`` tensor that follows from shapes, the first axes of random lengths."""
    from ai_edge_litert.interpreter import Interpreter

    graph = model.subgraphs[0]
    made = {int(index): operator for operator in graph.operators for index in operator.outputs}
    measured: dict[int, np.ndarray] = {}
    needed: set[int] = set()
    reachable = []
    for index in sorted(wanted):
        chain = _chain(model, made, index)
        if chain is not None:
            reachable.append(index)
            needed |= chain[0]
            measured |= chain[1]
    if not reachable:
        return {}
    interpreter = Interpreter(model_content=_integer_part(model, needed, measured, reachable))
    random = np.random.default_rng(0)
    values: dict[int, list[np.ndarray]] = {index: [] for index in reachable}
    try:
        with native_stderr_silenced():
            interpreter.allocate_tensors()
            for _ in range(times):
                for index, sizes in measured.items():
                    lengths = random.integers(10, 10_000, size=sizes.shape)
                    interpreter.set_tensor(index, np.where(sizes < 0, lengths, sizes).astype(sizes.dtype))
                interpreter.invoke()
                for index in reachable:
                    values[index].append(np.array(interpreter.get_tensor(index)))
    except RuntimeError:
        return {}  # shapes that only agree with each other, as in a broadcast
    return {index: np.stack(each) for index, each in values.items()}


def _integer_part(
    model: Any,
    needed: set[int],
    measured: Mapping[int, np.ndarray],
    outputs: list[int],
) -> bytes:
    """Returns a file, without the weights, of the ops that make the ``needed`` tensors; its inputs are the shapes."""
    small, graph = copy.copy(model), copy.copy(model.subgraphs[0])
    graph.operators = [op for op in graph.operators if any(int(index) in needed for index in op.outputs)]
    graph.inputs, graph.outputs = np.array(sorted(measured), np.int32), np.array(outputs, np.int32)
    graph.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    for index, sizes in measured.items():
        graph.tensors[index].shape, graph.tensors[index].shapeSignature = np.array(sizes.shape, np.int32), None
    read = {graph.tensors[int(index)].buffer for op in graph.operators for index in op.inputs if index >= 0}
    small.buffers = [
        buffer if number in read else flatbuffer.schema().BufferT() for number, buffer in enumerate(model.buffers)
    ]
    small.signatureDefs, small.subgraphs = None, [graph]
    return flatbuffer.pack(small)


def _chain(model: Any, made: Mapping[int, Any], wanted: int) -> tuple[set[int], dict[int, np.ndarray]] | None:
    """Returns the tensors that lead from shapes to ``wanted``, and those shapes; None if anything else leads there."""
    graph = model.subgraphs[0]
    chain: set[int] = set()
    measured: dict[int, np.ndarray] = {}
    waiting = [wanted]
    while waiting:
        index = waiting.pop()
        tensor = graph.tensors[index]
        if index in chain or index in measured or flatbuffer.constant(model, tensor) is not None:
            continue
        operator = made.get(index)
        if operator is None or flatbuffer.type_name(tensor) not in ("INT32", "INT64"):
            return None
        if flatbuffer.op_name(model, operator) == "SHAPE":
            source = graph.tensors[int(operator.inputs[0])]
            sizes = source.shape if source.shapeSignature is None else source.shapeSignature
            if sizes is None or not len(sizes) or any(size < 0 for size in sizes[1:]):
                return None
            measured[index] = np.array(sizes, flatbuffer.dtype_of(tensor))
            continue
        chain.add(index)
        waiting += [int(each) for each in operator.inputs if int(each) >= 0]
    return chain, measured


def _run(model: Any, fixed: Mapping[int, Shape], place: str, debug: bool) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        with native_stderr_silenced(debug=debug):
            interpreter = Interpreter(
                model_content=flatbuffer.pack(model),
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            for index, shape in fixed.items():
                interpreter.resize_tensor_input(index, [size or 1 for size in shape])
            interpreter.allocate_tensors()
            for details in interpreter.get_input_details():
                interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
            interpreter.invoke()
            return interpreter
    except (ValueError, RuntimeError, MemoryError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        shapes = ", ".join(str(shape) for shape in fixed.values())
        raise ConversionError(
            f"The graph of {place} must be able to take the shapes. Received: {shapes} "
            f"({(lines or [type(error).__name__])[0][:200]}). Convert it from its source with these shapes."
        ) from error


def _fold(model: Any, interpreter: Any) -> None:
    """Replaces what was computed from shapes alone by the values that the interpreter has there."""
    graph = model.subgraphs[0]
    known = {index for index, tensor in enumerate(graph.tensors) if flatbuffer.constant(model, tensor) is not None}
    for operator in graph.operators:
        inputs = [int(index) for index in operator.inputs if int(index) >= 0]
        outputs = [int(index) for index in operator.outputs]
        integers = all(flatbuffer.type_name(graph.tensors[index]) in ("INT32", "INT64") for index in outputs)
        is_shape = flatbuffer.op_name(model, operator) == "SHAPE"
        if not is_shape and not (inputs and integers and all(index in known for index in inputs)):
            continue
        for index in outputs:
            values = np.ascontiguousarray(interpreter.get_tensor(index))
            graph.tensors[index].buffer = flatbuffer.new_buffer(model, values)
            known.add(index)
    graph.operators = [
        operator for operator in graph.operators if not all(int(index) in known for index in operator.outputs)
    ]
    flatbuffer.drop_dead(model)
