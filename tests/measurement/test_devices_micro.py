"""Microcontrollers and neural processors: TensorFlow Lite Micro's answers and arena, Vela's cycles and fallbacks."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfcompress
from tfcompress.cli import main
from tfcompress.errors import DeviceError, ModelError
from tfcompress.measurement import LatencyOptions
from tfcompress.measurement.devices.local import LocalDevice
from tfcompress.measurement.devices.modelled.ethos_u import EthosUDevice, fallbacks
from tfcompress.measurement.devices.modelled.tflm import TflmDevice, arena_bytes
from tfcompress.measurement.measuring import measure
from tfcompress.quantization import supported_ops
from tfcompress.system.quiet import converter_silenced
from tfcompress.tflite import flatbuffer

RESNET = "mlperf_resnet8/pretrainedResnet_quant.tflite"
FLOAT_RESNET = "mlperf_resnet8/pretrainedResnet.tflite"
LATENCY = {"kind": "latency", "name": "model.tflite"}


@pytest.fixture(scope="module")
def tflm():
    pytest.importorskip("tflite_micro", reason="the extra [tflm] is not installed")
    return TflmDevice()


@pytest.fixture(scope="module")
def ethos_u():
    pytest.importorskip("ethosu", reason="the extra [ethos-u] is not installed")
    return EthosUDevice("ethos-u55-128")


def outputs(device, model, inputs, folder, **request):
    result = folder / "out.npz"
    device.run(
        {"kind": "outputs", "name": "model.tflite", **request}, {"model": model, "inputs": inputs}, {"outputs": result}
    )
    with np.load(result) as arrays:
        return dict(arrays)


def test_micro_is_as_accurate_as_this_machine(tflm, shared_data):
    with np.load(shared_data / "cifar10/cifar10_subset.npz") as arrays:
        data = arrays["x_test"][:200].astype(np.float32), arrays["y_test"][:200]
    here, there = measure(shared_data / RESNET, data, device=["local", tflm], latency=LatencyOptions(runs=1, warmup=0))
    assert here.samples == there.samples == 200
    # Its kernels round other halves than XNNPACK's: a logit in thirty is a step off, and few answers change. On all
    # 500 pictures 0.894 and 0.884.
    assert there.accuracy == pytest.approx(here.accuracy, abs=0.02)


def test_micro_in_one_table_with_this_machine(tflm, shared_data, capsys):
    line = [f"--model={shared_data / RESNET}", "--device=local,tflm", "--runs=2", "--warmup=0", "--json=-"]
    assert main(["measure", *line]) == 0
    here, there = json.loads(capsys.readouterr().out)
    assert (here["kind"], there["kind"]) == ("measured", "modelled")
    assert there["latency"] is None
    assert 50_000 < there["estimates"]["arena bytes"] < 60_000  # 49152 bytes of activations are in it
    assert "CONV_2D" in there["device"]["details"]["operations"]


def test_arena_of_the_reported_size_suffices_and_a_smaller_one_does_not(tflm, shared_data):
    size = int(tflm.run(LATENCY, {"model": shared_data / RESNET}, {})["estimates"]["arena bytes"])
    code = (
        "import sys; from tflite_micro.python.tflite_micro import runtime;"
        "runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2])); print('fits')"
    )

    def fits(number):
        line = [sys.executable, "-c", code, str(shared_data / RESNET), str(number)]
        return b"fits" in subprocess.run(line, check=False, capture_output=True).stdout

    assert [fits(size), fits(size - 4096)] == [True, False]


def test_micro_starts_an_lstm_anew_or_carries_its_state(tflm, shared_data, tmp_path):
    x = np.random.default_rng(0).integers(-128, 128, (4, 28, 28), np.int8)
    model = shared_data / "mnist/trained_lstm_int8.tflite"
    known = LocalDevice().run({**LATENCY, "runs": 1, "warmup_runs": 0}, {"model": model}, {})["inputs"]
    inputs = tmp_path / "in.npz"
    np.savez(inputs, **{known[0]["name"]: np.concatenate([x[:1]] * 3)})
    (anew,) = outputs(tflm, model, inputs, tmp_path, reset_state=True).values()
    assert (anew == anew[:1]).all()


def test_micro_names_the_operation_that_it_does_not_know(tflm, tmp_path):
    layers = [keras.layers.Input((4, 4, 4, 2)), keras.layers.Conv3D(2, 2)]
    model = keras.Sequential(layers)
    path = tmp_path / "conv3d.tflite"
    tfcompress.convert(model, target="float32").save(path)
    with pytest.raises(ModelError, match=r"must know every operation of model\.tflite\. Received: CONV_3D") as caught:
        tflm.run(LATENCY, {"model": path}, {})
    assert "\n" not in str(caught.value)


def in_int8(function):
    """The float file of a function with every float tensor called int8, whether a kernel takes that or not."""
    import tensorflow as tf

    signature = [tf.TensorSpec((1, 4, 4, 4), tf.float32)]
    concrete = tf.function(function, input_signature=signature).get_concrete_function()
    with converter_silenced():
        content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    model, schema = flatbuffer.parse(content), flatbuffer.schema()
    for tensor in model.subgraphs[0].tensors:
        if flatbuffer.type_name(tensor) == "FLOAT32":
            values = flatbuffer.constant(model, tensor)
            tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1], [0]
            if values is not None:
                tensor.buffer = flatbuffer.new_buffer(model, np.ones(values.shape, np.int8))
    return model


def floats_only():
    """A function by operator that TFLite Micro has for float32 alone."""
    import tensorflow as tf

    return {
        "CEIL": tf.math.ceil,
        "COS": tf.cos,
        "EXP": tf.exp,
        "FLOOR": tf.floor,
        "FLOOR_DIV": lambda x: tf.math.floordiv(x, x + 1),
        "FLOOR_MOD": lambda x: tf.math.floormod(x, x + 1),
        "L2_POOL_2D": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),  # TensorFlow has no op for it: renamed below
        "LOG": tf.math.log,
        "NEG": tf.negative,
        "ROUND": tf.round,
        "SIN": tf.sin,
        "SQRT": tf.sqrt,
        "SQUARE": tf.square,
    }


def also_integers():
    import tensorflow as tf

    return {
        "ABS": tf.abs,
        "BATCH_MATMUL": lambda x: tf.matmul(x, x),
        "REDUCE_MIN": lambda x: tf.reduce_min(x, axis=-1),
        "REVERSE_V2": lambda x: tf.reverse(x, [1]),
        "RSQRT": tf.math.rsqrt,
    }


def test_what_the_target_says_of_micros_kernels_is_what_they_do(tflm, tmp_path):
    assert set(floats_only()) == supported_ops.MICRO_IN_FLOAT
    for name, function in (floats_only() | also_integers()).items():
        model = in_int8(function)
        if name == "L2_POOL_2D":
            (code,) = model.operatorCodes
            code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.L2_POOL_2D
        assert name in flatbuffer.op_counts(model)
        assert name in supported_ops.MICRO
        (tmp_path / f"{name}.tflite").write_bytes(flatbuffer.pack(model))
    code = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
for path in sys.argv[1:]:
    try:
        interpreter = runtime.Interpreter.from_file(path, arena_size=100_000)
        interpreter.set_input(np.ones((1, 4, 4, 4), np.int8), 0)
        interpreter.invoke()
        print(path)
    except RuntimeError:
        pass
"""
    command = [sys.executable, "-c", code, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {Path(line).stem for line in done.stdout.splitlines()} == set(also_integers())


def test_micro_times_nothing(tflm, shared_data):
    with pytest.raises(DeviceError, match="it times nothing"):
        tflm.run({**LATENCY, "kind": "profile"}, {"model": shared_data / RESNET}, {})


def test_arena_without_a_number_is_an_error():
    with pytest.raises(DeviceError, match="Received: nothing"):
        arena_bytes("")


def test_vela_says_cycles_memory_and_layers(ethos_u, shared_data):
    answer = ethos_u.run(LATENCY, {"model": shared_data / RESNET}, {})
    estimates = answer["estimates"]
    assert estimates["CPU operators"] == 0
    assert 0 < estimates["NPU cycles"] <= estimates["cycles"]
    assert estimates["SRAM bytes"] > 32 * 32 * 16  # the largest activation
    # 500 MHz is the clock of the system that Vela takes for this processor.
    assert estimates["inference ms"] == pytest.approx(estimates["cycles"] / 500e3)
    profile = ethos_u.run({**LATENCY, "kind": "profile"}, {"model": shared_data / RESNET}, {})["profile"]
    assert sum(op["name"].startswith("Conv2D") for op in profile["ops"]) == 9
    assert sum(op["ms"] for op in profile["ops"]) == pytest.approx(profile["whole_ms"], rel=0.1)


def test_smaller_processor_needs_more_cycles(ethos_u, shared_data):
    counts = [
        EthosUDevice(f"ethos-u55-{macs}").run(LATENCY, {"model": shared_data / RESNET}, {})["estimates"]["NPU cycles"]
        for macs in (32, 256)
    ]
    assert counts[0] > 2 * counts[1]


def test_vela_refuses_a_model_in_floats(ethos_u, shared_data):
    with pytest.raises(
        ModelError, match=r"runs integers only\. Received: model\.tflite, of which every operation"
    ) as caught:
        ethos_u.run(LATENCY, {"model": shared_data / FLOAT_RESNET}, {})
    assert "\n" not in str(caught.value)


def test_vela_lists_what_falls_back_to_the_cpu(ethos_u, tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    x = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)
    path = tmp_path / "float_ends.tflite"
    tfcompress.convert(model, representative_data=x, target="cpu-int8-float-io").save(path)
    record = measure(path, device="ethos-u55-128", latency=LatencyOptions(profile=True))
    assert record.kind == "modelled" and record.latency is None
    assert record.estimates["CPU operators"] == 2
    assert record.device.details["CPU operators"].startswith(("QUANTIZE, DEQUANTIZE", "DEQUANTIZE, QUANTIZE"))
    assert {op.name for op in record.profile.off_delegate} == {"Quantize", "Dequantize"}
    reasons = {op.name: op.reason for op in record.profile.off_delegate}
    assert reasons["Dequantize"] == "Unsupported opType" and "Float32" in reasons["Quantize"]


def test_vela_on_data_is_one_clear_line(ethos_u, shared_data, tmp_path):
    with pytest.raises(DeviceError, match="modelled by a compiler and runs nothing"):
        outputs(ethos_u, shared_data / RESNET, tmp_path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x1c\0\0\0TFL3" + bytes(200)], ids=["empty", "junk", "cut off"])
@pytest.mark.parametrize("device", ["tflm", "ethos-u65-256"])
def test_damaged_file_is_one_clear_line(device, content, tmp_path, request):
    request.getfixturevalue("tflm" if device == "tflm" else "ethos_u")
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.tflite|model bytes") as caught:
        measure(path, device=device)
    assert "\n" not in str(caught.value)


def test_extra_that_is_missing_says_how_to_install_it(shared_data, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for device, extra in ((TflmDevice(), "tflm"), (EthosUDevice("ethos-u85-256"), "ethos-u")):
        with pytest.raises(DeviceError, match=rf"pip install -c constraints.txt -e '\.\[{extra}\]'"):
            device.run(LATENCY, {"model": shared_data / RESNET}, {})


def test_fallbacks_of_nothing_are_none():
    assert fallbacks("Network summary\nCPU operators = 0 (0.0%)") == []
