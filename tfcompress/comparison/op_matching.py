"""Which op of one ``.tflite`` file is which op of another: found by name, then by place.

A quantizer keeps most names, renames inputs and outputs, adds QUANTIZE and DEQUANTIZE and leaves the order alone; two
converters name nothing alike and still write the same ops in the same order. Nothing is run here.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..tflite import flatbuffer

__all__ = ["Pair", "match"]

_CONVERSIONS = frozenset(("QUANTIZE", "DEQUANTIZE", "DENSIFY"))
_SUFFIX = re.compile(r"(_(u?int(8|16)|quantized|dequantized|dequant|requant|quantize))+$")


class Pair(NamedTuple):
    """The same op in two files: its number in each main graph, and the number of its first output."""

    first: int
    second: int
    first_tensor: int
    second_tensor: int


MOST_ALIKE = 4_000_000  # pairs of ops that could be the same: 2,000 equal ops; more are matched from the front only


class _Op(NamedTuple):
    number: int
    op: str
    tensor: int
    name: str
    sample: tuple[int, ...]


def match(first: Any, second: Any) -> tuple[Pair, ...]:
    """Returns the ops that two files share, in the order of the second one's execution.

    Two ops are the same if they are of one kind, their outputs have the same shape per sample, and the outputs' names
    are equal; then names without what quantizers append; then, of those left over, ops at the same place in the order.

    Args:
        first: the schema's object of a file.
        second: that of the other.
    """
    ours, theirs = _ops(first), _ops(second)
    found: dict[int, _Op] = {}
    taken: set[int] = set()
    for simplify in (str, _plain):
        known = _by_name([op for op in ours if op.number not in taken], simplify)
        names = Counter(simplify(op.name) for op in theirs)
        for op in theirs:
            name = simplify(op.name)
            partner = known.get(name)
            if op.number not in found and names[name] == 1 and partner is not None and _alike(partner, op):
                found[op.number] = partner
                taken.add(partner.number)
    for start, other_start, size in _same_places(ours, theirs) if len(found) < len(theirs) else ():
        for mine, other in zip(ours[start : start + size], theirs[other_start : other_start + size], strict=True):
            if other.number not in found and mine.number not in taken:
                found[other.number] = mine
                taken.add(mine.number)
    return tuple(
        Pair(found[op.number].number, op.number, found[op.number].tensor, op.tensor)
        for op in theirs
        if op.number in found
    )


def _same_places(ours: Sequence[_Op], theirs: Sequence[_Op]) -> Sequence[tuple[int, int, int]]:
    """Returns the runs of ops of one kind and shape, as (start in one, start in the other, length)."""
    mine, other = [(op.op, op.sample) for op in ours], [(op.op, op.sample) for op in theirs]
    counts, others = Counter(mine), Counter(other)
    if sum(count * others[key] for key, count in counts.items()) > MOST_ALIKE:
        alike = [a == b for a, b in zip(mine, other, strict=False)]
        return [(0, 0, next((i for i, same in enumerate(alike) if not same), len(alike)))]
    return difflib.SequenceMatcher(None, mine, other, autojunk=False).get_matching_blocks()


def _ops(model: Any) -> list[_Op]:
    graph = model.subgraphs[0]
    found = []
    for number, operator in enumerate(graph.operators or []):
        op = flatbuffer.op_name(model, operator)
        tensor = -1 if operator.outputs is None or not len(operator.outputs) else int(operator.outputs[0])
        if op not in _CONVERSIONS and tensor >= 0:
            shape = graph.tensors[tensor].shape
            sample = () if shape is None else tuple(int(size) for size in shape)[1:]
            found.append(_Op(number, op, tensor, flatbuffer.tensor_name(graph.tensors[tensor]), sample))
    return found


def _by_name(ops: Sequence[_Op], simplify: Any) -> dict[str, _Op]:
    names = Counter(simplify(op.name) for op in ops)
    return {simplify(op.name): op for op in ops if op.name and names[simplify(op.name)] == 1}


def _plain(name: str) -> str:
    return _SUFFIX.sub("", name.removesuffix(":0"))


def _alike(mine: _Op, other: _Op) -> bool:
    return mine.op == other.op and mine.sample == other.sample
