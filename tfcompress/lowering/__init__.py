"""How does any source become one float flatbuffer?

In: a Keras or tf_keras model, a SavedModel, a function, a PyTorch model, a float ``.tflite`` file, or the path of one, which is
checked before it is opened. Out: ``Lowered``, the float flatbuffer that every conversion starts from.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .dispatch import lower as lower
    from .keras_models import lower_keras as lower_keras
    from .lowered import Lowered as Lowered
    from .options import SourceOptions as SourceOptions
    from .pytorch.export import lower_torch as lower_torch
    from .sources import Source as Source
    from .sources import open_source as open_source
    from .tensorflow_models import lower_function as lower_function
    from .tensorflow_models import lower_legacy as lower_legacy
    from .tensorflow_models import lower_saved_model as lower_saved_model
    from .tflite_files import lower_flatbuffer as lower_flatbuffer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "dispatch": ["lower"],
            "keras_models": ["lower_keras"],
            "lowered": ["Lowered"],
            "options": ["SourceOptions"],
            "pytorch.export": ["lower_torch"],
            "sources": ["Source", "open_source"],
            "tensorflow_models": ["lower_function", "lower_legacy", "lower_saved_model"],
            "tflite_files": ["lower_flatbuffer"],
        },
    )
