"""On which inputs is a PyTorch model exported?

``torch.export`` runs a model on example tensors; their shapes and dtypes become those of the file. Here they are made from
what the caller gave. Nothing is exported here.
"""

import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import DataError, ModelError
from . import modules

__all__ = ["Shape", "batch_to_export", "examples_for", "probe", "read", "resized"]

Shape = Sequence[int | None]


def examples_for(
    names: tuple[str, ...], samples: Any, shapes: Mapping[str, Shape] | None, torch: Any, place: str
) -> dict[str, Any]:
    """Returns a tensor by input name, from what the caller gave.

    Args:
        names: the inputs that need an example, in order.
        samples: arrays or tensors (n, ...) by input name, in order, or one alone; None to use ``shapes``.
        shapes: shape by input name, float32; a leading None stands for a batch of 1.
        torch: the module ``torch``.
        place: how messages name the model.

    Raises:
        ModelError: an input without an example, or an open axis other than the batch.
    """
    if samples is None and not shapes:
        raise ModelError(
            f"A PyTorch model is exported on an example. Received: {place} with the inputs {', '.join(names)} and none for "
            f"them. Pass --input_shape={names[0] if names else 'x'}:1,3,224,224 "
            f"(input_shapes={{{names[0] if names else 'x'!r}: (1, 3, 224, 224)}}), or sample_inputs."
        )
    if samples is None:
        generator = torch.Generator().manual_seed(0)
        given = {
            name: torch.randn(
                [1 if i == 0 and size is None else _size(name, size) for i, size in enumerate(shape)],
                generator=generator,
            )
            for name, shape in (shapes or {}).items()
        }
    elif isinstance(samples, Mapping):
        given = dict(samples)
    else:
        values = list(samples) if isinstance(samples, list | tuple) else [samples]
        if len(values) > len(names):
            raise ModelError(
                f"Each input needs one example. Received: {len(values)} for the inputs {', '.join(names)} of {place}. Give "
                "them in the order of forward, or by name."
            )
        given = dict(zip(names, values, strict=False))
    missing = [name for name in names if name not in given]
    if missing:
        raise ModelError(
            f"Each input needs one example. Received: {', '.join(map(str, given)) or 'none'} for the inputs "
            f"{', '.join(names)} of {place}. Name them as forward does."
        )
    return {
        name: value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
        for name, value in given.items()
    }


def _size(name: str, size: int | None) -> int:
    if size is None or size < 1:
        raise ModelError(
            f"Only the batch axis of a PyTorch model may be open here. Received: {size} in the shape of {name}. Write its size."
        )
    return size


def batch_to_export(opened: Any, examples: Mapping[str, Any], shapes: Mapping[str, Shape] | None) -> tuple[int, bool]:
    """Returns the batch size to export with, and whether the file should take any.

    Raises:
        ModelError: an input without a batch axis.
    """
    given = [shape[0] for shape in (shapes or {}).values() if len(shape)]
    if any(size is not None for size in given):
        return int(next(size for size in given if size is not None)), False
    if any(tensor.dim() == 0 for tensor in examples.values()):
        raise ModelError(f"Inputs have the batch as their first axis. Received: a single number for {opened.name}.")
    return opened.batch or 1, True


def resized(tensor: Any, batch: int) -> Any:
    """Returns a tensor with ``batch`` samples, the first ones, or all of them again and again."""
    repeats = -(-batch // len(tensor))
    return tensor.repeat(repeats, *[1] * (tensor.dim() - 1))[:batch].contiguous()


def probe(tensor: Any) -> np.ndarray:
    """Returns two samples that differ where the input is float."""
    example = modules.to_numpy(tensor[:1])
    if example.dtype.kind == "f":
        return np.random.default_rng(0).normal(size=(2, *example.shape[1:])).astype(np.float32)
    narrow = example.astype(np.int32) if example.dtype == np.int64 else example
    return np.concatenate([narrow, narrow])


def read(path: str | os.PathLike) -> Any:
    """Returns the array of a ``.npy`` file, or those of a ``.npz`` file by name.

    Args:
        path: the file; nothing in it is unpickled.

    Raises:
        DataError: no such file, or no arrays in it.
    """
    try:
        if not os.path.isfile(path):
            raise OSError("no such file")
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, Mapping) else loaded
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"Sample inputs must be a .npy or .npz file. Received: {path} ({error}). Save the inputs of forward by name with "
            "numpy.savez."
        ) from error
