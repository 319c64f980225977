"""Who wants to know that a model's weights are saved or loaded, whoever does it?

Backups and checkpoints of weights are made by other callbacks, which tell nobody. ``Extra`` puts what belongs to the weights into
their file, and takes it out again; Keras reads past it.
"""

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import TrainingError

__all__ = ["Extra", "listen"]

_LISTENERS = "_tfcompress_listeners"
_GROUP = "tfcompress"


def listen(
    model: Any,
    key: Any,
    *,
    before_save: Callable[[], None] | None = None,
    after_save: Callable[[str], None] | None = None,
    after_load: Callable[[str], None] | None = None,
) -> None:
    """Makes ``model.save_weights`` and ``model.load_weights`` call functions, beside those of others; without any, no more.

    Args:
        model: a Keras model.
        key: whose functions these are; earlier ones go.
        before_save: called before weights are saved. Default: none.
        after_save: called with the file's name. Default: none.
        after_load: likewise. Default: none.

    Examples:
        >>> class Model:
        ...     def save_weights(self, filepath): print("saved")
        >>> model = Model()
        >>> listen(model, "me", after_save=lambda path: print(path))
        >>> model.save_weights("a.weights.h5")
        saved
        a.weights.h5
        >>> listen(model, "me")
        >>> vars(model)
        {}
    """
    for name, wanted in (("save_weights", (before_save, after_save)), ("load_weights", (None, after_load))):
        there = getattr(vars(model).get(name), _LISTENERS, None)
        if there is None and not any(wanted):
            continue
        listeners = {other: functions for other, functions in (there or {}).items() if other is not key}
        if any(wanted):
            listeners[key] = wanted
        if there is not None:
            del vars(model)[name]
        if listeners:
            vars(model)[name] = _telling(getattr(model, name), listeners)


def _telling(function: Callable[..., Any], listeners: Mapping[Any, tuple[Any, Any]]) -> Callable[..., Any]:
    def telling(filepath: Any, *args: Any, **kwargs: Any) -> Any:
        for before, _ in listeners.values():
            if before is not None:
                before()
        answer = function(filepath, *args, **kwargs)
        for _, after in listeners.values():
            if after is not None:
                after(os.fspath(filepath))
        return answer

    setattr(telling, _LISTENERS, listeners)
    return telling


class Extra:
    """Arrays that travel in a file of weights, ``*.weights.h5``, without being weights of the model.

    Args:
        name: under which they are found again.
    """

    def __init__(self, name: str) -> None:
        self._place = f"{_GROUP}/{name}"

    def write(self, path: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds arrays to a file that Keras has just written; other forms than HDF5 are left alone.

        Args:
            path: of the file.
            arrays: any, by name.
        """
        if not path.endswith(".h5") or not os.path.isfile(path):
            return
        import h5py

        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        with h5py.File(path, "a") as file:
            if self._place in file:
                del file[self._place]
            file[self._place] = np.frombuffer(packed.getvalue(), np.uint8)

    def read(self, path: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a file, None of one that has none.

        Raises:
            TrainingError: they are damaged.
        """
        if not path.endswith(".h5") or not os.path.isfile(path):
            return None
        import h5py

        with h5py.File(path, "r") as file:
            if self._place not in file:
                return None
            content = np.asarray(file[self._place]).tobytes()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"What belongs to the weights must be whole. Received: {path}, damaged ({error}). Go back to an earlier backup."
            ) from error
