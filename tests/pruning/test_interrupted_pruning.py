"""Pruning and clustering that were killed go on from a backup to the very weights of a fit that nobody interrupted."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures
from tfcompress.errors import TrainingError
from tfcompress.pruning import schedules
from tfcompress.pruning.weight_clustering import WeightClustering

X, Y = striped_pictures(128)
RAMP = schedules.Polynomial(final=0.8, end=14, begin=1)
CALLBACKS = {
    "magnitude": lambda: [tfc.MagnitudePruning(RAMP, frequency=3)],
    "global": lambda: [tfc.MagnitudePruning(RAMP, frequency=3, scope="global")],
    "own pace": lambda: [tfc.MagnitudePruning(lambda step: (step % 5 == 1, RAMP(step)))],
    "channels": lambda: [tfc.ChannelPruning(RAMP, frequency=3, multiple_of=2)],
    "clusters": lambda: [WeightClustering(4, begin_epoch=1)],
    "all": lambda: [
        tfc.MagnitudePruning(schedules.Polynomial(final=0.5, end=5), frequency=2),
        WeightClustering(4, begin_epoch=2),
    ],
}


def dense(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((8, 8, 2), name="image"), *layers])
    return compiled(model, jit_compile=False, run_eagerly=True)


def fit(model, callbacks):
    model.fit(X, Y, batch_size=32, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 14:
            raise KeyboardInterrupt


@pytest.mark.parametrize("order", [1, pytest.param(-1, marks=pytest.mark.slow)], ids=["backup first", "backup last"])
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_killed_fit_ends_with_the_weights_of_one_that_was_not(tmp_path, name, order):
    whole = dense()
    fit(whole, CALLBACKS[name]())
    with pytest.raises(KeyboardInterrupt):
        fit(
            dense(),
            [*[keras.callbacks.BackupAndRestore(tmp_path / "backup"), *CALLBACKS[name]()][::order], Interrupt()],
        )
    again = dense(seed=1)
    fit(again, [keras.callbacks.BackupAndRestore(tmp_path / "backup"), *CALLBACKS[name]()][::order])
    for one, other in zip(whole.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)
    assert not {"save_weights", "load_weights"} & set(vars(again))


def test_weights_with_their_masks_are_plain_weights_to_keras(tmp_path):
    path = str(tmp_path / "a.weights.h5")
    model = dense()
    save = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.save_weights(path))
    fit(model, [*CALLBACKS["magnitude"](), save])
    again = dense(seed=1)
    again.optimizer.build(again.trainable_variables)
    again.load_weights(path)
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


def test_damaged_masks_are_one_clear_error(tmp_path):
    import h5py

    with pytest.raises(KeyboardInterrupt):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit(dense(), [backup, *CALLBACKS["magnitude"](), Interrupt()])
    with h5py.File(tmp_path / "backup/latest.weights.h5", "a") as file:
        (place,) = file["tfcompress"].values()
        place[...] = place[...][::-1]
    with pytest.raises(TrainingError, match="What belongs to the weights must be whole"):
        fit(dense(), [keras.callbacks.BackupAndRestore(tmp_path / "backup"), *CALLBACKS["magnitude"]()])


def test_an_evaluation_leaves_the_saving_of_weights_alone():
    model, callback = dense(), CALLBACKS["magnitude"]()
    model.evaluate(X, Y, verbose=0, callbacks=callback)
    assert not {"save_weights", "load_weights"} & set(vars(model))
