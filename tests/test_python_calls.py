"""``tfc.inspect``, ``tfc.compare`` and ``tfc.bundle`` say what the command line says, of paths, bytes and conversions."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.cli import main
from tfcompress.data import load_digits
from tfcompress.errors import ModelError

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "models" / "digits" / "digits.keras"


@pytest.fixture(scope="module")
def samples():
    return load_digits().x_train[:64]


@pytest.fixture(scope="module")
def result(samples):
    return tfc.convert(DIGITS, representative_data=samples, target="cpu-int8")


@pytest.fixture(scope="module")
def float_result():
    return tfc.convert(DIGITS, target="float32")


def without(record, *names):
    return {key: value for key, value in record.items() if key not in names}


def test_inspect(result, tmp_path, capsys):
    path = result.save(tmp_path / "m.tflite")
    assert main(["inspect", f"--model={path}", "--json=-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = tfc.inspect(path)
    assert json.loads(json.dumps(found.to_json())) == printed
    assert main(["inspect", f"--model={path}"]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    for source, name in ((result.tflite, "the model bytes"), (result, "digits cpu-int8")):
        other = tfc.inspect(source)
        assert other.name == name and without(other.to_json(), "name") == without(found.to_json(), "name")


def test_compare(result, float_result, samples, tmp_path, capsys):
    paths = [each.save(tmp_path / name) for name, each in (("f.tflite", float_result), ("q.tflite", result))]
    np.save(tmp_path / "x.npy", samples)
    flags = ["compare", f"--model={paths[0]},{paths[1]}", f"--data={tmp_path}/x.npy", "--threshold_db=30"]
    assert main([*flags, "--json=-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = tfc.compare(*paths, tmp_path / "x.npy", threshold_db=30)
    assert json.loads(json.dumps(found.to_json())) == printed
    assert main(flags) == 0
    assert capsys.readouterr().out == f"{found}\n"
    other = tfc.compare(float_result, result, samples, threshold_db=30)
    assert (other.first, other.second) == ("digits float32", "digits cpu-int8")
    assert without(other.to_json(), "first", "second") == without(found.to_json(), "first", "second")
    assert tfc.compare(float_result.tflite, result.tflite).random


def test_bundle(result, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    flags = [f"--representative_data={tmp_path}/x.npy", f"--output={tmp_path}/m.tflite", f"--bundle={tmp_path}/typed"]
    assert main(["convert", f"--model={DIGITS}", "--target=cpu-int8", "--ranges=calibrated", *flags]) == 0
    calibrated = tfc.CalibrationOptions(ranges="calibrated")
    converted = tfc.convert(DIGITS, target="cpu-int8", calibration=calibrated, representative_data=tmp_path / "x.npy")
    made = tfc.bundle(converted, tmp_path / "called")
    assert made.to_json() == {"folder": str(tmp_path / "called"), "files": list(made.files)}
    assert str(made).startswith(f"{tmp_path / 'called'}: model.tflite, MODEL_CARD.md")
    assert sorted(made.files) == sorted(path.name for path in (tmp_path / "typed").iterdir())
    for path in made.paths:
        typed = tmp_path / "typed" / path.name
        if path.name == "provenance.json":  # the command has a recipe, its flags
            assert json.loads(path.read_text())["subject"] == json.loads(typed.read_text())["subject"]
        elif path.name != "bom.cdx.json":  # likewise
            assert path.read_bytes() == typed.read_bytes(), path.name


def test_a_bundle_of_a_file_says_what_it_knows(result, tmp_path):
    path = result.save(tmp_path / "m.tflite")
    for source, heading in (
        (path, "# m.tflite\n"),
        (result.tflite, "# the model bytes\n"),
        (result, "# digits.keras for"),
    ):
        made = tfc.bundle(source, tmp_path / "b", overwrite=True)
        assert (made.folder / "model.tflite").read_bytes() == result.tflite
        card = (made.folder / "MODEL_CARD.md").read_text()
        assert card.startswith(heading)
        assert ("Nothing was measured" in card) == (source is not result)
    facts = tfc.bundle(result, tmp_path / "own", target="cpu", facts={"accuracy": "0.9"}, samples={})
    card = (facts.folder / "MODEL_CARD.md").read_text()
    assert card.startswith("# digits.keras for cpu\n") and "| accuracy | 0.9 |" in card and "parity" not in card


@pytest.mark.parametrize(
    "call",
    [tfc.inspect, lambda model: tfc.compare(model, model), lambda model: tfc.bundle(model, "/tmp/never")],
    ids=["inspect", "compare", "bundle"],
)
def test_what_is_no_file(call):
    with pytest.raises(TypeError, match="A model is the path of a .tflite file, its bytes, or a Conversion"):
        call(3)
    with pytest.raises(ModelError):
        call(b"nothing")


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (tfc.inspect, {"runs": False}, "inspect.. has no argument 'runs'. Did you mean 'run'"),
        (tfc.compare, {"threshold": 30}, "compare.. has no argument 'threshold'. Did you mean 'threshold_db'"),
        (tfc.bundle, {"label": ["a"]}, "bundle.. has no argument 'label'. Did you mean 'labels'"),
    ],
)
def test_a_misspelt_argument(call, arguments, message):
    with pytest.raises(TypeError, match=message):
        call("m.tflite", "n", **arguments)
