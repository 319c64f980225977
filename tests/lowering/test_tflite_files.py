"""Float .tflite files from other converters: signatures, half precision, dynamic axes, loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from parity import samples, worst_error

import tfcompress as tfc
from models import striped_pictures, tiny_cnn
from tfcompress.errors import ModelError
from tfcompress.lowering import SourceOptions, lower, lower_keras
from tfcompress.lowering.sources import open_source
from tfcompress.system.quiet import converter_silenced
from tfcompress.tflite import flatbuffer

TOLERANCE = 1e-4  # float kernels sum in another order


def converted(converter):
    with converter_silenced():
        return converter.convert()


def written(tmp_path, content):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    return path


class Pair(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(4, 3)).astype("float32"))

    @tf.function(input_signature=(tf.TensorSpec((None, 3), name="z"), tf.TensorSpec((None, 4), name="y")))
    def mix(self, z, y):
        return {"out": tf.matmul(y, self.kernel) - z}

    @tf.function(input_signature=(tf.TensorSpec((2, 3), name="start"),))
    def loop(self, start):
        value = start
        for _ in tf.range(5):
            value = tf.matmul(tf.matmul(value, self.kernel, transpose_b=True), self.kernel) * 0.1
        return {"end": value}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    path, module = tmp_path_factory.mktemp("pair"), Pair()
    tf.saved_model.save(module, str(path / "saved"), signatures={"mix": module.mix, "loop": module.loop})
    content = converted(tf.lite.TFLiteConverter.from_saved_model(str(path / "saved"), signature_keys=["mix", "loop"]))
    return written(path, content), module.kernel.numpy()


def test_a_signature_is_chosen_and_keeps_the_subgraphs_that_it_calls(pair):
    path, kernel = pair

    def looped(arrays):
        value = arrays["start"]
        for _ in range(5):
            value = value @ kernel.T @ kernel * np.float32(0.1)
        return {"end": value}

    loop = lower(open_source(path, options=SourceOptions(signature="loop")))
    assert len(flatbuffer.parse(loop.content).subgraphs) == 3  # itself, condition and body
    assert worst_error(loop, looped, samples(loop, count=4)) < TOLERANCE
    mix = lower(open_source(path, options=SourceOptions(signature="mix")))
    assert len(flatbuffer.parse(mix.content).subgraphs) == 1
    assert worst_error(mix, lambda a: {"out": a["y"] @ kernel - a["z"]}, samples(mix)) < TOLERANCE


def test_several_signatures_need_a_choice(pair):
    path, _ = pair
    with pytest.raises(ModelError, match="several signatures .*'loop', 'mix'"):
        lower(open_source(path))
    with pytest.raises(ValueError, match="'loop', 'mix'. Received: 'mux'"):
        lower(open_source(path, options=SourceOptions(signature="mux")))


def test_a_file_without_signature_is_fed_by_its_tensor_names(tmp_path):
    model = tiny_cnn()
    parsed = flatbuffer.parse(lower_keras(model).content)
    parsed.signatureDefs = None
    lowered = lower(open_source(written(tmp_path, flatbuffer.pack(parsed))))
    assert [spec.name for spec in lowered.inputs] == ["image"]
    assert (
        worst_error(lowered, lambda arrays: [model.predict(arrays["image"], verbose=0)], samples(lowered)) < TOLERANCE
    )


def test_half_precision_weights_become_float32(tmp_path):
    model = tiny_cnn()
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path = written(tmp_path, converted(converter))
    assert "DEQUANTIZE" in flatbuffer.op_counts(flatbuffer.parse(path.read_bytes()))
    lowered = lower(open_source(path))
    parsed = flatbuffer.parse(lowered.content)
    assert "DEQUANTIZE" not in flatbuffer.op_counts(parsed)
    assert {flatbuffer.type_name(tensor) for tensor in parsed.subgraphs[0].tensors} <= {"FLOAT32", "INT32"}
    halved = keras.models.clone_model(model)
    halved.set_weights([value.astype("float16").astype("float32") for value in model.get_weights()])
    # BatchNorm is folded before the weights are halved: 11 bits of each weight are kept, in another product.
    arrays = samples(lowered)
    assert worst_error(lowered, lambda a: [halved.predict(next(iter(a.values())), verbose=0)], arrays) < 2**-9
    pictures, _ = striped_pictures(64)
    assert tfc.convert(path, representative_data=pictures).float_tensors == ()


def test_dynamic_axes_are_fixed_and_shapes_inferred(tmp_path):
    image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same")(image)
    model = keras.Model(image, layers.Dense(5)(x))
    path = written(tmp_path, lower_keras(model).content)
    assert "SHAPE" in flatbuffer.op_counts(flatbuffer.parse(path.read_bytes()))
    lowered = lower(open_source(path, options=SourceOptions(input_shapes={"image": (1, 8, 6, 3)})))
    parsed = flatbuffer.parse(lowered.content)
    assert not {"SHAPE", "PACK", "STRIDED_SLICE", "MUL"} & set(flatbuffer.op_counts(parsed))
    graph = parsed.subgraphs[0]
    assert [int(size) for size in graph.tensors[graph.outputs[0]].shape] == [1, 4, 3, 5]
    assert all(tensor.shapeSignature is None for tensor in graph.tensors)
    assert worst_error(lowered, lambda a: [model.predict(a["image"], verbose=0)], samples(lowered)) < TOLERANCE
    with pytest.raises(ValueError, match="'image'. Received: 'picture'"):
        lower(open_source(path, options=SourceOptions(input_shapes={"picture": (1, 8, 6, 3)})))


def test_axes_may_be_fixed_in_part(tmp_path):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(tokens)))
    path = written(tmp_path, lower_keras(model).content)
    lowered = lower(open_source(path, options=SourceOptions(input_shapes={"tokens": (None, 6)})))
    assert lowered.inputs[0].shape == (None, 6)
    assert worst_error(lowered, lambda a: [model.predict(a["tokens"], verbose=0)], samples(lowered)) < TOLERANCE


def test_quantized_weights_are_refused_by_name(tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64), layers.Dense(2)])  # smaller weights stay float
    result = tfc.convert(model, target="dynamic")
    with pytest.raises(ModelError, match=r"quantized already \(.* is INT8\)"):
        lower(open_source(result.save(tmp_path / "dynamic.tflite")))


def test_official_float_files_are_sources(shared_data):
    for path in (
        *shared_data.glob("mlperf_*/*float*.tflite"),
        *shared_data.glob("mlperf_*/*fp32*.tflite"),
        *shared_data.glob("mlperf_resnet8/pretrainedResnet.tflite"),
    ):
        lowered = lower(open_source(path))
        interpreter = Interpreter(str(path))
        assert len(lowered.inputs) == len(interpreter.get_input_details())

        def expected(arrays, interpreter=interpreter):
            [details] = interpreter.get_input_details()
            answers = []
            for sample in next(iter(arrays.values())):
                interpreter.resize_tensor_input(details["index"], (1, *sample.shape))
                interpreter.allocate_tensors()
                interpreter.set_tensor(details["index"], sample[None])
                interpreter.invoke()
                answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
            return [np.concatenate(answers)]

        assert worst_error(lowered, expected, samples(lowered)) < TOLERANCE
