"""How any source becomes a float ``.tflite`` flatbuffer, the hub of every conversion.

The one place that knows which kind of source is lowered by which module. Integer arithmetic is decided elsewhere.
"""

from typing import Any

from ..errors import ConversionError
from ..quantization import TrainedRanges
from ..system.forks import check_not_forked
from .keras_models import lower_keras
from .lowered import Lowered
from .pytorch.export import lower_torch
from .sources import Source
from .tensorflow_models import lower_function, lower_legacy, lower_saved_model
from .tflite_files import lower_flatbuffer

__all__ = ["lower"]


def lower(
    source: Source,
    *,
    ranges: TrainedRanges | None = None,
    weights: str = "float32",
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of a source, by its chosen signature and with its fixed input shapes.

    Args:
        source: what ``sources.open_source`` returned.
        ranges: the trained ranges of a Keras 3 model; other sources have their own. Default: none.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ValueError: the ``signature`` or ``input_shapes`` of the source's options does not fit the model.
        ModelError: the model is damaged, not built, or has several signatures and no choice.
        ConversionError: the model cannot be expressed in TFLite's ops, or the weights cannot be stored so.

    Examples:
        >>> import keras
        >>> from tfcompress.lowering import open_source
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> lower(open_source(model)).outputs
        ('head',)
    """
    check_not_forked()
    chosen = source.options
    options: dict[str, Any] = {"input_shapes": chosen.input_shapes or None, "debug": debug}
    if source.kind == "keras":
        return lower_keras(source.value, ranges=ranges, weights=weights, **options)
    if source.kind == "tf_keras":
        return lower_legacy(source.value, weights=weights, **options)
    if source.kind == "saved_model":
        return lower_saved_model(
            source.value, signature=chosen.signature, weights=weights, place=source.name, **options
        )
    if source.kind == "function":
        return lower_function(source.value, signature=chosen.signature, weights=weights, name=source.name, **options)
    if weights != "float32":
        raise ConversionError(
            f"Weights of a .tflite file or PyTorch model are lowered as they are. Received: {source.name} for {weights} "
            "weights. Lower it to float32 and quantize the weights afterwards."
        )
    if source.kind == "torch":
        return lower_torch(
            source.value,
            sample_inputs=chosen.sample_inputs,
            input_shapes=chosen.input_shapes or None,
            nhwc=chosen.nhwc,
            allow_unsafe=chosen.allow_unsafe,
            debug=debug,
        )
    return lower_flatbuffer(source.value, place=source.name, signature=chosen.signature, **options)
