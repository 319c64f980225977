"""The callbacks under the ways people train: several devices, XLA, custom steps, half precision."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn

X, Y = striped_pictures(128)

MIRRORED = """
    import os
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import numpy as np
    import tfcompress as tfc
    from models import compiled, striped_pictures, tiny_cnn

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
    print(float(np.mean(kernel == 0)), len(result.float_tensors), result.points.calibrated)
"""


@pytest.mark.slow
def test_two_devices():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MIRRORED)], check=False, capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1:] == ["0.75 0 0"], done.stderr[-2000:]


class OwnStep(keras.Model):
    """A functional model that trains by a step of its own."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            answers = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=answers)
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


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(tiny_cnn(), jit_compile=False)
    finally:
        keras.config.set_dtype_policy(before)
    pruning = tfc.MagnitudePruning(0.5, frequency=1)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[pruning, tfc.QuantizationAwareTraining()])
    assert np.mean(np.asarray(model.get_layer("pointwise").kernel) == 0) == 0.5
    assert tfc.convert(model, target="cpu-int8").float_tensors == ()
