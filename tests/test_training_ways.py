"""The callbacks under the ways people train: several devices, XLA, custom steps, half precision."""

import contextlib
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.qat.file_agreement import SAME_ANSWERS
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(128)
TEST_X = striped_pictures(1000, seed=1)[0]

MIRRORED = """
    import os
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import numpy as np
    import tfcompress as tfc
    from models import compiled, striped_pictures, tiny_cnn
    from tfcompress.tflite.interpreter import open_model

    x, y = striped_pictures(256)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        model = compiled(tiny_cnn(), jit_compile=False)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.75, end=20), frequency=2)
    qat = tfc.QuantizationAwareTraining(begin_epoch=1)
    history = model.fit(x, y, batch_size=32, epochs=6, verbose=0, callbacks=[pruning, qat])
    kernel = np.asarray(model.get_layer("pointwise").kernel)
    result = tfc.convert(model, target="cpu-int8")

    with strategy.scope():
        slim = compiled(tiny_cnn(), jit_compile=False)
    channels = tfc.ChannelPruning(0.5, multiple_of=1, frequency=2)
    penalty = tfc.L1Penalty(1e-3)
    slim.fit(x, y, batch_size=32, epochs=2, verbose=0, callbacks=[penalty, channels])
    smaller = tfc.remove_channels(slim, multiple_of=1)
    # Keras keeps the statistics of BatchNorm for each replica and saves the first one's; predict would use them all.
    apart = np.abs(smaller(x[:32]) - slim(x[:32])).max()

    with strategy.scope():
        student = tiny_cnn()
        distiller = compiled(tfc.distill(student, model, features={"stem": "stem"}), jit_compile=False)
    pruning = tfc.MagnitudePruning(0.5, frequency=2)
    clustering = tfc.WeightClustering(4)
    log = distiller.fit(x, y, batch_size=32, epochs=4, verbose=0, callbacks=[pruning, clustering]).history
    taught = np.asarray(student.get_layer("pointwise").kernel)
    with strategy.scope():
        wavy = compiled(tiny_cnn(), jit_compile=False)
    last = tfc.QuantizationAwareTraining()
    seen = wavy.fit(x, y, batch_size=32, epochs=3, verbose=0, validation_data=(x, y), callbacks=[last]).history
    file = open_model(tfc.convert(wavy).tflite).run({"image": x})["logits"].argmax(1)
    fake = wavy.predict(x, verbose=0, callbacks=[last]).argmax(1)
    means = [each.numpy().tolist() for each in wavy.get_layer("stem_norm").moving_mean._value.values]
    print(float(np.mean(kernel == 0)), len(result.float_tensors), result.points.calibrated)
    print(means[0] == means[1], bool(np.mean(file == fake) >= 0.998), bool(abs(np.mean(file == y) - seen["val_accuracy"][-1]) <= 0.002))
    print(smaller.get_layer("stem").filters, bool(apart < 1e-4))
    print(float(np.mean(taught == 0)), len(np.unique(taught)), log["distillation_loss"][-1] < log["distillation_loss"][0])
"""


@pytest.mark.slow
def test_two_devices():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MIRRORED)], check=False, capture_output=True, text=True, env=environment
    )
    printed = ["0.75 0 0", "True True True", "4 True", "0.5 4 True"]
    assert done.stdout.splitlines()[-4:] == printed, done.stderr[-2000:]


class OwnStep(keras.Model):
    """A functional model that trains by a step of its own."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            answers = self(x, training=True)
            loss = self.optimizer.scale_loss(self.compute_loss(x=x, y=y, y_pred=answers))
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return self.compute_metrics(x, y, answers)


@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": True},
        {"jit_compile": False},
        {"steps_per_execution": 3},
        {"jit_compile": True, "steps_per_execution": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("own", [False, True], ids=["fit", "own_step"])
def test_both_callbacks_in_every_way(own, options):
    plain = tiny_cnn()
    model = compiled(OwnStep(plain.inputs, plain.outputs) if own else plain, **options)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=0.5, end=10), frequency=1)
    qat = tfc.QuantizationAwareTraining(begin_epoch=1)
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[pruning, qat])
    assert np.mean(np.asarray(model.get_layer("pointwise").kernel) == 0) == 0.5
    result = tfc.convert(model, target="cpu-int8")
    assert result.float_tensors == ()
    assert result.points.calibrated == 0


def small_teacher():
    keras.utils.set_random_seed(1)
    return compiled(tiny_cnn(1), jit_compile=False)


SLIMMING = [
    {"jit_compile": True, "steps_per_execution": 2},
    {"jit_compile": False, "steps_per_execution": 3},
    {"policy": "mixed_float16"},
    {"policy": "mixed_bfloat16"},
]


@pytest.mark.parametrize("options", SLIMMING, ids=str)
@pytest.mark.parametrize("own", [False, True], ids=["fit", "own_step"])
def test_channel_pruning_in_every_way(own, options):
    with policy_of(options) as rest:
        plain = tiny_cnn()
        model = compiled(OwnStep(plain.inputs, plain.outputs) if own else plain, **rest)
    penalty = tfc.L1Penalty(1e-3)
    pruning = tfc.ChannelPruning(tfc.schedules.Polynomial(final=0.5, end=10), multiple_of=1, frequency=1)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[pruning, penalty])
    smaller = tfc.remove_channels(model, multiple_of=1)
    assert smaller.get_layer("stem").filters == 4
    whole, part = model.predict(X, verbose=0), smaller.predict(X, verbose=0)
    tolerance = 0.1 if "policy" in options else 1e-4  # bfloat16 has 8 bits; sums of other lengths round otherwise
    assert np.abs(whole - part).max() < tolerance * max(1.0, np.abs(whole).max())
    assert tfc.convert(smaller, target="cpu-int8", representative_data=X).float_tensors == ()


@pytest.mark.parametrize("options", SLIMMING, ids=str)
def test_distillation_in_every_way(options):
    with policy_of(options) as rest:
        student = tiny_cnn()
        distiller = compiled(tfc.distill(student, small_teacher(), features={"stem": "stem"}), **rest)
    pruning = tfc.MagnitudePruning(0.5, frequency=1)
    qat = tfc.QuantizationAwareTraining(begin_epoch=1)
    log = distiller.fit(X, Y, batch_size=16, epochs=4, verbose=0, callbacks=[pruning, qat]).history
    assert log["distillation_loss"][-1] < log["distillation_loss"][0]
    assert np.mean(np.asarray(student.get_layer("pointwise").kernel) == 0) == 0.5
    result = tfc.convert(student, target="cpu-int8")
    assert result.float_tensors == ()
    assert result.points.calibrated == 0


@contextlib.contextmanager
def policy_of(options):
    """Runs the body under the policy of ``options``; yields the rest of them."""
    before = keras.config.dtype_policy()
    if "policy" in options:
        keras.config.set_dtype_policy(options["policy"])
    try:
        yield {"jit_compile": False, **{name: value for name, value in options.items() if name != "policy"}}
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    with policy_of({"policy": policy}):
        model = compiled(tiny_cnn(), jit_compile=False)
    pruning = tfc.MagnitudePruning(0.5, frequency=1)
    qat = tfc.QuantizationAwareTraining()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[pruning, qat])
    assert np.mean(np.asarray(model.get_layer("pointwise").kernel) == 0) == 0.5
    result = tfc.convert(model, target="cpu-int8")
    assert result.float_tensors == ()
    file = open_model(result.tflite).run({"image": TEST_X})["logits"].argmax(1)
    fake = model.predict(TEST_X, verbose=0, callbacks=[qat]).argmax(1)
    assert np.mean(file == fake) >= SAME_ANSWERS
