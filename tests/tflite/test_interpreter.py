"""The interpreter's skin, on real files: real numbers in and out, any number of samples, one error for any bad file."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tfcompress.errors import DataError, DeviceError, ModelError
from tfcompress.system.quiet import native_stderr_silenced
from tfcompress.tflite.interpreter import open_model
from tfcompress.tflite.model_files import check_model_bytes, read_model
from tfcompress.tflite.tensors import TensorInfo, from_raw, to_raw

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = np.random.default_rng(0)


def convert(function, *specs, int8_samples=None):
    """Returns the bytes of a tf.function, quantized on ``int8_samples`` if there are any."""
    import tensorflow as tf

    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if int8_samples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in int8_samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with native_stderr_silenced(), warnings.catch_warnings():
        # "Statistics for quantized inputs were expected": the samples above are these statistics.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs", category=UserWarning)
        return converter.convert()


@pytest.fixture(scope="module")
def weights():
    return GENERATOR.normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def float_model(weights):
    import tensorflow as tf

    return convert(lambda x: tf.matmul(x, weights), tf.TensorSpec([None, 4], tf.float32))


@pytest.fixture(scope="module")
def int8_model(weights):
    import tensorflow as tf

    samples = GENERATOR.uniform(-1, 1, (50, 4)).astype(np.float32)
    return convert(lambda x: tf.matmul(x, weights), tf.TensorSpec([None, 4], tf.float32), int8_samples=samples)


@pytest.fixture(scope="module")
def two_input_model():
    import tensorflow as tf

    specs = tf.TensorSpec([None, 2], tf.float32, name="left"), tf.TensorSpec([None, 2], tf.int32, name="right")
    return convert(lambda left, right: left - tf.cast(right, tf.float32), *specs)


@pytest.fixture(scope="module")
def three_at_once_model():
    import tensorflow as tf

    return convert(lambda x: 2 * x, tf.TensorSpec([3, 2], tf.float32))


@pytest.fixture(scope="module")
def stubborn_model():
    """A free batch axis in front of a graph that has batch size 1 built in."""
    import tensorflow as tf

    return convert(lambda x: tf.reshape(x, [1, 4]) + 1.0, tf.TensorSpec([None, 4], tf.float32))


def only(answers):
    (answer,) = answers.values()
    return answer


# Numbers in and out.


@pytest.mark.parametrize("samples", [1, 2, 7, 33])
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_any_number_of_samples_at_any_batch_size(float_model, weights, samples, batch):
    x = GENERATOR.normal(size=(samples, 4)).astype(np.float32)
    answer = only(open_model(float_model).run(x, batch=batch))
    assert answer.shape == (samples, 3)
    np.testing.assert_allclose(answer, x @ weights, rtol=1e-5, atol=1e-6)  # float32 sums in another order


def test_int8_speaks_real_numbers(int8_model, weights):
    model = open_model(int8_model)
    x = GENERATOR.uniform(-1, 1, (20, 4))
    (info,) = model.inputs
    assert info.dtype == np.int8 and info.scale is not None
    answer = only(model.run(x))
    assert answer.dtype == np.float32
    # half an input step per weight, half a weight step (1/127 of the largest) per input, one output step
    tolerance = info.scale / 2 * np.abs(weights).sum(0).max() + 4 * np.abs(weights).max() / 254 + model.outputs[0].scale
    assert np.abs(answer - x @ weights).max() <= tolerance


def test_raw_and_real_runs_agree(int8_model):
    model = open_model(int8_model)
    x = GENERATOR.uniform(-2, 2, (9, 4))
    raw = only(model.run_raw(to_raw(x, model.inputs[0])))
    assert raw.dtype == np.int8
    assert np.array_equal(from_raw(raw, model.outputs[0]), only(model.run(x)))


def test_batches_do_not_change_integers(int8_model):
    model = open_model(int8_model)
    x = GENERATOR.uniform(-1, 1, (17, 4))
    assert np.array_equal(only(model.run(x, batch=1)), only(model.run(x, batch=5)))


def test_inputs_go_by_name(two_input_model):
    model = open_model(two_input_model)
    names = {info.dtype.kind: info.name for info in model.inputs}
    left, right = np.full((5, 2), 7.5), np.arange(10).reshape(5, 2)
    assert np.array_equal(only(model.run({names["i"]: right, names["f"]: left})), left - right)


def test_fixed_batch_is_filled_up(three_at_once_model):
    x = np.arange(10.0).reshape(5, 2)
    assert np.array_equal(only(open_model(three_at_once_model).run(x)), 2 * x)


def test_built_in_batch_falls_back_to_one_by_one(stubborn_model):
    x = np.arange(20.0).reshape(5, 4)
    assert np.array_equal(only(open_model(stubborn_model).run(x)), x + 1)


def test_path_and_bytes_and_threads_agree(float_model, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(float_model)
    x = GENERATOR.normal(size=(6, 4))
    model = open_model(path, threads=2)
    assert model.name == str(path)
    np.testing.assert_allclose(only(model.run(x)), only(open_model(float_model).run(x)), rtol=1e-6)


# What does not fit.


@pytest.mark.parametrize(
    "feeds, message",
    [
        (np.zeros((2, 5)), r"takes shape \(n, 4\). Received: \(2, 5\)"),
        (np.zeros(4), r"takes shape \(n, 4\). Received: \(4,\)"),
        (np.zeros((0, 4)), "at least one"),
        ({"nobody": np.zeros((1, 4))}, "takes the inputs .*Received: .'nobody'"),
        (np.array([["a"] * 4]), "takes numbers"),
    ],
)
def test_feeds_that_do_not_fit(float_model, feeds, message):
    with pytest.raises(DataError, match=message):
        open_model(float_model).run(feeds)


def test_raw_feeds_keep_their_dtype(int8_model):
    with pytest.raises(DataError, match="holds int8. Received: float64"):
        open_model(int8_model).run_raw(np.zeros((1, 4)))


def test_nan_has_no_integer(int8_model):
    with pytest.raises(DataError, match="NaN"):
        open_model(int8_model).run(np.full((1, 4), np.nan))


def test_fractions_are_no_indices():
    info = TensorInfo("ids", (None, 1), np.dtype(np.int32), None, 0, index=0)
    assert to_raw(np.array([[3.0]]), info).dtype == np.int32
    with pytest.raises(DataError, match="Give integers"):
        to_raw(np.array([[3.5]]), info)


def test_counts_of_two_inputs_differ(two_input_model):
    model = open_model(two_input_model)
    with pytest.raises(DataError, match="same number of samples"):
        model.run({info.name: np.zeros((n + 1, 2)) for n, info in enumerate(model.inputs)})


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_are_whole_numbers_from_one(float_model, threads):
    with pytest.raises(ValueError, match="threads must be"):
        open_model(float_model, threads=threads)


def test_shape_that_the_graph_cannot_take(stubborn_model):
    model = open_model(stubborn_model)
    with pytest.raises(DeviceError, match="could not"):
        model.feed({model.inputs[0].name: np.zeros((5, 4), np.float32)})
        model.invoke()


# Bad files.


def bad_contents(good: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "short": good[:6],
        "header only": good[:8],
        "truncated": good[: len(good) // 2],
        "random": GENERATOR.bytes(5000),
        "random behind the header": good[:8] + GENERATOR.bytes(5000),
        "zip": b"PK\x03\x04" + bytes(100),
    }


@pytest.mark.parametrize("kind", list(bad_contents(b"")))
def test_bad_file_is_one_clear_line(float_model, tmp_path, kind, capfd):
    path = tmp_path / "bad.tflite"
    path.write_bytes(bad_contents(float_model)[kind])
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelError, match="must exist"):
        open_model(tmp_path / "absent.tflite")
    with pytest.raises(ModelError, match="Received a folder"):
        read_model(tmp_path)


def test_file_that_litert_refuses(shared_data, capfd):
    path = shared_data / "person_detect" / "person_detect.tflite"
    check_model_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="person_detect.tflite: quantized_dimension must be in range") as caught:
        open_model(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert capfd.readouterr().err == ""


# Noise and imports.


def test_log_lines_stay_silent_and_stderr_comes_back(float_model, capfd):
    open_model(float_model).run(np.zeros((3, 4)))
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_silence_nests_and_survives_errors(capfd):
    with pytest.raises(KeyError), native_stderr_silenced():
        with native_stderr_silenced():
            os.write(2, b"inner")
        os.write(2, b"outer")
        raise KeyError
    with native_stderr_silenced(debug=True):
        os.write(2, b"debug")
    assert capfd.readouterr().err == "debug"


def test_neither_keras_nor_tensorflow_is_loaded(float_model, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(float_model)
    code = (
        "import sys, numpy as np, tfcompress\n"
        "tfcompress.measure(sys.argv[1], (np.zeros((3, 4)), np.zeros(3, int)), latency=tfcompress.LatencyOptions(warmup=0, runs=1))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'tf_keras', 'jax'}))\n"
    )
    child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (child.stdout, child.stderr) == ("[]\n", "")


# An LSTM's state.


def test_state_is_reset_between_samples_unless_asked(shared_data):
    path = shared_data / "mnist" / "trained_lstm.tflite"
    x = GENERATOR.random((1, 28, 28)).repeat(3, axis=0)
    fresh = open_model(path)
    assert fresh.is_stateful
    answers = only(fresh.run(x))
    assert np.array_equal(answers[0], answers[1]) and np.array_equal(answers[0], answers[2])
    carried = only(open_model(path, reset_state=False).run(x))
    assert np.array_equal(carried[0], answers[0]) and not np.array_equal(carried[1], answers[1])
