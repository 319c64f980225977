"""Good data passes without a word; what is wrong with bad data is said in one line."""

import re

import keras
import numpy as np
import pytest

from models import compiled, striped_pictures, tiny_cnn
from tfcompress import lowering
from tfcompress.calibration.data_checks import Evidence, doubts

VARIED = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def evidence_of(arrays, size=7):
    evidence = Evidence()
    count = len(next(iter(arrays.values())))
    for start in range(0, count, size):
        evidence.add({name: array[start : start + size] for name, array in arrays.items()})
    return evidence


def asked(model, hub, arrays):
    return doubts(evidence_of(arrays), first=arrays, model=model, content=hub.content)


@pytest.fixture(scope="module")
def trained():
    model = compiled(tiny_cnn())
    pictures, labels = striped_pictures()
    model.fit(pictures, labels, epochs=5, verbose=0)
    return model, lowering.lower_keras(model)


@pytest.fixture(scope="module")
def relu6():
    """A float file that expects pixels 0..255 and holds no BatchNormalization any more, as from elsewhere."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2), name="image"),
            keras.layers.Conv2D(16, 3, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.0),
            keras.layers.ReLU(6.0),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    pixels = pixels_of(striped_pictures()[0])
    model(pixels, training=True)
    return lowering.lower_keras(model), pixels


def pixels_of(pictures):
    low, high = pictures.min(), pictures.max()
    return ((pictures - low) / (high - low) * 255).astype(np.float32)


def test_good_data_passes(trained, relu6):
    pictures, _ = striped_pictures(64, seed=1)
    assert asked(*trained, {"image": pictures}) is None
    hub, pixels = relu6
    assert asked(None, hub, {"image": pixels}) is None


@pytest.mark.parametrize(("factor", "message"), [(127, "times the spread"), (1 / 127, "1/1.* of the spread")])
def test_another_scaling_is_seen_by_batch_normalization(trained, factor, message):
    pictures, _ = striped_pictures(64, seed=1)
    found = asked(*trained, {"image": pictures * np.float32(factor)})
    assert found is not None and "\n" not in found
    assert "is the scaling the one of training? Pass about 100" in found
    assert re.search(message, found)


def test_a_shift_is_seen_by_batch_normalization():
    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.0, name="norm")(inputs))
    model(VARIED, training=True)
    hub = lowering.lower_keras(model)
    assert asked(model, hub, {"x": VARIED}) is None
    assert "standard deviations off" in asked(model, hub, {"x": VARIED + np.float32(5)})


@pytest.mark.parametrize(("factor", "message"), [(1 / 255, "answers nearly the same"), (100, "saturated")])
def test_another_scaling_is_seen_by_the_first_layer_of_a_file(relu6, factor, message):
    hub, pixels = relu6
    assert message in asked(None, hub, {"image": pixels * np.float32(factor)})


def test_a_model_is_left_as_it_was(trained):
    model, hub = trained
    pictures, _ = striped_pictures(40, seed=1)
    before = [vars(layer).get("call") for layer in model.layers], model.predict(pictures, verbose=0)
    asked(model, hub, {"image": pictures})
    after = [vars(layer).get("call") for layer in model.layers], model.predict(pictures, verbose=0)
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])


def test_untrained_statistics_say_nothing():
    model = tiny_cnn()
    pictures, _ = striped_pictures(40)
    assert asked(model, lowering.lower_keras(model), {"image": pictures}) is None


def test_real_pictures_and_a_real_model(shared_data):
    model = keras.models.load_model(next((shared_data / "mlperf_resnet8").glob("*.h5")), compile=False)
    hub = lowering.lower_keras(model)
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as archive:
        pictures = archive["x_train"][:64].astype(np.float32)
    name = hub.inputs[0].name
    assert asked(model, hub, {name: pictures}) is None
    for wrong in (pictures / 255, pictures / 127.5 - 1):
        assert "of the spread it was trained on" in asked(model, hub, {name: wrong})
    noise = np.random.default_rng(0).uniform(0, 255, pictures.shape).astype(np.float32)
    assert "as in random noise" in asked(model, hub, {name: noise})


def test_real_spectra_are_no_noise(shared_data):
    with np.load(shared_data / "mlperf_sww" / "calibration_samples.npz") as archive:
        spectra = archive["specs"].astype(np.float32).transpose(0, 1, 3, 2)
    assert doubts(evidence_of({"spectrum": spectra})) is None


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((40, 6), np.float32), "every value of x is 0; all 40 samples are the same"),
        (np.repeat(VARIED[:, :1], 6, axis=1), "each sample of x holds a single value"),
        (np.repeat(VARIED[:1], 40, axis=0), "all 40 samples are the same"),
        (np.tile(VARIED[:4], (10, 1)), "only 4 of 40 samples are different"),
        (VARIED[:31], "there are 31 samples, fewer than 32"),
        (np.random.default_rng(0).normal(size=(40, 9, 9, 3)), "neighbouring pixels of x"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 40])
def test_suspicious_data(x, message, size):
    found = doubts(evidence_of({"x": x}, size))
    assert found is not None and message in found and "\n" not in found
    assert found.startswith("Representative data must look like what the model will see. Received: ")


def test_ordinary_arrays_pass():
    tokens = np.random.default_rng(0).integers(0, 99, (40, 5))
    assert doubts(evidence_of({"x": VARIED})) is None
    assert doubts(evidence_of({"x": VARIED[:, :1]})) is None
    assert doubts(evidence_of({"x": VARIED, "tokens": tokens})) is None


def test_memory_is_bounded():
    evidence = Evidence()
    for i in range(50):
        evidence.add({"x": np.arange(100 * i, 100 * i + 100, dtype=np.float32)[:, None]})
    assert evidence.samples == 5000 and evidence.distinct == 4096
