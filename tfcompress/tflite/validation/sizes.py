"""How much does reading a flatbuffer take? Lists that name one table or text over and over are refused before they are copied.

A whole file has room for each of its parts once. A damaged or hostile one is small and names one part a million times.
"""

from collections.abc import Iterator
from typing import Any

__all__ = ["Contradiction", "check_sizes"]

WORD = 4  # bytes of an offset, the least that each item of a list of tables takes
TIMES = 4  # writers share equal texts and vtables, so that parts may add up to more than the file
LEAST = 1 << 16
# Slots of texts in the vtables of schema.fbs, in bytes.
MODEL_DESCRIPTION, SUBGRAPH_NAME, TENSOR_NAME, CUSTOM_CODE, ENTRY_NAME, SIGNATURE_KEY = 10, 12, 10, 6, 4, 8


class Contradiction(ValueError):
    """What in a file contradicts something else in it; its text is a part of a sentence."""


def check_sizes(root: Any, size: int) -> None:
    """Refuses a file whose lists, texts and buffers add up to more than it has room for.

    Args:
        root: the schema's ``Model`` over the bytes.
        size: of the file in bytes.

    Raises:
        Contradiction: they do.
    """
    _within(sum(_lengths(root)), size // WORD, "tables")
    _within(sum(_texts(root)), TIMES * size + LEAST, "bytes of text and numbers")
    _within(sum(root.Buffers(i).DataLength() for i in range(root.BuffersLength())), size, "bytes of buffers")


def _within(found: int, most: int, what: str) -> None:
    if found > most:
        raise Contradiction(f"it lists {found} {what} where it has room for {most}")


def _counted(count: int, most: int, what: str) -> int:
    _within(count, most, what)
    return count


def _lengths(root: Any) -> Iterator[int]:
    """Yields the length of each list of tables or of tensor numbers, outer ones first, each bounded before it is walked."""
    most = len(root._tab.Bytes) // WORD
    outer = [
        root.BuffersLength(),
        root.OperatorCodesLength(),
        root.MetadataLength(),
        root.SignatureDefsLength(),
        root.SubgraphsLength(),
    ]
    yield _counted(sum(outer), most, "tables")
    inner = 0
    for graph in (root.Subgraphs(i) for i in range(root.SubgraphsLength())):
        lists = graph.InputsLength(), graph.OutputsLength(), graph.TensorsLength(), graph.OperatorsLength()
        inner = _counted(inner + sum(lists), most, "tables")
    yield inner
    entries = 0
    for graph in (root.Subgraphs(i) for i in range(root.SubgraphsLength())):
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            used = operator.InputsLength(), operator.OutputsLength(), operator.IntermediatesLength()
            entries = _counted(entries + sum(used), most, "tables")
    for signature in (root.SignatureDefs(i) for i in range(root.SignatureDefsLength())):
        entries = _counted(entries + signature.InputsLength() + signature.OutputsLength(), most, "tables")
    yield entries


def _texts(root: Any) -> Iterator[int]:
    """Yields the bytes of each text and of each list of numbers that a tensor or an op holds."""
    yield _text(root, MODEL_DESCRIPTION)
    yield from (_text(root.OperatorCodes(i), CUSTOM_CODE) for i in range(root.OperatorCodesLength()))
    yield from (_text(root.Metadata(i), ENTRY_NAME) for i in range(root.MetadataLength()))
    for graph in (root.Subgraphs(i) for i in range(root.SubgraphsLength())):
        yield _text(graph, SUBGRAPH_NAME)
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
            yield _text(tensor, TENSOR_NAME) + 4 * (tensor.ShapeLength() + tensor.ShapeSignatureLength())
            parameters = tensor.Quantization()
            if parameters is not None:
                yield 4 * (parameters.MinLength() + parameters.MaxLength() + parameters.ScaleLength())
                yield 8 * parameters.ZeroPointLength()
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            yield operator.CustomOptionsLength()
    for signature in (root.SignatureDefs(i) for i in range(root.SignatureDefsLength())):
        yield _text(signature, SIGNATURE_KEY)
        yield from (_text(signature.Inputs(i), ENTRY_NAME) for i in range(signature.InputsLength()))
        yield from (_text(signature.Outputs(i), ENTRY_NAME) for i in range(signature.OutputsLength()))


def _text(table: Any, slot: int) -> int:
    place = table._tab.Offset(slot)
    return table._tab.VectorLen(place) if place else 0
