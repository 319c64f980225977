"""``after_schedule``: another callback judges a model only once it is as sparse and as quantized as it will be."""

from typing import Any

import keras

from . import active_callbacks, weight_averages

__all__ = ["AfterSchedule", "after_schedule"]

_WAITING = (
    *("on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)
_HOOKS = ("on_train_begin", "on_epoch_begin", "on_predict_begin", "on_predict_end")


def after_schedule(callback: keras.callbacks.Callback) -> "AfterSchedule":
    """Returns ``callback``, which looks at epochs only from the final sparsity and the start of quantization on.

    For ``EarlyStopping``, ``ModelCheckpoint(save_best_only=True)``, ``SwapEMAWeights`` and what else keeps the best epoch or
    an average: the first epochs, dense and in float, are often the best and are not what the training is for. Weights that
    ``EarlyStopping`` restores get back the masks and the ranges of their epoch; moving averages that ``SwapEMAWeights`` puts
    in begin anew where the waiting ends. Its place among the callbacks does not matter.

    Args:
        callback: any Keras callback.

    Raises:
        TypeError: something else.

    Examples:
        >>> stop = after_schedule(keras.callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True))
        >>> type(stop.inner).__name__
        'EarlyStopping'
    """
    return AfterSchedule(callback)


class AfterSchedule(keras.callbacks.Callback):
    """A callback that waits; see ``after_schedule``.

    Args:
        inner: the callback that waits.

    Raises:
        TypeError: ``inner`` is no Keras callback.
    """

    def __init__(self, inner: keras.callbacks.Callback) -> None:
        super().__init__()
        if not isinstance(inner, keras.callbacks.Callback):
            raise TypeError(f"after_schedule needs a Keras callback. Received: {inner!r}.")
        self.inner = inner
        self._snapshots: list[tuple[active_callbacks.CompressionCallback, Any]] = []
        for hook in _HOOKS:
            setattr(self, hook, getattr(inner, hook))
        for hook in _WAITING:
            method = getattr(inner, hook)
            if not getattr(method, "_is_default", False):
                setattr(self, hook, self._waiting(method))
        self._waited = False

    def _waiting(self, method: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> None:
            if self._settled():
                method(*arguments, **options)

        return called

    def _settled(self) -> bool:
        if not all(each.settled() for each in active_callbacks.active(self.model)):
            self._waited = True
            return False
        if self._waited and isinstance(self.inner, keras.callbacks.SwapEMAWeights):
            weight_averages.restart(self.model.optimizer)
        self._waited = False
        return True

    def set_params(self, params: dict) -> None:
        """Hands on the parameters of the fit."""
        super().set_params(params)
        self.inner.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        """Hands on the model."""
        super().set_model(model)
        self.inner.set_model(model)
        self._snapshots = []
        self._waited = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Lets the callback judge the epoch, if it counts; notes what belongs to weights that it keeps."""
        if not self._settled():
            return
        before = getattr(self.inner, "best_weights", None)
        self.inner.on_epoch_end(epoch, logs)
        if getattr(self.inner, "best_weights", None) is not before:
            self._snapshots = [(each, each.snapshot()) for each in active_callbacks.active(self.model)]

    def on_train_end(self, logs: dict | None = None) -> None:
        """Lets the callback restore its weights, and gives them back their masks and ranges."""
        self.inner.on_train_end(logs)
        if getattr(self.inner, "best_weights", None) is not None:
            for callback, snapshot in self._snapshots:
                callback.recall(snapshot)
