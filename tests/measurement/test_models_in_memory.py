"""What ``convert`` returns and Keras models are measured as they are: the same numbers as their files, under their own names."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.cli import main
from tfcompress.data import load_digits
from tfcompress.measurement import json_text

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits" / "digits.keras"
QUICK = {"latency": tfc.LatencyOptions(warmup=0, runs=2)}


@pytest.fixture(scope="module")
def data():
    digits = load_digits()
    return digits.x_test[:200], digits.y_test[:200]


@pytest.fixture(scope="module")
def model():
    return keras.models.load_model(DIGITS, compile=False)


@pytest.fixture(scope="module")
def result():
    return tfc.convert(DIGITS, representative_data=load_digits().x_train[:100], target="cpu-int8")


def test_a_conversion_is_measured_like_its_file(result, data, tmp_path):
    record = tfc.measure(result, data, **QUICK)
    path = result.save(tmp_path / "m.tflite")
    file = tfc.measure(path, data, **QUICK)
    assert (record.accuracy, record.model_sha256, record.data_sha256) == (
        file.accuracy,
        file.model_sha256,
        file.data_sha256,
    )
    assert record.model == record.name == "digits cpu-int8"
    assert record.call["model"] is None and file.call["model"] == str(path)


def test_a_list_of_all_kinds_of_models(model, result, data, tmp_path):
    path = result.save(tmp_path / "m.tflite")
    rows = tfc.measure([model, result, path, result.tflite], data, label=["a", "b", "c", "d"], **QUICK)
    assert [row.name for row in rows] == [f"{model.name} float32", "digits cpu-int8", "m.tflite", "model.tflite"]
    assert [row.label for row in rows] == ["a", "b", "c", "d"]
    assert rows[0].input_dtypes == ("float32",) and len({row.model_sha256 for row in rows[1:]}) == 1
    right = np.mean(model.predict(data[0], verbose=0).argmax(1) == data[1])
    assert rows[0].accuracy == pytest.approx(right, abs=1e-9)


def test_models_in_memory_run_in_turns(model, result):
    first, second = tfc.measure((model, result), latency=tfc.LatencyOptions(runs=3, warmup=0, interleave=True))
    assert first.ratio is None and second.ratio.to == f"{model.name} float32" and second.ratio.pairs == 3


def test_what_answers_are_compared_with_may_be_in_memory(model, result, data, tmp_path):
    float_file = tfc.convert(model, target="float32")
    found = [
        tfc.measure(result, data, reference=reference, **QUICK).reference
        for reference in (float_file.save(tmp_path / "f.tflite"), float_file.tflite, float_file, model)
    ]
    assert [each.file for each in found] == ["f.tflite", "model.tflite", *[f"{model.name} float32.tflite"] * 2]
    assert len({(each.same_answers, each.max_difference) for each in found}) == 1
    assert len({each.sha256 for each in found[:3]}) == 1


@pytest.mark.parametrize(
    ("missing", "message"),
    [("model", "names its file"), ("data", "names its data"), ("reference", "names its reference")],
)
def test_a_record_of_what_was_in_memory_says_what_it_lacks(result, data, tmp_path, capsys, missing, message):
    path = result.save(tmp_path / "m.tflite")
    np.savez(tmp_path / "test.npz", x=data[0], y=data[1])
    given = {"model": path, "data": tmp_path / "test.npz", "reference": path}
    given[missing] = data if missing == "data" else result
    record = tfc.measure(given["model"], given["data"], reference=given["reference"], **QUICK)
    (tmp_path / "r.json").write_text(json_text(record))
    assert json.loads((tmp_path / "r.json").read_text())[0]["call"][missing] is None
    assert main(["measure", f"--like={tmp_path}/r.json"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [3, None, object(), [3]], ids=["number", "none", "object", "list"])
def test_what_is_no_model(wrong):
    with pytest.raises(TypeError, match=r"model must be a \.tflite file, its bytes, a Conversion, or a Keras model"):
        tfc.measure(wrong)


def test_measuring_a_file_loads_no_framework():
    code = (
        "import sys, tfcompress as tfc\n"
        "tfc.measure('models/digits/digits_int8.tflite', latency=tfc.LatencyOptions(runs=1, warmup=0))\n"
        "print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
