"""The worked example of docs/mathematics.md in the converter's own file: TFLiteConverter's and ours hold its numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfcompress as tfc
from tfcompress.tflite.affine import from_range, quantize

EDGE = 3.14159
# Files keep scales, and ranges before them, as float32.
FLOAT32 = 2.0**-22


def kernel() -> np.ndarray:
    """Two output channels, the first with the worked example's range; float32 (2, 2)."""
    return np.array([[EDGE, 0.5], [-1.0, -0.25]], np.float32)


@pytest.fixture(scope="module")
def samples():
    values = np.random.default_rng(0).uniform(-EDGE, EDGE, (64, 2)).astype(np.float32)
    values[0] = [-EDGE, EDGE]
    return values


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([kernel()])
    return model


def the_converters(model, samples) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def ours(model, samples) -> bytes:
    return tfc.convert(model, target="cpu-int8", representative_data=samples).tflite


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning")
@pytest.mark.parametrize("make", [the_converters, ours])
def test_the_file_has_the_numbers_of_the_worked_example(make, model, samples, capfd):
    interpreter = Interpreter(model_content=make(model, samples))
    capfd.readouterr()
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    scale, zero_point = given["quantization"]
    assert scale == pytest.approx(6.28318 / 255, rel=FLOAT32)
    assert scale == pytest.approx(0.02463992, abs=5e-9)
    assert zero_point == -1

    (weights,) = [t for t in interpreter.get_tensor_details() if t["dtype"] == np.int8 and list(t["shape"]) == [2, 2]]
    parameters = weights["quantization_parameters"]
    np.testing.assert_allclose(parameters["scales"], [EDGE / 127, 0.5 / 127], rtol=FLOAT32)
    assert set(parameters["zero_points"].tolist()) == {0}
    stored = interpreter.get_tensor(weights["index"])  # (output channel, input)
    for channel, column in enumerate(kernel().T):
        expected = quantize(column, from_range(column.min(), column.max(), symmetric=True))
        np.testing.assert_array_equal(stored[channel], expected)
    assert stored[0, 0] == 127
