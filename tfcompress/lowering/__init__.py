"""How does any source become one float flatbuffer?

In: a Keras or tf_keras model, a SavedModel, a function, a PyTorch model, a float ``.tflite`` file, or the path of one, which is
checked before it is opened. Out: ``Lowered``, the float flatbuffer that every conversion starts from.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .float_model import Lowered as Lowered
    from .float_model import lower as lower
    from .float_model import lower_keras as lower_keras
    from .sources import open_source as open_source

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "float_model": ["Lowered", "lower", "lower_keras"],
        "sources": ["open_source"],
    },
)
