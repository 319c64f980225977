"""Every kind of Keras 3 model and TensorFlow function answers the same as its float file on LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from parity import samples, worst_error

import tfcompress as tfc
from tfcompress.errors import ConversionError, ModelError
from tfcompress.lowering import SourceOptions, lower, lower_function, lower_keras
from tfcompress.lowering.sources import open_source
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.interpreter import open_model

TOLERANCE = 1e-4  # float kernels sum in another order


def as_keras_answers(model, names=None):
    """The model as a function of arrays by input name; ``names`` puts them into the order the model takes."""

    def answer(arrays):
        values = [arrays[name] for name in names] if names else next(iter(arrays.values()))
        outputs = model(values, training=False)
        return [np.asarray(output) for output in keras.tree.flatten(outputs)]

    return answer


def sequential():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="relu")], name="inner")
    outer_input = keras.Input((6,))
    return keras.Model(outer_input, layers.Dense(2)(inner(inner(outer_input))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.head = layers.Dense(8, "gelu"), layers.BatchNormalization(), layers.Dense(3)

    def call(self, x, training=False):
        return self.head(self.norm(self.hidden(x), training=training))


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 5), "float32"))
    return model


def attention():
    tokens = keras.Input((10,), dtype="int32")
    x = layers.Embedding(20, 16)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, "gelu")(x)))
    return keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


def conv1d():
    return keras.Sequential(
        [
            keras.Input((20, 4)),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu"),
            layers.SeparableConv1D(8, 3),
            layers.MaxPooling1D(2),
            layers.GlobalMaxPooling1D(),
            layers.Dense(3),
        ]
    )


def upsampling():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(2, 2, strides=2),
            layers.UpSampling2D(2, interpolation="bilinear"),
        ]
    )


def dynamic_image():
    return keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3, padding="same"), layers.GlobalAveragePooling2D()]
    )


def dynamic_sequence():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Conv1D(8, 3, padding="same")(layers.Embedding(12, 6)(tokens))
    return keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))


ONE_INPUT = [
    sequential,
    nested,
    subclassed,
    attention,
    conv1d,
    upsampling,
    dynamic_image,
    dynamic_sequence,
]


@pytest.mark.parametrize("build", ONE_INPUT, ids=lambda build: build.__name__)
def test_keras_models_equal_their_float_file(build):
    keras.utils.set_random_seed(0)
    model = build()
    lowered = lower(open_source(model))
    assert worst_error(lowered, as_keras_answers(model), samples(lowered)) < TOLERANCE
    assert lowered.inputs[0].shape[0] is None


@pytest.mark.parametrize("build", ONE_INPUT, ids=lambda build: build.__name__)
def test_fixed_shapes_leave_nothing_to_compute_shapes_from(build):
    keras.utils.set_random_seed(0)
    model = build()
    [spec] = lower_keras(model).inputs
    shape = tuple(size or 9 for size in (1, *spec.shape[1:]))
    lowered = lower(open_source(model, options=SourceOptions(input_shapes={spec.name: shape})))
    assert lowered.inputs[0].shape == shape
    parsed = flatbuffer.parse(lowered.content)
    assert not {"SHAPE", "PACK"} & set(flatbuffer.op_counts(parsed))
    assert all(tensor.shapeSignature is None for tensor in parsed.subgraphs[0].tensors)
    assert worst_error(lowered, as_keras_answers(model), samples(lowered)) < TOLERANCE


def test_several_inputs_and_outputs_keep_their_names():
    left, right = keras.Input((4,), name="left"), keras.Input((3,), dtype="int32", name="right")
    both = layers.Concatenate()([layers.Dense(3)(layers.Embedding(9, 2)(right)[:, 0]), left])
    model = keras.Model([left, right], [layers.Dense(2, name="scores")(both), layers.Dense(1, name="risk")(both)])
    lowered = lower_keras(model)
    assert lowered.outputs == ("scores", "risk")
    assert worst_error(lowered, as_keras_answers(model, ["left", "right"]), samples(lowered)) < TOLERANCE


def test_models_called_on_dictionaries_are_fed_by_name():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((4,), name="a")}
    model = keras.Model(inputs, {"z": layers.Dense(2)(inputs["b"]), "y": inputs["a"] * 2.0})
    lowered = lower_keras(model)
    assert lowered.outputs == ("y", "z")

    def expected(arrays):
        return {name: np.asarray(value) for name, value in model(arrays).items()}

    assert worst_error(lowered, expected, samples(lowered)) < TOLERANCE


class Dictionaries(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = layers.Embedding(10, 4), layers.Dense(2)

    def call(self, inputs):
        return {"tokens_out": self.head(self.embedding(inputs["tokens"])), "twice": inputs["signal"] * 2}


def test_subclassed_models_called_on_dictionaries_read_integers_as_such():
    model = Dictionaries()
    model({"tokens": np.zeros((2, 5), "int32"), "signal": np.zeros((2, 3), "float32")})
    lowered = lower_keras(model)
    assert {spec.name: str(spec) for spec in lowered.inputs} == {
        "signal": "'signal' float32 (any, 3)",
        "tokens": "'tokens' int32 (any, 5)",
    }

    def expected(arrays):
        return {name: np.asarray(value) for name, value in model(arrays).items()}

    assert worst_error(lowered, expected, samples(lowered)) < TOLERANCE


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU, layers.SimpleRNN], ids=lambda layer: layer.__name__)
def test_recurrent_models_get_a_fixed_batch_and_say_so(layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12, 5)), layers.Bidirectional(layer(6, return_sequences=True)), layer(4), layers.Dense(3)]
    )
    lowered = lower_keras(model)
    assert lowered.inputs[0].shape == (1, 12, 5)
    assert "batch was fixed to 1" in lowered.notes[0]
    assert "WHILE" in flatbuffer.op_counts(flatbuffer.parse(lowered.content))
    assert worst_error(lowered, as_keras_answers(model), samples(lowered)) < TOLERANCE


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU], ids=lambda layer: layer.__name__)
def test_unrolled_recurrent_models_keep_a_dynamic_batch(layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 5)), layer(4, unroll=True), layers.Dense(3)])
    lowered = lower_keras(model)
    assert lowered.inputs[0].shape == (None, 6, 5)
    assert lowered.notes == ()
    assert worst_error(lowered, as_keras_answers(model), samples(lowered)) < TOLERANCE


def test_recurrent_models_take_a_batch_that_is_asked_for():
    model = keras.Sequential([keras.Input((12, 5), name="x"), layers.LSTM(6), layers.Dense(3)])
    lowered = lower_keras(model, input_shapes={"x": (4, 12, 5)})
    assert lowered.inputs[0].shape == (4, 12, 5)
    assert worst_error(lowered, as_keras_answers(model), samples(lowered, count=6)) < TOLERANCE


def test_fixed_shapes_must_fit_the_model():
    model = sequential()
    name = lower_keras(model).inputs[0].name
    with pytest.raises(ValueError, match=f"must name inputs of .*{name!r}. Received: 'picture'"):
        lower_keras(model, input_shapes={"picture": (1, 8, 8, 3)})
    with pytest.raises(ValueError, match=r"keep the sizes .*Received: \(1, 9, 8, 3\)"):
        lower_keras(model, input_shapes={name: (1, 9, 8, 3)})


class Cholesky(layers.Layer):
    def call(self, x):
        return tf.linalg.cholesky(x)


def test_an_op_that_tflite_lacks_is_named_with_its_layer():
    inputs = keras.Input((4, 4))
    inner = keras.Sequential([keras.Input((4, 4)), layers.Dense(4), Cholesky(name="root")], name="inner")
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    with pytest.raises(ConversionError, match="Cholesky of layer 'root'") as error:
        lower_keras(model)
    assert "\n" not in str(error.value)


def test_text_inputs_are_refused():
    function = tf.function(
        lambda text: tf.strings.length(text), input_signature=[tf.TensorSpec((None,), tf.string, name="text")]
    )
    with pytest.raises(ConversionError, match="must be numbers. Received: text"):
        lower_function(function)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ModelError, match="must be built"):
        lower_keras(Subclassed())


class Accumulator(tf.Module):
    def __init__(self):
        super().__init__(name="accumulator")
        self.total, self.gain = tf.Variable(0.0), tf.Variable(2.0)

    @tf.function(input_signature=(tf.TensorSpec((None, 2), name="x"),))
    def add(self, x):
        self.total.assign_add(tf.reduce_sum(x))
        return x + self.total

    @tf.function(input_signature=(tf.TensorSpec((None, None, 2), name="b"), tf.TensorSpec((None, 2), name="a")))
    def mix(self, b, a):
        return {"mean": tf.reduce_mean(b, 1) * self.gain + a, "shape": [a, tf.reduce_max(b, 1)]}


def expected_mix(arrays):
    return {
        "mean": arrays["b"].mean(1) * 2 + arrays["a"],
        "shape_0": arrays["a"],
        "shape_1": arrays["b"].max(1),
    }


def test_functions_of_a_module_are_chosen_by_name():
    module = Accumulator()
    lowered = lower(open_source(module, options=SourceOptions(signature="mix")))
    assert worst_error(lowered, expected_mix, samples(lowered)) < TOLERANCE
    with pytest.raises(ModelError, match="several signatures.*'add', 'mix'"):
        lower(open_source(module))
    with pytest.raises(ValueError, match="signature must be one of accumulator's: 'add', 'mix'. Received: 'nix'"):
        lower(open_source(module, options=SourceOptions(signature="nix")))


def test_variables_that_change_are_refused():
    with pytest.raises(ConversionError, match="must not change its variables.*AssignAddVariableOp"):
        lower_function(Accumulator(), signature="add")


@pytest.mark.parametrize("form", ["function", "concrete", "called once"])
def test_tensorflow_functions_are_sources(form):
    module = Accumulator()
    forms = {"function": lambda: module.mix, "concrete": lambda: module.mix.get_concrete_function()}

    def called_once():
        function = tf.function(lambda b, a: module.mix(b, a))
        function.get_concrete_function(tf.TensorSpec((None, None, 2), name="b"), tf.TensorSpec((None, 2), name="a"))
        return function

    lowered = lower(
        open_source(forms.get(form, called_once)(), options=SourceOptions(input_shapes={"b": (None, 3, 2)}))
    )
    assert {spec.name: spec.shape for spec in lowered.inputs} == {"b": (None, 3, 2), "a": (None, 2)}
    assert worst_error(lowered, expected_mix, samples(lowered)) < TOLERANCE


def test_a_function_without_a_signature_is_refused():
    with pytest.raises(ModelError, match="one input signature. Received: .* with 0 traces"):
        lower_function(tf.function(lambda x: x))


def test_the_file_has_the_signature_by_which_it_is_fed():
    lowered = lower_function(Accumulator(), signature="mix")
    [signature] = flatbuffer.parse(lowered.content).signatureDefs
    assert {entry.name for entry in signature.inputs} == {b"a", b"b"}
    assert {entry.name for entry in signature.outputs} == {b"mean", b"shape_0", b"shape_1"}
    assert [info.name for info in open_model(lowered.content).inputs] == [spec.name for spec in lowered.inputs]


def test_constants_that_are_added_have_names_of_their_own():
    """Indices are no names: the tensors that an earlier change left unused are gone, and counting begins lower."""
    model = keras.Sequential([keras.Input((4, 4, 1), name="x"), keras.layers.Flatten(), keras.layers.Dense(2)])
    parsed = flatbuffer.parse(lower_keras(model).content)
    for values in ([1], [2], [3]):
        flatbuffer.add_constant(parsed, np.array(values, np.int32))
        parsed.subgraphs[0].tensors[-2:] = parsed.subgraphs[0].tensors[-1:]
        flatbuffer.add_constant(parsed, np.array(values, np.int32))
    names = [flatbuffer.tensor_name(tensor) for tensor in parsed.subgraphs[0].tensors]
    assert len(names) == len(set(names))


def einsums():
    series = keras.Input((6, 4), name="series")
    x = layers.Dense(8, activation="relu")(series)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(series, layers.Dense(3)(x))


def test_shapes_computed_from_the_batch_alone_become_constants():
    model = einsums()
    lowered = lower_keras(model)
    assert not {"SHAPE", "GATHER", "PACK", "REDUCE_PROD"} & set(flatbuffer.op_counts(flatbuffer.parse(lowered.content)))
    for batch in (1, 5):
        x = np.random.default_rng(0).normal(size=(batch, 6, 4)).astype(np.float32)
        [answer] = open_model(lowered.content).run({"series": x}, batch=batch).values()
        np.testing.assert_allclose(answer, model.predict(x, verbose=0), atol=TOLERANCE)


def test_shapes_that_change_in_two_places_stay_computed():
    pair = keras.Input((None, 4), name="pair")
    model = keras.Model(pair, layers.Dense(3)(pair))
    assert "SHAPE" in flatbuffer.op_counts(flatbuffer.parse(lower_keras(model).content))


@pytest.mark.parametrize("target", ["cpu-int16x8", "cpu-int4"])
def test_a_dense_on_a_series_is_whole_in_other_widths(target):
    x = np.random.default_rng(0).normal(size=(32, 6, 4)).astype(np.float32)
    model = keras.Sequential(
        [keras.Input((6, 4)), layers.Dense(8, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )
    result = tfc.convert(model, target=target, representative_data=x)
    assert result.float_tensors == ()
