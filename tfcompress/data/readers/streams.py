"""Samples from what is iterated: a ``tf.data.Dataset``, a generator, or a function that returns one.

TensorFlow is never imported: a data set is recognised by what it can do. Which array of an element belongs to which input
is decided by ``arrays_in_memory``.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from ...errors import DataError
from ..samples import Block, Samples
from ..specs import SampleSpec
from .arrays_in_memory import unpack

__all__ = ["read"]


def read(source: Any, spec: SampleSpec) -> Samples:
    """Returns the samples of a stream, which are read when they are asked for.

    Args:
        source: yields elements that are each an array, a dictionary, one array per input, or ``(x, y)``, batched or not: an
            array of the input's rank is a batch, an array of one axis less is a single sample, and so are its labels.
        spec: what is read.

    Raises:
        DataError: a data set that does not end; when it is read: an element does not fit, or a generator is read twice.

    Examples:
        >>> import numpy as np
        >>> from ..specs import InputSpec
        >>> spec = SampleSpec([InputSpec("x", (None, 2), np.float32)], labels="classes")
        >>> found = read(((np.full(2, i), i) for i in range(3)), spec).in_memory()
        >>> found.inputs["x"].shape, found.labels["y"]
        ((3, 2), array([0, 1, 2]))
    """
    is_dataset = hasattr(source, "element_spec") and hasattr(source, "cardinality")
    if is_dataset and int(source.cardinality()) == -1:  # tf.data.INFINITE_CARDINALITY
        raise DataError("The data set must end. Received: one that repeats for ever. Call .take(n) on it.")
    was_read = False

    def blocks(size: int) -> Iterator[Block]:
        nonlocal was_read
        if isinstance(source, Iterator):
            if was_read:
                raise DataError(
                    "A generator can be read once. Received: a second pass. Pass the function that makes it, or arrays."
                )
            was_read = True
        for element in source() if callable(source) and not isinstance(source, Iterable) else source:
            yield unpack(element, spec)

    return Samples(blocks, spec)
