"""What a model file may hold: code is refused from its configuration, however deep it lies."""

import json
import zipfile

import keras
import pytest
import tensorflow as tf
from keras import layers

from tfcompress.errors import ModelError
from tfcompress.lowering import trust
from tfcompress.lowering.sources import open_source

LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "secret"}}


def inside(depth: int, leaf: dict) -> dict:
    for _ in range(depth):
        leaf = {"module": "keras.layers", "class_name": "TimeDistributed", "config": {"layer": leaf}}
    return leaf


@pytest.mark.parametrize("depth", [0, 1, 3, 5000])
def test_code_is_found_at_any_depth(depth):
    with pytest.raises(ModelError, match=r"Lambda \(secret\) in m.*--allow_unsafe"):
        trust.check_config(inside(depth, LAMBDA), "m", ())


@pytest.mark.parametrize(
    "entry",
    [
        {"class_name": "__lambda__", "config": {"value": "4wEA"}},
        {"module": "mine", "class_name": "function", "config": "f", "registered_name": "function"},
        {"class_name": "Custom>Secret"},
        {"module": "mine", "class_name": "Secret", "registered_name": "mine>Secret"},
        {"class_name": "TFOpLambda", "config": {"name": "write", "function": "io.write_file"}},
        {"class_name": "TFOpLambda", "config": {"name": "call", "function": "numpy_function"}},
    ],
    ids=lambda entry: entry["class_name"],
)
def test_every_kind_of_code_is_refused(entry):
    with pytest.raises(ModelError, match="--allow_unsafe"):
        trust.check_config({"layers": [entry]}, "m", ())


def test_known_objects_and_plain_ops_pass():
    registered = {"module": "mine", "class_name": "Secret", "registered_name": "mine>Secret"}
    trust.check_config([registered, {"class_name": "Dense"}], "m", {"mine>Secret"})
    trust.check_config({"class_name": "TFOpLambda", "config": {"function": "math.multiply"}}, "m", ())
    trust.check_config({"class_name": "QuantizeLayer", "config": {}}, "m", ())


class Secret(layers.LSTM):
    """A layer of the author's own, which nobody registered."""


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("wrap", ["TimeDistributed", "Bidirectional", "nested"])
def test_code_in_wrappers_of_real_files_is_refused(suffix, wrap, tmp_path):
    code = layers.Lambda(lambda x: x * 2, name="secret")
    inputs = keras.Input((4, 3))
    if wrap == "TimeDistributed":
        outputs = layers.TimeDistributed(code)(inputs)
    elif wrap == "nested":
        outputs = keras.Sequential([keras.Input((4, 3)), code])(inputs)
    else:
        with keras.saving.custom_object_scope({"Secret": Secret}):  # Bidirectional copies its layer
            outputs = layers.Bidirectional(Secret(2))(inputs)
    path = tmp_path / f"m{suffix}"
    keras.Model(inputs, outputs).save(path)
    with pytest.raises(ModelError, match="--allow_unsafe"):
        open_source(path)


def test_a_saved_model_whose_graph_writes_files_is_refused(tmp_path):
    class Writer(tf.Module):
        @tf.function(input_signature=(tf.TensorSpec((None, 2), name="x"),))
        def go(self, x):
            tf.io.write_file(str(tmp_path / "written"), "text")
            return x * 2

    module = Writer()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.go)
    with pytest.raises(ModelError, match="must not reach for files or Python. Received: the op WriteFile"):
        trust.check_saved_model(tmp_path / "saved")
    assert not (tmp_path / "written").exists()


def test_damaged_saved_models_are_one_clear_error(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="SavedModel is damaged"):
        trust.check_saved_model(tmp_path)


def test_the_writer_of_a_file_is_known(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        assert trust.keras_version(tmp_path / name) == keras.__version__
    with zipfile.ZipFile(tmp_path / "none.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({}))
    assert trust.keras_version(tmp_path / "none.keras") == ""
