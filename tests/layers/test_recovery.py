"""Fits that end badly leave a plain model, whoever raised; fits after them, and those that go on, work as usual."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcompress as tfc
from tfcompress.layers.constraints import Stacked

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(128, 8)).astype(np.float32)
Y = np.argmax(X[:, :3], axis=1)
BATCH = 16

CALLBACKS = {
    "pruning": lambda: tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=12), frequency=2),
    "channel_pruning": lambda: tfc.ChannelPruning(0.5, multiple_of=1, frequency=2),
    "clustering": lambda: tfc.WeightClustering(4),
    "penalty": lambda: tfc.L1Penalty(1e-3),
    "qat": tfc.QuantizationAwareTraining,
}
each_callback = pytest.mark.parametrize("name", CALLBACKS)
each_way = pytest.mark.parametrize("distilled", [False, True], ids=["model", "distiller"])


def dense(width: int = 16) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(width, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(3, name="head"),
        ]
    )


def pair(distilled: bool, **options) -> tuple[keras.Model, keras.Model]:
    """The model that is fitted, and the one that callbacks work on."""
    student = dense()
    model = tfc.distill(student, dense(32)) if distilled else student
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False, **options)
    return model, student


def is_plain(model: keras.Model) -> bool:
    return not any(
        isinstance(variable.constraint, Stacked) or variable.regularizer is not None for variable in model.variables
    ) and not any("call" in vars(layer) for layer in (model, *model.layers))


class Failing(keras.utils.PyDataset):
    """Batches of which the fourth cannot be had."""

    def __init__(self, error: type[BaseException] | None = None):
        super().__init__()
        self.error = error

    def __len__(self):
        return len(X) // BATCH

    def __getitem__(self, index):
        if index == 3 and self.error is not None:
            raise self.error("no such batch")
        part = slice(index * BATCH, (index + 1) * BATCH)
        return X[part], Y[part]


class Raising(keras.callbacks.Callback):
    """Fails at an epoch's end."""

    def __init__(self, epoch: int = 0):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("distilled", "error"),
    [(False, OSError), (True, OSError), (False, KeyboardInterrupt)],
    ids=["model", "distiller", "Ctrl-C"],
)
@each_callback
def test_data_that_cannot_be_read_leaves_a_plain_model(name, distilled, error):
    """TensorFlow raises an error of its own for one in the data, Ctrl-C included."""
    model, student = pair(distilled)
    with pytest.raises(Exception, match=f"{error.__name__}: no such batch") as raised:
        model.fit(Failing(error), epochs=2, shuffle=False, verbose=0, callbacks=[CALLBACKS[name]()])
    assert isinstance(raised.value, tf.errors.UnknownError)
    assert is_plain(student)
    assert model.train_function is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@each_callback
def test_an_exception_in_the_step_leaves_a_plain_model(name, error):
    class Stopping(keras.Sequential):
        def train_step(self, data):
            if int(self.optimizer.iterations) == 3:
                raise error
            return super().train_step(data)

    model = Stopping(dense().layers)
    model.build((None, 8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    with pytest.raises(error):
        model.fit(X, Y, batch_size=BATCH, verbose=0, callbacks=[CALLBACKS[name]()])
    assert int(model.optimizer.iterations) == 3
    assert is_plain(model)


def test_one_guard_takes_all_callbacks_off_in_any_order():
    for order in (1, -1):
        model, _ = pair(False)
        callbacks = [make() for make in CALLBACKS.values()][::order]
        with pytest.raises(Exception, match="no such batch"):
            model.fit(Failing(OSError), shuffle=False, verbose=0, callbacks=callbacks)
        assert is_plain(model)


@each_callback
def test_what_another_callback_leaves_is_taken_off_by_whatever_comes_next(name):
    def interrupted():
        model, _ = pair(False)
        callback = CALLBACKS[name]()
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callback, Raising()])
        assert not is_plain(model)
        return model, callback

    model, callback = interrupted()
    callback.remove(model)
    assert is_plain(model)
    model, callback = interrupted()
    tfc.convert(model, target="cpu-int8", representative_data=X)
    assert is_plain(model)
    model, callback = interrupted()
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    assert is_plain(model)
    model, callback = interrupted()
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callback])
    assert is_plain(model)
    model, callback = interrupted()
    tfc.remove_channels(model, sparsity=0.5, multiple_of=1)
    assert is_plain(model)


@each_callback
def test_a_conversion_in_the_middle_of_a_fit_takes_nothing_off_for_good(name):
    """The fit ends as one without the conversion does."""
    ends = []
    for convert_at in (1, None):
        model, _ = pair(False)

        def convert(epoch, logs, model=model, at=convert_at):
            if epoch == at:
                tfc.convert(model, target="float32")

        watch = keras.callbacks.LambdaCallback(on_epoch_end=convert)
        model.fit(X, Y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0, callbacks=[CALLBACKS[name](), watch])
        assert is_plain(model)
        ends.append(model.get_weights())
    for with_conversion, without in zip(*ends, strict=True):
        np.testing.assert_allclose(with_conversion, without, atol=1e-6)  # float32 rounding of another trace


@each_way
@each_callback
def test_a_second_fit_with_the_same_instance(name, distilled):
    callback = CALLBACKS[name]()
    for _ in range(2):
        model, student = pair(distilled)
        model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callback])
        assert is_plain(student)
        assert_compressed(name, student, callback)
    model.fit(X, Y, batch_size=BATCH, epochs=2, verbose=0, callbacks=[callback])  # and of the same model
    assert_compressed(name, student, callback)


def assert_compressed(name, model, callback):
    hidden = np.asarray(model.get_layer("hidden").kernel)
    if name == "pruning":
        assert np.mean(hidden == 0) == 0.5
    elif name == "channel_pruning":
        assert np.sum(~hidden.any(axis=0)) == 8
    elif name == "clustering":
        assert len(np.unique(hidden)) <= 4
    elif name == "qat":
        assert len(callback.ranges) > 2


@pytest.mark.parametrize("name", [name for name in CALLBACKS if name != "qat"])
def test_an_interrupted_fit_goes_on_to_the_same_end(name, tmp_path):
    """Keras's own backup: weights and optimizer come back, and with the optimizer's steps the schedule."""
    ends = []
    for interrupted in (True, False):
        model, _ = pair(False)
        keep = keras.callbacks.BackupAndRestore(tmp_path / str(interrupted))
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                model.fit(
                    Failing(), epochs=4, shuffle=False, verbose=0, callbacks=[CALLBACKS[name](), keep, Raising(1)]
                )
            model, _ = pair(False)
        model.fit(Failing(), epochs=4, shuffle=False, verbose=0, callbacks=[CALLBACKS[name](), keep])
        assert int(model.optimizer.iterations) == 4 * len(Failing())
        assert is_plain(model)
        assert_compressed(name, model, None)
        ends.append(model.get_weights())
    if name != "clustering":  # which finds its clusters anew from the weights of the backup
        for resumed, straight in zip(*ends, strict=True):
            np.testing.assert_allclose(resumed, straight, atol=1e-6)  # float32 rounding of another trace
