"""What a Keras model is called with, and the names its inputs and outputs go by.

Does not run the model. Names come from the model's own inputs and outputs, which is what a converted file's signature
is made of.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras

from ..errors import ModelError

__all__ = [
    "InputTensor",
    "input_structure",
    "input_tensors",
    "named_leaves",
    "output_names",
    "pack",
    "structure_names",
    "unique_names",
]


MOST_UNDERSCORES = 16  # of one name over and over; then a number, so that names do not grow with their count


class InputTensor(NamedTuple):
    """One input: its name, its shape with the batch axis first (None where dynamic), and its dtype name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


def input_structure(model: keras.Model) -> Any:
    """Returns ``model``'s inputs as it is called with them: one ``InputTensor``, or a list or dictionary of them.

    Args:
        model: a built Keras 3 model.

    Raises:
        ModelError: the model is not built, so its input shapes are unknown.

    Examples:
        >>> import keras
        >>> input_structure(keras.Sequential([keras.Input((4,), name="pixels"), keras.layers.Dense(2)]))
        InputTensor(name='pixels', shape=(None, 4), dtype='float32')
    """
    functional = getattr(model, "_functional", None) or model
    structure = getattr(functional, "_inputs_struct", None)
    if structure is not None:
        return keras.tree.map_structure(_from_symbolic, structure)
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise ModelError(
            f"The model must be built before its inputs are known. Received: {model.name!r}, not built. "
            "Call it once on a batch of data."
        )
    dtype = model.input_dtype if model.input_dtype not in ("float16", "bfloat16") else "float32"
    return _from_shapes(next(iter(shapes.values())), "input", dtype)


def _from_shapes(shape: Any, name: str, dtype: str) -> Any:
    """Returns what a subclassed model is called with, from the shapes of the data that built it."""
    if isinstance(shape, dict):
        return {key: _from_shapes(value, str(key), dtype) for key, value in shape.items()}
    if shape and isinstance(shape[0], list | tuple | dict):
        return [_from_shapes(value, f"{name}_{index}", dtype) for index, value in enumerate(shape)]
    return InputTensor(name, (None, *shape[1:]), dtype)


def _from_symbolic(tensor: Any) -> InputTensor:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    # An unnamed Input's tensor is "keras_tensor" until the model was saved and loaded; its layer's name stays.
    history = getattr(tensor, "_keras_history", None)
    name = history.operation.name if history is not None else tensor.name
    return InputTensor(name, tuple(tensor.shape), "float32" if dtype in ("float16", "bfloat16") else dtype)


def input_tensors(model: keras.Model) -> list[InputTensor]:
    """Returns the leaves of ``input_structure(model)`` with names that are unique and fit for a signature."""
    return named_leaves(input_structure(model))


def named_leaves(structure: Any) -> list[InputTensor]:
    """Returns the ``InputTensor`` leaves of a structure with names that are unique and fit for a signature.

    Args:
        structure: an ``InputTensor``, or lists, tuples and dictionaries of them; dictionaries go by sorted keys.

    Examples:
        >>> tensor = InputTensor("x:0", (None, 4), "float32")
        >>> [leaf.name for leaf in named_leaves({"b": tensor, "a": tensor})]
        ['x_0', 'x_0_']
    """
    leaves = _leaves(structure)
    return [leaf._replace(name=name) for leaf, name in zip(leaves, unique_names(x.name for x in leaves), strict=True)]


def unique_names(names: Iterable[str]) -> list[str]:
    """Returns the names with the characters that a signature takes, none of them twice.

    Args:
        names: any text.

    Examples:
        >>> unique_names(["my output", "my/output", ""])
        ['my_output', 'my_output_', '_']
    """
    unique: dict[str, None] = {}  # in order; a file may give one name to all
    last: dict[str, str] = {}
    for name in names:
        plain = name = re.sub(r"[^A-Za-z0-9_.]", "_", name) or "_"
        name = last.get(plain, plain)
        while name in unique:
            name = f"{name}_" if len(name) < len(plain) + MOST_UNDERSCORES else f"{plain}__{len(unique)}"
        last[plain] = name
        unique[name] = None
    return list(unique)


def structure_names(structure: Any, name: str = "output") -> list[str]:
    """Returns a name for each leaf: keys of dictionaries (in sorted order), else ``name`` and positions.

    Args:
        structure: tensors in lists, tuples and dictionaries.
        name: what a leaf without a key is called. Default: "output".

    Examples:
        >>> structure_names({"mask": 0, "boxes": [0, 0]}), structure_names(0)
        (['boxes_0', 'boxes_1', 'mask'], ['output'])
    """

    def walk(node: Any, path: str) -> list[str]:
        if isinstance(node, dict):
            return [leaf for key in sorted(node) for leaf in walk(node[key], f"{path}_{key}" if path else str(key))]
        if isinstance(node, list | tuple):
            return [leaf for i, item in enumerate(node) for leaf in walk(item, f"{path or name}_{i}")]
        return [path or name]

    return unique_names(walk(structure, ""))


def _leaves(structure: Any) -> list[InputTensor]:
    if isinstance(structure, InputTensor):  # a tuple itself, which tree.flatten would take apart
        return [structure]
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in _leaves(structure[key])]
    return [leaf for item in structure for leaf in _leaves(item)]


def pack(structure: Any, leaves: list[Any]) -> Any:
    """Returns ``leaves`` arranged as ``structure``, in the order of ``input_tensors``."""
    remaining = iter(leaves)

    def build(node: Any) -> Any:
        if isinstance(node, InputTensor):
            return next(remaining)
        if isinstance(node, dict):
            built = {key: build(node[key]) for key in sorted(node)}
            return {key: built[key] for key in node}
        return type(node)(build(item) for item in node) if isinstance(node, list | tuple) else node

    return build(structure)


def output_names(model: Any, outputs: Any) -> list[str]:
    """Returns a signature name for each output: keys of a dictionary, the model's own output names, or positions.

    Args:
        model: a built Keras 3 or tf_keras model.
        outputs: what the model returned, a structure of tensors.
    """
    by_structure = structure_names(outputs)
    functional = getattr(model, "_functional", None) or model
    names = list(getattr(functional, "output_names", None) or [])
    return by_structure if isinstance(outputs, dict) or len(names) != len(by_structure) else unique_names(names)


def input_keys(model: keras.Model) -> list[str]:
    """Returns for each input, in the order of ``input_tensors``, the key that a dictionary of data has it under.

    Args:
        model: a built Keras 3 model.
    """
    structure = input_structure(model)
    if isinstance(structure, dict) and all(isinstance(leaf, InputTensor) for leaf in structure.values()):
        return sorted(structure)
    return [tensor.name for tensor in input_tensors(model)]
