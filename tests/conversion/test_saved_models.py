"""SavedModel folders from every writer: Keras 3, TensorFlow modules, TensorFlow 1; any signature of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from parity import samples, worst_error

import tfcompress as tfc
from models import tiny_cnn
from tfcompress.errors import ModelError
from tfcompress.lowering import SourceOptions, lower
from tfcompress.lowering.sources import open_source
from tfcompress.system.quiet import converter_silenced

TOLERANCE = 1e-4  # float kernels sum in another order


class Codec(tf.Module):
    """Two signatures with inputs and outputs of several types."""

    def __init__(self):
        super().__init__()
        self.table = tf.Variable(np.random.default_rng(0).normal(size=(9, 4)).astype("float32"))

    @tf.function(
        input_signature=(tf.TensorSpec((None, None), tf.int32, "tokens"), tf.TensorSpec((None, 1), name="gain"))
    )
    def encode(self, tokens, gain):
        vectors = tf.gather(self.table, tokens)
        return {"sum": tf.reduce_sum(vectors, 1) * gain, "largest": tf.reduce_max(vectors, 1)}

    @tf.function(input_signature=(tf.TensorSpec((None, 4), name="code"),))
    def decode(self, code):
        return {"scores": tf.matmul(code, self.table, transpose_b=True)}


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    path, module = tmp_path_factory.mktemp("codec"), Codec()
    tf.saved_model.save(module, str(path), signatures={"encode": module.encode, "decode": module.decode})
    return path, module.table.numpy()


def encoded(table):
    def answer(arrays):
        vectors = table[arrays["tokens"]]
        return {"sum": vectors.sum(1) * arrays["gain"], "largest": vectors.max(1)}

    return answer


def test_every_signature_is_lowered_by_its_names(codec):
    path, table = codec
    encode = lower(open_source(path, options=SourceOptions(signature="encode", input_shapes={"tokens": (None, 6)})))
    assert {spec.name: spec.shape for spec in encode.inputs} == {"tokens": (None, 6), "gain": (None, 1)}
    assert worst_error(encode, encoded(table), samples(encode)) < TOLERANCE
    decode = lower(open_source(path, options=SourceOptions(signature="decode")))
    assert worst_error(decode, lambda arrays: {"scores": arrays["code"] @ table.T}, samples(decode)) < TOLERANCE


def test_several_signatures_need_a_choice(codec):
    path, _ = codec
    with pytest.raises(ModelError, match="several signatures .*'decode', 'encode'. Pass --signature="):
        lower(open_source(path))
    with pytest.raises(ValueError, match="'decode', 'encode'. Received: 'encoder'"):
        lower(open_source(path, options=SourceOptions(signature="encoder")))


def test_functions_without_a_signature_are_found(tmp_path):
    module = Codec()
    tf.saved_model.save(module, str(tmp_path))
    lowered = lower(open_source(tmp_path, options=SourceOptions(signature="encode")))
    assert worst_error(lowered, encoded(module.table.numpy()), samples(lowered)) < TOLERANCE


def test_a_folder_without_functions_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(ModelError, match="function with an input signature"):
        lower(open_source(tmp_path))


@pytest.mark.parametrize("writer", ["export", "tf.saved_model.save"])
def test_keras_3_models_are_read_back(tmp_path, writer):
    model = tiny_cnn()
    with converter_silenced():
        if writer == "export":
            model.export(tmp_path / "saved")
        else:
            tf.saved_model.save(model, str(tmp_path / "saved"))
    lowered = lower(open_source(tmp_path / "saved"))
    arrays = samples(lowered)
    [image] = arrays.values()
    assert worst_error(lowered, lambda _: [model.predict(image, verbose=0)], arrays) < TOLERANCE
    result = tfc.convert(tmp_path / "saved", representative_data=samples(lowered, count=40))
    assert result.float_tensors == ()


def test_recurrent_models_get_a_fixed_batch(tmp_path):
    model = keras.Sequential([keras.Input((6, 3)), layers.LSTM(4), layers.Dense(2)])
    with converter_silenced():
        model.export(tmp_path / "saved")
    lowered = lower(open_source(tmp_path / "saved"))
    assert lowered.inputs[0].shape == (1, 6, 3)
    arrays = samples(lowered)
    [signal] = arrays.values()
    assert worst_error(lowered, lambda _: [model.predict(signal, verbose=0)], arrays) < TOLERANCE


def test_models_of_tensorflow_1_are_lowered(tmp_path):
    v1, random = tf.compat.v1, np.random.default_rng(0)
    kernel = random.normal(size=(5, 3)).astype("float32")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 5), name="pixels")
        weight = v1.get_variable("weight", initializer=kernel, use_resource=False)
        y = tf.nn.softmax(tf.matmul(x, weight), name="probabilities")
        session.run(v1.global_variables_initializer())
        with converter_silenced():
            v1.saved_model.simple_save(session, str(tmp_path / "saved"), {"pixels": x}, {"probabilities": y})
    lowered = lower(open_source(tmp_path / "saved"))
    assert [spec.name for spec in lowered.inputs] == ["pixels"]

    def expected(arrays):
        powers = np.exp(arrays["pixels"] @ kernel)
        return {"probabilities": powers / powers.sum(1, keepdims=True)}

    assert worst_error(lowered, expected, samples(lowered)) < TOLERANCE
