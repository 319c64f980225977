"""How does a flatbuffer that was exported at batch size 1 come to take any batch?

The exporter writes the batch into every RESHAPE, SLICE and tensor's shape. Here these ops get a -1 in its place, the
interpreter works out which axes grow with the batch, and the file is kept only if it answers several samples at once as it
answers them one by one. Models that mix their samples, or merge the batch with another axis, stay as they are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import flatbuffer
from .quiet import native_stderr_silenced

__all__ = ["free_batch"]

_RELATIVE_DIFFERENCE = 1e-3  # kernels sum in another order at another batch size


def free_batch(content: bytes, examples: Mapping[str, np.ndarray], *, debug: bool = False) -> bytes | None:
    """Returns the file with a dynamic batch axis on every input, None where it does not give the same answers.

    Args:
        content: bytes of a ``.tflite`` file with a signature whose inputs all have a leading axis of 1.
        examples: by input name, shape (n, ...) with n of at least 2, the input's dtype: what is compared.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ModelError: the bytes are not a TFLite file.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    if any(len(_shape(graph.tensors[int(index)])) < 1 or _shape(graph.tensors[int(index)])[0] != 1 for index in graph.inputs):
        return None
    _free_shapes(model)
    candidate = flatbuffer.pack(model)
    with native_stderr_silenced(debug=debug):
        try:
            expected = [_run(content, {name: array[i : i + 1] for name, array in examples.items()}) for i in range(2)]
            answers = _run(candidate, {name: array[:2] for name, array in examples.items()})
            single = _shapes(candidate, {name: array[:1] for name, array in examples.items()})
            double = _shapes(candidate, {name: array[:2] for name, array in examples.items()})
        except (RuntimeError, ValueError):  # a shape with the batch built in
            return None
    for name, answer in answers.items():
        wanted = np.concatenate([one[name] for one in expected])
        if answer.shape != wanted.shape or not _same(answer, wanted):
            return None
    for index, tensor in enumerate(graph.tensors):
        if flatbuffer.constant(model, tensor) is None and index in single and len(single[index]):
            signature = [-1 if one != two else one for one, two in zip(single[index], double[index], strict=True)]
            tensor.shape = np.array(single[index], np.int32)
            tensor.shapeSignature = np.array(signature, np.int32) if -1 in signature else None
    return flatbuffer.pack(model)


def _shape(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


# Where an op reads the size of its result, -1 meaning "what is left" or "all".
_SIZES = {"RESHAPE": 1, "SLICE": 2}


def _free_shapes(model: Any) -> None:
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        position = _SIZES.get(name)
        if position is None or len(operator.inputs) <= position:
            continue
        source = _shape(graph.tensors[int(operator.inputs[0])])
        sizes = flatbuffer.constant(model, graph.tensors[int(operator.inputs[position])])
        if sizes is None or not sizes.size or sizes[0] != 1 or source[:1] != [1] or -1 in sizes:
            continue
        free = np.concatenate([[-1], sizes[1:]]).astype(np.int32)
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[position] = flatbuffer.add_constant(model, free)
        if name == "RESHAPE" and operator.builtinOptions is not None:
            operator.builtinOptions.newShape = free


def _interpreter(content: bytes, feeds: Mapping[str, np.ndarray]) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without XNNPACK, which keeps the shapes of inner tensors to itself.
    interpreter = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    positions = next(iter(interpreter._get_full_signature_list().values()))["inputs"]
    for name, index in positions.items():
        interpreter.resize_tensor_input(index, feeds[name].shape)
    interpreter.allocate_tensors()
    for name, index in positions.items():
        interpreter.set_tensor(index, feeds[name])
    return interpreter


def _run(content: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    interpreter = _interpreter(content, feeds)
    interpreter.invoke()
    outputs = next(iter(interpreter._get_full_signature_list().values()))["outputs"]
    return {name: interpreter.get_tensor(index) for name, index in outputs.items()}


def _shapes(content: bytes, feeds: Mapping[str, np.ndarray]) -> dict[int, tuple[int, ...]]:
    interpreter = _interpreter(content, feeds)
    return {detail["index"]: tuple(int(size) for size in detail["shape"]) for detail in interpreter.get_tensor_details()}


def _same(answer: np.ndarray, wanted: np.ndarray) -> bool:
    if answer.dtype.kind != "f":
        return bool(np.array_equal(answer, wanted))
    largest = float(np.abs(wanted).max(initial=0.0))
    return bool(np.abs(answer - wanted).max(initial=0.0) <= _RELATIVE_DIFFERENCE * max(largest, 1e-6))
