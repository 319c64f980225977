"""Adversarial training in a plain ``fit``: alone, with pruning and quantization-aware training, and after an exception."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.data import load_digits
from tfcompress.errors import TrainingError
from tfcompress.security.robustness import PixelRange, gradients_of, pgd

EPS = 0.1
UNIT = PixelRange((0.0,), (1.0,))
STRIPES = {"eps": 0.05, "steps": 2, "input_range": (-3.0, 3.0)}


def dense():
    """One hidden layer on the digits: trains in a second."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    )
    return compiled(model)


def small(units=3):
    """A layer behind BatchNormalization on the stripes."""
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization(name="norm")
    return keras.Sequential([keras.Input((8, 8, 2)), norm, keras.layers.Flatten(), keras.layers.Dense(units)])


def robust_accuracy(model, digits):
    x, y = digits.x_test[:200], digits.y_test[:200]
    gradients = gradients_of(model, UNIT, are_probabilities=False)
    worst = pgd(gradients, x, y, eps=EPS, steps=10, restarts=1)
    return 1 - gradients(x, y).wrong.mean(), 1 - gradients(worst, y).wrong.mean()


def test_it_makes_a_model_that_withstands_more():
    digits = load_digits()
    found = {}
    for name, callbacks in {"plain": [], "trained": [tfc.AdversarialTraining(eps=EPS, steps=3)]}.items():
        model = dense()
        model.fit(digits.x_train, digits.y_train, epochs=12, batch_size=64, verbose=0, callbacks=callbacks)
        found[name] = robust_accuracy(model, digits)
    assert found["trained"][1] > found["plain"][1] + 0.2
    assert found["trained"][0] > 0.93


class Seen(keras.Model):
    """Keeps what the training step sees."""

    def __init__(self, **options):
        super().__init__(**options)
        self.head = keras.layers.Dense(3)
        self.seen = []

    def call(self, x, training=None):
        return self.head(x)

    def train_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.seen.append(x.numpy())
        return super().train_step(data)


@pytest.mark.parametrize(("ratio", "share"), [(1.0, 8), (0.5, 4), (0.3, 3)])
def test_the_first_share_of_a_batch_is_perturbed_within_eps(ratio, share):
    keras.utils.set_random_seed(0)
    model = Seen()
    model(np.zeros((1, 4), np.float32))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    x = np.random.default_rng(0).random((8, 4), np.float32) * 255
    callback = tfc.AdversarialTraining(eps=0.1, ratio=ratio, steps=2, input_range=(0, 255))
    model.fit(x, np.arange(8) % 3, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    (seen,) = model.seen
    changed = np.abs(seen - x)
    assert (changed[:share].max(axis=1) > 1).all() and not changed[share:].any()
    assert changed.max() <= 25.5 + 1e-4 and seen.min() >= 0 and seen.max() <= 255
    assert "train_step" not in vars(model)


def test_the_step_is_that_of_the_seed_and_the_models_own_again_afterwards():
    x, y = striped_pictures(64)
    weights = []
    for seed in (0, 0, 1):
        model = compiled(small())
        model.fit(x, y, verbose=0, shuffle=False, callbacks=[tfc.AdversarialTraining(seed=seed, **STRIPES)])
        weights.append(model.get_weights()[-1])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()
    again, plain = compiled(small()), compiled(small())
    callback = tfc.AdversarialTraining(**STRIPES)
    again.fit(x, y, verbose=0, callbacks=[callback])
    again.set_weights(plain.get_weights())
    compiled(again).fit(x, y, verbose=0, shuffle=False)
    plain.fit(x, y, verbose=0, shuffle=False)
    np.testing.assert_array_equal(again.get_weights()[-1], plain.get_weights()[-1])
    again.fit(x, y, verbose=0, callbacks=[callback])  # a second fit with the same instance


@pytest.mark.parametrize(
    ("first", "ranges"),
    [
        ("qat", "learned"),
        pytest.param("adversarial", "moving_average", marks=pytest.mark.slow),
        pytest.param("adversarial", "learned", marks=pytest.mark.slow),
        pytest.param("qat", "moving_average", marks=pytest.mark.slow),
    ],
)
def test_with_pruning_and_qat_the_file_is_sparse_and_agrees(first, ranges):
    x, y = striped_pictures(192)
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining(begin_step=2, activation_ranges=ranges, verify=x[:64])
    callbacks = [tfc.AdversarialTraining(ratio=0.5, **STRIPES), tfc.MagnitudePruning(0.5), qat]
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks[:: 1 if first == "adversarial" else -1])
    assert np.isfinite(history.history["loss"]).all()
    assert (model.get_layer("pointwise").get_weights()[0] == 0).mean() == 0.5
    assert qat.file_agreement.same_answers == 1.0
    low, high = qat.ranges["input:image"]
    assert -3.0 <= low < high <= 3.0  # learned from what the step saw, within the input's range


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"jit_compile": False, "steps_per_execution": 3}])
def test_with_xla_and_several_steps_at_once(options):
    x, y = striped_pictures(150)
    model = compiled(small(), **options)
    model.fit(x, y, verbose=0, callbacks=[tfc.AdversarialTraining(ratio=0.5, **STRIPES)])
    assert "train_step" not in vars(model)


def test_a_student_is_trained_against_attacks_too():
    x, y = striped_pictures(64)
    student = small()
    distiller = tfc.distill(student, small())
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = student.get_weights()[-1]
    distiller.fit(x, y, verbose=0, callbacks=[tfc.AdversarialTraining(**STRIPES)])
    assert (student.get_weights()[-1] != before).any() and "train_step" not in vars(distiller)


def test_an_exception_leaves_the_model_plain():
    x, y = striped_pictures(64)
    model = compiled(small())
    with pytest.raises(ValueError, match="shape"):
        model.fit(x[:, :4], y, verbose=0, callbacks=[tfc.AdversarialTraining(**STRIPES)])
    assert "train_step" not in vars(model)


def test_bad_arguments_and_batches_are_one_clear_error():
    with pytest.raises(ValueError, match=r"eps must be in \(0, 1\]. Received: eps=8"):
        tfc.AdversarialTraining(eps=8)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        tfc.AdversarialTraining(eps=0.1, steps=0)
    with pytest.raises(TypeError, match="Did you mean 'eps'"):
        tfc.AdversarialTraining(epss=0.1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="one input with labels"):
        model.fit(np.zeros((8, 4)), verbose=0, callbacks=[tfc.AdversarialTraining(eps=0.1)])
    a, b = keras.Input((4,)), keras.Input((4,))
    two = keras.Model([a, b], keras.layers.Add()([a, b]))
    two.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="one input. Received: '.*' with 2"):
        two.fit([np.zeros((8, 4))] * 2, np.zeros((8, 4)), verbose=0, callbacks=[tfc.AdversarialTraining(eps=0.1)])
