"""May this model file be opened? What it would bring along is read off it as data, before any loader sees it.

In: a path. Out: nothing, or an error that says what the file would run or reach.
"""

from typing import TYPE_CHECKING

from ...system.lazy import lazy_exports

if TYPE_CHECKING:
    from .findings import Finding as Finding
    from .keras_configs import check_config as check_config
    from .keras_configs import examine_config as examine_config
    from .keras_configs import uses_tfmot as uses_tfmot
    from .keras_files import CheckedKeras as CheckedKeras
    from .keras_files import check_keras as check_keras
    from .keras_files import examine_keras as examine_keras
    from .keras_files import loaders_of as loaders_of
    from .saved_models import check_saved_model as check_saved_model
    from .saved_models import copy_saved_model as copy_saved_model
    from .saved_models import examine_saved_model as examine_saved_model
    from .unchecked import check_hdf5 as check_hdf5
    from .unchecked import keras_version as keras_version
    from .unchecked import read_config as read_config
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "findings": ["Finding"],
            "keras_configs": ["check_config", "examine_config", "uses_tfmot"],
            "keras_files": ["CheckedKeras", "check_keras", "examine_keras", "loaders_of"],
            "saved_models": ["check_saved_model", "copy_saved_model", "examine_saved_model"],
            "unchecked": ["check_hdf5", "keras_version", "read_config"],
        },
    )
