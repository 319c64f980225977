"""May this model file be opened? What it would bring along is read off it as data, before any loader sees it.

In: a path. Out: nothing, or an error that says what the file would run or reach.
"""

from typing import TYPE_CHECKING

from ...system.lazy import lazy_exports

if TYPE_CHECKING:
    from .findings import Finding as Finding
    from .keras_configs import check_config as check_config
    from .keras_configs import keras_version as keras_version
    from .keras_configs import read_config as read_config
    from .keras_configs import uses_tfmot as uses_tfmot
    from .keras_files import examine_keras as examine_keras
    from .saved_models import check_saved_model as check_saved_model
    from .saved_models import copy_saved_model as copy_saved_model
    from .saved_models import examine_saved_model as examine_saved_model
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "findings": ["Finding"],
            "keras_configs": ["check_config", "keras_version", "read_config", "uses_tfmot"],
            "keras_files": ["examine_keras"],
            "saved_models": ["check_saved_model", "copy_saved_model", "examine_saved_model"],
        },
    )
