"""Which part of a ``.tflite`` file is converted, when it has several signatures or subgraphs?

The chosen signature's subgraph becomes the main one, and those that it calls (bodies of loops, branches) stay. Edits
flatbuffers; runs nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import ModelError
from ..tflite import flatbuffer

__all__ = ["Interface", "choose"]

_CALLING_FIELDS = (
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
    "subgraph",
    "decompositionSubgraphIndex",
)


class Interface(NamedTuple):
    """Names of the main subgraph's inputs and outputs, in its own order."""

    inputs: list[str]
    outputs: list[str]


def choose(model: Any, wanted: str | None, *, place: str) -> Interface:
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
    return Interface(
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
