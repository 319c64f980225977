"""What a finished ``.tflite`` file really holds, and how far its answers are from the model it came from.

Every finished file is walked: ops, float tensors, sizes, zeros. Parity runs the file on the interpreter. Nothing is
changed here.
"""

import gzip
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ..metrics import argmax_agreement
from ..quantization import Target
from ..tflite import flatbuffer, op_summaries

__all__ = ["Contents", "Parity", "float_operators", "forbidden_floats", "parity", "parity_samples", "run_once", "walk"]

_MOST_SAMPLES = 32
_FEWEST_SAMPLES = 8
_NUMBERS = 1_500_000  # of the inputs altogether: more would take longer than calibrating a large model


def parity_samples(shapes: Sequence[tuple[int | None, ...]]) -> int:
    """Returns how many samples the parity check takes: 32, fewer for large inputs.

    Args:
        shapes: the inputs' shapes with their batch axis; None for a dynamic axis.

    Examples:
        >>> parity_samples([(None, 28, 28, 1)]), parity_samples([(None, 224, 224, 3)])
        (32, 9)
    """
    numbers = sum(int(np.prod([size or 1 for size in shape[1:]])) for shape in shapes)
    return int(np.clip(_NUMBERS // max(numbers, 1), _FEWEST_SAMPLES, _MOST_SAMPLES))


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        ops: number of each op, most frequent first.
        float_tensors: names of all tensors of a float type, in the file's order.
        size_bytes: size of the file.
        gzip_bytes: size after gzip, which is what a download costs.
        sparsity: fraction of exact zeros by weight tensor (float, or integer at its zero point), weights only.
    """

    ops: Mapping[str, int]
    float_tensors: tuple[str, ...]
    size_bytes: int
    gzip_bytes: int
    sparsity: Mapping[str, float]


@dataclass(frozen=True)
class Parity:
    """How the file's answers differ from the source model's on the same samples.

    Args:
        samples: number of samples that were compared.
        max_steps: largest difference of an output, in quantization steps of that output (absolute for float outputs).
        mean_steps: mean difference, likewise.
        argmax_agreement: how often the largest output is the same one, in [0, 1].
        unit: "steps", or "absolute" when the outputs are float.
    """

    samples: int
    max_steps: float
    mean_steps: float
    argmax_agreement: float
    unit: str

    def __str__(self) -> str:
        unit = "output quantization steps" if self.unit == "steps" else "absolute"
        return (
            f"same arg-max {self.argmax_agreement:.1%}, difference max {self.max_steps:.3g} and mean "
            f"{self.mean_steps:.3g} ({unit}, {self.samples} samples)"
        )


def walk(content: bytes) -> Contents:
    """Returns what a ``.tflite`` file holds.

    Args:
        content: the bytes of the file.

    Raises:
        ModelError: damaged.
    """
    model = flatbuffer.parse(content)
    floats: list[str] = []
    sparsity: dict[str, float] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if flatbuffer.type_name(tensor) in flatbuffer.FLOAT_TYPES:
                floats.append(flatbuffer.tensor_name(tensor))
        for operator in graph.operators or []:
            if flatbuffer.op_name(model, operator) in _WEIGHT_INPUT:
                position = _WEIGHT_INPUT[flatbuffer.op_name(model, operator)]
                if len(operator.inputs) <= position:
                    continue
                tensor = graph.tensors[int(operator.inputs[position])]
                values = flatbuffer.constant(model, tensor)
                if values is not None:
                    sparsity[flatbuffer.tensor_name(tensor)] = _zeros(tensor, values)
    return Contents(
        flatbuffer.op_counts(model), tuple(floats), len(content), len(gzip.compress(content, mtime=0)), sparsity
    )


_WEIGHT_INPUT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1}


def _zeros(tensor: object, values: np.ndarray) -> float:
    quantization = getattr(tensor, "quantization", None)
    zero_points = getattr(quantization, "zeroPoint", None)
    zero = int(zero_points[0]) if zero_points is not None and len(zero_points) == 1 else 0
    return float(np.mean(values == zero)) if values.size else 0.0


def forbidden_floats(
    content: bytes, target: Target, *, allow_float: Sequence[str] = (), kept: Collection[str] = ()
) -> list[str]:
    """Returns the names of the float tensors that an integer target does not allow.

    Allowed are float inputs and outputs where the target has them, the tensors that only permitted operators touch, and the
    intermediates of integer LSTMs, which hold no values.

    Args:
        content: the bytes of the file.
        target: what the file is for; nothing is forbidden for a target without integer activations.
        allow_float: shell patterns of operators that TFLite has in float only, such as "NON_MAX_SUPPRESSION*".
            Default: none.
        kept: names of the outputs of operators that a precision rule left in float. Default: none.
    """
    if not target.integer:
        return []
    model = flatbuffer.parse(content)
    names = []
    for graph in model.subgraphs:
        allowed: set[int] = set()
        if target.input_type == "float32":
            allowed.update(int(index) for index in graph.inputs)
        if target.output_type == "float32":
            allowed.update(int(index) for index in graph.outputs)
        allowed |= _touched_by_permitted(model, graph, allow_float, kept) | _scales_alone(graph)
        for index, tensor in enumerate(graph.tensors):
            if index not in allowed and flatbuffer.type_name(tensor) in flatbuffer.FLOAT_TYPES:
                names.append(flatbuffer.tensor_name(tensor))
    return names


def float_operators(content: bytes) -> dict[str, list[str]]:
    """Returns the operators that compute in float, without the conversions to and from it, and each one's layers.

    Args:
        content: the bytes of the file.
    """
    model = flatbuffer.parse(content)
    found: dict[str, dict[str, None]] = {}
    for graph in model.subgraphs:
        for operator, layer in zip(graph.operators or [], op_summaries.op_layers(graph), strict=True):
            op = flatbuffer.op_name(model, operator)
            results = [graph.tensors[int(index)] for index in operator.outputs if int(index) >= 0]
            if op != "DEQUANTIZE" and any(flatbuffer.type_name(t) in flatbuffer.FLOAT_TYPES for t in results):
                found.setdefault(op, {})[layer] = None
    return {op: list(layers) for op, layers in found.items()}


def _scales_alone(graph: Any) -> set[int]:
    """Returns the tensors between the gates of integer LSTMs: float by type, but they carry a scale and no values."""
    found: set[int] = set()
    for operator in graph.operators:
        results = [flatbuffer.type_name(graph.tensors[int(index)]) for index in operator.outputs]
        if operator.intermediates is not None and not set(results) & set(flatbuffer.FLOAT_TYPES):
            found.update(int(index) for index in operator.intermediates)
    return found


def _touched_by_permitted(model: Any, graph: Any, allow_float: Sequence[str], kept: Collection[str]) -> set[int]:
    permitted: set[int] = set()
    others: set[int] = set()
    for operator in graph.operators or []:
        op = flatbuffer.op_name(model, operator)
        outputs = [int(index) for index in operator.outputs]
        touched = {*outputs, *(int(index) for index in operator.inputs)}
        named = any(_is_kept(flatbuffer.tensor_name(graph.tensors[index]), kept) for index in outputs)
        if named or any(fnmatchcase(op, pattern) for pattern in allow_float):
            permitted |= touched
        elif op not in ("QUANTIZE", "DEQUANTIZE"):
            others |= touched
    return permitted - others


def _is_kept(name: str, kept: Collection[str]) -> bool:
    return any(
        name == other or name.startswith(f"{other}_") for other in kept
    )  # the quantizer adds "_dequant" and such


def run_once(content: bytes, *, debug: bool = False) -> None:
    """Runs the file once on zeros: what does not run here is not finished.

    Args:
        content: the bytes of the file.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ModelError: the interpreter refuses the file.
        DeviceError: an operator failed.
    """
    from ..tflite import open_model

    model = open_model(content, debug=debug)
    shapes = {info.name: tuple(size or 1 for size in info.shape) for info in model.inputs}
    model.run_raw({info.name: np.zeros(shapes[info.name], info.dtype) for info in model.inputs})


def parity(
    content: bytes,
    outputs: tuple[str, ...],
    expected: Sequence[np.ndarray],
    batch: Mapping[str, np.ndarray],
    *,
    debug: bool = False,
) -> Parity:
    """Returns how the file answers compared with its source model.

    Args:
        content: the bytes of the file.
        outputs: signature names of the outputs, in the order of ``expected``.
        expected: the source model's answers to ``batch``, float arrays.
        batch: samples by input name, (n, ...), float or integer as the source model takes them.
        debug: whether the interpreter's log lines are shown. Default: False.
    """
    from ..tflite import open_model

    model = open_model(content, debug=debug)
    answers = model.run(dict(batch))
    steps = {output.name: output.scale for output in model.outputs}
    largest, total, count, agreements = 0.0, 0.0, 0, []
    for name, wanted in zip(outputs, expected, strict=True):
        got = np.asarray(answers[name], np.float64)
        difference = np.abs(got - np.asarray(wanted, np.float64).reshape(got.shape)) / (steps[name] or 1.0)
        largest = max(largest, float(difference.max()))
        total, count = total + float(difference.sum()), count + difference.size
        if got.ndim >= 2 and got.shape[-1] > 1:
            agreements.append(argmax_agreement(got, np.asarray(wanted).reshape(got.shape)))
    samples = len(next(iter(batch.values())))
    unit = "steps" if all(steps[name] for name in outputs) else "absolute"
    return Parity(samples, largest, total / count, float(np.mean(agreements)) if agreements else 1.0, unit)
