"""What the integer file will do to a value, done to the float value: quantize, dequantize, gradient straight through.

Arithmetic on TensorFlow tensors only; where it is applied is decided by ``layers.quantization_points`` and done by ``qat``.
"""

from collections.abc import Callable
from typing import Any

__all__ = [
    "activations",
    "as_constants",
    "averages",
    "biases",
    "bounded_weights",
    "largest",
    "learned_activations",
    "weights",
]


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

    rounded = _on_grid(values, largest(values, channel_axes), bits)
    return values + tf.stop_gradient(rounded - values)


def largest(values: Any, channel_axes: tuple[int, ...]) -> Any:
    """Returns the largest absolute value for each index of ``channel_axes``, all other axes of length 1.

    Args:
        values: float tensor of any shape.
        channel_axes: axes to keep; an empty tuple means one value for all.
    """
    import tensorflow as tf

    rank = len(values.shape)
    kept = {axis % rank for axis in channel_axes}
    return tf.reduce_max(tf.abs(values), axis=[axis for axis in range(rank) if axis not in kept], keepdims=True)


def _on_grid(values: Any, bound: Any, bits: int) -> Any:
    import tensorflow as tf

    scale = bound / (2 ** (bits - 1) - 1)
    scale = tf.where(scale > 0, scale, tf.ones_like(scale))
    return tf.round(values / scale) * scale


def bounded_weights(
    values: Any, bound: Any, channel_axes: tuple[int, ...], bits: int, on_slope: Callable[[Any], None] | None
) -> Any:
    """Returns ``values`` clipped to [-bound, bound] and rounded to a symmetric grid that ends there.

    The gradient is that of the identity inside and zero outside. While gradients are computed, ``on_slope`` gets the
    derivative of the loss with respect to ``bound``: (values' - values) / bound inside, the sign of the value outside,
    each times the gradient from above and summed over what shares the bound.

    Args:
        values: float tensor of any shape.
        bound: float tensor of that rank, positive, one for each index of ``channel_axes``.
        channel_axes: axes that have a bound for each index.
        bits: width of the integers.
        on_slope: what learns from the slope, None for nothing.

    Source: Esser et al., "Learned step size quantization", 2020, https://arxiv.org/abs/1902.08153.
    """
    import tensorflow as tf

    axes = [axis for axis in range(len(values.shape)) if axis not in {a % len(values.shape) for a in channel_axes}]

    @tf.custom_gradient
    def rounded(given: Any) -> Any:
        result = _on_grid(tf.clip_by_value(given, -bound, bound), bound, bits)

        def backward(upstream: Any) -> Any:
            inside = tf.abs(given) <= bound
            if on_slope is not None:
                error = tf.math.divide_no_nan(result - given, bound + tf.zeros_like(given))
                on_slope(tf.reduce_sum(upstream * tf.where(inside, error, tf.sign(given)), axis=axes, keepdims=True))
            return tf.where(inside, upstream, tf.zeros_like(upstream))

        return result, backward

    return rounded(values)


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


def learned_activations(values: Any, low: Any, high: Any, bits: int, on_slopes: Callable[[Any, Any], None]) -> Any:
    """Returns what ``activations`` returns; while gradients are computed, ``on_slopes`` gets those of ``low`` and ``high``.

    With e = (values' - values) / (high - low) for values inside, the derivatives with respect to high are e inside and 1
    above, with respect to low -e inside and 1 below, each times the gradient from above and summed.

    Args:
        values: float tensor of any shape.
        low: scalar tensor, at most 0.
        high: scalar tensor, at least 0.
        bits: width of the integers.
        on_slopes: what learns from the slopes.

    Source: Bhalgat et al., "LSQ+: improving low-bit quantization through learnable offsets and better initialization",
    2020, https://arxiv.org/abs/2004.09576.
    """
    import tensorflow as tf

    top = tf.maximum(high, low + 1e-6)

    @tf.custom_gradient
    def rounded(given: Any) -> Any:
        result = tf.quantization.fake_quant_with_min_max_vars(given, low, top, num_bits=bits)

        def backward(upstream: Any) -> Any:
            below, above = given < low, given > top
            inside = tf.logical_not(tf.logical_or(below, above))
            none = tf.zeros_like(upstream)
            inner = tf.where(inside, upstream, none)
            error = tf.reduce_sum(inner * (result - given)) / (top - low)
            on_slopes(
                tf.reduce_sum(tf.where(below, upstream, none)) - error,
                tf.reduce_sum(tf.where(above, upstream, none)) + error,
            )
            return inner

        return result, backward

    return tf.cast(rounded(tf.cast(values, tf.float32)), values.dtype)


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


def biases(values: Any, steps: Any) -> Any:
    """Returns ``values`` rounded to whole ``steps``, the gradient that of the identity; a step of 0 leaves them alone.

    Args:
        values: (channels,) float.
        steps: (channels,) or (1,) float, at least 0.
    """
    import tensorflow as tf

    rounded = tf.where(steps > 0, tf.round(tf.math.divide_no_nan(values, steps)) * steps, values)
    return values + tf.stop_gradient(rounded - values)


def as_constants(values: Any, low: float, high: float) -> Any:
    """Returns ``values`` behind a fake-quantization node with constant ends, which a float conversion keeps as a mark."""
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(values, float(low), max(float(high), float(low) + 1e-6))
