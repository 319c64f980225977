"""What does the TensorFlow Model Optimization toolkit (TFMOT) add to tf_keras? Imported without a trace in the environment."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["scopes", "toolkit", "toolkit_objects"]

_FLAG = "TF_USE_LEGACY_KERAS"


@contextlib.contextmanager
def _flag_restored() -> Iterator[None]:
    """Undoes what the import of tensorflow_model_optimization does to the environment: Keras 3 would be gone."""
    before = os.environ.get(_FLAG)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_FLAG, None)
        else:
            os.environ[_FLAG] = before


def toolkit() -> Any:
    """Returns the module tensorflow_model_optimization.

    Raises:
        ImportError: the toolkit is not installed.
    """
    with _flag_restored():
        import tensorflow_model_optimization

        return tensorflow_model_optimization


def scopes() -> list[Any]:
    """Returns the scopes within which tf_keras knows the toolkit's layers.

    Raises:
        ImportError: the toolkit is not installed.
    """
    module = toolkit()
    return [
        module.quantization.keras.quantize_scope(),
        module.sparsity.keras.prune_scope(),
        module.clustering.keras.cluster_scope(),
    ]


def toolkit_objects() -> dict[str, Any]:
    """Returns the classes that those scopes make known, and the pruning schedules, by the names they have in files.

    Raises:
        ImportError: the toolkit is not installed.
    """
    schedules = toolkit().sparsity.keras
    found = {cls.__name__: cls for cls in (schedules.ConstantSparsity, schedules.PolynomialDecay)}
    for scope in scopes():
        for objects in scope.custom_objects:
            found.update(objects)
    return found
