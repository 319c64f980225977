"""What callbacks have put on a model comes off when training fails: at once where the step or its data did, else later.

Keras tells callbacks nothing of an exception in ``fit``. The training function is therefore guarded; what another callback's
exception leaves is taken off when the model is next used. What each callback takes off is its own affair.
"""

import weakref
from collections.abc import Callable
from typing import Any

from . import active_callbacks, interception

__all__ = ["at_the_end", "guard", "make_plain", "release"]


def guard(model: Any, name: str = "train_function") -> None:
    """Makes an exception in ``model.train_function``, Ctrl-C too, release the model before it goes on.

    Callbacks call it before each batch: whoever makes a new training function drops the guard.

    Args:
        model: what Keras fits, evaluates or predicts with.
        name: the function. Default: "train_function".
    """
    function = getattr(model, name)
    if function is not None and not isinstance(function, _Guarded):
        setattr(model, name, _Guarded(function, model))


class _Guarded:
    """A function that Keras has compiled; its attributes are those of the one inside."""

    def __init__(self, function: Callable[..., Any], model: Any) -> None:
        self._function = function
        self._model = weakref.ref(model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        try:
            return self._function(*args, **kwargs)
        except (StopIteration, tf.errors.OutOfRangeError):
            raise  # how Keras learns that the data is at its end
        except BaseException:
            model = self._model()
            if model is not None:
                release(model)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)


def release(model: Any) -> bool:
    """Takes off ``model`` what callbacks of this package have on it; returns whether there was anything.

    A callback whose ``fit`` goes on after all puts itself back at its next step.

    Examples:
        >>> class Model: ...
        >>> release(Model())
        False
    """
    found = active_callbacks.active(model)
    for callback in found:
        callback.remove()
    return bool(found)


def make_plain(model: Any) -> None:
    """Takes off ``model`` whatever this package has on it, for somebody who uses it now; a ``fit`` that is running goes on.

    What Keras has compiled is dropped with it and made anew when it is next called, also in the middle of a step, where Keras
    does not look whether it is there.

    Examples:
        >>> import keras
        >>> make_plain(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    """
    models = {id(each): each for each in (model, *(callback.model for callback in active_callbacks.active(model)))}
    compiled = [
        (each, name)
        for each in models.values()
        for name in interception.COMPILED
        if getattr(each, name, None) is not None
    ]
    release(model)
    interception.restore(model)
    for each, name in compiled:
        if getattr(each, name) is None:
            setattr(each, name, _MadeAnew(each, name))


class _MadeAnew:
    """Stands where Keras expects a compiled function, until it is called."""

    def __init__(self, model: Any, name: str) -> None:
        self._model = weakref.ref(model)
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model = self._model()
        getattr(model, f"make_{self._name}")(force=True)
        return getattr(model, self._name)(*args, **kwargs)


def at_the_end(model: Any, function: Callable[[], None]) -> None:
    """Calls ``function`` once all callbacks of this ``fit`` have ended, as far as Keras's own ``History`` is the last one."""
    history = getattr(model, "history", None)
    if history is None:
        return
    inherited = history.on_train_end

    def once(logs: dict | None = None) -> None:
        vars(history).pop("on_train_end", None)
        inherited(logs)
        function()

    vars(history)["on_train_end"] = once
