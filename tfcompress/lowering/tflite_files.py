"""How an existing float ``.tflite`` file, from whatever converter, becomes the hub of a conversion.

One signature is chosen: its subgraph becomes the main one, and those that it calls (bodies of loops, branches) stay.
Half-precision weights become float32, and dynamic axes are fixed where that is asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelError
from ..layers import signatures
from ..tflite import flatbuffer, qdq, static_shapes
from .lowered import Lowered, finish

__all__ = ["lower_flatbuffer"]

_QUANTIZED_TYPES = ("INT4", "INT8", "UINT8", "INT16", "INT2")
_CALLING_FIELDS = (
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
    "subgraph",
    "decompositionSubgraphIndex",
)


def lower_flatbuffer(
    content: bytes,
    *,
    place: str,
    signature: str | None = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    debug: bool = False,
) -> Lowered:
    """Returns an existing float ``.tflite`` file as the hub; its signature is kept, or made from its tensor names.

    Args:
        content: the bytes of the file.
        place: how messages name it.
        signature: which one of several. Default: "serving_default", or the only one.
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ValueError: ``signature`` or ``input_shapes`` does not fit.
        ModelError: damaged, quantized already, or several signatures and no choice.
        ConversionError: the graph cannot take the shapes, or an input holds text.
    """
    parsed = flatbuffer.parse(content, place=place)
    interface = _choose(parsed, signature, place=place)
    _check_float(parsed, place)
    graph = parsed.subgraphs[0]
    if qdq.fold_half_precision(parsed):
        flatbuffer.drop_dead(parsed)
    inputs = signatures.unique_names(interface.inputs)
    outputs = signatures.unique_names(interface.outputs)
    known = {name: _shape(graph.tensors[int(index)]) for name, index in zip(inputs, graph.inputs, strict=True)}
    fixed = static_shapes.fix_shapes(known, input_shapes, place=place)
    if fixed != known:
        by_index = {int(index): fixed[name] for name, index in zip(inputs, graph.inputs, strict=True)}
        static_shapes.fix_inputs(parsed, by_index, place=place, debug=debug)
    finished: list[Lowered] = []

    def reference(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        from ..tflite import open_model

        results = open_model(finished[0].content, debug=debug).run(dict(arrays))
        return [results[name] for name in outputs]

    finished.append(finish(parsed, [(name, fixed[name]) for name in inputs], outputs, reference))
    return finished[0]


def _check_float(model: Any, place: str) -> None:
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            scale = getattr(tensor.quantization, "scale", None)
            if flatbuffer.type_name(tensor) in _QUANTIZED_TYPES and scale is not None and len(scale):
                raise ModelError(
                    f"A model to convert must be float. Received: {place}, quantized already "
                    f"({flatbuffer.tensor_name(tensor)} is {flatbuffer.type_name(tensor)}). Use its float source."
                )


def _shape(tensor: Any) -> static_shapes.Shape:
    has_signature = tensor.shapeSignature is not None and len(tensor.shapeSignature)
    sizes = tensor.shapeSignature if has_signature else tensor.shape
    return tuple(None if size < 0 else int(size) for size in ([] if sizes is None else sizes))


class _Interface(NamedTuple):
    """Names of the main subgraph's inputs and outputs, in its own order."""

    inputs: list[str]
    outputs: list[str]


def _choose(model: Any, wanted: str | None, *, place: str) -> _Interface:
    """Makes the wanted signature's subgraph the main one, drops what it does not call, and names its inputs and outputs.

    Args:
        model: the schema's object of a file, changed in place.
        wanted: a signature's key, None for "serving_default", the only signature, or the main subgraph of a file
            without signatures.
        place: how messages name the file.

    Raises:
        ValueError: there is no such signature.
        ModelError: several signatures and no choice.
    """
    known = {_text(signature.signatureKey): signature for signature in model.signatureDefs or []}
    listed = ", ".join(map(repr, sorted(known)))
    if wanted is not None and wanted not in known:
        raise ValueError(
            f"signature must be one of {place}'s: {listed or 'none'}. Received: {wanted!r}. Use one of these."
        )
    if wanted is None and len(known) > 1 and "serving_default" not in known:
        raise ModelError(
            f"A model with several signatures needs a choice. Received: {place} with {listed}. "
            f"Pass --signature=NAME (signature={min(known)!r} in Python)."
        )
    key = wanted or ("serving_default" if "serving_default" in known else next(iter(known), None))
    signature = known[key] if key is not None else None
    main = int(signature.subgraphIndex) if signature is not None else 0
    if not 0 <= main < len(model.subgraphs):
        raise ModelError(f"{place} is damaged: signature {key!r} names subgraph {main}. Copy or convert it again.")
    _keep(model, main)
    model.signatureDefs = None
    graph = model.subgraphs[0]
    return _Interface(
        _names(graph, graph.inputs, signature.inputs if signature is not None else None),
        _names(graph, graph.outputs, signature.outputs if signature is not None else None),
    )


def _names(graph: Any, indices: Any, maps: Any) -> list[str]:
    known = {int(entry.tensorIndex): _text(entry.name) for entry in maps or []}
    return [known.get(int(index), flatbuffer.tensor_name(graph.tensors[index])) for index in indices]


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")


def _calls(graph: Any) -> Iterator[tuple[Any, str]]:
    """Yields the options of ops and the field in them that names a subgraph."""
    for operator in graph.operators or []:
        for options in (operator.builtinOptions, getattr(operator, "builtinOptions2", None)):
            for field in _CALLING_FIELDS:
                if isinstance(getattr(options, field, None), int) and getattr(options, field) >= 0:
                    yield options, field


def _keep(model: Any, main: int) -> None:
    order = [main]
    for index in order:  # grows while it is read: subgraphs call further ones
        for options, field in _calls(model.subgraphs[index]):
            called = int(getattr(options, field))
            if called not in order and called < len(model.subgraphs):
                order.append(called)
    position = {old: new for new, old in enumerate(order)}
    for index in order:
        for options, field in _calls(model.subgraphs[index]):
            setattr(options, field, position[int(getattr(options, field))])
    model.subgraphs = [model.subgraphs[index] for index in order]
