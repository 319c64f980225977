"""Where do samples come from?

In: arrays, array files, folders of pictures, TFRecords, ``tf.data``, generators, ``path.py:function``. Out: ``Samples``, a
stream of batches that fits a model's inputs and hashes itself, with labels where there are some. Also what happens to
pixels, sound and text before a model sees them.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .digits import Digits as Digits
    from .digits import load_digits as load_digits
    from .labels import Labelled as Labelled
    from .loading import load_labelled as load_labelled
    from .loading import load_representative as load_representative
    from .log_mel import LogMel as LogMel
    from .readers.array_files import read_npy as read_npy
    from .readers.array_files import read_npz as read_npz
    from .readers.tfrecords import Feature as Feature
    from .readers.tfrecords import TFRecords as TFRecords
    from .samples import Batch as Batch
    from .samples import RememberingSamples as RememberingSamples
    from .samples import Samples as Samples
    from .samples import count_samples as count_samples
    from .scalings import SCALINGS as SCALINGS
    from .scalings import Scaling as Scaling
    from .scalings import ScalingName as ScalingName
    from .scalings import resolve_scaling as resolve_scaling
    from .specs import InputSpec as InputSpec
    from .specs import LabelKind as LabelKind
    from .specs import SampleSpec as SampleSpec
    from .tokenizer import Tokenizer as Tokenizer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "digits": ["Digits", "load_digits"],
            "labels": ["Labelled"],
            "loading": ["load_labelled", "load_representative"],
            "log_mel": ["LogMel"],
            "readers.array_files": ["read_npy", "read_npz"],
            "readers.tfrecords": ["Feature", "TFRecords"],
            "samples": ["Batch", "RememberingSamples", "Samples", "count_samples"],
            "scalings": ["SCALINGS", "Scaling", "ScalingName", "resolve_scaling"],
            "specs": ["InputSpec", "LabelKind", "SampleSpec"],
            "tokenizer": ["Tokenizer"],
        },
    )
