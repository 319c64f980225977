"""What every lowering hands on: one float flatbuffer, and what is known about it.

Does not lower; each kind of source has a module for that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data import InputSpec
from ..errors import ConversionError
from ..tflite import flatbuffer, static_shapes
from ..tflite.static_shapes import Shape
from . import substitutions

__all__ = ["Lowered", "Reference", "finish"]

Reference = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
"""A source model as a function from arrays (n, ...) by input name to its outputs, in the file's order."""


@dataclass(frozen=True)
class Lowered:
    """A float flatbuffer and what is known about it.

    Args:
        content: the bytes of the float ``.tflite`` file.
        inputs: name, shape and dtype of each input, in the file's order.
        outputs: signature name of each output, in the file's order.
        reference: the source model as a function from arrays by input name to its outputs as a list of arrays.
        trained: (lowest, highest) by tensor name, from trained ranges. Default: none.
        skipped: layers whose inner tensors have no trained range, with the reason. Default: none.
        notes: what had to be decided on the way, one sentence each. Default: none.
    """

    content: bytes = field(repr=False)
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    reference: Reference = field(repr=False)
    trained: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def finish(
    parsed: Any,
    inputs: Sequence[tuple[str, Shape]],
    outputs: Sequence[str],
    reference: Reference,
    *,
    trained: Mapping[str, tuple[float, float]] | None = None,
    skipped: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Lowered:
    """Returns the flatbuffer with constant shapes, unique tensor names and a signature.

    Args:
        parsed: the schema's object of a float file with one main subgraph, changed in place.
        inputs: name and shape of each input, in the file's order.
        outputs: name of each output, in the file's order.
        reference: see ``Lowered``.
        trained: see ``Lowered``; with it the tensor names are unique already. Default: none.
        skipped: see ``Lowered``. Default: none.
        notes: see ``Lowered``. Default: none.

    Raises:
        ConversionError: an input holds text or has no batch axis.
    """
    static_shapes.fold_computed_reshapes(parsed)
    substitutions.substitute(parsed)
    graph = parsed.subgraphs[0]
    if not trained:
        flatbuffer.unique_names(parsed)
    renamed = _name_outputs(parsed, outputs)
    trained = {renamed.get(name, name): pair for name, pair in (trained or {}).items()}
    flatbuffer.set_signature(parsed, [name for name, _ in inputs], list(outputs))
    specs = []
    for (name, shape), index in zip(inputs, graph.inputs, strict=True):
        dtype = flatbuffer.dtype_of(graph.tensors[index])
        if dtype is None:
            raise ConversionError(
                f"Inputs must be numbers. Received: {name} of type {flatbuffer.type_name(graph.tensors[index])}. "
                "Move text preprocessing out of the model."
            )
        if not shape:
            raise ConversionError(
                f"Inputs must begin with a batch axis. Received: {name}, a scalar. Make it a constant of the model, or "
                "give it the shape (1, 1)."
            )
        specs.append(InputSpec(name, tuple(shape), dtype))
    return Lowered(
        flatbuffer.pack(parsed), tuple(specs), tuple(outputs), reference, trained, skipped or {}, tuple(notes)
    )


def _name_outputs(parsed: Any, outputs: Sequence[str]) -> dict[str, str]:
    """Gives output tensors that a trace called "Identity" the names of the outputs; returns the new name by the old."""
    graph = parsed.subgraphs[0]
    taken = {flatbuffer.tensor_name(tensor) for tensor in graph.tensors}
    renamed = {}
    for index, name in zip(graph.outputs, outputs, strict=True):
        tensor = graph.tensors[int(index)]
        old = flatbuffer.tensor_name(tensor)
        if old.startswith("Identity") and name not in taken:
            tensor.name = name.encode()
            taken.add(name)
            renamed[old] = name
    return renamed
