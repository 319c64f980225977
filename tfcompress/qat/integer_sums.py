"""What an operation of the integer file adds up, in integers: inputs, weights and biases on their grids, as TFLite has them.

Outside of training, where answers must be those of the file, a convolution or a Dense works on whole numbers, which float32
adds up without error, and what becomes of the sum until it is rounded (a folded BatchNorm, a ReLU) is computed in float64.
Float32 throughout lands on the other side of a rounding edge in five of a million values; in a deep residual network that
is another tensor for every third picture. Which calls these are is decided by ``layers.quantization_points``, and when they come by
``fake_quantized_calls``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from ..layers import interception, quantization_points
from ..quantization import fake_quantization
from .range_trackers import Trackers

__all__ = ["IntegerSums"]

_LINEAR = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.Conv2DTranspose, keras.layers.Dense),
)
_TINY = 1e-12  # the step of a bias whose weight has no values


class IntegerSums:
    """Computes the linear calls of a model in integers, and remembers their sums until the point where they are rounded.

    Args:
        trackers: the ranges.
        layers: the model's layers by path.
    """

    def __init__(self, trackers: Trackers, layers: Mapping[str, Any]) -> None:
        self._trackers = trackers
        self._layers = layers
        # id of a tensor -> the tensor, which stays alive, what it is in float64, and the steps of its sums
        self._precise: dict[int, tuple[Any, Any, Any]] = {}

    def forget(self) -> None:
        """Forgets the last call of the model."""
        self._precise.clear()

    def can_run(self, site: quantization_points.Site, layer: Any) -> bool:
        """Returns whether ``run`` computes the layer's call: Keras's own, one operation, channels last, 8-bit inputs.

        A class of the user's own may add something else to the product.
        """
        return (
            site.bias is not None
            and bool(site.weights)
            and site.parts is None
            and self._trackers.eight_bits
            and isinstance(layer, _LINEAR)
            and type(layer).__module__.startswith("keras.")
            and getattr(layer, "data_format", "channels_last") == "channels_last"
        )

    def run(
        self,
        site: quantization_points.Site,
        layer: Any,
        call: Callable[..., Any],
        args: tuple,
        kwargs: dict,
        at: Callable[[str, Any], Any],
    ) -> Any:
        """Returns the outputs of a linear layer's call, whose inner point passes ``at``; not yet rounded themselves."""
        import tensorflow as tf

        bias: quantization_points.Bias = site.bias  # type: ignore[assignment]
        inputs = args[0] if args else kwargs["inputs"]
        slope = None if bias.norm is None else _slope(self._layers[bias.norm])
        whole, own = self._trackers.integers(bias.path, layer, bias.weight, slope)
        steps = tf.maximum(self._trackers.step(bias.reads) * tf.reshape(own, [-1]), _TINY)
        given = getattr(layer, "bias", None)
        mapping = [(getattr(layer, bias.weight.attribute), tf.cast(whole, tf.float32))]
        mapping += [] if given is None else [(given, tf.zeros(given.shape))]
        counted = tf.cast(tf.round(tf.cast(inputs, tf.float64) / self._trackers.step(bias.reads)), tf.float32)
        with interception.swapped_activation(layer, lambda activation, values: values):
            sums = interception.call_with_weights(call, mapping, (counted,), {})
        precise = tf.cast(sums, tf.float64) * steps
        if bias.norm is not None:
            return self._remember(precise, steps)
        if given is not None:
            precise += fake_quantization.biases(_wide(given), steps)
        if site.inner:
            inner = at(f"{site.name}:inner", self._remember(precise, steps))
            return site.activated(layer, layer.activation, inner, at)
        return self._remember(layer.activation(precise), steps)

    def behind(
        self,
        site: quantization_points.Site,
        layer: Any,
        call: Callable[..., Any],
        args: tuple,
        kwargs: dict,
        outputs: Any,
    ) -> Any:
        """Returns the outputs of what may be folded or fused into a linear call: BatchNorm and ReLU."""
        known: Any = self._precise.get(id(args[0])) if args else None
        if site.bias is not None and not site.weights:
            return self._normalized(site.bias, layer, outputs, known)
        if known is not None and site.clamps:
            return self._remember(call(known[1], **kwargs), known[2])
        return outputs

    def _normalized(self, bias: quantization_points.Bias, layer: Any, outputs: Any, known: Any) -> Any:
        import tensorflow as tf

        before, slope = getattr(self._layers[bias.path], "bias", None), _slope(layer)
        shift = -layer.moving_mean * slope
        if layer.center:
            shift = layer.beta - layer.moving_mean * slope
        if before is not None:
            shift = before * slope + shift
        shift = tf.cast(shift, tf.float64)
        if known is not None:
            return self._remember(known[1] + fake_quantization.biases(shift, known[2]), known[2])
        steps = self._trackers.bias_steps(bias) * tf.abs(tf.cast(slope, tf.float64))
        return outputs + tf.cast(fake_quantization.biases(shift, steps) - shift, outputs.dtype)

    def own_bias(self, site: quantization_points.Site, layer: Any) -> list[tuple[Any, Any]]:
        """Returns a layer's bias and what the file holds of it, for a call that ``run`` does not compute."""
        if site.bias is None or site.bias.norm is not None or getattr(layer, "bias", None) is None:
            return []
        bias = keras.ops.convert_to_tensor(layer.bias)
        steps = keras.ops.cast(self._trackers.bias_steps(site.bias), bias.dtype)
        return [(layer.bias, fake_quantization.biases(bias, steps))]

    def landed(self, point: str, values: Any) -> Any:
        """Returns the values on the grid of a point, not yet clipped, if their sums are known; else the values."""
        import tensorflow as tf

        if id(values) not in self._precise:
            return values
        step = self._trackers.step(point)
        return tf.cast(tf.round(self._precise[id(values)][1] / step) * step, values.dtype)

    def _remember(self, precise: Any, steps: Any) -> Any:
        import tensorflow as tf

        values = tf.cast(precise, tf.float32)
        self._precise[id(values)] = (values, precise, steps)
        return values


def _slope(norm: Any) -> Any:
    """Returns what a BatchNorm multiplies by, in float32 and in the order of TensorFlow's own arithmetic: edges are near."""
    import tensorflow as tf

    slope = tf.math.rsqrt(tf.convert_to_tensor(norm.moving_variance) + norm.epsilon)
    return slope * tf.convert_to_tensor(norm.gamma) if norm.scale else slope


def _wide(variable: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tf.convert_to_tensor(variable), tf.float64)
