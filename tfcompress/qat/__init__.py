"""How does a model learn with the rounding of the integer file that it will become?

In: a Keras model in ``fit``. Out: the same model, plain again, with weights that fit the integer grid and ranges that travel in
its file. Where each layer rounds is a row of ``layers.layer_rules``.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .callback import QuantizationAwareTraining as QuantizationAwareTraining
    from .file_agreement import FileAgreement as FileAgreement
    from .file_agreement import compare_with_file as compare_with_file
    from .phases import Phase as Phase
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "callback": ["QuantizationAwareTraining"],
            "file_agreement": ["FileAgreement", "compare_with_file"],
            "phases": ["Phase"],
        },
    )
