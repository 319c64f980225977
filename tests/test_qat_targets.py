"""Training for a target: its bits and scales, what convert refuses, and a fit that goes on where it was interrupted."""

import dataclasses

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.errors import ConversionError, TrainingError
from tfcompress.interpreter import open_model

X, Y = striped_pictures(256)


def fit(model, *callbacks, epochs=4, **options):
    return model.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


PER_TENSOR = dataclasses.replace(tfc.TARGETS["cpu-int8"], name="older", per_channel=False, per_channel_dense=False)


@pytest.mark.parametrize("target", ["cpu-int4", "cpu-int16x8", "micro", PER_TENSOR], ids=str)
def test_the_file_answers_as_trained(target, tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = compiled(
        keras.Sequential(
            [
                keras.Input((8, 8, 2), name="image"),
                layers.Conv2D(16, 3, activation="relu"),
                layers.Conv2D(16, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(16, activation="relu"),
                layers.Dense(3, name="logits"),
            ]
        )
    )
    qat = tfc.QuantizationAwareTraining(target=target)
    fit(model, qat)
    model.save(tmp_path / "model.keras")
    result = tfc.convert(tmp_path / "model.keras", target=target)  # the rules travel with the file
    assert result.float_tensors == ()
    assert result.points.calibrated == 0
    file = next(iter(open_model(result.tflite).run({"image": X}).values()))
    fake = model.predict(X, verbose=0, callbacks=[qat])
    assert np.mean(file.argmax(1) == fake.argmax(1)) >= 0.99
    assert np.abs(file - fake).max() < 0.05 * np.abs(fake).max()


def test_four_bits_learn_what_rounding_alone_loses():
    def accuracy(tflite):
        return np.mean(next(iter(open_model(tflite).run({"image": X}).values())).argmax(1) == Y)

    model = compiled(tiny_cnn())
    fit(model, epochs=8)
    rounded = accuracy(tfc.convert(model, target="cpu-int4", representative_data=X).tflite)
    fit(model, tfc.QuantizationAwareTraining(target="cpu-int4"), epochs=6)
    assert accuracy(tfc.convert(model).tflite) >= rounded  # the target it was trained for is the default
    assert tfc.convert(model).target.name == "cpu-int4"


def test_targets_that_round_otherwise_are_refused():
    model = compiled(tiny_cnn())
    fit(model, tfc.QuantizationAwareTraining())
    with pytest.raises(
        ConversionError, match="trained for cpu-int8, and the target micro, which differs in per_channel_dense"
    ):
        tfc.convert(model, target="micro")
    assert tfc.convert(model, target="cpu-uint8-io").points.calibrated == 0  # the same grids inside
    assert tfc.convert(model, target="micro", ranges="calibrated", representative_data=X).points.trained == 0
    for target in ("dynamic", "gpu-fp16"):
        with pytest.raises(ValueError, match="target must be an integer one"):
            tfc.QuantizationAwareTraining(target=target)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_with_its_ranges(tmp_path):
    state = tmp_path / "qat.json"
    model = compiled(tiny_cnn())
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    qat = tfc.QuantizationAwareTraining(state_path=state)
    with pytest.raises(KeyboardInterrupt):
        fit(model, backup, qat, Interrupt(), epochs=5)
    before = qat.ranges
    again, resumed = compiled(tiny_cnn(seed=1)), tfc.QuantizationAwareTraining(state_path=state)
    seen = {}
    watch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.setdefault(epoch, resumed.ranges))
    fit(again, keras.callbacks.BackupAndRestore(tmp_path / "backup"), resumed, watch, epochs=5)
    assert min(seen) == 3
    assert seen[3] == before
    assert not state.exists()
    assert tfc.convert(again, target="cpu-int8").points.calibrated == 0


def test_a_state_of_another_step_is_refused(tmp_path):
    state = tmp_path / "qat.json"
    model = compiled(tiny_cnn())
    with pytest.raises(KeyboardInterrupt):
        fit(model, tfc.QuantizationAwareTraining(state_path=state), Interrupt(), epochs=5)
    assert state.exists()
    with pytest.raises(TrainingError, match="ranges of step 24 for weights of step 0"):
        fit(compiled(tiny_cnn()), tfc.QuantizationAwareTraining(state_path=state))
    state.write_text("{")
    with pytest.raises(TrainingError, match="is damaged"):
        fit(compiled(tiny_cnn()), tfc.QuantizationAwareTraining(state_path=state))
