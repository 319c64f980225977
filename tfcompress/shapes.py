"""How a file with dynamic shapes becomes one with fixed shapes, as microcontrollers and accelerators need it.

LiteRT's own interpreter infers every shape once the inputs' are given; they are written into the flatbuffer. Weights and
arithmetic stay as they are.
"""

from collections.abc import Mapping

import numpy as np

from . import flatbuffer
from .errors import ConversionError
from .quiet import native_stderr_silenced

__all__ = ["fix", "fix_batch"]


def fix_batch(content: bytes, batch: int = 1) -> bytes:
    """Returns the file with a dynamic first axis of its inputs fixed; other dynamic axes stay as they are.

    Args:
        content: bytes of a ``.tflite`` file.
        batch: the size of the first axis, in samples. Default: 1.

    Raises:
        ConversionError: the graph does not take that batch.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    wanted = {}
    for index in graph.inputs:
        signature = graph.tensors[int(index)].shapeSignature
        if signature is None or not len(signature):
            continue
        sizes = [int(size) for size in signature]
        if sizes[0] < 0 and all(size > 0 for size in sizes[1:]):
            wanted[int(index)] = (batch, *sizes[1:])
    return fix(content, wanted) if wanted else content


def fix(content: bytes, shapes: Mapping[int, tuple[int, ...]]) -> bytes:
    """Returns the file with these shapes of inputs, and all others as they follow.

    Args:
        content: bytes of a ``.tflite`` file.
        shapes: shape by tensor index of the main subgraph's inputs.

    Raises:
        ConversionError: the graph does not take these shapes.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        with native_stderr_silenced():
            interpreter = Interpreter(
                model_content=content,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            for index, shape in shapes.items():
                interpreter.resize_tensor_input(index, shape)
            interpreter.allocate_tensors()
            inferred = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        sizes = ", ".join(str(shape) for shape in shapes.values())
        raise ConversionError(
            f"The model's inputs must take the fixed shapes. Received: {sizes} ({reason}). Choose others."
        ) from error
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    fixed = {int(index) for index in graph.inputs}
    for operator in graph.operators:
        fixed.update(int(index) for index in operator.outputs)
    for index in fixed:
        tensor = graph.tensors[index]
        if index in inferred and tensor.shape is not None and len(inferred[index]) == len(tensor.shape):
            tensor.shape = np.array(inferred[index], np.int32)
            tensor.shapeSignature = None
    return flatbuffer.pack(model)
