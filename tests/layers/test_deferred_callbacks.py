"""``after_schedule``: best epochs count once the model is what it will be, in any order of callbacks."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.layers import weight_averages
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(128)


def stopping(**options):
    """The first epoch is the best, and so would always be restored: the loss is to be large."""
    options = {"monitor": "loss", "mode": "max", "patience": 99, "restore_best_weights": True, **options}
    return keras.callbacks.EarlyStopping(**options)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_restored_weights_are_sparse_and_quantized(position):
    model = compiled(tiny_cnn())
    stop = stopping()
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=9), frequency=1)
    qat = tfc.QuantizationAwareTraining(begin_epoch=2)
    callbacks = [pruning, qat]
    callbacks.insert(position, tfc.after_schedule(stop))
    model.fit(X, Y, batch_size=32, epochs=7, verbose=0, callbacks=callbacks)
    assert stop.best_epoch >= 2
    assert np.mean(np.asarray(model.get_layer("pointwise").kernel) == 0) == 0.75
    for kept, now in zip(stop.best_weights, model.get_weights(), strict=True):
        assert np.array_equal(kept, now) or np.array_equal(kept * (now != 0), now)
    result = tfc.convert(model, target="cpu-int8-float-io")  # the ranges belong to these weights
    file = next(iter(open_model(result.tflite).run({"image": X}).values()))
    fake = model.predict(X, verbose=0, callbacks=[qat])
    assert np.mean(file.argmax(1) == fake.argmax(1)) > 0.99


def test_ranges_are_those_of_the_restored_epoch():
    model = compiled(tiny_cnn())
    seen = {}
    qat = tfc.QuantizationAwareTraining(momentum=0.5)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update({epoch: dict(qat.ranges)}))
    stop = stopping()
    model.fit(X, Y, batch_size=32, epochs=4, verbose=0, callbacks=[qat, watch, tfc.after_schedule(stop)])
    assert qat.ranges == seen[stop.best_epoch]
    assert seen[stop.best_epoch] != seen[3] or stop.best_epoch == 3


def test_patience_counts_from_there_too():
    model = compiled(tiny_cnn())
    stop = stopping(mode="max", patience=1)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=12), frequency=1)
    history = model.fit(X, Y, batch_size=32, epochs=12, verbose=0, callbacks=[pruning, tfc.after_schedule(stop)])
    assert len(history.epoch) > 4  # three epochs of four steps pass before anything counts


def test_a_checkpoint_holds_no_dense_model(tmp_path):
    model = compiled(tiny_cnn())
    path = tmp_path / "best.keras"
    save = keras.callbacks.ModelCheckpoint(path, monitor="loss", mode="max", save_best_only=True)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=9), frequency=1)
    model.fit(X, Y, batch_size=32, epochs=5, verbose=0, callbacks=[pruning, tfc.after_schedule(save)])
    kernel = keras.models.load_model(path).get_layer("pointwise").kernel
    assert np.mean(np.asarray(kernel) == 0) == 0.75


def test_a_checkpoint_of_the_best_epoch_converts_without_data(tmp_path):
    path = tmp_path / "best.keras"
    save = keras.callbacks.ModelCheckpoint(path, monitor="loss", mode="max", save_best_only=True)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=9), frequency=1)
    callbacks = [pruning, tfc.QuantizationAwareTraining(begin_epoch=2), tfc.after_schedule(save)]
    model = compiled(tiny_cnn(), jit_compile=False)
    model.fit(X, Y, batch_size=32, epochs=5, verbose=0, callbacks=callbacks)
    result = tfc.convert(path, target="cpu-int8")
    assert (result.points.trained, result.points.calibrated) == (6, 0)
    assert result.float_tensors == ()
    assert np.mean(np.asarray(keras.models.load_model(path).get_layer("pointwise").kernel) == 0) == 0.75


def test_a_distillers_best_epoch_is_sparse_and_quantized():
    student = tiny_cnn()
    distiller = tfc.distill(student, tiny_cnn(seed=1))
    compiled(distiller, jit_compile=False)
    stop, seen = stopping(), {}
    qat = tfc.QuantizationAwareTraining(begin_epoch=2, momentum=0.5)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=9), frequency=1)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update({epoch: dict(qat.ranges)}))
    callbacks = [tfc.after_schedule(stop), pruning, qat, watch]
    distiller.fit(X, Y, batch_size=32, epochs=6, verbose=0, callbacks=callbacks)
    assert 2 <= stop.best_epoch < 5
    assert qat.ranges == seen[stop.best_epoch]
    assert np.mean(np.asarray(student.get_layer("pointwise").kernel) == 0) == 0.75
    assert tfc.convert(student, target="cpu-int8").points.calibrated == 0


@pytest.mark.parametrize("position", [0, 1, 2])
def test_averaged_weights_are_sparse_and_quantized(position):
    """Averages begin anew where the schedule ends: of the dense weights before nothing is left."""
    model = tiny_cnn()
    model.compile(
        keras.optimizers.Adam(3e-3, use_ema=True, ema_momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=9), frequency=1)
    qat = tfc.QuantizationAwareTraining(begin_epoch=3)
    callbacks = [pruning, qat]
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callbacks.insert(position, tfc.after_schedule(swap))
    swapped = []
    callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: swapped.append(swap._ema_weights_in_model)))
    model.fit(X, Y, batch_size=32, epochs=6, verbose=0, callbacks=callbacks, validation_data=(X, Y))
    assert swapped == [False] * 3 + [True] * 3
    assert np.mean(np.asarray(model.get_layer("pointwise").kernel) == 0) == 0.75
    for variable, average in weight_averages.pairs(model.optimizer):
        assert np.array_equal(np.asarray(variable), np.asarray(average))  # it is the average that stays
    result = tfc.convert(model, target="cpu-int8-float-io")
    assert result.points.trained > 5
    file = next(iter(open_model(result.tflite).run({"image": X}).values()))
    fake = model.predict(X, verbose=0, callbacks=[qat])
    assert np.mean(file.argmax(1) == fake.argmax(1)) > 0.99


def test_averages_begin_anew_where_the_waiting_ends():
    model = tiny_cnn()
    model.compile(keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.99), "mse")  # weights stand still
    x, y = np.random.rand(64, 8, 8, 2).astype("float32"), np.random.rand(64, 3)
    pruning = tfc.MagnitudePruning(tfc.schedules.Constant(0.5, begin=4), frequency=1)
    bias = model.get_layer("logits").bias
    change = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: bias.assign([float(epoch)] * 3))
    swap = tfc.after_schedule(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    model.fit(x, y, batch_size=32, epochs=3, verbose=0, callbacks=[change, pruning, swap])
    assert np.allclose(np.asarray(bias), 2.0)  # without a new beginning 0.04, the average of 0, 1 and 2


def test_without_a_schedule_nothing_waits():
    model = compiled(tiny_cnn())
    stop = stopping()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[tfc.after_schedule(stop)])
    assert stop.best_epoch == 0


def test_only_callbacks_wait():
    with pytest.raises(TypeError, match="needs a Keras callback"):
        tfc.after_schedule("EarlyStopping")
