"""What is each Keras layer to an integer file, and how are its calls watched?

In: a Keras model. Out: its quantization points, signatures and costs, and what all callbacks share: which of them is at work on a
model, and how it is put back as it was. ``layer_rules`` has a row for each class of layer, ``quantization_points`` applies them.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .backend import check_backend as check_backend
    from .costs import multiply_adds as multiply_adds
    from .deferred_callbacks import after_schedule as after_schedule
    from .layer_choice import End as End
    from .layer_choice import Layers as Layers
    from .signatures import InputTensor as InputTensor
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "backend": ["check_backend"],
            "costs": ["multiply_adds"],
            "deferred_callbacks": ["after_schedule"],
            "layer_choice": ["End", "Layers"],
            "signatures": ["InputTensor"],
        },
    )
