"""What can be said about each op and tensor of a ``.tflite`` file without running it: values for tables and pages.

Types, ranges, scales, weights and multiply-adds, one ``OpSummary`` per op. ``inspection`` puts them together.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import constant_tensors, flatbuffer, operands

__all__ = ["OpSummary", "TensorSummary", "layer_names", "op_layers", "summarize_ops", "summarize_tensor"]


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of a file.

    Args:
        name: as in the file.
        dtype: "int8", "float32", ... as in the schema, in small letters.
        shape: None for an axis of free length.
        scale: real size of one integer step, None for a tensor that is not quantized; of the first channel if several.
        zero_point: the integer that stands for 0, of the first channel if several.
        scales: how many scales there are: 0, 1, or one per channel.
        channel_axis: the axis that the scales belong to, None unless there are several.
        range: the lowest and the highest real number that the integers can stand for, None for a float tensor.

    Examples:
        >>> print(TensorSummary("image", "int8", (None, 8, 8, 1), 0.0625, -128, 1, None, (0.0, 15.9375)))
        image int8 (any, 8, 8, 1), scale 0.0625, zero point -128
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    scale: float | None = None
    zero_point: int = 0
    scales: int = 0
    channel_axis: int | None = None
    range: tuple[float, float] | None = None

    @property
    def shape_text(self) -> str:
        """The shape as people write it: "1x32x32x16", with "any" for a free axis and "scalar" for none."""
        return "x".join("any" if size is None else str(size) for size in self.shape) or "scalar"

    @property
    def sample_text(self) -> str:
        """The shape without its first axis, the batch: "32x32x16"."""
        return "x".join("any" if size is None else str(size) for size in self.shape[1:]) or self.shape_text

    def __str__(self) -> str:
        shape = ", ".join("any" if size is None else str(size) for size in self.shape)
        text = f"{self.name} {self.dtype} ({shape})"
        if self.scales > 1:
            return f"{text}, {self.scales} scales on axis {self.channel_axis}"
        return text if self.scale is None else f"{text}, scale {self.scale:.7g}, zero point {self.zero_point}"


@dataclass(frozen=True)
class OpSummary:
    """One op of a file.

    Args:
        index: its number in its graph, from 0, in the order of execution.
        subgraph: the number of its graph; 0 is the main one.
        op: as in the schema: "CONV_2D".
        layer: a short name: of the output tensor (else of a constant), without what all names share.
        precision: "float32", "int8", "int16x8" (activations x weights), "dynamic int8" (float activations are quantized
            while it runs), "stored int8" (weights are unpacked to float), "float16" (likewise), "int8->float32", ...
        output: its first output, None for an op without one.
        inputs: all inputs, constants too, without those left out.
        weights: the first stored tensor that it multiplies with, None without one.
        weight_bytes: stored size of all its weights.
        bias_bytes: stored size of its biases.
        sparsity: fraction of its weights that are exactly 0, None without weights.
        multiply_adds: products of two numbers that it sums up, for the shapes in the file (a free axis counts as 1).
    """

    index: int
    subgraph: int
    op: str
    layer: str
    precision: str
    output: TensorSummary | None
    inputs: tuple[TensorSummary, ...]
    weights: TensorSummary | None
    weight_bytes: int
    bias_bytes: int
    sparsity: float | None
    multiply_adds: int

    @property
    def granularity(self) -> str:
        """How the weights are quantized: "per channel", "per tensor", "blocks", or "" where they are not."""
        if self.weights is None or not self.weights.dtype.startswith(("int", "uint")):
            return ""
        return {0: "blocks", 1: "per tensor"}.get(self.weights.scales, "per channel")

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values."""
        return {**dataclasses.asdict(self), "granularity": self.granularity}


def summarize_tensor(tensor: Any) -> TensorSummary:
    """Returns what can be said about a tensor of the schema."""
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    signature = tensor.shapeSignature
    if signature is not None and len(signature) == len(shape):
        shape = [int(size) for size in signature]
    found = constant_tensors.scales(tensor)
    several = found is not None and len(found[0]) > 1
    return TensorSummary(
        flatbuffer.tensor_name(tensor),
        flatbuffer.type_name(tensor).lower(),
        tuple(None if size < 0 else size for size in shape),
        float(found[0][0]) if found is not None else None,
        int(found[1][0]) if found is not None else 0,
        len(found[0]) if found is not None else 0,
        found[2] if found is not None and several else None,
        constant_tensors.value_range(tensor),
    )


def summarize_ops(model: Any) -> tuple[OpSummary, ...]:
    """Returns a summary for each op, graph by graph, in the order of execution.

    Args:
        model: the schema's object of a file.
    """
    found = []
    for number, graph in enumerate(model.subgraphs):
        operators = graph.operators or []
        names = op_layers(graph)
        origins = _dequantized_constants(model, graph)
        for index, (operator, layer) in enumerate(zip(operators, names, strict=True)):
            found.append(_summarize_op(model, graph, operator, (number, index), layer, origins))
    return tuple(found)


def layer_names(names: Sequence[str]) -> list[str]:
    """Returns short names: the first of several fused ones, without the scope that all share and without the op's word.

    Examples:
        >>> layer_names(["net_1/stem_relu_1/Relu;net_1/stem_1/conv", "net_1/residual_1/Add", "Identity"])
        ['stem_relu', 'residual', 'Identity']
    """
    paths = [name.split(";")[0].strip("/").split("/") for name in names]
    scopes = {path[0] for path in paths if len(path) > 2}
    shared = scopes.pop() if len(scopes) == 1 else None
    # Keras 3 opens each scope twice, so that every layer's name ends in _1.
    twice = shared is not None and all(path[1].endswith("_1") for path in paths if len(path) > 2)
    short = []
    for path in paths:
        rest = path[1:] if len(path) > 2 and path[0] == shared else path
        rest = rest[:-1] if len(rest) > 1 else rest
        rest = rest[:-1] if len(rest) > 1 and rest[-1] == "batchnorm" else rest  # Keras 3 gives the sum a scope
        name = "/".join(part.removesuffix("_1") if twice and len(path) > 2 else part for part in rest)
        short.append(name)
    return short


def op_layers(graph: Any) -> list[str]:
    """Returns the short name of each op of a graph: of its output, or of its constants where the output has no scope.

    Args:
        graph: one of the schema's object of a file.
    """
    names = []
    for operator in graph.operators or []:
        inputs = [] if operator.inputs is None else [int(index) for index in operator.inputs][1:]
        outputs = [] if operator.outputs is None else [int(index) for index in operator.outputs][:1]
        known = [flatbuffer.tensor_name(graph.tensors[index]) for index in (*outputs, *inputs) if index >= 0]
        names.append(next((name for name in known if "/" in name), known[0] if known else ""))
    return layer_names(names)


def _dequantized_constants(model: Any, graph: Any) -> dict[int, int]:
    """Returns the stored tensor behind each tensor that is a dequantized constant (half-precision weights)."""
    found = {}
    for operator in graph.operators or []:
        if flatbuffer.op_name(model, operator) in ("DEQUANTIZE", "DENSIFY") and len(operator.inputs):
            source = int(operator.inputs[0])
            if source >= 0 and constant_tensors.buffer_bytes(model.buffers[graph.tensors[source].buffer]):
                found[int(operator.outputs[0])] = source
    return found


def _summarize_op(
    model: Any, graph: Any, operator: Any, place: tuple[int, int], layer: str, origins: dict[int, int]
) -> OpSummary:
    op = flatbuffer.op_name(model, operator)
    inputs = [] if operator.inputs is None else [int(index) for index in operator.inputs]
    outputs = [] if operator.outputs is None else [int(index) for index in operator.outputs]
    by_role: dict[str, list[int]] = {operands.WEIGHTS: [], operands.BIAS: []}
    for slot, role in operands.input_roles(op).items():
        if slot < len(inputs) and inputs[slot] >= 0:
            index = origins.get(inputs[slot], inputs[slot])
            if constant_tensors.buffer_bytes(model.buffers[graph.tensors[index].buffer]):
                by_role[role].append(index)
    weights = by_role[operands.WEIGHTS]
    constants = {index for index in inputs if index >= 0 and _is_stored(model, graph, index)} | set(origins)
    output = next((summarize_tensor(graph.tensors[index]) for index in outputs if index >= 0), None)
    activations = [graph.tensors[index] for index in inputs if index >= 0 and index not in constants]
    sizes = {role: sum(_bytes(model, graph, index) for index in found) for role, found in by_role.items()}
    return OpSummary(
        index=place[1],
        subgraph=place[0],
        op=op,
        layer=layer,
        precision=_precision(
            activations if op not in ("DEQUANTIZE", "DENSIFY") else [graph.tensors[index] for index in inputs],
            graph.tensors[weights[0]] if weights else None,
            output,
            unpacked=bool(weights) and weights[0] in origins.values(),
        ),
        output=output,
        inputs=tuple(summarize_tensor(graph.tensors[index]) for index in inputs if index >= 0),
        weights=summarize_tensor(graph.tensors[weights[0]]) if weights else None,
        weight_bytes=sizes[operands.WEIGHTS],
        bias_bytes=sizes[operands.BIAS],
        sparsity=_sparsity(model, [graph.tensors[index] for index in weights]),
        multiply_adds=operands.multiply_adds(
            op,
            [None if index < 0 else _shape(graph.tensors[index]) for index in inputs],
            [_shape(graph.tensors[index]) for index in outputs if index >= 0],
        ),
    )


def _precision(activations: Sequence[Any], weights: Any, output: TensorSummary | None, *, unpacked: bool) -> str:
    """Returns the word for the arithmetic of an op, from the types of what comes in, is stored and goes out."""
    goes_out = output.dtype if output is not None else ""
    comes_in = flatbuffer.type_name(activations[0]).lower() if activations else goes_out
    kept = flatbuffer.type_name(weights).lower() if weights is not None else comes_in
    if comes_in != goes_out and goes_out and weights is None:
        return f"{comes_in}->{goes_out}"
    if kept == comes_in or not weights:
        return comes_in
    if comes_in == "float32":
        kind = "stored" if unpacked else "dynamic"  # unpacked to float before the op, or multiplied as integers
        return f"{kind} {kept}" if kept.startswith(("int", "uint")) else kept
    return f"{comes_in}x{kept.lstrip('uint')}" if kept.startswith(("int", "uint")) else f"{comes_in}->{goes_out}"


def _sparsity(model: Any, tensors: Sequence[Any]) -> float | None:
    shares = [(constant_tensors.zeros(model, tensor), _elements(tensor)) for tensor in tensors]
    known = [(share, count) for share, count in shares if share is not None]
    total = sum(count for _, count in known)
    return sum(share * count for share, count in known) / total if total else None


def _elements(tensor: Any) -> int:
    count = 1
    for size in _shape(tensor):
        count *= size
    return count


def _shape(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else [int(size) for size in tensor.shape]


def _is_stored(model: Any, graph: Any, index: int) -> bool:
    return constant_tensors.buffer_bytes(model.buffers[graph.tensors[index].buffer]) > 0


def _bytes(model: Any, graph: Any, index: int) -> int:
    return constant_tensors.buffer_bytes(model.buffers[graph.tensors[index].buffer])
