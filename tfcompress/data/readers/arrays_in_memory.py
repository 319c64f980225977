"""Samples from arrays in memory: dictionaries, ``(x, y)``, one array per input, lists of single samples.

Takes apart what people write. Looks at nesting and rank only; names are left to ``names``, and whether values fit to ``specs``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import DataError, reason
from ..samples import Batch, Block, Samples
from ..specs import SampleSpec
from . import names
from .names import LABEL

__all__ = ["label_arrays", "read", "unpack"]


def read(source: Any, spec: SampleSpec) -> Samples:
    """Returns the samples of arrays.

    Args:
        source: an array, a dictionary of arrays by input name, a list or tuple with one array per input, ``(x, y)``, or a
            list of single samples for a model with one input.
        spec: what is read. Where labels are wanted, two things are ``(x, y)`` unless they are a list of single samples.

    Raises:
        DataError: an input has no array, or an array does not fit.

    Examples:
        >>> from ..specs import InputSpec
        >>> spec = SampleSpec([InputSpec("x", (None, 2), np.float32)], labels="classes")
        >>> read(([[1, 2], [3, 4]], [0, 1]), spec).in_memory().labels
        {'y': array([0, 1])}
    """
    is_pair = isinstance(source, tuple | list) and len(source) == 2
    if not spec.labels or not is_pair or (isinstance(source, list) and _are_samples(source, spec)):
        block = _whole(source, spec)
        return Samples.of_arrays(block.inputs, spec, labels=block.labels)
    x, y = source
    return Samples.of_arrays(_whole(x, spec).inputs, spec, labels=label_arrays(y))


def unpack(element: Any, spec: SampleSpec) -> Block:
    """Returns the arrays of one element of a stream by input name, and its labels where they are wanted.

    Args:
        element: an array, a dictionary, one array per input, ``(x, y)`` or ``(x, y, sample_weight)``.
        spec: what is read.

    Raises:
        DataError: an input has no array.

    Examples:
        >>> from ..specs import InputSpec
        >>> spec = SampleSpec([InputSpec("a", (None,), np.float32), InputSpec("b", (None,), np.float32)])
        >>> unpack(((np.zeros(2), np.ones(2)), "label"), spec).inputs
        {'a': array([0., 0.]), 'b': array([1., 1.])}
    """
    if isinstance(element, Mapping):
        chosen = names.choose(element, spec, place="the dictionary")
        inputs, labels = ({name: as_array(element[key]) for name, key in part.items()} for part in chosen)
        return Block(inputs, labels)
    if isinstance(element, tuple | list) and element and not _is_number_list(element):
        if len(spec.inputs) == 1 or isinstance(element[0], Mapping | tuple | list):
            found = unpack(element[0], spec)
            return Block(found.inputs, label_arrays(element[1]) if spec.labels and len(element) > 1 else found.labels)
        if len(element) == len(spec.inputs):
            return Block({each.name: as_array(item) for each, item in zip(spec.inputs, element, strict=True)}, {})
    elif len(spec.inputs) == 1:
        return Block({spec.inputs[0].name: as_array(element)}, {})
    received = f"{len(element)} arrays" if isinstance(element, tuple | list) else "one array"
    raise DataError(
        f"A model with {len(spec.inputs)} inputs needs an array for each: {', '.join(each.name for each in spec.inputs)}. "
        f"Received: {received}. Pass a dictionary by input name."
    )


def as_array(value: Any) -> np.ndarray:
    """Returns ``np.asarray(value)``, or says that it is none.

    Raises:
        DataError: nested lists of different lengths, or a ragged or sparse tensor.

    Examples:
        >>> as_array([[1, 2], [3]])
        Traceback (most recent call last):
        ...
        tfcompress.errors.DataError: Samples must be arrays of one shape. Received: list (...). Pad or resize them.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Samples must be arrays of one shape. Received: {type(value).__name__} ({reason(error)}). "
            "Pad or resize them."
        ) from error


def _whole(source: Any, spec: SampleSpec) -> Block:
    """Returns the arrays of a source that holds them all, one per input, any shape and dtype."""
    if isinstance(source, Mapping) or not isinstance(source, tuple | list):
        return unpack(source, spec)
    if not source:
        raise DataError("The data must hold at least one sample. Received: an empty list. Check where it comes from.")
    if len(spec.inputs) > 1 or _is_nested(source):
        return unpack(source, spec)
    only = spec.inputs[0]
    if _are_samples(source, spec):
        return Block({only.name: _stack([as_array(item) for item in source])}, {})
    array = as_array(source[0])
    if len(source) > 2:
        raise DataError(
            f"A model with one input takes one array, (x, y) or single samples. Received: {len(source)} arrays of "
            f"{array.ndim} axes for input {only}. Concatenate them."
        )
    return Block({only.name: array}, {})


def label_arrays(y: Any) -> Batch:
    """Returns labels by name; those that are one array go by "y".

    Raises:
        DataError: they are no array.

    Examples:
        >>> label_arrays([0, 1])
        {'y': array([0, 1])}
    """
    if isinstance(y, Mapping):
        return {str(name): as_array(array) for name, array in y.items()}
    return {LABEL: as_array(y)}


def _stack(samples: list[np.ndarray]) -> np.ndarray:
    for i, sample in enumerate(samples):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"Samples must have one shape. Received: {samples[0].shape} and {sample.shape} in sample {i}. "
                "Pad or resize them."
            )
    return np.stack(samples)


def _are_samples(source: Sequence[Any], spec: SampleSpec) -> bool:
    """Is this a list of single samples of the model's only input?"""
    if len(spec.inputs) > 1 or not source or _is_nested(source):
        return False
    return as_array(source[0]).ndim == len(spec.inputs[0].shape) - 1


def _is_nested(source: Sequence[Any]) -> bool:
    return isinstance(source[0], Mapping | tuple | list) and not _is_number_list(source[0])


def _is_number_list(value: Any) -> bool:
    """Is this one array written as nested lists, rather than a sequence of arrays?"""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, int | float)
