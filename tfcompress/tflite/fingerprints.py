"""Are two float flatbuffers the same model, whatever process wrote them and whatever their tensors are called?

A hash of the graph and the weights: what computes the values, and nothing else. Names, descriptions, metadata, ranges and
the order of bytes in the file do not count.
"""

import hashlib
from typing import Any

import numpy as np

from . import flatbuffer

__all__ = ["model_sha256"]


def model_sha256(content: Any) -> str:
    """Returns the SHA-256 over ops, their options and connections, tensor shapes, types and weights, in hexadecimal.

    Args:
        content: bytes of a ``.tflite`` file, or what ``flatbuffer.parse`` made of them.

    Raises:
        ModelError: the file is damaged.
    """
    model = flatbuffer.parse(content) if isinstance(content, bytes) else content
    digest = hashlib.sha256()

    def note(*values: Any) -> None:
        digest.update(repr(values).encode())

    for graph in model.subgraphs:
        note("graph", _plain(graph.inputs), _plain(graph.outputs), len(graph.tensors))
        for tensor in graph.tensors:
            note(tensor.type, _plain(tensor.shape), _plain(tensor.shapeSignature), bool(tensor.isVariable))
            data = model.buffers[tensor.buffer].data
            if data is not None and len(data):
                digest.update(np.ascontiguousarray(data, np.uint8).data)
        for operator in graph.operators or []:
            note(flatbuffer.op_name(model, operator), _plain(operator.inputs), _plain(operator.outputs))
            note(_plain(operator.builtinOptions), _plain(operator.customOptions), _plain(operator.intermediates))
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Returns an option, an array of indices or a nested table as something with a stable ``repr``."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__dict__"):
        return type(value).__name__, [(name, _plain(item)) for name, item in sorted(vars(value).items())]
    return value
