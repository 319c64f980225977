"""What a call of the model and of each of its layers computes while the model is fake-quantized.

``FakeQuantizedCalls`` is called by ``layers.interception`` in place of the model and its layers: inputs, weights and outputs pass
the trackers of their points. BatchNormalization trains by TensorFlow's one fused kernel, where Keras 3 computes it in some ten
operations. When that begins and ends is decided by ``callback``, where the points are by ``layers.quantization_points``.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from ..layers import interception, quantization_points
from .integer_sums import IntegerSums
from .range_trackers import Trackers

__all__ = ["FakeQuantizedCalls", "can_fuse_batch_norm", "fused_batch_norm"]

_LEAST_EPSILON = 1.001e-5
"""Of a BatchNormalization: below it the kernels of GPUs refuse."""


class FakeQuantizedCalls:
    """Runs the calls of one model with the rounding of its file.

    Calls outside of training compute in float32 whatever the dtype policy: a half-precision number is too short for the
    256 steps of a grid, and the file answers otherwise.

    Args:
        model: the model.
        plan: where the model rounds.
        trackers: the ranges that it rounds to.
        input_points: point of each input by the model's own name for it.

    Attributes:
        training: whether calls that do not say so themselves belong to a training step.
        observing: whether ranges learn from what passes outside of training.
        norms_frozen: whether BatchNormalization uses its moving statistics also in training.
        recording: collects the values of each point, unless it is None.
    """

    def __init__(
        self,
        model: keras.Model,
        plan: quantization_points.Plan,
        trackers: Trackers,
        input_points: dict[str, str | None],
    ) -> None:
        self._model = model
        self._plan = plan
        self._trackers = trackers
        self._sums = IntegerSums(trackers, interception.layer_paths(model))
        self._input_points = input_points
        self._training_call = False
        self.training = False
        self.observing = False
        self.norms_frozen = False
        self.recording: dict[str, Any] | None = None

    def on_model(self, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        """Returns what ``call``, the model's own, makes of inputs that lie on their grids."""
        training = kwargs.get("training")
        self._training_call = self.training if training is None else bool(training)
        self._sums.forget()
        if not args and "inputs" in kwargs:  # a train_step of the user's own may call by name
            kwargs = dict(kwargs)
            args = (kwargs.pop("inputs"),)
        with contextlib.nullcontext() if self._training_call else interception.in_float32(self._model):
            return call(self._quantized_inputs(args[0]), *args[1:], **kwargs) if args else call(**kwargs)

    def _quantized_inputs(self, inputs: Any) -> Any:
        """Returns the model's inputs on the grids of their points: those of a dictionary by name, others by position."""

        def quantize(tensor: Any, point: str | None) -> Any:
            return tensor if point is None else self._at(point, tensor)

        if isinstance(inputs, dict) and set(inputs) <= set(self._input_points):
            return {name: quantize(tensor, self._input_points[name]) for name, tensor in inputs.items()}
        remaining = iter(self._plan.inputs)
        return keras.tree.map_structure(lambda tensor: quantize(tensor, next(remaining, None)), inputs)

    def on_layer(self, path: str, index: int, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        """Returns what a layer makes of rounded weights, rounded itself; ``index`` counts the layer's calls."""
        site = self._plan.sites.get((path, index))
        if site is None:
            return call(*args, **kwargs)
        if isinstance(layer, keras.layers.BatchNormalization):
            call, kwargs = self._normalizing(layer, call, args, kwargs)
        sums = self._sums if not (self._training_call or self.observing) else None
        if sums is not None and sums.can_run(site, layer):
            outputs = sums.run(site, layer, call, args, kwargs, self._at)
        else:
            mapping = [
                (
                    getattr(layer, rule.attribute),
                    self._trackers.weights(path, layer, rule, training=self._training_call),
                )
                for rule in site.weights
            ]
            if sums is not None:
                mapping += sums.own_bias(site, layer)

            def run(*args: Any, **kwargs: Any) -> Any:
                return site.run(layer, call, args, kwargs, self._at)

            outputs = interception.call_with_weights(run, mapping, args, kwargs)
            if sums is not None:
                outputs = sums.behind(site, layer, call, args, kwargs, outputs)
        if site.follows:
            return self._trackers.like(site.follows, outputs)
        if not site.output:
            return outputs
        if site.fixed:
            return self._trackers.fixed(site, outputs)
        return self._at(site.name, outputs)

    def _normalizing(
        self, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict
    ) -> tuple[Callable[..., Any], dict]:
        """Returns how BatchNormalization is to be called: with moving statistics, by the fused kernel, or as it is."""
        if self.norms_frozen:
            return call, {**kwargs, "training": False}
        if kwargs.get("training") and args and can_fuse_batch_norm(layer, args[0], mask=kwargs.get("mask")):
            return (lambda inputs, **_: fused_batch_norm(layer, inputs)), kwargs
        return call, kwargs

    def _at(self, name: str, values: Any) -> Any:
        """Returns the values at a point as the file will hold them."""
        learning = self._training_call or self.observing
        rounded = self._trackers.point(name, self._sums.landed(name, values), training=learning)
        if self.recording is not None and name in self._plan.tracked:
            self.recording[name] = rounded
        return rounded


def can_fuse_batch_norm(layer: Any, inputs: Any, *, mask: Any = None) -> bool:
    """Returns whether ``fused_batch_norm`` computes what ``layer`` itself computes of ``inputs`` in training.

    Args:
        layer: any layer.
        inputs: its input tensor.
        mask: the mask of its call. Default: None.

    Examples:
        >>> import keras
        >>> layer = keras.layers.BatchNormalization()
        >>> layer.build((None, 8, 8, 4))
        >>> can_fuse_batch_norm(layer, keras.ops.ones((2, 8, 8, 4))), can_fuse_batch_norm(layer, keras.ops.ones((2, 4)))
        (True, False)
    """
    kind = keras.layers.BatchNormalization
    return (
        isinstance(layer, kind)
        and type(layer).call is kind.call
        and type(layer)._moments is kind._moments
        and mask is None
        and layer.trainable
        and not layer.renorm
        and not layer.synchronized
        and layer.epsilon >= _LEAST_EPSILON
        and len(getattr(inputs, "shape", ())) == 4
        and inputs.dtype != "float64"
        and layer.axis in (-1, 3)
    )


def fused_batch_norm(layer: Any, inputs: Any) -> Any:
    """Returns ``layer(inputs, training=True)`` and moves its statistics, by TensorFlow's fused kernel.

    The numbers are Keras's within float rounding: output, gradients, and the moving statistics, which Keras averages over
    the biased variance and the kernel returns corrected by n / (n - 1).

    Args:
        layer: a BatchNormalization that ``can_fuse_batch_norm``.
        inputs: (n, height, width, channels), float32 or half.

    Returns:
        the normalized inputs, of the same shape, in the layer's compute dtype.

    Examples:
        >>> import keras, numpy as np
        >>> layer = keras.layers.BatchNormalization(momentum=0.5)
        >>> layer.build((None, 1, 1, 1))
        >>> y = fused_batch_norm(layer, np.array([1, 3], "float32").reshape(2, 1, 1, 1))
        >>> np.asarray(y).ravel().round(2), float(layer.moving_mean[0]), float(layer.moving_variance[0])
        (array([-1.,  1.], dtype=float32), 1.0, 1.0)

    Source: Ioffe and Szegedy, "Batch normalization: Accelerating deep network training by reducing internal covariate
    shift", 2015, https://arxiv.org/abs/1502.03167.
    """
    import tensorflow as tf

    x = tf.cast(inputs, tf.float32)
    channels = layer.moving_mean.shape
    gamma = tf.cast(layer.gamma, tf.float32) if layer.scale else tf.ones(channels)
    beta = tf.cast(layer.beta, tf.float32) if layer.center else tf.zeros(channels)
    nothing = tf.zeros([0])
    y, mean, corrected, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=nothing, variance=nothing, epsilon=layer.epsilon, is_training=True
    )
    count = tf.cast(tf.size(x) // channels[0], tf.float32)
    variance = corrected * tf.maximum(count - 1, 1) / count
    for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        before = tf.cast(moving, tf.float32)
        moving.assign(before * layer.momentum + batch * (1.0 - layer.momentum))
    return tf.cast(y, layer.compute_dtype)
