"""Pruning of every kind of model: nested, shared, of many inputs and outputs, subclassed."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.errors import TrainingError
from tfcompress.layers import interception
from tfcompress.pruning.magnitude_pruning import prunable_weights

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.normal(size=(32, 8, 8, 2)).astype(np.float32)
NUMBERS = RANDOM.normal(size=(32, 6)).astype(np.float32)


def conv(x, width, name):
    x = layers.Conv2D(width, 3, padding="same", name=name)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def nested():
    given = keras.Input((8, 8, 16))
    inner = keras.Model(given, conv(conv(given, 16, "a"), 16, "b"), name="inner")
    image = keras.Input((8, 8, 2))
    x = layers.GlobalAveragePooling2D()(inner(conv(image, 16, "stem")))
    return keras.Model(image, layers.Dense(3, name="head")(x)), PICTURES, 1


def shared():
    image = keras.Input((8, 8, 2))
    block = layers.Conv2D(16, 3, padding="same", activation="relu", name="block")
    x = layers.GlobalAveragePooling2D()(block(block(conv(image, 16, "stem"))))
    return keras.Model(image, layers.Dense(3, name="head")(x)), PICTURES, 1


def shared_by_two_inputs():
    one, other = keras.Input((8, 8, 2), name="one"), keras.Input((8, 8, 2), name="other")
    tower = keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()])
    x = layers.Subtract()([tower(one), tower(other)])
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return keras.Model([one, other], layers.Dense(3, name="head")(x)), [PICTURES, PICTURES[::-1]], 1


def many_inputs_and_outputs():
    image, numbers = keras.Input((8, 8, 2), name="image"), keras.Input((6,), name="numbers")
    x = layers.GlobalAveragePooling2D()(conv(conv(image, 16, "stem"), 24, "second"))
    x = layers.Concatenate()([x, layers.Dense(16, activation="relu", name="side")(numbers)])
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    outputs = {"kind": layers.Dense(3, name="kind")(x), "size": layers.Dense(1, name="size")(x)}
    return keras.Model({"image": image, "numbers": numbers}, outputs), {"image": PICTURES, "numbers": NUMBERS}, 2


def subclassed():
    class Block(layers.Layer):
        def __init__(self, width):
            super().__init__()
            self.conv = layers.Conv2D(width, 3, padding="same")
            self.norm = layers.BatchNormalization()

        def call(self, x, training=False):
            return keras.ops.relu(self.norm(self.conv(x), training=training))

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [Block(16), Block(16)]
            self.head = layers.Dense(3)

        def call(self, x, training=False):
            for block in self.blocks:
                x = block(x, training=training)
            return self.head(keras.ops.mean(x, axis=(1, 2)))

    model = Own()
    model(PICTURES[:1])
    return model, PICTURES, 1


KINDS = [nested, shared, shared_by_two_inputs, many_inputs_and_outputs, subclassed]
GRAPHS = KINDS[:-1]


def fit(build, *callbacks):
    keras.utils.set_random_seed(0)
    model, x, outputs = build()
    model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
    answers = model.predict(x, verbose=0)
    y = keras.tree.map_structure(lambda values: np.sin(values * 9), answers)
    assert len(keras.tree.flatten(y)) == outputs
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=list(callbacks))
    return model, x


def paths(model):
    """Keras's cloning names input layers after their tensors."""
    found = interception.layer_paths(model)
    return [path for path, layer in found.items() if not isinstance(layer, layers.InputLayer)]


def answers_of(model, x):
    return np.concatenate(
        [values.reshape(len(values), -1) for values in keras.tree.flatten(model.predict(x, verbose=0))], 1
    )


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_every_kernel_has_its_zeros_and_keeps_them_in_the_file(build):
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=8), frequency=2)
    # A subclassed model adds up its residuals itself, which no layer shows.
    named = pytest.warns(UserWarning, match="blocks/0") if build is subclassed else contextlib.nullcontext()
    with named:
        model, x = fit(build, pruning, tfc.QuantizationAwareTraining(begin_epoch=1))
    kernels = prunable_weights(model)
    assert len(kernels) >= 3
    assert all(np.mean(np.asarray(kernel) == 0) == 0.5 for kernel in kernels.values())
    assert all(kernel.constraint is None for kernel in kernels.values())
    result = tfc.convert(model, target="cpu-int8", representative_data=x)
    assert result.float_tensors == ()


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_channels_leave_without_a_trace(build):
    pruning = tfc.ChannelPruning(tfc.schedules.Polynomial(final=0.5, end=8), frequency=2, multiple_of=4)
    model, x = fit(build, pruning)
    smaller = tfc.remove_channels(model, multiple_of=4)
    assert smaller.count_params() < 0.8 * model.count_params()
    assert paths(smaller) == paths(model)
    assert [tensor.name for tensor in smaller.inputs] == [tensor.name for tensor in model.inputs]
    before, after = answers_of(model, x), answers_of(smaller, x)
    assert np.abs(before - after).max() <= 2e-6 * max(1.0, np.abs(before).max())  # float32 sums of other lengths
    assert keras.tree.map_structure(lambda t: t.shape, smaller.output) == keras.tree.map_structure(
        lambda t: t.shape, model.output
    )


@pytest.mark.parametrize("callback", [tfc.MagnitudePruning, tfc.ChannelPruning])
def test_taylor_importance_of_many_outputs(callback):
    """The gradient is that of the sum of the outputs' losses."""
    x = {"image": PICTURES, "numbers": NUMBERS}
    y = {"kind": np.ones((32, 3), np.float32), "size": np.ones((32, 1), np.float32)}

    def total(wanted, answers):
        return sum(keras.ops.mean((answers[name] - wanted[name]) ** 2) for name in wanted)

    by = tfc.importance.Taylor(x, y)
    options = {"multiple_of": 1} if callback is tfc.ChannelPruning else {}
    model, _ = fit(many_inputs_and_outputs, callback(0.5, importance=by, frequency=4, **options))
    kernels = list(prunable_weights(model).values())
    for ours, wanted in zip(by(model, kernels), tfc.importance.Taylor(x, y, loss=total)(model, kernels), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-6)  # float32 sums in another order
    hidden = np.asarray(model.get_layer("hidden").kernel)
    assert np.mean(hidden == 0) == 0.5
    assert (np.sum(~hidden.any(axis=0)) == 8) == (callback is tfc.ChannelPruning)


def test_channels_of_a_subclassed_model_are_refused_before_training():
    with pytest.raises(TrainingError, match="a subclassed model"):
        fit(subclassed, tfc.ChannelPruning(0.5))


def test_channels_that_stay_too_many_are_told_in_one_warning():
    pruning = tfc.ChannelPruning(tfc.schedules.Polynomial(final=0.5, end=1000), frequency=2, multiple_of=4)
    with pytest.warns(UserWarning, match="the schedule would reach 50.0%") as caught:
        fit(shared, pruning)
    assert len(caught) == 1


def test_the_penalty_is_lambda_times_the_sum_of_the_scales():
    """At a learning rate of zero the loss with the penalty is the loss without it plus the sum."""
    losses = []
    for callbacks in ([], [tfc.L1Penalty(0.25)]):
        keras.utils.set_random_seed(0)
        model, x, _ = nested()
        model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
        scales = [w for w in model.trainable_weights if w.path.endswith("gamma")]
        for number, scale in enumerate(scales):
            scale.assign(np.linspace(-1, 1 + number, scale.shape[0]))
        total = sum(float(np.abs(np.asarray(scale)).sum()) for scale in scales)
        losses.append(model.fit(x, np.zeros((32, 3)), verbose=0, callbacks=callbacks).history["loss"][0])
    assert losses[1] - losses[0] == pytest.approx(0.25 * total, rel=1e-4)  # float32
