"""What the integer file will do to a value, done to the float value: quantize, dequantize, gradient straight through.

Arithmetic on TensorFlow tensors only; where it is applied is decided by ``points`` and done by ``qat``.
"""

from typing import Any

__all__ = ["activations", "as_constants", "averages", "weights"]


def weights(values: Any, channel_axes: tuple[int, ...], bits: int = 8) -> Any:
    """Returns ``values`` rounded to a symmetric grid, one scale for each index of ``channel_axes``.

    scale = max|values| / (2**(bits - 1) - 1), values' = round(values / scale) * scale; zero stays exactly zero. The
    gradient is that of the identity.

    Args:
        values: float tensor of any shape.
        channel_axes: axes that have a scale for each index; an empty tuple means one scale for all.
        bits: width of the integers. Default: 8.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, https://arxiv.org/abs/1712.05877; the scales are per channel as in Krishnamoorthi, "Quantizing
    deep convolutional networks for efficient inference", 2018, https://arxiv.org/abs/1806.08342.
    """
    import tensorflow as tf

    rank = len(values.shape)
    kept = {axis % rank for axis in channel_axes}
    largest = tf.reduce_max(tf.abs(values), axis=[axis for axis in range(rank) if axis not in kept], keepdims=True)
    scale = largest / (2 ** (bits - 1) - 1)
    scale = tf.where(scale > 0, scale, tf.ones_like(scale))
    return values + tf.stop_gradient(tf.round(values / scale) * scale - values)


def activations(values: Any, low: Any, high: Any, bits: int = 8) -> Any:
    """Returns ``values`` rounded to the asymmetric grid of [low, high], nudged so that zero lies on it.

    Values outside are clipped and get no gradient. Half-precision tensors are rounded in float32. With 16 bits the grid is
    symmetric, as TFLite's int16 activations are.

    Args:
        values: float tensor of any shape.
        low: scalar tensor, at most 0.
        high: scalar tensor, at least 0.
        bits: width of the integers. Default: 8.
    """
    import tensorflow as tf

    high = tf.maximum(high, low + 1e-6)
    if bits == 16:
        bound = tf.maximum(tf.abs(low), tf.abs(high))
        rounded = tf.quantization.fake_quant_with_min_max_vars(
            tf.cast(values, tf.float32), -bound, bound, num_bits=16, narrow_range=True
        )
        return tf.cast(rounded, values.dtype)
    rounded = tf.quantization.fake_quant_with_min_max_vars(tf.cast(values, tf.float32), low, high, num_bits=bits)
    return tf.cast(rounded, values.dtype)


def averages(values: Any, low: Any, high: Any) -> Any:
    """Returns pooled averages rounded to the int8 grid of [low, high] as TFLite's average pooling rounds them.

    That kernel rounds halves away from the integer zero, where ``activations`` rounds them up, and halves are common: one
    in four averages of a 2x2 window. The gradient is that of the identity.

    Args:
        values: averages of values on the grid, float tensor of any shape.
        low: scalar tensor, at most 0.
        high: scalar tensor, at least 0.
    """
    import tensorflow as tf

    low, high = tf.cast(low, tf.float32), tf.cast(high, tf.float32)
    scale = (tf.maximum(high, low + 1e-6) - low) / 255.0
    zero_point = tf.round(-low / scale) - 128.0
    integers = tf.cast(values, tf.float32) / scale + zero_point
    integers = tf.round(integers * 1024.0) / 1024.0  # a half is a half in spite of float rounding
    rounded = tf.sign(integers) * tf.floor(tf.abs(integers) + 0.5)
    result = (tf.clip_by_value(rounded, -128.0, 127.0) - zero_point) * scale
    return values + tf.stop_gradient(tf.cast(result, values.dtype) - values)


def as_constants(values: Any, low: float, high: float) -> Any:
    """Returns ``values`` behind a fake-quantization node with constant ends, which a float conversion keeps as a mark."""
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(values, float(low), max(float(high), float(low) + 1e-6))
