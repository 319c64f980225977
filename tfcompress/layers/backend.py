"""Which backend Keras runs on, asked before a callback touches anything."""

import keras

from ..errors import TrainingError

__all__ = ["check_backend"]


def check_backend() -> None:
    """Raises ``TrainingError`` unless Keras runs on TensorFlow.

    Examples:
        >>> check_backend()
    """
    if keras.backend.backend() != "tensorflow":
        raise TrainingError(
            f"The callbacks need Keras on TensorFlow. Received: the {keras.backend.backend()} backend. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )
