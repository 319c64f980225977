"""Where do samples come from?

In: arrays, array files, folders of pictures, TFRecords, ``tf.data``, generators, ``path.py:function``. Out: ``Samples``, a
stream of batches that fits a model's inputs and hashes itself, with labels where there are some. Also what happens to
pixels, sound and text before a model sees them.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .arrays import InputSpec as InputSpec
    from .arrays import read_npy as read_npy
    from .arrays import read_npz as read_npz
    from .digits import Digits as Digits
    from .digits import load_digits as load_digits
    from .labels import Truth as Truth
    from .labels import load_truth as load_truth
    from .loading import load_representative as load_representative
    from .log_mel import LogMel as LogMel
    from .samples import Batch as Batch
    from .samples import Samples as Samples
    from .samples import count_samples as count_samples
    from .scalings import SCALINGS as SCALINGS
    from .scalings import Scaling as Scaling
    from .scalings import ScalingName as ScalingName
    from .scalings import resolve_scaling as resolve_scaling
    from .scripts import load_function as load_function
    from .tfrecords import Feature as Feature
    from .tfrecords import TFRecords as TFRecords
    from .tokens import Tokenizer as Tokenizer

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "arrays": ["InputSpec", "read_npy", "read_npz"],
        "digits": ["Digits", "load_digits"],
        "labels": ["Truth", "load_truth"],
        "loading": ["load_representative"],
        "log_mel": ["LogMel"],
        "samples": ["Batch", "Samples", "count_samples"],
        "scalings": ["SCALINGS", "Scaling", "ScalingName", "resolve_scaling"],
        "scripts": ["load_function"],
        "tfrecords": ["Feature", "TFRecords"],
        "tokens": ["Tokenizer"],
    },
)
