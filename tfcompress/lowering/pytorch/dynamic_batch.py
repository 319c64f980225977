"""How does a flatbuffer that was exported at batch size 1 come to take any batch?

The exporter writes the batch into every RESHAPE, SLICE and tensor's shape. Here these ops get a -1 in its place, the
interpreter works out which axes grow with the batch, and the file is kept only if it answers several samples at once as it
answers them one by one. Models that mix their samples, or merge the batch with another axis, stay as they are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...system import native_stderr_silenced
from ...tflite import flatbuffer

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
    if any(
        len(_shape(graph.tensors[int(index)])) < 1 or _shape(graph.tensors[int(index)])[0] != 1
        for index in graph.inputs
    ):
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
    flatbuffer.unique_names(model)
    return flatbuffer.pack(model)


def _shape(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


def _free_shapes(model: Any) -> None:
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        found = [flatbuffer.constant(model, graph.tensors[int(index)]) for index in operator.inputs[1:]]
        constants = [values for values in found if values is not None and values.size]
        if name not in ("RESHAPE", "SLICE") or not constants or len(constants) < len(found):
            continue
        is_single = _shape(graph.tensors[int(operator.inputs[0])])[:1] == [1]
        if is_single and name == "RESHAPE" and constants[0][0] == 1 and -1 not in constants[0]:
            free = np.concatenate([[-1], constants[0][1:]]).astype(np.int32)
            operator.inputs = np.array([operator.inputs[0], flatbuffer.add_constant(model, free)], np.int32)
            if operator.builtinOptions is not None:
                operator.builtinOptions.newShape = free
        elif is_single and name == "SLICE" and constants[0][0] == 0 and constants[1][0] == 1:
            _slice_all_samples(model, operator, constants[0], constants[1])


def _slice_all_samples(model: Any, operator: Any, begin: np.ndarray, size: np.ndarray) -> None:
    """Turns SLICE into STRIDED_SLICE, which can leave an axis out; SLICE over an open axis is not delegated."""
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.STRIDED_SLICE
    code.version = 1
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    source = np.array(_shape(model.subgraphs[0].tensors[int(operator.inputs[0])]))
    end = np.where(size < 0, source, begin + size)
    parts = [flatbuffer.add_constant(model, np.asarray(p, np.int32)) for p in (begin, end, np.ones_like(begin))]
    operator.inputs = np.array([operator.inputs[0], *parts], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.StridedSliceOptions
    operator.builtinOptions = schema.StridedSliceOptionsT()
    operator.builtinOptions.beginMask = operator.builtinOptions.endMask = 1  # bit 0: the batch axis as a whole


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
    return {
        detail["index"]: tuple(int(size) for size in detail["shape"]) for detail in interpreter.get_tensor_details()
    }


def _same(answer: np.ndarray, wanted: np.ndarray) -> bool:
    if answer.dtype.kind != "f":
        return bool(np.array_equal(answer, wanted))
    largest = float(np.abs(wanted).max(initial=0.0))
    return bool(np.abs(answer - wanted).max(initial=0.0) <= _RELATIVE_DIFFERENCE * max(largest, 1e-6))
