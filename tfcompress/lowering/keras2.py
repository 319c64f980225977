"""How a model of tf_keras (Keras 2) is recognised, loaded and freed of the wrappers that the TFMOT toolkit put around it.

Pruning and clustering wrappers are stripped; the fake quantization of quantization-aware training stays, for lowering
reads its ranges off the graph. This module does not lower.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..layers import InputTensor
from .trust import tfmot
from .trust.tfmot import toolkit as _toolkit

__all__ = ["has_fake_quantization", "input_structure", "is_legacy_model", "layers", "load", "strip"]

_QUANTIZE_WRAPPERS = ("QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2", "OutputOnlyWrapper")


def is_legacy_model(model: Any) -> bool:
    """Returns whether ``model`` is one of tf_keras, which is not imported for the answer.

    Args:
        model: anything.

    Examples:
        >>> is_legacy_model("a model")
        False
    """
    tf_keras = sys.modules.get("tf_keras")
    return tf_keras is not None and isinstance(model, tf_keras.Model)


def load(path: Path, *, with_tfmot: bool, allow_unsafe: bool = False) -> Any:
    """Returns the tf_keras model of a ``.keras`` or ``.h5`` file, not compiled.

    Args:
        path: the file.
        with_tfmot: whether the file holds layers of the TFMOT toolkit, which are then known under its scopes.
        allow_unsafe: whether the file may bring code along. Default: False.

    Raises:
        ModelError: the toolkit is needed and not installed.
        Exception: whatever tf_keras stumbles over.
    """
    import tf_keras

    with contextlib.ExitStack() as scopes:
        if with_tfmot:
            try:
                known = tfmot.scopes()
            except ImportError as error:
                raise ModelError(
                    f"TFMOT's layers need the toolkit. Received: {path} with such layers. "
                    "Run pip install tensorflow-model-optimization."
                ) from error
            for scope in known:
                scopes.enter_context(scope)
        return tf_keras.models.load_model(path, compile=False, safe_mode=not allow_unsafe)


def layers(model: Any) -> Iterator[Any]:
    """Yields the layers of a tf_keras model, those of nested models after them.

    Args:
        model: a tf_keras model.
    """
    for layer in getattr(model, "layers", []):
        yield layer
        if getattr(layer, "layers", None):
            yield from layers(layer)


def has_fake_quantization(model: Any) -> bool:
    """Returns whether TFMOT's quantization-aware training left its wrappers on the model.

    Args:
        model: a tf_keras model.
    """
    return any(type(layer).__name__ in _QUANTIZE_WRAPPERS for layer in layers(model))


def strip(model: Any) -> Any:
    """Returns the model without the wrappers of TFMOT's pruning and clustering; the model itself if it has none.

    Args:
        model: a tf_keras model.
    """
    wrappers = {type(layer).__name__ for layer in layers(model)}
    if "PruneLowMagnitude" in wrappers:
        model = _toolkit().sparsity.keras.strip_pruning(model)
    if "ClusterWeights" in wrappers:
        model = _toolkit().clustering.keras.strip_clustering(model)
    return model


def input_structure(model: Any) -> Any:
    """Returns the model's inputs as it is called with them: one ``InputTensor``, or a list or dictionary of them.

    Args:
        model: a built tf_keras model.

    Raises:
        ModelError: the model is not built, so its input shapes are unknown.
    """
    import tensorflow as tf

    spec = model.save_spec(dynamic_batch=True)
    if spec is None:
        raise ModelError(
            f"The model must be built before its inputs are known. Received: {model.name!r}, not built. "
            "Call it once on a batch of data."
        )

    def described(tensor: Any) -> InputTensor:
        dtype = "float32" if tensor.dtype in (tf.float16, tf.bfloat16) else tensor.dtype.name
        return InputTensor(tensor.name or "input", tuple(tensor.shape), dtype)

    return tf.nest.map_structure(described, spec[0][0])
