"""Training for a target: its bits and scales, what convert refuses, and a fit that goes on where it was interrupted."""

import dataclasses

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.conversion import range_sources
from tfcompress.errors import ConversionError, TrainingError
from tfcompress.lowering import sources
from tfcompress.qat.file_agreement import SAME_ANSWERS
from tfcompress.quantization.trained_ranges import TrainedRanges
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(256)
TEST_X = striped_pictures(1024, seed=1)[0]


def fit(model, *callbacks, epochs=4, **options):
    return model.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


PER_TENSOR = dataclasses.replace(tfc.TARGETS["cpu-int8"], name="older", per_channel=False, per_channel_dense=False)


class OwnConv2D(keras.layers.Conv2D):
    """A class of one's own that computes as its parent."""


class OwnDense(keras.layers.Dense):
    """Another."""


class OwnEinsumDense(keras.layers.EinsumDense):
    """And another."""


INTEGER = [name for name, target in tfc.TARGETS.items() if target.integer]


@pytest.mark.parametrize(
    ("target", "own"),
    [*((name, False) for name in INTEGER), (PER_TENSOR, False), ("cpu-int4", True)],
    ids=str,
)
def test_the_file_answers_as_trained(target, own, tmp_path):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    conv, dense = (OwnConv2D, OwnDense) if own else (layers.Conv2D, layers.Dense)
    model = compiled(
        keras.Sequential(
            [
                keras.Input((8, 8, 2), name="image"),
                conv(16, 3, activation="relu"),
                conv(16, 3, activation="relu"),
                layers.Flatten(),
                dense(16, activation="relu"),
                (OwnEinsumDense if own else layers.EinsumDense)("ab,bc->ac", 8, bias_axes="c", activation="relu"),
                dense(3, name="logits"),
            ]
        )
    )
    qat = tfc.QuantizationAwareTraining(target=target)
    fit(model, qat)
    model.save(tmp_path / "model.keras")  # the rules travel with the file
    result = tfc.convert(model if own else tmp_path / "model.keras", target=target)
    assert len(result.float_tensors) == (2 if target == "cpu-int8-float-io" else 0)  # the input and the output
    assert result.points.calibrated == 0
    file = next(iter(open_model(result.tflite).run({"image": TEST_X}).values()))
    fake = model.predict(TEST_X, verbose=0, callbacks=[qat])
    assert np.mean(file.argmax(1) == fake.argmax(1)) >= SAME_ANSWERS
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
    assert (
        tfc.convert(
            model, target="micro", calibration=tfc.CalibrationOptions(ranges="calibrated"), representative_data=X
        ).points.trained
        == 0
    )
    for target in ("dynamic", "gpu-fp16"):
        with pytest.raises(ValueError, match="target must be an integer one"):
            tfc.QuantizationAwareTraining(target=target)


def test_a_target_of_ones_own_is_asked_for(tmp_path):
    """The model holds its name and how it rounds, not its types of inputs and outputs."""
    model = compiled(tiny_cnn())
    fit(model, tfc.QuantizationAwareTraining(target=PER_TENSOR), epochs=1)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ConversionError, match="trained for older, and no target. Pass target= with the Target"):
        tfc.convert(tmp_path / "model.keras")
    assert tfc.convert(tmp_path / "model.keras", target=PER_TENSOR).points.calibrated == 0
    assert (
        tfc.convert(model, calibration=tfc.CalibrationOptions(ranges="calibrated"), representative_data=X).target.name
        == "cpu-int8"
    )
    same_name = TrainedRanges({}, "0" * 64, "cpu-int8", PER_TENSOR.rounding)
    with pytest.raises(ConversionError, match="trained for cpu-int8, and no target"):
        range_sources.default_target(sources.Source("keras", "tiny", model, stored=same_name), None, measurable=True)


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
