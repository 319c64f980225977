"""Which callbacks of this package are at work on a model, whether they have reached their goal, and what they knew when.

Callbacks enter when ``fit`` begins and leave when it ends; ``after_schedule`` and ``recovery`` ask. A distiller and its
student count as one model. Nothing here changes a model.
"""

import weakref
from typing import Any, Protocol

import keras

from .interception import subject

__all__ = ["CompressionCallback", "active", "enter", "leave"]


class CompressionCallback(Protocol):
    """What a callback tells of itself while it is at work.

    Attributes:
        model: what Keras fits.
    """

    model: Any

    def settled(self) -> bool:
        """Returns whether the model is now what it will be at the end: final sparsity, quantization on."""

    def snapshot(self) -> Any:
        """Returns what belongs to the weights as they are now: masks, ranges."""

    def recall(self, snapshot: Any) -> None:
        """Goes back to what belonged to weights that somebody has restored."""

    def remove(self) -> None:
        """Takes off the model what the callback has put on it."""


_ACTIVE: "weakref.WeakKeyDictionary[Any, list[CompressionCallback]]" = weakref.WeakKeyDictionary()


def enter(model: Any, callback: CompressionCallback) -> None:
    """Notes that ``callback`` is at work on ``model``; once is enough."""
    callbacks = _ACTIVE.setdefault(_one(model), [])
    if not any(each is callback for each in callbacks):
        callbacks.append(callback)


def leave(callback: CompressionCallback) -> None:
    """Notes that ``callback`` is at work on no model any more."""
    for callbacks in _ACTIVE.values():
        callbacks[:] = [each for each in callbacks if each is not callback]


def active(model: Any) -> list[CompressionCallback]:
    """Returns what is at work on ``model`` now.

    Examples:
        >>> class Model: ...
        >>> active(Model())
        []
    """
    return list(_ACTIVE.get(_one(model), ()))


def _one(model: Any) -> Any:
    return subject(model) if isinstance(model, keras.Model) else model
