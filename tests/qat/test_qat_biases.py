"""Biases lie on the file's 32-bit grid outside of training, their own and those that a BatchNorm leaves behind."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.layers import quantization_points
from tfcompress.qat.file_agreement import compare_with_file
from tfcompress.quantization import fake_quantization

X, Y = striped_pictures(256)
TEST_X, _ = striped_pictures(512, seed=1)


@pytest.fixture(scope="module", params=["abs_max", "learned"])
def trained(request):
    """A model with every way a bias comes into an operation, trained; and its callback."""
    keras.utils.set_random_seed(0)
    image = keras.Input(X.shape[1:], name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="own")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.ReLU(name="fixed")(layers.BatchNormalization(center=False, name="norm_of_a_bias")(x))
    y = layers.Conv2D(8, 1, use_bias=False, name="none")(x)
    y = layers.BatchNormalization(scale=False, name="norm")(y)
    x = layers.ReLU(name="sum")(layers.Add()([x, y]))
    x = layers.SeparableConv2D(8, 3, activation="gelu", name="separable")(x)
    x = layers.GlobalMaxPooling2D(name="pooled")(x)
    model = compiled(keras.Model(image, layers.Dense(int(Y.max()) + 1, name="logits")(x)))
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.random.default_rng(0).normal(0, 0.1, layer.bias.shape))
    qat = tfc.QuantizationAwareTraining(weight_ranges=request.param)
    model.fit(X, Y, epochs=4, verbose=0, batch_size=32, callbacks=[qat])
    assert not qat.plan.skipped
    return model, qat


def apart(model, qat):
    """Mean distance of the file in quantization steps, by point."""
    return {each.name: each.mean_steps for each in compare_with_file(model, qat, TEST_X, by_point=True).points}


def test_the_file_is_met_exactly(trained):
    steps = apart(*trained)
    assert len(steps) == 9
    assert max(steps.values()) <= 2e-4, steps  # sums of float32 in another order


def test_without_the_grid_it_is_not(trained, monkeypatch):
    monkeypatch.setattr(fake_quantization, "biases", lambda values, steps: values)
    steps = apart(*trained)
    assert steps["own"] > 2e-4
    assert sum(steps[point] > 2e-4 for point in ("fixed", "norm", "separable:inner", "logits")) >= 3, steps


def test_a_bias_goes_to_the_nearest_step():
    rounded = fake_quantization.biases(np.float32([0.26, -0.26, 0.3]), np.float32([0.5, 0.1, 0.0]))
    np.testing.assert_allclose(np.asarray(rounded), [0.5, -0.3, 0.3], rtol=1e-6)


class Shifted(layers.Layer):
    """A product, and a sum with a variable that is not called ``bias``."""

    def __init__(self):
        super().__init__(name="shifted")
        self.activation = keras.activations.linear

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.offset = self.add_weight(shape=(3,), initializer=keras.initializers.Constant(2.0), name="offset")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel) + self.offset


class Standardized(layers.Conv2D):
    """A convolution with another kernel than its own."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel / (1.0 + keras.ops.std(kernel)))


def test_layers_of_the_users_own_are_called_as_they_are():
    quantization_points.register(
        Shifted, quantization_points.Rule("linear", (quantization_points.WeightRule("kernel"),))
    )
    try:
        keras.utils.set_random_seed(0)
        image = keras.Input(X.shape[1:], name="image")
        x = layers.GlobalAveragePooling2D()(Standardized(4, 3, name="own")(image))
        model = compiled(keras.Model(image, Shifted()(x)))
        qat = tfc.QuantizationAwareTraining()
        model.fit(X, Y, epochs=2, verbose=0, batch_size=32, callbacks=[qat])
        plain, fake = model.predict(TEST_X, verbose=0), model.predict(TEST_X, verbose=0, callbacks=[qat])
        assert np.abs(plain - fake).max() < 0.1 * np.abs(plain).max()
    finally:
        del quantization_points.RULES["Shifted"]


def test_a_norm_along_another_axis_is_not_folded():
    keras.utils.set_random_seed(0)
    image = keras.Input(X.shape[1:], name="image")
    x = layers.BatchNormalization(axis=1, name="norm")(layers.Conv2D(4, 3, name="conv")(image))
    model = compiled(keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    qat = tfc.QuantizationAwareTraining()
    model.fit(X, Y, epochs=4, verbose=0, batch_size=32, callbacks=[qat])
    assert qat.plan.sites["conv", 0].bias is None
    plain, fake = model.predict(TEST_X, verbose=0), model.predict(TEST_X, verbose=0, callbacks=[qat])
    assert np.abs(plain - fake).mean() < 0.1 * np.abs(plain).mean()
