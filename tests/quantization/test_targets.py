"""Targets as values, and what each one's device refuses."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.conversion import compatibility, verification
from tfcompress.errors import ConversionError, ModelError, StrictError
from tfcompress.quantization import quantizers
from tfcompress.quantization.targets import TARGETS, Target
from tfcompress.tflite import flatbuffer, metadata
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(128)


@pytest.fixture(scope="module")
def model():
    model = compiled(tiny_cnn())
    model.fit(X, Y, epochs=6, batch_size=32, verbose=0)
    return model


def weight_scales(content, op):
    parsed = flatbuffer.parse(content)
    graph = parsed.subgraphs[0]
    kernels = [graph.tensors[o.inputs[1]] for o in graph.operators if flatbuffer.op_name(parsed, o) == op]
    return [len(kernel.quantization.scale) for kernel in kernels]


def kernel_types(content):
    parsed = flatbuffer.parse(content)
    graph = parsed.subgraphs[0]
    ops = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    found = [o for o in graph.operators if flatbuffer.op_name(parsed, o) in ops]
    return [flatbuffer.type_name(graph.tensors[o.inputs[1]]) for o in found]


def test_wrong_targets_are_refused_when_they_are_made():
    with pytest.raises(ValueError, match="weights must be one of"):
        Target("mine", "", "int7")
    with pytest.raises(ValueError, match="with float32 activations"):
        Target("mine", "", "float32", input_type="int8")
    with pytest.raises(ValueError, match="with int16 activations"):
        dataclasses.replace(TARGETS["cpu-int8"], activations="int16")
    with pytest.raises(ValueError, match="need integer weights"):
        Target("mine", "", "float16", "int8")


@pytest.mark.parametrize("backend", ["tensorflow", "ai-edge-quantizer"])
@pytest.mark.parametrize("name", ["cpu-int8", "cpu-int8-float-io", "cpu-uint8-io", "micro"])
def test_both_quantizers_make_the_same_file_of_the_same_ranges(model, name, backend):
    result = tfc.convert(model, target=name, representative_data=X, backend=backend)
    assert result.backend == backend
    file = open_model(result.tflite)
    assert str(file.inputs[0].dtype) == TARGETS[name].input_type
    other = open_model(tfc.convert(model, target=name, representative_data=X).tflite)
    ours, theirs = (next(iter(m.run(X).values())) for m in (file, other))
    step = max(file.outputs[0].scale or 0, 0.03)  # of the logits, whose type is float for one target
    assert np.abs(ours - theirs).max() <= 1.01 * step
    dense = {"micro": 1}.get(name, 3)
    assert weight_scales(result.tflite, "FULLY_CONNECTED") == [dense]
    assert weight_scales(result.tflite, "CONV_2D") == [8, 8]


def test_int16_activations_come_closer_to_float(model):
    by_target = {
        name: tfc.convert(model, target=name, representative_data=X).tflite for name in ("cpu-int8", "cpu-int16x8")
    }
    expected = model.predict(X, verbose=0)
    errors = {name: np.abs(open_model(tflite).run(X)["logits"] - expected).mean() for name, tflite in by_target.items()}
    assert errors["cpu-int16x8"] < errors["cpu-int8"]
    assert kernel_types(by_target["cpu-int16x8"]) == ["INT8"] * 4


def test_int4_weights_are_where_a_kernel_for_them_is(model):
    result = tfc.convert(model, target="cpu-int4", representative_data=X)
    assert kernel_types(result.tflite) == ["INT4", "INT8", "INT4", "INT4"]
    assert verification.forbidden_floats(result.tflite, result.target) == []


@pytest.mark.parametrize(
    ("name", "expected"), [("cpu-int4", "2.11.0"), ("cpu-int16x8", "2.6.0"), ("cpu-int8", "1.14.0")]
)
def test_a_file_says_which_runtime_has_kernels_for_its_types(model, name, expected):
    found = tfc.convert(model, target=name, representative_data=X, backend="ai-edge-quantizer")
    assert metadata.read(found.tflite).min_runtime_version == expected


def test_rules_mix_precisions(model):
    rules = [("*", "*", "int8"), ("pointwise*", "*", "int4"), {"pattern": "logits*", "precision": None}]
    result = tfc.convert(model, target="cpu-int8", representative_data=X, rules=rules)
    assert kernel_types(result.tflite) == ["INT8", "INT8", "INT4", "FLOAT32"]
    assert result.backend == "ai-edge-quantizer"
    assert result.parity.argmax_agreement >= 0.9


@pytest.mark.parametrize("name", ["cpu-int16x8", "cpu-int4"])
def test_a_quantizer_may_store_constants_behind_the_flatbuffer(name):
    """From 256 kB of constants on ai-edge-quantizer does; metadata, the fixed batch and the layers' account read on."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 700)).astype(np.float32)
    model = keras.Sequential(
        [keras.Input((700,), name="x"), layers.Dense(800, name="wide"), layers.Dense(3, name="head")]
    )
    result = tfc.convert(model, target=dataclasses.replace(TARGETS[name], static=True), representative_data=x)
    wanted = model.predict(x, verbose=0)
    error = open_model(result.tflite).run(x)["head"] - wanted
    assert 10 * np.log10((wanted**2).mean() / (error**2).mean()) > (40 if name == "cpu-int16x8" else 12)
    assert result.layers()[0].error.weight_sqnr_db > 12
    raw = quantizers.quantize(
        result.hub, quantizers.complete_ranges(result.hub, result.calibration.ranges), TARGETS[name]
    )
    plain = flatbuffer.parse(raw)
    assert len(raw) > 256 * 1024 and max(len(b.data) for b in plain.buffers if b.data is not None) >= 700 * 800 // 2
    with pytest.raises(ModelError, match="damaged"):
        flatbuffer.parse(raw[:-64])


def test_tensorflows_quantizer_says_what_it_lacks(model):
    with pytest.raises(ValueError, match="int16 activations"):
        tfc.convert(model, target="cpu-int16x8", representative_data=X, backend="tensorflow")
    with pytest.raises(ValueError, match="backend must be one of tensorflow, ai-edge-quantizer"):
        tfc.convert(model, target="cpu-int8", representative_data=X, backend="mlir")


@pytest.mark.parametrize("name", ["dynamic", "float16", "gpu-fp16"])
def test_float_files_become_weight_only_files(model, name):
    hub = tfc.convert(model, target="float32").tflite
    path = _saved(hub)
    result = tfc.convert(path, target=dataclasses.replace(TARGETS[name], static=False))
    assert result.size_bytes < len(hub) * 1.05
    answers = open_model(result.tflite).run(X)["logits"]
    assert np.mean(answers.argmax(1) == model.predict(X, verbose=0).argmax(1)) >= 0.97
    kinds = {"dynamic": {"INT8"}, "float16": {"FLOAT32"}, "gpu-fp16": {"FLOAT32"}}[name]
    assert set(kernel_types(result.tflite)) == kinds  # half-precision kernels are unpacked in front of the operator


def _saved(content):
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp()) / "hub.tflite"
    path.write_bytes(content)
    return path


def with_layer(layer):
    image = keras.Input((8, 8, 2), name="image", batch_size=1)
    x = layers.Conv2D(4, 3, name="stem")(image)
    return keras.Model(image, layer(x), name="net")


def test_a_device_names_the_operator_it_lacks_and_the_layer():
    class Sine(keras.layers.Layer):
        def call(self, x):
            return keras.ops.sin(x)

    result = tfc.convert(with_layer(Sine(name="wave")), target="float32")
    complaints = compatibility.complaints(result.tflite, TARGETS["ethos-u"])
    assert "it has no SIN (layer wave)" in complaints
    with pytest.raises(ConversionError, match=r"ethos-u cannot run net.*no SIN \(layer wave\)"):
        compatibility.check(result.tflite, TARGETS["ethos-u"], "net")


def test_a_device_names_the_operator_it_has_in_float_only():
    model = with_layer(layers.Activation("softplus", name="soft"))
    assert tfc.convert(model, target="cpu-int8", representative_data=X).ops["LOG"] == 1
    with pytest.raises(ConversionError, match=r"micro cannot run net: its EXP takes float32 only \(layer .*soft"):
        tfc.convert(model, target="micro", representative_data=X)
    any_type = dataclasses.replace(TARGETS["micro"], name="mine", in_float=frozenset())
    assert tfc.convert(model, target=any_type, representative_data=X).float_tensors == ()


def test_strict_mode_lets_named_operators_pass():
    class Erf(keras.layers.Layer):
        def call(self, x):
            return keras.ops.floor(x)  # TFLite has FLOOR in float only

    model = with_layer(Erf(name="steps"))
    with pytest.raises(StrictError, match=r"FLOOR \(layer steps.*--allow_float"):
        tfc.convert(model, target="cpu-int8", representative_data=X)
    result = tfc.convert(model, target="cpu-int8", representative_data=X, allow_float=["FLOOR"])
    assert result.float_tensors
    with pytest.raises(StrictError):
        tfc.convert(model, target="cpu-int8", representative_data=X, allow_float=["RFFT*"])


def test_what_was_checked_by_rule_is_labelled():
    result = tfc.convert(with_layer(layers.Flatten(name="flat")), target="edge-tpu", representative_data=X)
    assert "documented rules" in str(result)
    assert open_model(result.tflite).inputs[0].dtype == np.uint8
