"""Can a tensor be what it says: its sizes, the tensors that hold its scales, the order in which a sparse one is stored?

Whether its scales are as many as its channels is LiteRT's own rule, which ``inspect`` shows: older writers' files break it.
"""

import math
from typing import Any

import numpy as np

from .sizes import Contradiction

__all__ = ["MOST_TENSOR_BYTES", "check_tensor"]

MOST_TENSOR_BYTES = (1 << 31) - 1  # of a flatbuffer; more in one tensor is damage, and would be allocated
MOST_AXES = 1 << 8
_ITEM_BYTES = {
    "FLOAT64": 8,
    "INT64": 8,
    "UINT64": 8,
    "COMPLEX64": 8,
    "COMPLEX128": 16,
    "FLOAT32": 4,
    "INT32": 4,
    "UINT32": 4,
}
DENSE, SPARSE = 0, 1  # DimensionType


def check_tensor(tensor: Any, place: str, *, tensors: int) -> None:
    """Refuses a tensor of the schema whose parts contradict each other.

    Args:
        tensor: of the schema.
        place: which one it is, for the message.
        tensors: how many its subgraph has.

    Raises:
        Contradiction: a size is negative or the sizes multiply to 2 GiB or more; or its scales are of a tensor that is not there;
            or a sparse one's order is not that of its axes.
    """
    shape = _sizes(tensor.shape)
    if min(shape, default=0) < 0:
        raise Contradiction(f"{place} has the shape {_short(shape)}")
    signature = _sizes(tensor.shapeSignature)
    item = _ITEM_BYTES.get(_type_names().get(tensor.type, ""), 1)
    for sizes in (shape, signature):
        if min(sizes, default=0) < -1 or len(sizes) > MOST_AXES:
            raise Contradiction(f"{place} has the shape {_short(sizes)}")
        if item * math.prod(abs(size) for size in sizes) > MOST_TENSOR_BYTES:
            raise Contradiction(f"{place} has the shape {_short(sizes)}, which takes 2 GiB or more")
    if tensor.quantization is not None:
        _check_blocks(tensor.quantization, place, tensors)
    if tensor.sparsity is not None:
        _check_sparsity(tensor.sparsity, shape, place)


_TYPES: dict[int, str] = {}


def _type_names() -> dict[int, str]:
    if not _TYPES:
        from ai_edge_litert.schema_py_generated import TensorType

        _TYPES.update({number: name for name, number in vars(TensorType).items() if isinstance(number, int)})
    return _TYPES


def _sizes(array: Any) -> list[int]:
    return [] if array is None else [int(size) for size in array]


def _short(sizes: list[int]) -> str:
    return str(sizes) if len(sizes) <= 8 else f"of {len(sizes)} axes"


def _check_blocks(quantization: Any, place: str, tensors: int) -> None:
    for name in ("scales", "zeroPoints"):
        index = getattr(quantization.details, name, 0)
        if not -1 <= index < tensors:
            raise Contradiction(f"{place} names tensor {index} of {tensors} for its {name}")


def _check_sparsity(sparsity: Any, shape: list[int], place: str) -> None:
    order, blocks = _sizes(sparsity.traversalOrder), _sizes(sparsity.blockMap)
    dimensions = sparsity.dimMetadata or []
    is_order = sorted(order) == list(range(len(shape) + len(blocks)))
    if not is_order or len(dimensions) != len(order) or not all(0 <= axis < len(shape) for axis in blocks):
        raise Contradiction(f"{place} is stored sparsely in an order that is not that of its axes")
    for dimension in dimensions:
        if dimension.format not in (DENSE, SPARSE) or dimension.denseSize < 0:
            raise Contradiction(f"{place} is stored sparsely in a form that there is not")
        if dimension.format == SPARSE:
            segments = np.asarray(getattr(dimension.arraySegments, "values", None), np.float64).reshape(-1)
            indices = np.asarray(getattr(dimension.arrayIndices, "values", None), np.float64).reshape(-1)
            rises = len(segments) > 0 and segments[0] == 0 and bool((np.diff(segments) >= 0).all())
            if not rises or segments[-1] != len(indices) or (len(indices) and indices.min() < 0):
                raise Contradiction(f"{place} is stored sparsely with segments that are not those of its indices")
