"""How samples become what a Keras model is called with."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from ..data import InputSpec, load_representative
from . import signatures

__all__ = ["as_inputs", "input_specs", "read_samples"]


def input_specs(model: keras.Model) -> list[InputSpec]:
    """Returns name, shape and dtype of each of a model's inputs, in the order of ``signatures.input_tensors``.

    Args:
        model: a built Keras 3 model.
    """
    return [InputSpec(leaf.name, leaf.shape, np.dtype(leaf.dtype)) for leaf in signatures.input_tensors(model)]


def read_samples(model: keras.Model, source: Any, *, size: int, most: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields samples in blocks, arrays (n, ...) by input name; labels of (x, y) pairs are dropped.

    Args:
        model: a built Keras 3 model.
        source: representative data as ``convert`` takes it.
        size: samples in a block, at most.
        most: samples in all, at most.

    Raises:
        DataError: the data does not fit the model.
    """
    left = most
    for batch in load_representative(source, input_specs(model)).batches(size):
        block = {name: np.asarray(values)[:left] for name, values in batch.items()}
        yield block
        left -= len(next(iter(block.values())))
        if left <= 0:
            return


def as_inputs(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns arrays by input name in the structure that the model is called with.

    Args:
        model: a built Keras 3 model.
        arrays: (n, ...) by input name.

    Examples:
        >>> model = keras.Sequential([keras.Input((4,), name="pixels"), keras.layers.Dense(2)])
        >>> as_inputs(model, {"pixels": np.zeros((3, 4))}).shape
        (3, 4)
    """
    structure = signatures.input_structure(model)
    return signatures.pack(structure, [arrays[leaf.name] for leaf in signatures.named_leaves(structure)])
