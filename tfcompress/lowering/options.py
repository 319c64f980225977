"""How is a model opened? The choices that ``open_source`` and ``convert`` take as one value, checked when they are made."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..system import checked_fields, repr_without_defaults

__all__ = ["SourceOptions"]


@checked_fields
@dataclass(frozen=True, repr=False)
class SourceOptions:
    """What cannot be read off a model itself: fixed shapes, one signature of several, how PyTorch's is exported.

    Args:
        input_shapes: whole shapes by input name, the batch axis first, that fix dynamic axes; None keeps an axis dynamic:
            ``{"image": (1, 96, 96, 3)}``. Default: None, as the model has them; a target with fixed shapes fixes the
            batch to 1.
        signature: which signature of a SavedModel or a ``.tflite`` file, or which function of a ``tf.Module``. Default:
            None, the only one, or "serving_default".
        sample_inputs: inputs that a PyTorch model is exported on: arrays by input name, a list in order, or the path of
            a ``.npy`` or ``.npz`` file. Default: None, those of a ``.pt2`` file, or made from ``input_shapes``.
        nhwc: whether a PyTorch model's pictures come as (n, h, w, c), as TFLite has them. Default: False, as in PyTorch.
        allow_unsafe: whether a file may bring code or pickles along (Lambda layers, unknown custom objects), that of the
            model or of the representative data. Default: False.

    Raises:
        ValueError: a shape with something else than whole numbers and None.
        TypeError: the shapes are not by input name.

    Examples:
        >>> SourceOptions(input_shapes={"image": [1, 96, 96, 3]}, nhwc=True)
        SourceOptions(input_shapes={'image': (1, 96, 96, 3)}, nhwc=True)
    """

    input_shapes: Mapping[str, Sequence[int | None]] | None = None
    signature: str | None = None
    sample_inputs: Any = field(default=None, repr=False)
    nhwc: bool = False
    allow_unsafe: bool = False

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        if self.input_shapes is None:
            return
        if not isinstance(self.input_shapes, Mapping):
            raise TypeError(
                f"input_shapes must be shapes by input name. Received: {self.input_shapes!r}. Write "
                '{"image": (1, 96, 96, 3)}.'
            )
        shapes = {name: _shape(name, shape) for name, shape in self.input_shapes.items()}
        object.__setattr__(self, "input_shapes", shapes)


def _shape(name: str, shape: Any) -> tuple[int | None, ...]:
    try:
        return tuple(None if size is None else operator.index(size) for size in shape)
    except TypeError as error:
        raise ValueError(
            f"A shape must have a whole number or None for each axis. Received: {shape!r} for input {name!r}. Write "
            "(1, 96, 96, 3)."
        ) from error
