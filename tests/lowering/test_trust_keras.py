"""Keras files that bring code along or reach for files are refused with the reason; honest ones open."""

import contextlib
import io
import json
import re
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.errors import ModelError
from tfcompress.lowering import SourceOptions, trust
from tfcompress.lowering.sources import open_source
from tfcompress.lowering.trust.json_texts import parse_json
from tfcompress.lowering.trust.keras_files import take_apart
from tfcompress.lowering.trust.keras_objects import registered_objects

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
OLD = "2.15.0"
HEADER = 512  # the HDF5 library looks for a file here too


def layer(class_name, module="keras.layers", **config):
    return {"module": module, "class_name": class_name, "config": {"name": "secret", **config}, "registered_name": None}


def legacy(class_name, **config):
    return {"class_name": class_name, "config": {"name": "secret", **config}}


def model_of(*entries):
    start = legacy("InputLayer", batch_input_shape=[None, 4, 3], dtype="float32")
    return legacy("Sequential", layers=[start, *entries])


def found(config, loader):
    return [finding.what for finding in trust.examine_config(config, "m", (), loader=loader)]


def op(symbol):
    return legacy("TFOpLambda", function=symbol)


FUNCTION = {"module": "builtins", "class_name": "function", "config": "system", "registered_name": "function"}
CELL = legacy("LSTMCell", units=3)
ATTACKS_2 = {
    "ResidualWrapper": legacy(
        "RNN", cell=legacy("ResidualWrapper", cell=CELL, residual_fn="4wEA", residual_fn_type="lambda")
    ),
    "DropoutWrapper": legacy(
        "RNN", cell=legacy("DropoutWrapper", cell=CELL, dropout_fn="4wEA", dropout_fn_type="function")
    ),
    "DeviceWrapper": legacy("RNN", cell=legacy("DeviceWrapper", cell=CELL, device="/gpu:0")),
    "function type": legacy("Dense", units=1, activation_fn_type="lambda"),
    "io.write_file": op("io.write_file"),
    "io.read_file": op("io.read_file"),
    "v1.read_file": op("compat.v1.read_file"),
    "load_op_library": op("load_op_library"),
    "load_model": op("keras.models.load_model"),
    "get_file": op("keras.utils.get_file"),
    "py_func": op("compat.v1.py_func"),
    "raw_ops": op("raw_ops.WriteFile"),
    "saved_model": op("saved_model.load"),
    "data": op("data.TFRecordDataset"),
    "no text": op(["math.add"]),
    "slicing": legacy("SlicingOpLambda", function="io.gfile.remove"),
    "inside": legacy("TimeDistributed", layer=op("print")),
    "ClassMethod": legacy("ClassMethod", cls_symbol="data.Dataset", method_name="save"),
    "InstanceMethod": legacy("InstanceMethod", attr_name="eval"),
    "TensorFlowOpLayer": legacy("TensorFlowOpLayer", node_def="op: 'ReadFile'", constants={}),
    "wrong module": {**layer("QuantizeLayer", "evil"), "registered_name": "QuantizeLayer"},
    "wrong name": {**layer("QuantizeLayer", "evil"), "registered_name": "evil>Layer"},
    "schedule": legacy("PruneLowMagnitude", pruning_schedule={"class_name": "glorot", "config": {}}),
    "vocabulary": legacy("StringLookup", vocabulary="/etc/passwd"),
    "activation": legacy("Dense", units=1, activation="keras_export"),
    "type spec": legacy("InputLayer", type_spec={"class_name": "TypeSpec", "type_spec": "x", "serialized": []}),
    "composite": {**op("math.add"), "inbound_nodes": [[["_CONSTANT_VALUE", -1, [{"_TYPE": "COMPOSITE"}, "{}"]]]]},
    "an argument": {
        **op("math.add"),
        "inbound_nodes": [[["a", 0, 0, {"y": {"class_name": "__lambda__", "config": {}}}]]],
    },
}
ATTACKS_3 = {
    "Lambda": layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
    "TFSMLayer": layer("TFSMLayer", filepath="/tmp/x"),
    "TorchModuleWrapper": layer("TorchModuleWrapper", module="UEsDB"),
    "JaxLayer": layer("JaxLayer", call_fn=FUNCTION),
    "function": layer("Dense", units=1, activation=FUNCTION),
    "get_file": layer("Dense", units=1, activation={**FUNCTION, "module": "keras.utils", "config": "get_file"}),
    "foreign function": layer("Dense", units=1, activation={**FUNCTION, "module": "os"}),
    "foreign class": layer("Popen", "subprocess", args="true"),
    "registered": {**layer("Dense", units=1), "registered_name": "evil>Dense"},
    "vocabulary": layer("TextVectorization", vocabulary="/etc/passwd"),
    "map": layer("Map", "keras.src.ops.core"),
    "an entry": {**layer("Dense", units=1), "on_load": "go"},
    "a list for a name": {**layer("Dense", units=1), "class_name": ["Dense"]},
    "build": {**layer("Dense", units=1), "build_config": layer("Lambda")},
    "type spec": {"class_name": "__typespec__", "module": "os", "registered_name": "x", "config": [], "spec_name": "x"},
}


@pytest.mark.parametrize("name", ATTACKS_2)
def test_what_tf_keras_would_run_is_refused(name):
    assert found(model_of(ATTACKS_2[name]), "tf_keras")
    with pytest.raises(ModelError, match=r"A model file must not .* Received: .* in m\..*--allow_unsafe"):
        trust.check_config(model_of(ATTACKS_2[name]), "m", ())


@pytest.mark.parametrize("name", ATTACKS_3)
def test_what_keras_would_run_is_refused(name):
    assert found(layer("Sequential", "keras", layers=[ATTACKS_3[name]]), "keras")


@pytest.mark.parametrize("class_name", ["ResidualWrapper", "Lambda", "keras_export", "Other"])
def test_a_registered_name_lends_itself_to_no_other_class(class_name):
    import tf_keras

    assert "Custom>Adam" in tf_keras.saving.get_custom_objects()  # tf_keras registers its own
    entry = {"module": "evil", "class_name": class_name, "registered_name": "Custom>Adam", "config": {}}
    known = registered_objects("tf_keras")
    assert list(trust.examine_config(entry, "m", known, loader="tf_keras"))
    assert not list(trust.examine_config({**entry, "class_name": "Adam"}, "m", known, loader="tf_keras"))


def test_how_a_model_was_trained_is_dropped_and_not_read():
    entry = {**layer("Dense", units=1), "compile_config": {"loss": FUNCTION}}
    assert not found(entry, "keras")


def h5_file(path, config, version=OLD, weights=lambda group: None):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.zeros(0, "S1")
        weights(group)
    return path


def residual_wrapper(marker):
    from tf_keras.src.utils import generic_utils

    def touch(inputs, outputs, marker=str(marker)):
        with open(marker, "w"):
            return outputs

    function = list(generic_utils.func_dump(touch))
    cell = legacy("ResidualWrapper", cell=legacy("SimpleRNNCell", units=3), residual_fn=function)
    cell["config"].update(residual_fn_type="lambda", residual_fn_module=None)
    return model_of(legacy("RNN", cell=cell))


def test_a_serialized_function_runs_only_in_a_trusted_file(tmp_path):
    marker = tmp_path / "marker"
    path = h5_file(tmp_path / "m.h5", residual_wrapper(marker))
    with pytest.raises(ModelError, match=r"Received: a ResidualWrapper \(secret\) in .*m.h5"):
        open_source(path)
    with pytest.raises(ModelError, match="ResidualWrapper"):
        tfc.convert(path, target="float32")
    assert not marker.exists()
    with contextlib.suppress(ModelError):  # no weights in it; what matters is what ran
        open_source(path, options=SourceOptions(allow_unsafe=True))
    assert marker.exists()  # else this test could not fail


def test_no_module_that_a_file_names_is_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    entry = {**layer("QuantizeLayer", "evil_module"), "registered_name": "evil>QuantizeLayer"}
    with pytest.raises(ModelError, match="evil>QuantizeLayer"):
        open_source(h5_file(tmp_path / "m.h5", model_of(entry)))
    assert not (tmp_path / "marker").exists()
    assert "evil_module" not in sys.modules


def weights_bytes():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2), "float32")
    return stream.getvalue()


def archive(path, members, method=zipfile.ZIP_STORED):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(path, "w", method) as file:
            for name, content in members:
                file.writestr(name, content)
    return path


PARTS = [("metadata.json", '{"keras_version": "3.0.0"}'), ("config.json", "{}"), ("model.weights.h5", weights_bytes())]


def with_zip_behind(path):
    h5_file(path, {})
    content = archive(path.with_suffix(".zip"), PARTS).read_bytes()
    path.write_bytes(path.read_bytes() + content)


def with_hdf5_inside(path):
    inner = h5_file(path.with_suffix(".h5"), {}).read_bytes()
    name = "assets/".ljust(HEADER - 30, "a")  # 30 bytes and the name lie before a member's content
    archive(path, [(name, inner), *PARTS])


def behind_a_user_block(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.attrs["model_config"] = "{}"
    with path.open("r+b") as file:
        file.write(b"\x89HDF\r\n\x1a\n" + b"\0" * 8)


def external_storage(group):
    group.create_dataset("a", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(group):
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    group.create_virtual_dataset("a", layout)


def linked(link):
    def write(group):
        group["a"] = link

    return write


def twice(group):
    group["a"] = np.zeros(3)
    group["b"] = group["a"]


def filtered(group):
    group.create_dataset("a", data=np.zeros(30), chunks=(30,), compression="lzf")


def huge(group):
    group.create_dataset("huge", (1 << 40,), "f4")


def packed(group):
    group.create_dataset("packed", (1 << 28,), "f4", chunks=(1 << 20,), compression="gzip", fillvalue=0)


def reference(group):
    group.create_dataset("a", data=group.ref, dtype=h5py.ref_dtype)


def named_type(group):
    group["a"] = np.dtype("f4")


def structure(weights):
    return lambda path: h5_file(path, {}, weights=weights)


def members(*more, method=zipfile.ZIP_STORED, parts=PARTS):
    return lambda path: archive(path, [*parts, *more], method)


REFUSED = {
    "HDF5 and ZIP": (with_zip_behind, "something else follows"),
    "ZIP and HDF5": (with_hdf5_inside, "a ZIP archive and an HDF5 file at once"),
    "user block": (behind_a_user_block, "damaged|begins behind|ends at"),
    "external storage": (structure(external_storage), "/model_weights/a lies in another file .*hostname"),
    "virtual": (structure(virtual), "/model_weights/a is put together from other files"),
    "external link": (
        structure(linked(h5py.ExternalLink("/etc/x.h5", "/a"))),
        "/model_weights/a is a link to /etc/x.h5",
    ),
    "soft link": (structure(linked(h5py.SoftLink("/model_weights"))), "/model_weights/a is a link"),
    "two names": (structure(twice), "is there under two names"),
    "a filter": (structure(filtered), "needs the filter 32000"),
    "a promise": (structure(huge), "/huge would be 4398046511104 bytes"),
    "a bomb of weights": (structure(packed), "/packed would be 1073741824 bytes"),
    "a reference": (structure(reference), "holds no numbers"),
    "a type": (structure(named_type), "neither a group nor numbers"),
    "a member twice": (members(("config.json", '{"a": 1}')), "'config.json' twice"),
    "in capitals": (members(("CONFIG.json", "{}")), "'CONFIG.json' twice"),
    "outside": (members(("assets/../../x", "{}")), "outside of its folder"),
    "unknown": (members(("run.py", "{}")), "unknown member 'run.py'"),
    "a bomb of text": (
        members(("metadata.json", bytes(1 << 27)), method=zipfile.ZIP_DEFLATED, parts=PARTS[1:]),
        "unpacks to",
    ),
    "a bomb of an asset": (members(("assets/a", bytes(1 << 27)), method=zipfile.ZIP_DEFLATED), "unpacks to 134217728"),
    "packed strangely": (members(method=zipfile.ZIP_LZMA), "packed in an unusual way"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_two_things_or_reaches_out_is_refused(name, tmp_path):
    make, reason = REFUSED[name]
    path = tmp_path / "m.keras"
    make(path)
    (tmp_path / "parts").mkdir()
    try:
        answer = take_apart(str(path), tmp_path / "parts")
    except ModelError as error:
        answer = str(error)
    assert isinstance(answer, str)
    assert re.search(reason, answer)


def test_bytes_before_an_archive_and_behind_it_are_refused(tmp_path):
    content = archive(tmp_path / "a.keras", PARTS).read_bytes()
    for number, changed in enumerate([content + b"more", content[:-2] + b"\x04\0more"]):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / "b.keras").write_bytes(changed)
        assert "follow the end" in take_apart(str(tmp_path / "b.keras"), tmp_path / f"{number}")
    (tmp_path / "honest").mkdir()
    assert take_apart(str(tmp_path / "a.keras"), tmp_path / "honest")[0] == ".keras"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" + b"[]," * 600_000 + b"[]]", "more than 1000000 values"),
        (b"[" * 100_000, "nested more than 400 deep"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' twice"),
        (b" " * (1 << 26) + b"[]", "bytes, more than"),
    ],
    ids=["values", "depth", "keys", "size"],
)
def test_json_is_bounded_before_it_is_built(content, reason):
    with pytest.raises(ValueError, match=reason):
        parse_json(content)


def test_finding_and_opening_say_the_same(tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: x * 2, name="secret")])
    model.save(tmp_path / "m.keras")
    [finding, *_] = trust.examine_keras(tmp_path / "m.keras")
    assert finding.severity == "refused"
    assert finding.where.startswith("/config/layers/1")
    with pytest.raises(ModelError) as raised:
        open_source(tmp_path / "m.keras")
    assert str(raised.value) == finding.reason
