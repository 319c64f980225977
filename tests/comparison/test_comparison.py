"""What is lost between two files: nothing between equal ones, what was put in between others, and where they part."""

import dataclasses
import json
import math

import numpy as np
import pytest

from models import striped_pictures, tiny_cnn
from tfcompress.comparison.agreement import compare
from tfcompress.comparison.layer_comparison import layer_errors, layer_reports, ranking
from tfcompress.comparison.layer_errors import report_table
from tfcompress.comparison.op_matching import match
from tfcompress.conversion.converter import convert
from tfcompress.errors import DataError, DeviceError, ModelError
from tfcompress.metrics.differences import Difference
from tfcompress.tflite import flatbuffer, run_interpreter

X, _ = striped_pictures(64)
GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def contents():
    model = tiny_cnn()
    model(X, training=True)
    files = {name: convert(model, target=name).tflite for name in ("float32", "float16")}
    for name in ("cpu-int8", "cpu-int8-float-io"):
        files[name] = convert(model, target=name, representative_data=X).tflite
    return files


def renamed(content):
    """The same file with names that say nothing."""
    model = flatbuffer.parse(content)
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"t{number * 7 % 31}_{number}".encode()
    return flatbuffer.pack(model)


def with_weights_of(content, number, change):
    """The file with other integers in the weights of one op."""
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    buffer = model.buffers[graph.tensors[int(graph.operators[number].inputs[1])].buffer]
    buffer.data = change(np.asarray(buffer.data).view(np.int8)).view(np.uint8)
    return flatbuffer.pack(model)


def test_difference_by_hand():
    apart = Difference.of(np.array([3, -4], np.float32), np.array([6, -7], np.int8), second_scale=(0.5, 0))
    assert (apart.count, apart.signal, apart.noise, apart.largest, apart.mean) == (2, 25.0, 0.25, 0.5, 0.25)
    assert apart.sqnr_db == pytest.approx(20.0)
    assert apart.cosine == pytest.approx((9 + 14) / math.sqrt(25 * 21.25))


def test_difference_adds_up_over_blocks():
    a, b = GENERATOR.normal(size=(2, 50_000)).astype(np.float32)
    whole = Difference.of(a, b)
    parts = Difference.of(a[:7], b[:7]) + Difference.of(a[7:], b[7:])
    assert parts.count == whole.count and parts.largest == whole.largest
    assert parts.noise == pytest.approx(whole.noise, rel=1e-12)  # sums of doubles in another order


def test_difference_leaves_out_what_is_not_finite():
    apart = Difference.of(np.array([1.0, np.nan, -np.inf]), np.array([1.0, 2.0, -np.inf]))
    assert (apart.count, apart.sqnr_db) == (1, math.inf)


@pytest.mark.parametrize("name", ["float32", "cpu-int8", "cpu-int8-float-io"])
def test_a_file_loses_nothing_against_itself(contents, name):
    errors = layer_errors(contents[name], contents[name], {"image": X[:4]})
    assert len(errors) == 8
    assert {error.sqnr_db for error in errors} == {math.inf}
    assert {error.cosine for error in errors} == {1.0} or min(error.cosine for error in errors) > 1 - 1e-12
    assert {error.weight_sqnr_db for error in errors} == {math.inf, None}
    assert ranking(errors) == []


@pytest.mark.parametrize("name", ["cpu-int8", "cpu-int8-float-io"])
def test_int8_loses_what_eight_bits_lose(contents, name):
    errors = layer_errors(contents["float32"], contents[name], {"image": X[:16]})
    assert [error.layer for error in errors][:4] == ["stem_relu", "depthwise_relu", "pointwise", "residual"]
    assert len(errors) == 8
    for error in errors:
        assert 25 < error.sqnr_db < 60 and error.cosine > 0.99
        assert (
            error.own_sqnr_db > error.sqnr_db - 1
        )  # alone a layer loses no more than with all before it, but for noise
        assert error.weight_sqnr_db is None or 40 < error.weight_sqnr_db < 60
    moves = {error.layer: error.own_sqnr_db for error in errors if error.op in ("MAX_POOL_2D", "RESHAPE")}
    assert set(moves.values()) == {math.inf}  # they only move values
    assert all(error.op not in ("MAX_POOL_2D", "RESHAPE") for error in ranking(errors))


def test_half_precision_weights_are_compared(contents):
    errors = layer_errors(contents["float32"], contents["float16"], {"image": X[:4]})
    known = [error.weight_sqnr_db for error in errors if error.weight_sqnr_db is not None]
    assert len(known) == 4 and all(60 < value < 100 for value in known)  # 11 bits


def test_the_broken_layer_is_the_one_that_loses_by_itself(contents):
    broken = with_weights_of(contents["cpu-int8"], 2, lambda weights: np.roll(weights, 1))
    errors = layer_errors(contents["float32"], broken, {"image": X[:8]})
    assert ranking(errors)[0].layer == "pointwise"
    assert errors[2].weight_sqnr_db < 10 and errors[1].sqnr_db > 25
    assert errors[3].sqnr_db < 30 and errors[3].own_sqnr_db > 30  # the sum after it inherits, and is sound itself


def test_layers_are_found_without_names(contents):
    named = layer_errors(contents["float32"], contents["cpu-int8"], {"image": X[:4]})
    unnamed = layer_errors(contents["float32"], renamed(contents["cpu-int8"]), {"image": X[:4]})
    assert [error.index for error in unnamed] == [error.index for error in named]
    assert [error.sqnr_db for error in unnamed] == [error.sqnr_db for error in named]


def test_matching_passes_over_conversions(contents):
    models = [flatbuffer.parse(contents[name]) for name in ("float32", "cpu-int8-float-io")]
    pairs = match(*models)
    assert [pair.first for pair in pairs] == list(range(8))
    assert [pair.second for pair in pairs] == list(range(1, 9))  # QUANTIZE comes first


def test_reports_carry_origins_and_need_no_samples(contents):
    origins = {"tiny_1/residual_1/Add": "calibrated", "logits": "trained"}
    reports = layer_reports(contents["float32"], contents["cpu-int8"], {"image": X[:4]}, origins)
    by_layer = {report.operation.layer: report for report in reports}
    assert by_layer["residual"].origin == "calibrated" and by_layer["logits"].origin == "trained"
    assert by_layer["stem_relu"].origin == ""
    assert all(report.error is not None for report in reports)
    assert max(map(len, report_table(reports).splitlines())) <= 80
    json.dumps([report.to_json() for report in reports], allow_nan=False)
    dry = layer_reports(contents["float32"], contents["cpu-int8"], None)
    assert all(report.error is None for report in dry) and report_table(dry)


def test_equal_files_agree(contents):
    found = compare(contents["cpu-int8"], contents["cpu-int8"], X)
    assert (found.parting, found.first_difference, found.random, found.samples) == (None, None, False, 32)
    assert found.outputs[0].same_argmax == 1.0 and found.outputs[0].sqnr_db == math.inf
    assert "exact" in str(found)


def test_float_and_int8_agree(contents):
    found = compare(contents["float32"], contents["cpu-int8"], X, samples=64)
    assert found.samples == 64 and found.outputs[0].same_argmax > 0.9
    assert found.outputs[0].max_difference < 8 * found.outputs[0].step
    assert found.parting is None
    assert found.first_difference.index == 0  # rounding alone is more than one step of an output that has few


def test_the_first_tensor_that_parts_is_named(contents):
    broken = with_weights_of(contents["cpu-int8"], 2, lambda weights: np.roll(weights, 1))
    found = compare(contents["cpu-int8"], broken, X)
    assert found.parting.layer == found.first_difference.layer == "pointwise"
    assert found.parting.max_steps > 1
    assert "#2 pointwise (CONV_2D)" in str(found)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert record["parting"]["index"] == 2 and record["layers"][0]["sqnr_db"] == "inf"


def test_random_samples_are_told_and_repeatable(contents):
    found = compare(contents["float32"], contents["cpu-int8"])
    assert found.random and "random samples" in str(found)
    assert found == compare(contents["float32"], contents["cpu-int8"])
    assert found != compare(contents["float32"], contents["cpu-int8"], seed=1)


def test_other_inputs_are_refused(contents):
    import keras

    other = convert(keras.Sequential([keras.Input((3,), name="image"), keras.layers.Dense(3)]), target="float32").tflite
    with pytest.raises(DataError, match="takes shape"):
        compare(contents["float32"], other)
    two = keras.Input((8, 8, 2), name="a"), keras.Input((8, 8, 2), name="b")
    both = convert(keras.Model(two, keras.layers.Add()(list(two))), target="float32").tflite
    with pytest.raises(DataError, match="same inputs"):
        compare(contents["float32"], both)


def test_several_inputs_and_outputs_are_matched_by_name():
    import keras

    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    total = keras.layers.Add(name="total")([left, right])
    model = keras.Model([left, right], [total, keras.layers.Dense(2, name="head")(total)])
    data = {name: GENERATOR.normal(size=(40, 4)).astype(np.float32) for name in ("left", "right")}
    integer = convert(model, representative_data=data).tflite
    found = compare(convert(model, target="float32").tflite, integer, data)
    assert len(found.outputs) == 2 and all(output.sqnr_db > 20 for output in found.outputs)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"steps": -1.0}])
def test_wrong_arguments(contents, wrong):
    with pytest.raises(ValueError, match="Received"):
        compare(contents["float32"], contents["float32"], **wrong)


def test_real_pairs(shared_data):
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
        pictures = arrays["x_test"][:32].astype(np.float32)
    folder = shared_data / "mlperf_resnet8"
    found = compare(folder / "pretrainedResnet.tflite", folder / "pretrainedResnet_quant.tflite", pictures)
    assert len(found.layers) == 16 and found.outputs[0].same_argmax > 0.9 and found.parting is None
    assert found.layers[0].layer == "activation" and found.layers[0].weight_sqnr_db > 40


def test_real_autoencoder_shows_its_weak_layers(shared_data):
    frames = np.fromfile(shared_data / "mlperf_ad/normal_id_01_00000000_hist_librosa.bin", np.float32).reshape(200, 128)
    windows = np.stack([frames[i : i + 5].reshape(-1) for i in range(16)])
    contents = [(shared_data / f"mlperf_ad/ad01_{name}.tflite").read_bytes() for name in ("fp32", "int8")]
    errors = layer_errors(*contents, {"input_1": windows})
    assert len(errors) == 10 and min(error.weight_sqnr_db for error in errors) < 25  # one scale for a whole Dense layer
    assert ranking(errors)[0].own_sqnr_db < 20


def test_real_lstm(shared_data):
    files = [shared_data / f"mnist/trained_lstm{name}.tflite" for name in ("", "_int8")]
    found = compare(*files)
    assert next(error.op for error in found.layers) == "UNIDIRECTIONAL_SEQUENCE_LSTM"
    assert found.layers[0].weight_sqnr_db > 30


def test_a_file_that_litert_refuses_is_one_error(shared_data):
    path = shared_data / "person_detect/person_detect.tflite"
    with pytest.raises(ModelError, match=r"person_detect\.tflite: quantized_dimension"):
        compare(path, path)


def test_errors_come_back_from_the_child(tmp_path):
    with pytest.raises(ModelError, match="must exist"):
        run_interpreter(
            "tfcompress.comparison.agreement:answer", {"first": str(tmp_path / "a"), "second": "b"}, place="a"
        )
    with pytest.raises(DeviceError, match="gave no answer"):
        run_interpreter("tfcompress.no_such_module:f", {}, place="a")


def test_a_loop_is_ended(tmp_path):
    with pytest.raises(DeviceError, match="within 0 s"):
        run_interpreter("tfcompress.tflite.trial:attempt", {"model": "x"}, place="the file", timeout_seconds=0.01)


def test_layer_errors_are_values(contents):
    error = layer_errors(contents["float32"], contents["cpu-int8"], {"image": X[:2]}, own=False)[0]
    assert error.own_sqnr_db is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        error.layer = "x"


def _mutations(content, count):
    random = np.random.default_rng(11)
    for number in range(count):
        changed = np.frombuffer(content, np.uint8).copy()
        ends = np.concatenate([np.arange(8, 1500), np.arange(len(changed) - 1500, len(changed))])
        places = random.choice(ends, random.integers(1, 5)) if number % 2 else random.integers(8, len(changed), 5)
        changed[places] = random.choice([0, 1, 127, 255], len(places))
        yield changed.tobytes()


@pytest.mark.fuzz
def test_mutated_files_end_in_an_answer_or_one_error(contents, tmp_path):
    path, whole = tmp_path / "m.tflite", tmp_path / "w.tflite"
    whole.write_bytes(contents["cpu-int8"])
    outcomes = {"answer": 0, "error": 0}
    for changed in _mutations(contents["cpu-int8"], 12):
        path.write_bytes(changed)
        try:
            answer = run_interpreter(
                "tfcompress.comparison.agreement:answer",
                {"first": str(whole), "second": str(path)},
                place="the files",
                timeout_seconds=60,
            )
            outcomes["answer"] += bool(answer["text"])
        except (ModelError, DataError, DeviceError, ValueError):
            outcomes["error"] += 1
    assert sum(outcomes.values()) == 12
