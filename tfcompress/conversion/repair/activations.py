"""What flows through a file's inner tensors on some samples, in real numbers.

Works on float and on integer files; the part of the graph behind the last wanted tensor is not run.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...tflite import AffineParameters, dequantize, flatbuffer, from_range, open_model, quantize

__all__ = ["capture", "channel_bounds", "on_grid"]

_BATCH = 16


def capture(
    model: Any, samples: Mapping[str, np.ndarray], tensors: Sequence[int], *, debug: bool = False
) -> dict[int, np.ndarray]:
    """Returns the values of tensors of the main subgraph, dequantized where they are integers.

    Args:
        model: a parsed float or integer file with a signature.
        samples: by input name of the signature, (n, ...), real numbers.
        tensors: indices of the wanted tensors.
        debug: whether the interpreter's log lines are shown. Default: False.

    Returns:
        By index (rows, ...) float32; one row a sample, unless the file moves positions into the batch axis, as
        SPACE_TO_BATCH_ND does around a dilated convolution.
    """
    graph = model.subgraphs[0]
    fed = {int(entry.tensorIndex): samples[_text(entry.name)] for entry in model.signatureDefs[0].inputs}
    values = {index: _as_stored(graph.tensors[index], fed[index]) for index in tensors if index in fed}
    wanted = [index for index in dict.fromkeys(tensors) if index not in fed]
    if not wanted:
        return values
    operators = graph.operators
    last = max(i for i, operator in enumerate(operators) if set(wanted) & {int(o) for o in operator.outputs})
    names = [tensor.name for tensor in graph.tensors]
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"t{index}".encode()  # names need not be unique in a file from elsewhere
    graph.operators = operators[: last + 1]
    try:
        exposed = flatbuffer.expose(model, wanted)
    finally:
        graph.operators = operators
        for tensor, name in zip(graph.tensors, names, strict=True):
            tensor.name = name
    file = open_model(exposed, threads=_threads(), debug=debug)
    answers = file.run({info.name: fed[int(info.name[1:])] for info in file.inputs}, batch=_BATCH)
    values.update({index: answers[f"t{index}"] for index in wanted})
    return values


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _as_stored(tensor: Any, values: np.ndarray) -> np.ndarray:
    scale = getattr(tensor.quantization, "scale", None)
    dtype = flatbuffer.dtype_of(tensor)
    if dtype is None or dtype.kind not in "iu" or scale is None or not len(scale):
        return np.asarray(values, np.float32)
    parameters = AffineParameters.of_dtype(scale[0], tensor.quantization.zeroPoint[0], dtype)
    return dequantize(quantize(values, parameters), parameters)


def on_grid(values: np.ndarray, pair: tuple[float, float] | None) -> np.ndarray:
    """Returns what is left of ``values`` in an int8 tensor with the range ``pair``; unchanged for None.

    Examples:
        >>> on_grid(np.array([0.0, 0.6, 300.0]), (0.0, 255.0)).tolist()
        [0.0, 1.0, 255.0]
    """
    if pair is None:
        return values
    parameters = from_range(*pair)
    low, high = parameters.real_range
    steps = np.floor(
        np.clip(values, low, high) / np.float32(parameters.scale) + 0.5
    )  # halves occur too rarely to matter
    return (steps * parameters.scale).astype(np.float32)


def channel_bounds(
    model: Any, samples: Mapping[str, np.ndarray], tensors: Sequence[int], *, debug: bool = False
) -> dict[int, np.ndarray]:
    """Returns the largest absolute value of each channel (last axis) of the tensors: (C,) float64 by index."""
    bounds: dict[int, np.ndarray] = {}
    count = len(next(iter(samples.values())))
    for start in range(0, count, _BATCH):
        batch = {name: values[start : start + _BATCH] for name, values in samples.items()}
        for index, values in capture(model, batch, tensors, debug=debug).items():
            largest = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0).astype(np.float64)
            bounds[index] = np.maximum(bounds.get(index, 0.0), largest)
    return bounds
