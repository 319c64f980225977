"""What shape has each tensor of a flatbuffer once its inputs' shapes are fixed, and which shapes need no computing?

``fix_shapes`` says what the inputs get. The shapes behind them are asked of the interpreter and written into the file, and
what only computed shapes becomes constants. Runs the file once on zeros; changes no weight.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConversionError
from ..system import native_stderr_silenced
from . import flatbuffer

__all__ = ["Shape", "fix_batch", "fix_inputs", "fix_shapes", "fold_computed_reshapes"]

Shape = tuple[int | None, ...]
"""Sizes of the axes, the batch axis first; None is a dynamic axis."""

Chain = tuple[set[int], dict[int, np.ndarray]]
"""The tensors that lead from shapes to one tensor, and those shapes by tensor, negative where a size is unknown."""


def fix_shapes(
    known: Mapping[str, Shape], wanted: Mapping[str, Sequence[int | None]] | None, *, place: str
) -> dict[str, Shape]:
    """Returns the shapes ``known`` with the dynamic axes that ``wanted`` fixes.

    Args:
        known: shape by input name, None for a dynamic axis.
        wanted: whole shapes by input name, the batch axis first; None leaves an axis as it is. Default: nothing.
        place: how messages name the model.

    Raises:
        ValueError: an unknown name, another number of axes, a size below 1, or another size than the model's own.

    Examples:
        >>> fix_shapes({"image": (None, None, None, 3)}, {"image": (1, 96, None, 3)}, place="m.keras")
        {'image': (1, 96, None, 3)}
        >>> fix_shapes({"image": (None, 8)}, {"picture": (1, 8)}, place="m.keras")
        Traceback (most recent call last):
        ...
        ValueError: input_shapes must name inputs of m.keras: 'image'. Received: 'picture'. Use one of these names.
    """
    fixed = dict(known)
    for name, shape in (wanted or {}).items():
        if name not in known:
            raise ValueError(
                f"input_shapes must name inputs of {place}: {', '.join(map(repr, known))}. Received: {name!r}. "
                "Use one of these names."
            )
        fixed[name] = _fixed(name, known[name], shape, place)
    return fixed


def _fixed(name: str, known: Shape, shape: Sequence[int | None], place: str) -> Shape:
    sizes = tuple(None if size is None else int(size) for size in shape)
    if len(sizes) != len(known):
        raise ValueError(
            f"The shape of input {name!r} of {place} must have {len(known)} axes like {known}. Received: {sizes}. "
            "Give the whole shape, the batch axis first."
        )
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"Sizes must be at least 1. Received: {sizes} for {name!r}. Write None for a dynamic axis.")
    if any(own is not None and size not in (None, own) for own, size in zip(known, sizes, strict=True)):
        raise ValueError(
            f"A shape must keep the sizes that {place} has fixed: {name!r} is {known}. Received: {sizes}. "
            "Fix dynamic axes (None) only, or build the model with another size."
        )
    return tuple(own if size is None else size for own, size in zip(known, sizes, strict=True))


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
    """Replaces computed shapes of RESHAPEs, in which only one size changes with the inputs, by constants with -1 there.

    Keras flattens to (shape(x)[0], n), which becomes SHAPE, STRIDED_SLICE and PACK before the RESHAPE, and reshapes around
    a Dense on a series or an einsum with a shape that a longer chain of integer ops computes. A constant says the same, and
    delegates, microcontrollers and quantizers know it. Only those ops are run, a few times, each time with other lengths of
    the first axis and of the unknown axes of every tensor that they measure.

    Args:
        model: the schema's object of a float file, changed in place.

    Returns:
        how many.
    """
    # A Flatten's first: a RESHAPE that was only measured for it is gone before the others get their constants.
    return _fold_reshapes(model, only_packed=True) + _fold_reshapes(model, only_packed=False)


def _fold_reshapes(model: Any, *, only_packed: bool) -> int:
    graph = model.subgraphs[0]
    made = {int(index): operator for operator in graph.operators for index in operator.outputs}
    computed = [
        operator
        for operator in graph.operators
        if flatbuffer.op_name(model, operator) == "RESHAPE"
        and len(operator.inputs) > 1
        and flatbuffer.constant(model, graph.tensors[int(operator.inputs[1])]) is None
    ]
    wanted = {int(operator.inputs[1]) for operator in computed}
    chains = {index: chain for index in sorted(wanted) if (chain := _chain(model, made, index)) is not None}
    if only_packed:
        chains = {
            index: chain
            for index, chain in chains.items()
            if len(chain[0]) <= 2 and flatbuffer.op_name(model, made[index]) == "PACK"
        }
    found = _values(model, chains)
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


def _values(model: Any, chains: Mapping[int, Chain]) -> dict[int, np.ndarray]:
    """Returns several values of the last tensor of each chain; none where lengths have to agree, as in a broadcast."""
    try:
        return _run_chains(model, chains) if chains else {}
    except RuntimeError:
        found: dict[int, np.ndarray] = {}
        for index, chain in chains.items() if len(chains) > 1 else ():
            found |= _values(model, {index: chain})
        return found


def _run_chains(model: Any, chains: Mapping[int, Chain], times: int = 4) -> dict[int, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    needed = set[int]().union(*(chain for chain, _ in chains.values()))
    measured = {index: sizes for _, shapes in chains.values() for index, sizes in shapes.items()}
    interpreter = Interpreter(model_content=_integer_part(model, needed, measured, list(chains)))
    random = np.random.default_rng(0)
    values: dict[int, list[np.ndarray]] = {index: [] for index in chains}
    with native_stderr_silenced():
        interpreter.allocate_tensors()
        for _ in range(times):
            for index, sizes in measured.items():
                lengths = random.integers(10, 10_000, size=sizes.shape)
                changes = (sizes < 0) | (np.arange(len(sizes)) == 0)
                interpreter.set_tensor(index, np.where(changes, lengths, sizes).astype(sizes.dtype))
            interpreter.invoke()
            for index in chains:
                values[index].append(np.array(interpreter.get_tensor(index)))
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


def _chain(model: Any, made: Mapping[int, Any], wanted: int) -> Chain | None:
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
            if sizes is None or not len(sizes):
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
