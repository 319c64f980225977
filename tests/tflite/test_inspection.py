"""What a file holds, counted: bytes that add up, arithmetic by hand, real files of other people, and damaged ones."""

import dataclasses
import io
import json
import math
import zipfile

import numpy as np
import pytest

from models import striped_pictures, tiny_cnn
from tfcompress.conversion.converter import convert
from tfcompress.errors import ModelError
from tfcompress.tflite import constant_tensors, flatbuffer
from tfcompress.tflite.inspection import KINDS, bytes_by_kind, inspect
from tfcompress.tflite.op_summaries import layer_names
from tfcompress.tflite.operands import buffer_roles, multiply_adds

X, _ = striped_pictures(64)
REAL = [
    "mlperf_resnet8/pretrainedResnet.tflite",
    "mlperf_resnet8/pretrainedResnet_quant.tflite",
    "mlperf_ad/ad01_fp32.tflite",
    "mlperf_ad/ad01_int8.tflite",
    "mlperf_sww/str_ww_ref_model.tflite",
    "mnist/trained_lstm.tflite",
    "mnist/trained_lstm_int8.tflite",
    "person_detect/person_detect.tflite",
]


@pytest.fixture(scope="module")
def contents():
    model = tiny_cnn()
    model(X, training=True)
    files = {name: convert(model, target=name).tflite for name in ("float32", "float16", "dynamic")}
    return {**files, "int8": convert(model, representative_data=X).tflite}


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8"])
def test_bytes_by_kind_add_up_to_the_file(contents, name):
    found = inspect(contents[name], run=False)
    assert tuple(found.bytes_by_kind) == KINDS
    assert sum(found.bytes_by_kind.values()) == found.size_bytes == len(contents[name])
    assert found.bytes_by_kind["weights"] == sum(op.weight_bytes for op in found.operations)


def test_weights_are_counted_by_hand(contents):
    values = 8 * 3 * 3 * 2 + 3 * 3 * 8 + 8 * 8 + 32 * 3  # stem, depthwise, pointwise, logits
    assert inspect(contents["float32"], run=False).bytes_by_kind["weights"] == 4 * values
    assert inspect(contents["float16"], run=False).bytes_by_kind["weights"] == 2 * values
    assert inspect(contents["int8"], run=False).bytes_by_kind["weights"] == values


def test_multiply_adds_are_counted_by_hand(contents):
    expected = {
        "stem_relu": 8 * 8 * 8 * (3 * 3 * 2),
        "depthwise_relu": 8 * 8 * 8 * (3 * 3),
        "pointwise": 8 * 8 * 8 * 8,
        "logits": 32 * 3,
    }
    for content in contents.values():
        found = inspect(content, run=False)
        assert {op.layer: op.multiply_adds for op in found.operations if op.multiply_adds} == expected
        assert found.multiply_adds == sum(expected.values())


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "expected"),
    [
        (
            "CONV_2D",
            [(2, 8, 8, 6), (4, 3, 3, 3), (4,)],
            [(2, 8, 8, 4)],
            2 * 64 * 4 * 27,
        ),  # two groups of three channels
        ("TRANSPOSE_CONV", [(4,), (5, 3, 3, 2), (1, 4, 4, 2)], [(1, 8, 8, 5)], 16 * 2 * 9 * 5),
        ("CONV_3D", [(1, 4, 4, 4, 2), (3, 3, 3, 2, 5)], [(1, 4, 4, 4, 5)], 64 * 5 * 27 * 2),
        ("FULLY_CONNECTED", [(7, 10), (3, 10), None], [(7, 3)], 7 * 30),
        ("BATCH_MATMUL", [(2, 5, 7), (2, 7, 3)], [(2, 5, 3)], 2 * 5 * 7 * 3),
        ("BATCH_MATMUL", [(2, 7, 5), (2, 7, 3)], [(2, 5, 3)], 2 * 5 * 7 * 3),  # the first one transposed
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", [(1, 28, 28), *[(20, 28)] * 4, *[(20, 20)] * 4], [(1, 28, 20)], 28 * 80 * 48),
        ("ADD", [(1, 8), (1, 8)], [(1, 8)], 0),
        ("CONV_2D", [(1, 8)], [(1, 8)], 0),
    ],
)
def test_multiply_adds_of_other_ops(op, inputs, outputs, expected):
    assert multiply_adds(op, inputs, outputs) == expected


def test_precision_and_granularity(contents):
    words = {name: inspect(content, run=False).precisions for name, content in contents.items()}
    assert set(words["float32"]) == {"float32"}
    assert set(words["int8"]) == {"int8"}
    assert words["float16"]["float16"] == 4  # the ops with weights
    found = inspect(contents["int8"], run=False)
    assert {op.granularity for op in found.operations if op.weights} == {"per channel"}
    assert found.inputs[0].shape == (None, 8, 8, 2) and found.inputs[0].dtype == "int8"
    assert found.outputs[0].scale > 0 and found.signatures[0].inputs.keys() == {"image"}


def test_int8_weights_under_float_activations_are_dynamic():
    import keras

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])  # smaller weights are left in float
    found = inspect(convert(model, target="dynamic").tflite, run=False)
    assert found.precisions == {"dynamic int8": 1}
    assert found.bytes_by_kind["weights"] == 64 * 64


@pytest.mark.parametrize(("name", "word"), [("dynamic_wi4_afp32", "dynamic"), ("weight_only_wi4_afp32", "stored")])
def test_four_bit_weights_of_another_quantizer(contents, tmp_path, capfd, name, word):
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    recipes = pytest.importorskip("ai_edge_quantizer.recipe")
    import keras

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="head")])
    plain = convert(model, target="float32").save(tmp_path / "float.tflite")
    worker = quantizer.Quantizer(str(plain))
    worker.load_quantization_recipe(getattr(recipes, name)())
    found = inspect(bytes(worker.quantize().quantized_model), run=False)
    assert f"{word} int4" in found.precisions
    assert found.bytes_by_kind["weights"] == 64 * 64 / 2
    assert sum(found.bytes_by_kind.values()) == found.size_bytes


def test_ranges_are_those_of_the_scale(contents):
    for op in inspect(contents["int8"], run=False).operations:
        low, high = op.output.range
        assert low == pytest.approx((-128 - op.output.zero_point) * op.output.scale)
        assert high == pytest.approx((127 - op.output.zero_point) * op.output.scale)


def test_sparsity_counts_exact_zeros():
    model = tiny_cnn()
    kernel = model.get_layer("logits").kernel.numpy().copy()
    kernel[:16] = 0
    model.get_layer("logits").kernel.assign(kernel)
    for target in ("float32", "dynamic"):
        found = inspect(convert(model, target=target).tflite, run=False)
        assert found.operations[-1].sparsity >= 0.5
        assert found.operations[0].sparsity < 0.1


def test_four_bit_integers_are_unpacked():
    schema = flatbuffer.schema()
    model, tensor, buffer = schema.ModelT(), schema.TensorT(), schema.BufferT()
    buffer.data = np.array([0x81, 0xF7, 0x0E], np.uint8)  # two a byte, the first in the low half; the last is padding
    model.buffers, tensor.buffer = [buffer], 0
    tensor.type, tensor.shape = schema.TensorType.INT4, np.array([5], np.int32)
    assert constant_tensors.integers(model, tensor).tolist() == [1, -8, 7, -1, -2]
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = np.array([0.5], np.float32), np.array([0])
    assert constant_tensors.real_values(model, tensor).tolist() == [0.5, -4.0, 3.5, -0.5, -1.0]
    assert constant_tensors.value_range(tensor) == (-4.0, 3.5)


def test_real_values_are_those_of_the_float_file(contents):
    models = {name: flatbuffer.parse(contents[name]) for name in ("float32", "int8")}
    weights = {}
    for name, model in models.items():
        graph = model.subgraphs[0]
        weights[name] = constant_tensors.real_values(model, graph.tensors[int(graph.operators[0].inputs[1])])
    steps = np.abs(weights["float32"]).max(axis=(1, 2, 3), keepdims=True) / 127
    assert np.all(np.abs(weights["float32"] - weights["int8"]) <= 0.501 * steps)  # half a step of the channel, rounded


def test_files_packed_behind_the_flatbuffer_are_metadata(contents):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("labels.txt", "cat\ndog\n")
    found = inspect(contents["int8"] + archive.getvalue(), run=False)
    assert found.metadata["file labels.txt"] == 8
    plain = bytes_by_kind(contents["int8"])
    assert found.bytes_by_kind["metadata"] - plain["metadata"] == len(archive.getvalue())
    assert sum(found.bytes_by_kind.values()) == found.size_bytes


def test_text_is_aligned_and_json_is_json(contents):
    for content in contents.values():
        found = inspect(content, run=False)
        assert max(map(len, str(found).splitlines())) <= 80
        record = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert len(record["operations"]) == len(found.operations)


def test_short_names_of_layers():
    assert layer_names(["model/a/Relu;model/b/x", "model/c/Add"]) == ["a", "c"]
    assert layer_names(["net_1/bn_1/batchnorm/add_1", "net_1/conv_1/convolution"]) == ["bn", "conv"]
    assert layer_names(["functional_1/dense/MatMul", "functional_1/dense_1/MatMul"]) == ["dense", "dense_1"]
    assert layer_names(["", "StatefulPartitionedCall:0"]) == ["", "StatefulPartitionedCall:0"]


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data, name):
    found = inspect(shared_data / name)
    assert sum(found.bytes_by_kind.values()) == found.size_bytes
    assert max(map(len, str(found).splitlines()[1:])) <= 80
    json.dumps(found.to_json(), allow_nan=False)
    assert (found.trial.refusal is None) == ("person_detect" not in name)
    assert found.bytes_by_kind["weights"] > found.size_bytes / 2


def test_known_numbers_of_real_files(shared_data):
    resnet = inspect(shared_data / REAL[1], run=False)
    assert resnet.ops == {
        "CONV_2D": 9,
        "ADD": 3,
        "AVERAGE_POOL_2D": 1,
        "RESHAPE": 1,
        "FULLY_CONNECTED": 1,
        "SOFTMAX": 1,
    }
    assert resnet.multiply_adds == pytest.approx(12.5e6, rel=0.01)  # MLPerf Tiny's own count
    assert resnet.min_runtime_version == "1.5.0"
    dense = inspect(shared_data / "mlperf_ad/ad01_int8.tflite", run=False)
    assert dense.multiply_adds == 2 * 640 * 128 + 6 * 128 * 128 + 2 * 128 * 8
    assert {op.granularity for op in dense.operations} == {"per tensor"}


def test_a_file_that_litert_refuses_is_shown_with_the_reason(shared_data):
    found = inspect(shared_data / REAL[-1])
    assert found.ops["DEPTHWISE_CONV_2D"] == 14
    assert "quantized_dimension must be in range" in found.trial.refusal
    assert "Conv2d_0/Conv2D_bias" in found.trial.refusal


def test_a_file_that_crashes_litert_crashes_a_child_only(contents):
    model = flatbuffer.parse(contents["float32"])
    tensor = model.subgraphs[0].tensors[int(model.subgraphs[0].operators[0].outputs[0])]
    tensor.type = flatbuffer.schema().TensorType.COMPLEX64
    found = inspect(flatbuffer.pack(model))
    assert found.trial.refusal is not None


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x1c\0\0\0TFL3", b"\x1c\0\0\0TFL3" + b"\xff" * 64])
def test_what_is_no_model_is_one_error(content):
    with pytest.raises(ModelError):
        inspect(content, run=False)


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(ModelError, match="must exist"):
        inspect(tmp_path / "gone.tflite")


def mutated(content, random, count):
    """Files with a few bytes changed, half of them where the tables are: at both ends."""
    for number in range(count):
        changed = np.frombuffer(content, np.uint8).copy()
        size = random.integers(1, 8)
        ends = np.concatenate([np.arange(8, 2000), np.arange(len(changed) - 2000, len(changed))])
        places = random.choice(ends, size) if number % 2 else random.integers(8, len(changed), size)
        changed[places] = random.choice([0, 1, 127, 128, 255], size)
        yield changed[: random.integers(8, len(changed))].tobytes() if number % 7 == 0 else changed.tobytes()


@pytest.mark.fuzz
def test_mutated_files_are_inspected_or_refused(contents):
    random = np.random.default_rng(3)
    outcomes = {"read": 0, "refused": 0}
    for content in (contents["int8"], contents["float16"]):
        for changed in mutated(content, random, 400):
            try:
                found = inspect(changed, run=False)
            except ModelError:
                outcomes["refused"] += 1
                continue
            outcomes["read"] += 1
            assert sum(found.bytes_by_kind.values()) == len(changed)
            assert str(found) and json.dumps(found.to_json(), allow_nan=False)
    assert min(outcomes.values()) > 50, outcomes


@pytest.mark.fuzz
def test_mutated_files_are_tried_in_a_child(contents):
    tried = 0
    for changed in mutated(contents["int8"], np.random.default_rng(5), 12):
        try:
            tried += inspect(changed).trial is not None
        except ModelError:
            continue
    assert tried


def test_roles_follow_half_precision_weights(contents):
    model = flatbuffer.parse(contents["float16"])
    sizes = [constant_tensors.buffer_bytes(model.buffers[number]) for number in buffer_roles(model)]
    assert sum(sizes) > 0 and math.isfinite(sum(sizes))


def test_an_inspection_is_a_value(contents):
    found = inspect(contents["int8"], run=False)
    assert found == inspect(contents["int8"], run=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "x"
