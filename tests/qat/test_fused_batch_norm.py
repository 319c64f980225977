"""BatchNormalization by the fused kernel: Keras's numbers, and the fits that use it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.qat import fake_quantized_calls

RANDOM = np.random.default_rng(0)


def both(inputs, weights, **options):
    """Outputs, gradient of the inputs and all variables after two steps of Keras and of the fused kernel."""
    found = []
    for fused in (False, True):
        layer = layers.BatchNormalization(momentum=0.7, **options)
        layer.build((None, *inputs.shape[1:]))
        for variable in layer.trainable_variables:
            variable.assign(np.random.default_rng(1).uniform(0.5, 2, variable.shape))
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = (
                    fake_quantized_calls.fused_batch_norm(layer, inputs) if fused else layer(inputs, training=True)
                )
                loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
            slopes = tape.gradient(loss, [inputs, *(each.value for each in layer.trainable_variables)])
        found.append([outputs, *slopes, *layer.variables])
    return found


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (2, 1, 1, 2), (1, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"axis": 3, "epsilon": 0.1}], ids=str)
def test_outputs_slopes_and_statistics_are_those_of_keras(shape, options):
    inputs = tf.constant(RANDOM.normal(1, 3, shape).astype(np.float32))
    weights = tf.constant(RANDOM.normal(size=shape).astype(np.float32))
    for keras_own, fused in zip(*both(inputs, weights, **options), strict=True):
        assert keras_own.dtype == fused.dtype
        np.testing.assert_allclose(np.asarray(fused), np.asarray(keras_own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = tf.cast(RANDOM.normal(1, 3, (4, 6, 5, 3)), dtype)
    weights = tf.constant(RANDOM.normal(size=inputs.shape).astype(np.float32))
    for keras_own, fused in zip(*both(inputs, weights, dtype=f"mixed_{dtype}"), strict=True):
        assert keras_own.dtype == fused.dtype
        a, b = np.asarray(keras_own, np.float32), np.asarray(fused, np.float32)
        np.testing.assert_allclose(b, a, rtol=0.02, atol=0.02)


class Doubled(layers.BatchNormalization):
    """Not what its parent computes."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def frozen():
    layer = layers.BatchNormalization()
    layer.trainable = False
    return layer


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.BatchNormalization(axis=1), (2, 4, 4, 4)),
        (layers.BatchNormalization(), (2, 4)),
        (layers.BatchNormalization(), (2, 4, 4, 4, 4)),
        (layers.BatchNormalization(renorm=True), (2, 4, 4, 4)),
        (layers.BatchNormalization(synchronized=True), (2, 4, 4, 4)),
        (layers.BatchNormalization(epsilon=1e-7), (2, 4, 4, 4)),
        (layers.LayerNormalization(), (2, 4, 4, 4)),
        (Doubled(), (2, 4, 4, 4)),
        (frozen(), (2, 4, 4, 4)),
    ],
    ids=["channels first", "vectors", "volumes", "renorm", "synchronized", "epsilon", "another", "subclass", "frozen"],
)
def test_what_the_kernel_does_not_compute_is_left_to_the_layer(layer, shape):
    layer.build(shape)
    assert not fake_quantized_calls.can_fuse_batch_norm(layer, tf.ones(shape))


def test_a_quantization_aware_fit_uses_it_and_ends_where_keras_would(monkeypatch):
    x, y = striped_pictures(128)

    def trained():
        keras.utils.set_random_seed(0)
        image = keras.Input((*x.shape[1:],), name="image")
        z = layers.Conv2D(4, 3, use_bias=False)(image)
        z = layers.ReLU()(layers.BatchNormalization(name="norm")(z))
        model = compiled(keras.Model(image, layers.Dense(int(y.max()) + 1)(layers.GlobalAveragePooling2D()(z))))
        model.fit(x, y, batch_size=32, epochs=1, verbose=0, shuffle=False, callbacks=[tfc.QuantizationAwareTraining()])
        return model

    calls = []
    train = fake_quantized_calls.fused_batch_norm
    monkeypatch.setattr(
        fake_quantized_calls, "fused_batch_norm", lambda *args: calls.append(args[0].name) or train(*args)
    )
    fused = trained()
    assert set(calls) == {"norm"}
    monkeypatch.setattr(fake_quantized_calls, "can_fuse_batch_norm", lambda *args, **kwargs: False)
    for own, other in zip(trained().get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_allclose(other, own, rtol=1e-3, atol=1e-4)
