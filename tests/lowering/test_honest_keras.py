"""Honest Keras files open: the zoo, keras.applications, functions of both Keras versions, weights and vocabularies."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import zoo
from tfcompress.lowering import trust
from tfcompress.lowering.sources import open_source
from tfcompress.lowering.trust.keras_objects import keras_objects, registered_objects

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")


def found(config, loader):
    return [finding.what for finding in trust.examine_config(config, "m", (), loader=loader)]


def config_of(model):
    return json.loads(model.to_json())


@pytest.mark.slow
def test_every_zoo_model_is_known():
    for entry in zoo.MODELS.values():
        assert not [
            finding.what
            for finding in trust.examine_config(
                config_of(entry.function()), entry.name, registered_objects("keras"), loader="keras"
            )
        ]


SLOW_APPLICATIONS = ["MobileNetV2", "EfficientNetV2B0", "NASNetMobile", "InceptionResNetV2", "DenseNet121", "Xception"]


@pytest.mark.parametrize(
    "name",
    ["MobileNetV3Small", "ConvNeXtTiny", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_APPLICATIONS)],
)
def test_applications_are_known(name):
    assert not found(config_of(getattr(keras.applications, name)(weights=None)), "keras")


def test_operations_and_functions_of_keras_are_known():
    x = keras.Input((8, 8, 2))
    y = keras.ops.transpose(keras.ops.pad(x[:, 1:], ((0, 0), (1, 0), (0, 0), (0, 0))), (0, 2, 1, 3))
    y = keras.ops.concatenate(
        [keras.ops.relu(y), keras.ops.cast(keras.ops.max(y, axis=-1, keepdims=True), "float32")], axis=-1
    )
    y = layers.Dense(2, activation=keras.activations.gelu, kernel_regularizer="l2", dtype="mixed_float16")(y * 2.0)
    y = layers.Bidirectional(layers.LSTM(2))(layers.TimeDistributed(layers.Flatten())(y))
    assert not found(config_of(keras.Model(x, y)), "keras")


def functional_of_keras_2():
    import tensorflow as tf
    import tf_keras

    x = tf_keras.Input((8, 8, 2), name="image")
    y = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    y = tf.reshape(y, [tf.shape(y)[0], 10, 20])
    y = tf.gather(tf.transpose(y, [0, 2, 1]), [0, 1], axis=1)
    y = tf.squeeze(y[:, 0:1, ...] * 2.0 + 1.0, 1)
    y = tf.concat([y, tf.cast(tf.reduce_mean(y, axis=1, keepdims=True), tf.float32)], -1)
    y = tf.nn.relu6(tf.expand_dims(tf.clip_by_value(tf.math.l2_normalize(y), -1.0, 1.0), 1))
    y = tf_keras.layers.Dense(2, activation=tf_keras.activations.gelu)(tf.stack(tf.split(y, 11, axis=2), 1)[:, 0])
    return tf_keras.Model(x, y)


def test_tensor_functions_of_keras_2_open(tmp_path):
    model = functional_of_keras_2()
    model.save(tmp_path / "m.h5")
    source = open_source(tmp_path / "m.h5")
    assert source.kind == "tf_keras"
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype("float32")
    np.testing.assert_array_equal(model(x), source.value(x))


def test_classes_that_hold_code_are_not_among_the_known():
    for loader in ("keras", "tf_keras"):
        names = {name for _, name in keras_objects(loader).classes}
        assert {"Dense", "LSTM", "GlorotUniform", "Sequential", "Functional"} <= names
        assert not names & {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "ResidualWrapper"}
        assert not names & {
            "ClassMethod",
            "InstanceMethod",
            "TensorFlowOpLayer",
            "DropoutWrapper",
            "Map",
            "Scan",
            "Cond",
        }


def test_weights_and_assets_arrive_unchanged(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 2)), layers.Conv1D(3, 2), layers.BatchNormalization(), layers.LSTM(2, dtype="mixed_bfloat16")]
    )
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        opened = open_source(tmp_path / name).value
        for ours, theirs in zip(opened.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_vocabularies_arrive_as_assets(tmp_path):
    words = keras.Input((1,), dtype="string")
    vectors = layers.TextVectorization(output_sequence_length=3)
    vectors.adapt(["a b c", "d e"])
    model = keras.Model(words, vectors(words))
    model.save(tmp_path / "m.keras")
    opened = open_source(tmp_path / "m.keras").value
    assert opened.layers[-1].get_vocabulary() == vectors.get_vocabulary()
