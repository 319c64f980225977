"""Quantization-aware training goes on where a fit was interrupted, at whatever step its weights were saved."""

import json

import keras
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.errors import TrainingError

X, Y = striped_pictures(128)


def dense(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3, name="head")]
    return compiled(keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers]), jit_compile=False)


def fit(model, *callbacks, **options):
    return model.fit(X, Y, batch_size=32, verbose=0, callbacks=list(callbacks), **{"epochs": 3, **options})


class Interrupt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise KeyboardInterrupt


def ranges_by_step(qat):
    seen = {}

    def note(batch, logs):
        seen[int(qat.model.optimizer.iterations)] = qat.ranges

    return seen, keras.callbacks.LambdaCallback(on_train_batch_end=note)


@pytest.mark.parametrize("order", [1, -1], ids=["backup first", "backup last"])
@pytest.mark.parametrize(("save_freq", "step", "saved"), [(2, 7, 6), (5, 9, 5), ("epoch", 7, 4)], ids=str)
def test_a_backup_of_any_step_goes_on_with_the_ranges_of_that_step(tmp_path, save_freq, step, saved, order):
    state = tmp_path / "qat.json"
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)
    qat = tfc.QuantizationAwareTraining(state_path=state)
    before, watch = ranges_by_step(qat)
    with pytest.raises(KeyboardInterrupt):
        fit(dense(), *[backup, qat][::order], watch, Interrupt(step))
    again, resumed = dense(seed=1), tfc.QuantizationAwareTraining(state_path=state)
    first = []

    def note(batch, logs):
        first.append((int(again.optimizer.iterations), resumed.ranges))

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)
    fit(again, *[backup, resumed][::order], keras.callbacks.LambdaCallback(on_train_batch_begin=note))
    assert first[0] == (saved, before[saved])
    assert not state.exists()
    assert "save_weights" not in vars(again)
    assert tfc.convert(again, target="cpu-int8").points.calibrated == 0


def test_weights_of_a_checkpoint_go_on_with_their_ranges(tmp_path):
    """The best epoch's, though later ones were trained; weights of a step that nobody saved are refused."""
    state, path = tmp_path / "qat.json", str(tmp_path / "best.weights.h5")
    best = keras.callbacks.ModelCheckpoint(path, "loss", mode="max", save_best_only=True, save_weights_only=True)
    model, qat = dense(), tfc.QuantizationAwareTraining(state_path=state)
    before, watch = ranges_by_step(qat)
    with pytest.raises(KeyboardInterrupt):
        fit(model, qat, watch, best, Interrupt(11))
    assert [each["iterations"] for each in json.loads(state.read_text())["states"]] == [4, 8]
    again, resumed = dense(seed=1), tfc.QuantizationAwareTraining(state_path=state)
    with pytest.raises(TrainingError, match="ranges of steps 4, 8 for weights of step 0"):
        fit(again, resumed)
    again.optimizer.build(again.trainable_variables)
    again.load_weights(path)
    seen = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(resumed.ranges))
    fit(again, resumed, note, initial_epoch=1)
    assert seen[0] == before[4]
    assert tfc.convert(again, target="cpu-int8").points.calibrated == 0


def test_an_interrupted_step_leaves_the_saving_of_weights_alone(tmp_path):
    class Stopping(keras.Sequential):
        def train_step(self, data):
            raise ZeroDivisionError

    model = Stopping([keras.Input((8, 8, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    with pytest.raises(ZeroDivisionError):
        fit(model, tfc.QuantizationAwareTraining(state_path=tmp_path / "qat.json"))
    assert "save_weights" not in vars(model)
