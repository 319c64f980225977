"""Models and files of tf_keras, with and without TFMOT's wrappers, and .h5 files that Keras 3 refuses."""

import os
import sys
import warnings

import numpy as np
import pytest
from parity import samples, worst_error

import tfcompress as tfc
from models import striped_pictures
from tfcompress.errors import ModelError
from tfcompress.lowering import SourceOptions, keras2, lower, lower_legacy, sources
from tfcompress.quantization import quantizers
from tfcompress.system.quiet import converter_silenced
from tfcompress.tflite import flatbuffer, qdq
from tfcompress.tflite.interpreter import open_model

TOLERANCE = 1e-4  # float kernels sum in another order
X, Y = striped_pictures(512)

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")


@pytest.fixture(scope="module")
def tf_keras():
    import tf_keras

    return tf_keras


@pytest.fixture(scope="module")
def toolkit(tf_keras):
    return keras2._toolkit()


def cnn(tf_keras):
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.Add()([x, layers.Conv2D(8, 1, activation="relu")(x)])
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.MaxPooling2D(2)(x)))
    return tf_keras.Model(image, layers.Dense(3, name="logits")(x), name="striped")


def trained(tf_keras, model, epochs=4, callbacks=()):
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.legacy.Adam(3e-3), loss)
    model.fit(X, Y, epochs=epochs, batch_size=32, verbose=0, callbacks=list(callbacks))
    return model


def answers_of(model):
    return lambda arrays: [np.asarray(model(next(iter(arrays.values())), training=False))]


@pytest.fixture(scope="module")
def plain(tf_keras):
    return trained(tf_keras, cnn(tf_keras))


def test_nothing_is_imported_to_recognise_a_model(plain):
    assert keras2.is_legacy_model(plain)
    hidden = sys.modules.pop("tf_keras")
    try:
        assert not keras2.is_legacy_model(plain)
        assert "tf_keras" not in sys.modules
    finally:
        sys.modules["tf_keras"] = hidden


@pytest.mark.parametrize("form", ["object", "m.keras", "m.h5", "saved"])
def test_every_form_of_a_model_equals_its_float_file(plain, form, tmp_path):
    if form != "object":
        with converter_silenced():
            plain.save(tmp_path / form)
    lowered = lower(sources.open_source(plain if form == "object" else tmp_path / form))
    [name] = [spec.name for spec in lowered.inputs]
    assert name == "image"
    assert worst_error(lowered, answers_of(plain), {name: X[:9]}) < TOLERANCE


def test_subclassed_and_dictionary_models_are_fed_by_name(tf_keras):
    class Subclassed(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = tf_keras.layers.Embedding(9, 4), tf_keras.layers.Dense(2)

        def call(self, inputs):
            return {"z": self.head(self.embedding(inputs["tokens"])), "y": inputs["gain"] * 2}

    model = Subclassed()
    with pytest.raises(ModelError, match="must be built"):
        lower_legacy(model)
    model({"tokens": np.zeros((2, 5), "int32"), "gain": np.zeros((2, 1), "float32")})
    lowered = lower(sources.open_source(model))
    assert lowered.outputs == ("y", "z")
    assert {spec.name: spec.dtype.name for spec in lowered.inputs} == {"tokens": "int32", "gain": "float32"}
    assert (
        worst_error(lowered, lambda arrays: {k: v.numpy() for k, v in model(arrays).items()}, samples(lowered))
        < TOLERANCE
    )


def test_recurrent_models_get_a_fixed_batch(tf_keras):
    layers = tf_keras.layers
    model = tf_keras.Sequential([tf_keras.Input((12, 5)), layers.LSTM(6, return_sequences=True), layers.GRU(4)])
    lowered = lower_legacy(model)
    assert lowered.inputs[0].shape == (1, 12, 5)
    assert lowered.notes
    assert worst_error(lowered, answers_of(model), samples(lowered)) < TOLERANCE


def test_shapes_are_fixed(tf_keras):
    model = tf_keras.Sequential([tf_keras.Input((None, None, 3), name="x"), tf_keras.layers.Conv2D(2, 3)])
    lowered = lower(sources.open_source(model, options=SourceOptions(input_shapes={"x": (1, 9, 7, 3)})))
    assert lowered.inputs[0].shape == (1, 9, 7, 3)
    assert worst_error(lowered, answers_of(model), samples(lowered)) < TOLERANCE


def test_pruning_is_stripped(tf_keras, toolkit, tmp_path):
    sparsity = toolkit.sparsity.keras
    wrapped = sparsity.prune_low_magnitude(cnn(tf_keras), sparsity.ConstantSparsity(0.5, 0, frequency=1))
    trained(tf_keras, wrapped, 1, [sparsity.UpdatePruningStep()])
    stripped = sparsity.strip_pruning(wrapped)
    wrapped.save(tmp_path / "m.h5")
    wrapped.save(tmp_path / "m.keras")
    for source in (wrapped, tmp_path / "m.h5", tmp_path / "m.keras"):
        lowered = lower(sources.open_source(source))
        assert worst_error(lowered, answers_of(stripped), {"image": X[:9]}) < TOLERANCE
        assert not lowered.trained
    result = tfc.convert(tmp_path / "m.h5", target="float32")
    assert sorted(result.contents.sparsity.values()) == [0.0, 0.5, 0.5, 0.5]  # TFMOT leaves depthwise kernels whole
    assert "TF_USE_LEGACY_KERAS" not in os.environ


@pytest.fixture(scope="module")
def aware(tf_keras, toolkit):
    model = trained(tf_keras, cnn(tf_keras))
    return trained(tf_keras, toolkit.quantization.keras.quantize_model(model), 2)


def their_int8(model):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with converter_silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about statistics that it then does without
        return converter.convert()


@pytest.mark.parametrize("form", ["object", "m.h5", "saved"])
def test_quantization_aware_training_gives_their_own_file(aware, form, tmp_path):
    if form != "object":
        with converter_silenced():
            aware.save(tmp_path / form)
    source = sources.open_source(aware if form == "object" else tmp_path / form)
    assert source.fake_quantized
    lowered = lower(source)
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(flat_ops(lowered.content))
    # The float file computes with the weights as they were rounded in training.
    [unmarked] = open_model(lowered.content).run({"image": X}).values()
    assert np.mean(unmarked.argmax(1) == aware.predict(X, verbose=0).argmax(1)) >= 0.97

    marked = qdq.restore_pairs(lowered.content, lowered.trained)
    ours = open_model(quantizers.quantize(marked, {}, tfc.TARGETS["cpu-int8-float-io"]))
    theirs = open_model(their_int8(aware))
    [mine], [other] = ours.run({"image": X}).values(), theirs.run({theirs.inputs[0].name: X}).values()
    np.testing.assert_array_equal(mine, other)  # the same graph with the same scales


def test_ranges_alone_give_nearly_their_file(aware):
    lowered = lower(sources.open_source(aware))
    ranges = quantizers.complete_ranges(lowered.content, lowered.trained)
    assert set(quantizers.needed_ranges(lowered.content)) <= set(ranges)
    ours = open_model(quantizers.quantize(lowered.content, ranges, tfc.TARGETS["cpu-int8-float-io"]))
    theirs = open_model(their_int8(aware))
    [mine], [other] = ours.run({"image": X}).values(), theirs.run({theirs.inputs[0].name: X}).values()
    assert np.mean(mine.argmax(1) == other.argmax(1)) >= 0.99


def test_a_file_that_tfmot_cannot_read_itself_names_the_way_out(aware, tmp_path):
    aware.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="its own .keras files.*save it as .h5"):
        sources.open_source(tmp_path / "m.keras")


def flat_ops(content):
    return flatbuffer.op_counts(flatbuffer.parse(content))


def test_float_and_dynamic_files_of_such_a_model_hold_no_fake_quantization(aware):
    for target in ("float32", "float16", "dynamic"):
        result = tfc.convert(aware, target=target)
        assert "FakeQuant" not in str(dict(result.ops))
        assert open_model(result.tflite).inputs[0].dtype == np.float32
        [answers] = open_model(result.tflite).run({"image": X}).values()
        assert np.mean(answers.argmax(1) == aware.predict(X, verbose=0).argmax(1)) > 0.97


def test_an_h5_file_that_keras_3_refuses_answers_as_in_tf_keras(shared_data, tf_keras):
    path = next((shared_data / "mlperf_sww").glob("*.h5"))
    source = sources.open_source(path)
    assert source.kind == "tf_keras"
    lowered = lower(source)
    with converter_silenced():
        model = tf_keras.models.load_model(path, compile=False)
    assert worst_error(lowered, answers_of(model), samples(lowered, count=45)) < TOLERANCE
    inner = tfc.convert(path, target="cpu-int8", representative_data=samples(lowered, count=45))
    assert inner.float_tensors == ()


def test_files_that_keras_3_reads_stay_with_keras_3(shared_data):
    assert sources.open_source(shared_data / "mlperf_resnet8" / "pretrainedResnet.h5").kind == "keras"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("wrap", ["plain", "TimeDistributed", "nested"])
def test_code_in_a_file_is_refused_wherever_it_hides(tf_keras, tmp_path, suffix, wrap):
    layers = tf_keras.layers
    code = layers.Lambda(lambda x: x * 2, name="secret")
    if wrap == "plain":
        chain = [code]
    elif wrap == "TimeDistributed":
        chain = [layers.TimeDistributed(code)]
    else:
        chain = [tf_keras.Sequential([tf_keras.Input((4, 3)), code])]
    path = tmp_path / f"m{suffix}"
    tf_keras.Sequential([tf_keras.Input((4, 3)), *chain, layers.Dense(2)]).save(path)
    with pytest.raises(ModelError, match=r"Lambda \(secret\).*--allow_unsafe"):
        tfc.convert(path)


def test_a_signature_is_no_choice_for_a_keras_model(plain):
    with pytest.raises(ValueError, match="signature chooses among a file's functions. Received: 'go'"):
        sources.open_source(plain, options=SourceOptions(signature="go"))
