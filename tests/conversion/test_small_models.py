"""Small models of every family become full int8; what stays in float is named."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.errors import StrictError
from tfcompress.tflite.interpreter import open_model

COUNT = 64


def real(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(COUNT, *shape)).astype(np.float32)


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 20, (COUNT, 12)).astype(np.int32)


def conv1d():
    return keras.Sequential(
        [
            keras.Input((20, 4)),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu"),
            layers.SeparableConv1D(8, 3),
            layers.GlobalMaxPooling1D(),
            layers.Dense(3),
        ]
    ), real(20, 4)


def transposed_convolution():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(2, 2, strides=2),
        ]
    ), real(8, 8, 2)


def embedding():
    return keras.Sequential(
        [
            keras.Input((12,), dtype="int32"),
            layers.Embedding(20, 8),
            layers.Conv1D(8, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    ), tokens()


def attention():
    given = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 16)(given)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))), tokens()


def unrolled_lstm():
    return keras.Sequential([keras.Input((6, 6)), layers.LSTM(8, unroll=True), layers.Dense(3)]), real(6, 6)


def unrolled_gru():
    return keras.Sequential([keras.Input((6, 6)), layers.GRU(8, unroll=True), layers.Dense(3)]), real(6, 6)


def answers(result, samples):
    file = open_model(result.tflite)
    return next(iter(file.run({file.inputs[0].name: samples}).values()))


def noise_ratio(result, model, samples) -> float:
    """Signal to quantization noise of the outputs, in decibels."""
    wanted = model.predict(samples, verbose=0)
    return 10 * np.log10(np.square(wanted).mean() / np.square(answers(result, samples) - wanted).mean())


@pytest.mark.parametrize(
    "build",
    [conv1d, transposed_convolution, embedding, attention, unrolled_lstm, unrolled_gru],
    ids=lambda build: build.__name__,
)
def test_no_float_tensor_is_left(build):
    keras.utils.set_random_seed(0)
    model, samples = build()
    result = tfc.convert(model, target="cpu-int8", representative_data=samples)
    assert result.float_tensors == ()
    assert noise_ratio(result, model, samples) > 25


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU], ids=lambda layer: layer.__name__)
def test_a_recurrent_loop_stays_in_float_and_is_named(layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10, 6)), layer(8), layers.Dense(3, name="head")])
    with pytest.raises(StrictError, match=f"/{layer.__name__.lower()}.*--allow_float"):
        tfc.convert(model, target="cpu-int8", representative_data=real(10, 6))
    result = tfc.convert(model, target="cpu-int8", representative_data=real(10, 6), allow_float=True)
    assert result.float_tensors
    assert all(f"/{layer.__name__.lower()}" in name or "/" not in name for name in result.float_tensors)
    assert not [name for name in result.float_tensors if "head" in name]
    assert noise_ratio(result, model, real(10, 6)) > 25
