"""Which array belongs to which input of the model?

Takes apart what people write: dictionaries, ``(x, y)`` pairs, one array per input, lists of single samples. Looks at
names, nesting and rank only; whether the values fit is decided by ``arrays``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from .arrays import InputSpec, one_line

__all__ = [
    "LABEL_NAMES",
    "arrays_in_memory",
    "as_array",
    "choose_names",
    "find_labels",
    "select_by_name",
    "split_element",
]

LABEL_NAMES = ("y", "labels", "label", "targets")
_SAMPLE_NAMES = ("x", "images", "input", "samples")


def arrays_in_memory(source: Any, inputs: tuple[InputSpec, ...]) -> dict[str, np.ndarray] | None:
    """Returns the arrays of a source that holds them all, None for anything that must be iterated.

    Args:
        source: a dictionary, an array, or a list or tuple; see ``data.load_representative`` for their meaning.
        inputs: what the model accepts.

    Returns:
        One array per input, any shape and dtype.

    Raises:
        DataError: an input has no array, or single samples differ in shape.

    Examples:
        >>> arrays_in_memory(([[1, 2], [3, 4]], [0, 1]), (InputSpec("x", (None, 2), np.float32),))["x"].shape
        (2, 2)
    """
    if isinstance(source, Mapping) or hasattr(source, "__array__"):
        return split_element(source, inputs)
    if not isinstance(source, tuple | list):
        return None
    if not source:
        raise DataError("The data must hold at least one sample. Received: an empty list. Check where it comes from.")
    is_nested = isinstance(source[0], Mapping | tuple | list) and not _is_number_list(source[0])
    if len(inputs) == 1 and not is_nested:
        rank = as_array(source[0]).ndim
        if rank == len(inputs[0].shape) - 1:
            return {inputs[0].name: _stack([as_array(item) for item in source])}
        if len(source) > 2:
            raise DataError(
                f"A model with one input takes one array, (x, y) or single samples. Received: {len(source)} arrays of "
                f"{rank} axes for input {inputs[0]}. Concatenate them."
            )
        return {inputs[0].name: as_array(source[0])}
    return split_element(source, inputs)


def split_element(element: Any, inputs: tuple[InputSpec, ...]) -> dict[str, np.ndarray]:
    """Returns the arrays of one element of a stream by input name, without its labels.

    Raises:
        DataError: an input has no array.

    Examples:
        >>> a, b = InputSpec("a", (None,), np.float32), InputSpec("b", (None,), np.float32)
        >>> split_element(((np.zeros(2), np.ones(2)), "label"), (a, b))
        {'a': array([0., 0.]), 'b': array([1., 1.])}
    """
    if isinstance(element, Mapping):
        return select_by_name(element, inputs, "the dictionary")
    if isinstance(element, tuple | list) and element and not _is_number_list(element):
        if len(inputs) == 1 or isinstance(element[0], Mapping | tuple | list):
            return split_element(element[0], inputs)  # (x, y) or (x, y, sample_weight)
        if len(element) == len(inputs):
            return {spec.name: as_array(item) for spec, item in zip(inputs, element, strict=True)}
    elif len(inputs) == 1:
        return {inputs[0].name: as_array(element)}
    received = f"{len(element)} arrays" if isinstance(element, tuple | list) else "one array"
    raise DataError(
        f"A model with {len(inputs)} inputs needs an array for each: {', '.join(spec.name for spec in inputs)}. "
        f"Received: {received}. Pass a dictionary by input name."
    )


def select_by_name(arrays: Mapping[str, Any], inputs: tuple[InputSpec, ...], place: str) -> dict[str, np.ndarray]:
    """Returns the array of each input from arrays by name; ``place`` names them in the message.

    Raises:
        DataError: an input has no array.

    Examples:
        >>> select_by_name({"x": 1, "y": 2}, (InputSpec("image", (None,), np.float32),), "the file")
        {'image': array(1)}
    """
    return {name: as_array(arrays[key]) for name, key in choose_names(list(arrays), inputs, place).items()}


def choose_names(names: list[str], inputs: tuple[InputSpec, ...], place: str) -> dict[str, str]:
    """Returns the name in the data for each input name.

    Names are equal; for a model with one input also the only name that is no label, or x, images, input, samples.

    Raises:
        DataError: an input's name is not there.

    Examples:
        >>> choose_names(["x", "weights", "y"], (InputSpec("image", (None,), np.float32),), "the file")
        {'image': 'x'}
    """
    wanted = [spec.name for spec in inputs]
    if all(name in names for name in wanted):
        return {name: name for name in wanted}
    candidates = [name for name in names if name not in LABEL_NAMES]
    usual = [name for name in candidates if name in _SAMPLE_NAMES]
    if len(wanted) == 1 and 1 in (len(candidates), len(usual)):
        return {wanted[0]: (usual if len(usual) == 1 else candidates)[0]}
    expected = f"{wanted[0]!r} or one of {', '.join(_SAMPLE_NAMES)}" if len(wanted) == 1 else ", ".join(wanted)
    raise DataError(
        f"Arrays are found by input name: {expected}. Received: {', '.join(map(str, names)) or 'none'} in {place}. "
        "Rename the arrays."
    )


def find_labels(arrays: Mapping[str, Any]) -> Any:
    """Returns the array of labels, None if there is none.

    Examples:
        >>> find_labels({"x": 1, "y": 2})
        2
    """
    return next((arrays[name] for name in LABEL_NAMES if name in arrays), None)


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
            f"Samples must be arrays of one shape. Received: {type(value).__name__} ({one_line(error)}). "
            "Pad or resize them."
        ) from error


def _stack(samples: list[np.ndarray]) -> np.ndarray:
    for i, sample in enumerate(samples):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"Samples must have one shape. Received: {samples[0].shape} and {sample.shape} in sample {i}. "
                "Pad or resize them."
            )
    return np.stack(samples)


def _is_number_list(value: Any) -> bool:
    """Is this one array written as nested lists, rather than a sequence of arrays?"""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, int | float)
