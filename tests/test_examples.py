"""The example commands run from end to end: with few epochs, to see that every step works, and the short ones at full length."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tfcompress.data.digits import load_digits
from tfcompress.data.tokenizer import Tokenizer
from tfcompress.errors import TrainingError
from tfcompress.tflite.interpreter import open_model

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {  # the folder of its data
    "digits": None,
    "motions": "motions",
    "spoken_digits": "spoken_digits",
    "sms_spam": "sms_spam",
    "next_character": "sms_spam",
    "cifar10": "cifar10",
    "blood_cells": "bccd",
}
BOXES = {"blood_cells"}  # their files answer in float: the choice among boxes is an op that has no integers
EXTRA_FILES = {
    "digits": ("answers.png",),
    "blood_cells": ("cells.png",),
    "cifar10": ("answers.png",),
    "sms_spam": ("vocabulary.txt", "bundle/Tokenizer.kt", "bundle/tokenizer.py"),
    "next_character": ("vocabulary.txt",),
    "spoken_digits": ("bundle/LogMel.kt", "bundle/log_mel.c", "bundle/log_mel.py"),
}
DEVICES = {"motions": {"tflite_micro": "tflm", "ethosu": "ethos-u55-128"}}  # with the module that each needs
FILES = ("float32", "int8_ptq", "int8_qat")
LEARNED = ("motions", "sms_spam")  # within a minute; the digits are learned by ``make demo``


def run_example(name, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs_quickly(shared_data, tmp_path, name):
    folder = tmp_path / "out"
    data = [] if EXAMPLES[name] is None else [f"--data={shared_data / EXAMPLES[name]}"]
    devices = [device for module, device in DEVICES.get(name, {}).items() if importlib.util.find_spec(module)]
    elsewhere = [f"--device={','.join(devices)}"] if devices else []
    done = run_example(name, f"--output={folder}", *data, *elsewhere, "--quick", "--seeds=1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert max(map(len, done.stdout.replace(str(folder), "").splitlines())) <= 80
    record = json.loads((folder / "results.json").read_text())
    assert record["answers"] and all(line in done.stdout for line in record["answers"])
    assert [each["device"]["name"] for each in record["elsewhere"]] == [
        device for device in devices for _ in range(2 if device.startswith("ethos-u") else 3)
    ]
    assert all(isinstance(holds, bool) for holds in record["claims"].values())
    for files in record["summary"].values():
        assert list(files) == list(FILES)
    assert (folder / "report.html").stat().st_size > 10_000
    for file in FILES[1:]:
        model = open_model(folder / "seed0" / f"{file}.tflite")
        assert all(info.dtype.kind == "i" for info in [*model.inputs, *model.outputs[: 0 if name in BOXES else None]])
    for extra in EXTRA_FILES.get(name, ()):
        assert (folder / extra).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_the_example_shows_what_it_claims(shared_data, tmp_path, name):
    """At full length with one seed; the guides' tables are means over three."""
    data = [] if EXAMPLES[name] is None else [f"--data={shared_data / EXAMPLES[name]}"]
    done = run_example(name, f"--output={tmp_path}", *data, "--seeds=1")
    assert done.returncode == 0, done.stderr[-3000:]
    claims = json.loads((tmp_path / "results.json").read_text())["claims"]
    assert len(claims) == len([line for line in done.stdout.splitlines() if line.startswith("yes ")]) >= 2
    assert all(claims.values())


@pytest.mark.slow
def test_a_claim_that_does_not_hold_is_an_error(examples, tmp_path):
    import keras

    flow = examples("flow")
    data = load_digits()
    task = flow.Task(
        title="digits",
        build=lambda: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]),
        x=data.x_train[:64],
        y=data.y_train[:64],
        test=(data.x_test[:32], data.y_test[:32]),
        claims={
            "it runs": lambda summary: True,
            "float is perfect": lambda summary: summary["top1"]["float32"]["mean"] > 1,
        },
    )
    values = flow.define_flags(name="digits", data=None)
    values(["digits", f"--output={tmp_path}", "--seeds=1"])
    with pytest.raises(
        TrainingError, match=r"over 1 seeds must .* Received: NO to 'float is perfect'. The figures are in"
    ):
        flow.run_flags(task, flow.Recipe(epochs=1, compressed_epochs=1), values)
    assert json.loads((tmp_path / "results.json").read_text())["claims"] == {"it runs": True, "float is perfect": False}
    values.quick = True
    flow.run_flags(task, flow.Recipe(epochs=1, compressed_epochs=1), values)


@pytest.mark.parametrize("name", [name for name, data in EXAMPLES.items() if data is not None])
def test_absent_data_are_one_line(tmp_path, name):
    done = run_example(name, f"--output={tmp_path / 'out'}", f"--data={tmp_path}")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"{name}: The data must be there. Received: no {tmp_path}") and "--data" in line
    assert not (tmp_path / "out").exists()


def test_wrong_flags_are_usage(tmp_path):
    done = run_example("motions", "--sedes=3")
    assert done.returncode == 2 and "seeds" in done.stderr
    shown = run_example("motions", "--help")
    assert shown.returncode == 0 and "--device" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 80


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


def test_f1_is_that_of_scikit_learn(examples):
    from sklearn.metrics import f1_score

    spam_f1 = examples("sms_spam").spam_f1
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 2)), random.integers(0, 2, 200)
    assert spam_f1({"logits": logits}, labels) == pytest.approx(f1_score(labels, logits.argmax(axis=1)))
    assert spam_f1({"logits": np.array([[1.0, 0.0]])}, np.array([0])) == 0


def test_the_next_character_is_what_follows(examples):
    module = examples("next_character")
    tokenizer = Tokenizer.learned_from(["abc"], size=9, length=module.LENGTH, unit="character")
    ids, following = module.pairs(tokenizer, ["abc", "a" * 99, ""])
    np.testing.assert_array_equal(ids[0, :4], [2, 3, 4, 0])
    np.testing.assert_array_equal(following[0, :4], [3, 4, 0, -1])
    np.testing.assert_array_equal(following[1], [2] * 63 + [-1])  # cut off: what follows is not known
    assert set(following[2]) == {-1}
    right = np.eye(5)[np.maximum(following, 0)]
    assert module.next_right({"logits": right}, following) == 1


def test_the_summary_is_mean_spread_and_loss(examples):
    outcome = examples("outcome")
    values = [(0.9, 0.8, 0.7), (0.7, 0.8, 0.9)]
    measured = [[SimpleNamespace(scores={"top1": value}) for value in row] for row in values]
    found = outcome.summary(measured)["top1"]
    assert found["float32"] == {"values": [0.9, 0.7], "mean": pytest.approx(0.8), "spread": pytest.approx(0.2)}
    assert found["int8_ptq"]["spread"] == 0 and found["int8_ptq"]["loss"] == pytest.approx(0.0)
    assert found["int8_qat"]["loss"] == pytest.approx(0.0)
    table = outcome.seed_table(measured)
    assert table[2].split() == ["float32", "90.0", "%", "70.0", "%", "80.0", "%", "20.0", "%"]


def test_gaps_and_shifts_keep_shapes_and_labels(examples):
    import tensorflow as tf

    for name, shape in (("cifar10", (32, 32, 3)), ("spoken_digits", (49, 20, 1)), ("motions", (100, 1, 6))):
        x, y = tf.random.uniform([5, *shape]), tf.range(5)
        changed, labels = examples(name).augment(x, y)
        assert changed.shape == x.shape and np.isfinite(changed).all() and not np.array_equal(changed, x)
        np.testing.assert_array_equal(labels, y)


@pytest.mark.devicelab
def test_a_seed_is_measured_on_a_board(examples, boards, monkeypatch, tmp_path):
    """As ``--device=ssh://...`` does it, on a file that is there already."""
    flow = examples("flow")
    board = boards["cortex-a72"]
    monkeypatch.setenv("TFCOMPRESS_SSH", board.environment["TFCOMPRESS_SSH"])
    monkeypatch.setattr(flow, "FILES", ("int8_qat",))  # an emulated board takes its time for each
    shutil.copy(ROOT / "models" / "digits" / "digits_int8.tflite", tmp_path / "int8_qat.tflite")
    data = load_digits()
    task = flow.Task(
        title="digits", build=None, x=data.x_train, y=data.y_train, test=(data.x_test[:64], data.y_test[:64])
    )
    (here,), (there,) = (flow.measure_on(device, tmp_path, task) for device in ("local", board.name))
    assert there.accuracy == here.accuracy and there.device.name == board.name
