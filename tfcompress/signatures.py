"""What a Keras model is called with, and the names its inputs and outputs go by.

Does not run the model. Names come from the model's own inputs and outputs, which is what a converted file's signature
is made of.
"""

import re
from typing import Any, NamedTuple

import keras

from .errors import ModelError

__all__ = ["InputTensor", "input_structure", "input_tensors", "output_names"]


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

    Example:
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
    shape = next(iter(shapes.values()))
    dtype = model.input_dtype if model.input_dtype not in ("float16", "bfloat16") else "float32"
    if isinstance(shape, dict):
        return {name: InputTensor(name, tuple(value), dtype) for name, value in shape.items()}
    if shape and isinstance(shape[0], list | tuple):
        return [InputTensor(f"input_{i}", (None, *value[1:]), dtype) for i, value in enumerate(shape)]
    return InputTensor("input", (None, *shape[1:]), dtype)


def _from_symbolic(tensor: Any) -> InputTensor:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return InputTensor(tensor.name, tuple(tensor.shape), "float32" if dtype in ("float16", "bfloat16") else dtype)


def input_tensors(model: keras.Model) -> list[InputTensor]:
    """Returns the leaves of ``input_structure(model)`` with names that are unique and fit for a signature."""
    taken: set[str] = set()
    tensors = []
    for leaf in _leaves(input_structure(model)):
        name = re.sub(r"[^A-Za-z0-9_.]", "_", leaf.name) or "input"
        while name in taken:
            name += "_"
        taken.add(name)
        tensors.append(leaf._replace(name=name))
    return tensors


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


def output_names(model: keras.Model, count: int) -> list[str]:
    """Returns a signature name for each of ``count`` outputs: the model's own output names, made unique.

    Args:
        model: a built Keras 3 model.
        count: number of output tensors.
    """
    functional = getattr(model, "_functional", None) or model
    names = list(getattr(functional, "output_names", None) or [])
    if len(names) != count:
        names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    taken: set[str] = set()
    unique = []
    for name in names:
        name = re.sub(r"[^A-Za-z0-9_.]", "_", name) or "output"
        while name in taken:
            name += "_"
        taken.add(name)
        unique.append(name)
    return unique
