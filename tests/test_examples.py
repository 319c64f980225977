"""The example commands run from end to end: with few epochs, which shows that every step works and not what is learned."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfcompress.interpreter import open_model

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {  # the folder of its data
    "motions": "motions",
    "spoken_digits": "spoken_digits",
    "sms_spam": "sms_spam",
    "next_character": "sms_spam",
    "cifar10": "cifar10",
    "blood_cells": "bccd",
}
BOXES = {"blood_cells"}  # their files answer in float: the choice among boxes is an op that has no integers
EXTRA_FILES = {
    "blood_cells": ("cells.png",),
    "cifar10": ("answers.png",),
    "sms_spam": ("vocabulary.txt", "bundle/Tokenizer.kt", "bundle/tokenizer.py"),
    "next_character": ("vocabulary.txt",),
}
FILES = ("float32", "int8_ptq", "int8_qat")


def run_example(name, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs_quickly(shared_data, tmp_path, name):
    folder = tmp_path / "out"
    done = run_example(name, f"--output={folder}", f"--data={shared_data / EXAMPLES[name]}", "--quick", "--seeds=1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert max(map(len, done.stdout.replace(str(folder), "").splitlines())) <= 80
    record = json.loads((folder / "results.json").read_text())
    assert record["answers"] and all(line in done.stdout for line in record["answers"])
    for files in record["summary"].values():
        assert list(files) == list(FILES)
    assert (folder / "report.html").stat().st_size > 10_000
    for file in FILES[1:]:
        model = open_model(folder / "seed0" / f"{file}.tflite")
        assert all(info.dtype.kind == "i" for info in [*model.inputs, *model.outputs[:0 if name in BOXES else None]])
    for extra in EXTRA_FILES.get(name, ()):
        assert (folder / extra).stat().st_size > 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_absent_data_are_one_line(tmp_path, name):
    done = run_example(name, f"--output={tmp_path / 'out'}", f"--data={tmp_path}")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"{name}: The data must be there. Received: no {tmp_path}") and "--data" in line


def test_wrong_flags_are_usage(tmp_path):
    done = run_example("motions", "--sedes=3")
    assert done.returncode == 2 and "seeds" in done.stderr
    shown = run_example("motions", "--help")
    assert shown.returncode == 0 and "--device" in shown.stdout and max(map(len, shown.stdout.splitlines())) <= 80
