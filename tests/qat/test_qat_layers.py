"""Quantization-aware training of every kind of layer ends in a full int8 file; what is not covered is said once."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.errors import StrictError
from tfcompress.qat.file_agreement import SAME_ANSWERS, compare_with_file
from tfcompress.tflite.interpreter import open_model

RANDOM = np.random.default_rng(0)
Y = RANDOM.integers(0, 3, 64)
PICTURES = RANDOM.normal(size=(64, 16, 16, 3)).astype(np.float32)
SERIES = RANDOM.normal(size=(64, 20, 4)).astype(np.float32)
TOKENS = RANDOM.integers(0, 20, (64, 12)).astype(np.int32)


def stack(shape, *inner, **options):
    return keras.Sequential([keras.Input(shape, **options), *inner, layers.Dense(3, name="answer")])


def pooled(shape, *inner):
    pool = layers.GlobalAveragePooling2D() if len(shape) == 3 else layers.GlobalAveragePooling1D()
    return stack(shape, *inner, pool)


def attention():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 16)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def attention_without_bias():
    series = keras.Input((20, 4))
    x = layers.MultiHeadAttention(2, 8, use_bias=False)(series, series)
    return keras.Model(series, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def activation(name):
    return lambda: pooled(
        (16, 16, 3), layers.Conv2D(8, 3, activation=name), layers.Conv2D(8, 3), layers.Activation(name)
    )


def two(join):
    """Two branches, one of them never negative, that ``join`` brings together."""

    def build():
        image = keras.Input((16, 16, 3), name="image")
        a = layers.Conv2D(8, 3, activation="relu", name="positive")(image)
        b = layers.Conv2D(8, 3, name="signed")(image)
        x = layers.Conv2D(8, 3)(join(image, a, b))
        return keras.Model(image, layers.Dense(3, name="answer")(layers.GlobalAveragePooling2D()(x)))

    return build, PICTURES


def joined(*tensors):
    return layers.Concatenate()(list(tensors))


def dense_block(image, a, b):
    first = joined(a, b)
    return joined(first, layers.Conv2D(4, 3, padding="same", activation="relu")(first))


def split(image, a, b):
    whole = joined(a, b)
    return joined(whole[..., :8], layers.Conv2D(8, 3, padding="same")(whole[..., 8:]))


def read_twice(image, a, b):
    return layers.Add()([joined(a, b), layers.Conv2D(16, 1)(a)])


COVERED = {
    "depthwise_1d": (lambda: pooled((20, 4), layers.DepthwiseConv1D(3), layers.ReLU(), layers.Conv1D(8, 3)), SERIES),
    "transposed": (lambda: pooled((16, 16, 3), layers.Conv2DTranspose(8, 3, strides=2, activation="relu")), PICTURES),
    "einsum": (
        lambda: pooled((20, 4), layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", activation="relu")),
        SERIES,
    ),
    "dense_of_a_series": (
        lambda: pooled(
            (20, 4), layers.Dense(8), layers.Dense(8, activation="tanh"), layers.Dense(8, activation="relu")
        ),
        SERIES,
    ),
    "embedding": (
        lambda: stack(
            (12,), layers.Embedding(20, 8), layers.Conv1D(8, 3), layers.GlobalAveragePooling1D(), dtype="int32"
        ),
        TOKENS,
    ),
    "separable": (lambda: pooled((16, 16, 3), layers.SeparableConv2D(8, 3, activation="relu")), PICTURES),
    "resizing": (
        lambda: pooled((16, 16, 3), layers.Conv2D(8, 3), layers.PReLU(shared_axes=[1, 2]), layers.Resizing(8, 8)),
        PICTURES,
    ),
    "padding": (
        lambda: pooled((16, 16, 3), layers.ZeroPadding2D(2), layers.Conv2D(8, 3), layers.LeakyReLU()),
        PICTURES,
    ),
    "softmax": (lambda: pooled((16, 16, 3), layers.Conv2D(8, 3), layers.Softmax(), layers.Conv2D(8, 3)), PICTURES),
    **{
        name: (activation(name), PICTURES)
        for name in ("hard_swish", "hard_sigmoid", "swish", "gelu", "sigmoid", "tanh", "leaky_relu", "relu6")
    },
    "rescaling": (
        lambda: pooled((16, 16, 3), layers.Rescaling([0.5, 0.2, 0.1], offset=[1.0, 2.0, -1.0]), layers.Conv2D(8, 3)),
        PICTURES,
    ),
    "global_max": (lambda: stack((16, 16, 3), layers.Conv2D(8, 3), layers.GlobalMaxPooling2D()), PICTURES),
    "add": two(lambda image, a, b: layers.Add()([a, b])),
    "subtract": two(lambda image, a, b: a - b),
    "multiply": two(lambda image, a, b: layers.Multiply()([a, b])),
    "maximum": two(lambda image, a, b: layers.Maximum()([a, b])),
    "minimum": two(lambda image, a, b: keras.ops.minimum(a, b)),
    "concatenated": two(lambda image, a, b: joined(a, b)),
    "concatenated_and_read": two(read_twice),
    "concatenated_with_the_input": two(lambda image, a, b: joined(layers.Cropping2D(1)(image), b)),
    "concatenated_pools": two(lambda image, a, b: joined(layers.AveragePooling2D(2)(a), layers.MaxPooling2D(2)(b))),
    "dense_block": two(dense_block),
    "split": two(split),
}
OWN_ROUNDING = {"transposed", "resizing", "padding", "leaky_relu", "hard_swish"}
"""Layers whose kernels round more coarsely than arithmetic does: a slope or a factor of few bits."""
CALIBRATED = {
    "average": two(lambda image, a, b: layers.Average()([a, b])),
    "relu_up_to_4": (lambda: pooled((16, 16, 3), layers.Conv2D(8, 3), layers.ReLU(4.0)), PICTURES),
    "attention": (attention, TOKENS),
    "attention_without_bias": (attention_without_bias, SERIES),
    "batch_norm_on_its_own": (lambda: pooled((16, 16, 3), layers.BatchNormalization(), layers.Conv2D(8, 3)), PICTURES),
    "lstm": (lambda: stack((6, 4), layers.LSTM(8, unroll=True)), SERIES[:, :6]),
    "gru": (lambda: stack((6, 4), layers.GRU(8, unroll=True)), SERIES[:, :6]),
}


def train(build, x):
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    qat = tfc.QuantizationAwareTraining()
    model.fit(x, Y, epochs=4, batch_size=16, verbose=0, callbacks=[qat])
    return model, qat


def fresh(x):
    """More samples like ``x``: on 64 a single other answer is 1.6 %."""
    random = np.random.default_rng(7)
    shape = (1024, *x.shape[1:])
    return (
        random.normal(size=shape).astype(x.dtype) if x.dtype == np.float32 else random.integers(0, 20, shape, x.dtype)
    )


def agreement(model, qat, x, tflite):
    file = open_model(tflite)
    answers = next(iter(file.run({file.inputs[0].name: x}).values()))
    return np.mean(answers.argmax(1) == model.predict(x, verbose=0, callbacks=[qat]).argmax(1))


@pytest.mark.parametrize("name", COVERED)
def test_covered_layers_need_no_data(name):
    build, x = COVERED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, qat = train(build, x)
    result = tfc.convert(model, target="cpu-int8")
    assert result.float_tensors == ()
    assert result.points.calibrated == 0
    assert agreement(model, qat, fresh(x), result.tflite) >= SAME_ANSWERS
    points = compare_with_file(model, qat, fresh(x), by_point=True).points
    assert len(points) >= 2
    steps = {each.name: each.mean_steps for each in points}
    assert max(steps.values()) <= (0.6 if name in OWN_ROUNDING else 0.03), steps


@pytest.mark.parametrize("name", CALIBRATED)
def test_other_layers_are_named_once_and_calibrated(name):
    build, x = CALIBRATED[name]
    with pytest.warns(UserWarning, match="calibrated at conversion") as caught:
        model, qat = train(build, x)
    assert len(caught) == 1
    assert qat.plan.skipped
    result = tfc.convert(model, target="cpu-int8", representative_data=x)
    assert result.float_tensors == ()
    assert result.points.trained > 0
    assert result.points.calibrated > 0
    assert agreement(model, qat, x, result.tflite) >= 0.95


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_a_loop_is_said_to_stay_in_float(layer):
    """Strict conversion refuses what training warned of; built with unroll=True it is among the calibrated ones above."""
    keras.utils.set_random_seed(0)
    model, x = stack((6, 4), layer(8, name="cells")), SERIES[:, :6]
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    qat = tfc.QuantizationAwareTraining()
    with pytest.warns(UserWarning, match="cells: a loop stays in float in TFLite: build it with unroll=True") as caught:
        model.fit(x, Y, verbose=0, callbacks=[qat])
    assert len(caught) == 1
    if layer is layers.LSTM:
        with pytest.raises(StrictError, match="WHILE"):
            tfc.convert(model, target="cpu-int8", representative_data=x)


@pytest.mark.slow
def test_mobilenet_v3_small():
    def build():
        return keras.applications.MobileNetV3Small(
            weights=None, input_shape=(64, 64, 3), classes=3, classifier_activation=None, include_preprocessing=False
        )

    x = RANDOM.normal(size=(64, 64, 64, 3)).astype(np.float32)
    model, qat = train(build, x)
    result = tfc.convert(model, target="cpu-int8")
    assert result.float_tensors == ()
    assert result.points.calibrated == 0
    assert agreement(model, qat, x, result.tflite) >= 0.95
