"""BatchNormalization in training by TensorFlow's one fused kernel, where Keras 3 computes it in some ten operations.

The numbers are Keras's within float rounding: output, gradients, and the moving statistics, which Keras averages over the
biased variance and the kernel returns corrected by n / (n - 1).
"""

from typing import Any

import keras

__all__ = ["can_fuse", "train"]

_LEAST_EPSILON = 1.001e-5
"""Below it the kernels of GPUs refuse."""


def can_fuse(layer: Any, inputs: Any, *, mask: Any = None) -> bool:
    """Returns whether ``train`` computes what ``layer`` itself computes of ``inputs`` in training.

    Args:
        layer: any layer.
        inputs: its input tensor.
        mask: the mask of its call. Default: None.

    Examples:
        >>> import keras
        >>> layer = keras.layers.BatchNormalization()
        >>> layer.build((None, 8, 8, 4))
        >>> can_fuse(layer, keras.ops.ones((2, 8, 8, 4))), can_fuse(layer, keras.ops.ones((2, 4)))
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


def train(layer: Any, inputs: Any) -> Any:
    """Returns ``layer(inputs, training=True)`` and moves its statistics.

    Args:
        layer: a BatchNormalization that ``can_fuse``.
        inputs: (n, height, width, channels), float32 or half.

    Returns:
        the normalized inputs, of the same shape, in the layer's compute dtype.

    Examples:
        >>> import keras, numpy as np
        >>> layer = keras.layers.BatchNormalization(momentum=0.5)
        >>> layer.build((None, 1, 1, 1))
        >>> y = train(layer, np.array([1, 3], "float32").reshape(2, 1, 1, 1))
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
