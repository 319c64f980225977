"""What is in a ``.tflite`` file, how is it run, and how is it edited?

In: the bytes of a file. Out: its tensors, ops and metadata as values, LiteRT's answers in real numbers, edited bytes. Chooses
no range and no precision.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .affine import AffineParameters as AffineParameters
    from .affine import dequantize as dequantize
    from .affine import from_range as from_range
    from .affine import quantize as quantize
    from .affine import round_half_away as round_half_away
    from .fingerprints import model_sha256 as model_sha256
    from .inspection import Inspection as Inspection
    from .inspection import inspect as inspect
    from .interpreter import Model as Model
    from .interpreter import open_model as open_model
    from .metadata import Metadata as Metadata
    from .metadata import Normalisation as Normalisation
    from .metadata import StoredMetadata as StoredMetadata
    from .model_files import ModelSource as ModelSource
    from .model_files import read_model as read_model
    from .op_summaries import OpSummary as OpSummary
    from .op_summaries import summarize_ops as summarize_ops
    from .tensors import TensorInfo as TensorInfo
    from .tensors import from_raw as from_raw
    from .tensors import to_raw as to_raw
    from .trial import run_interpreter as run_interpreter
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "affine": ["AffineParameters", "dequantize", "from_range", "quantize", "round_half_away"],
            "fingerprints": ["model_sha256"],
            "inspection": ["Inspection", "inspect"],
            "interpreter": ["Model", "open_model"],
            "metadata": ["Metadata", "Normalisation", "StoredMetadata"],
            "model_files": ["ModelSource", "read_model"],
            "op_summaries": ["OpSummary", "summarize_ops"],
            "tensors": ["TensorInfo", "from_raw", "to_raw"],
            "trial": ["run_interpreter"],
        },
    )
