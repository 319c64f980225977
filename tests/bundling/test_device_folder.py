"""The bundle: its snippets are run and compiled as they stand, and nothing is half written."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcompress.bundling import bundle, device_folder, op_resolver, snippets
from tfcompress.errors import DataError, ModelError, OutputError
from tfcompress.quantization import supported_ops
from tfcompress.tflite import metadata
from tfcompress.tflite.affine import dequantize, quantize
from tfcompress.tflite.interpreter import open_model

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits" / "digits_int8.tflite"
LABELS = ["nought", 'o"ne', "two's", "$three", "vier", "fünf", "six\\", "*/", "|8|", "'''"]


def call(*arguments, **options):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def digits():
    return DIGITS.read_bytes()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((20, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits, images):
    folder = tmp_path_factory.mktemp("bundles") / "digits"
    name = open_model(digits).inputs[0].name
    bundle(
        digits,
        folder,
        source="/home/someone/digits.keras",
        target="cpu-int8",
        labels=LABELS,
        samples={name: images},
        facts={"accuracy": "0.9 on 10 samples"},
    )
    return folder


def test_the_files_are_those_that_are_named(folder, digits):
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        set(device_folder.FILES) - set(device_folder.TOKENIZER_FILES) - set(device_folder.FRONT_END_FILES)
    )
    assert (folder / "model.tflite").read_bytes() == digits
    assert (folder / "labels.txt").read_text().splitlines() == LABELS
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_card_says_what_is_known_and_no_more(folder, digits, tmp_path):
    card = (folder / "MODEL_CARD.md").read_text()
    info = open_model(digits).inputs[0]
    for text in (f"{len(digits):,} bytes", hashlib.sha256(digits).hexdigest(), str(info.scale), "0.9 on 10 samples"):
        assert text in card
    assert "someone" not in card and "cpu-int8" in card
    bare = tmp_path / "bare"
    bundle(digits, bare, source="m", target="t")
    text = (bare / "MODEL_CARD.md").read_text()
    assert "Nothing was measured" in text and "accuracy" not in text
    assert not (bare / "labels.txt").exists() and not (bare / "samples.npz").exists()


def test_labels_and_normalisation_of_the_file_are_used(digits, tmp_path):
    labels = [f"class {i}" for i in range(10)]
    name = open_model(digits).inputs[0].name
    content = metadata.attach(
        digits, name="n", version="3", labels=labels, normalisation={name: metadata.Normalisation(0, 255)}
    )
    bundle(content, tmp_path / "b", source="m", target="t")
    assert (tmp_path / "b" / "labels.txt").read_text().splitlines() == labels
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "mean 0.0 and std 255.0" in card and "1.14.0" in card


def test_the_same_model_gives_the_same_bundle(digits, folder, images, tmp_path):
    name = open_model(digits).inputs[0].name
    options = {"source": "digits.keras", "target": "cpu-int8", "labels": LABELS, "samples": {name: images}}
    bundle(digits, tmp_path / "b", facts={"accuracy": "0.9 on 10 samples"}, **options)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


# Python.


def run_snippet(folder, tmp_path, arrays):
    np.savez(tmp_path / "in.npz", **arrays)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    call(
        sys.executable,
        folder / "run_model.py",
        tmp_path / "in.npz",
        tmp_path / "out.npz",
        env=environment,
        cwd=tmp_path,
    )
    with np.load(tmp_path / "out.npz") as file:
        return dict(file)


def test_the_python_snippet_needs_no_tfcompress(folder):
    tree = ast.parse((folder / "run_model.py").read_text())
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert modules == {"sys", "importlib", "io", "pathlib", "numpy", "ai_edge_litert"}
    (labels,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LABELS"
    ]
    assert labels == LABELS


def test_the_python_snippet_answers_as_our_interpreter(folder, digits, images, tmp_path):
    model = open_model(digits)
    answers = run_snippet(folder, tmp_path, {model.inputs[0].name: images})
    for name, expected in model.run(images, batch=1).items():
        np.testing.assert_array_equal(answers[name], expected)


def test_the_python_snippet_runs_without_arguments(folder):
    printed = call(sys.executable, folder / "run_model.py", env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert "best:" in printed
    assert "largest difference from samples.npz: 0.0" in printed


@pytest.mark.parametrize("file", ["mlperf_ad/ad01_int8", "mlperf_sww/str_ww_ref_model", "mnist/trained_lstm_int8"])
def test_the_python_snippet_of_models_from_elsewhere(shared_data, tmp_path, file):
    content = (shared_data / f"{file}.tflite").read_bytes()
    bundle(content, tmp_path / "b", source=file, target="?")
    model = open_model(content)
    random = np.random.default_rng(1)
    arrays = {
        info.name: random.normal(0, 1, [5, *(size or 1 for size in info.shape[1:])]).astype(np.float32)
        for info in model.inputs
    }
    answers = run_snippet(tmp_path / "b", tmp_path, arrays)
    for name, expected in model.run(arrays, batch=1).items():
        np.testing.assert_array_equal(answers[name], expected)


# C.

PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#include "model.h"
int main(void) {
  if ((uintptr_t)model_tflite % 16) return 1;
  fprintf(stderr, "%s", model_tflite_sha256);
  return fwrite(model_tflite, 1, model_tflite_length, stdout) != model_tflite_length;
}
"""


@pytest.mark.parametrize(
    ("compiler", "options"), [("cc", ["-std=c11", "-x", "c"]), ("c++", ["-std=c++11", "-x", "c++"])]
)
def test_the_c_array_compiles_and_is_the_file(folder, digits, tmp_path, compiler, options):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    (tmp_path / "main.c").write_text(PROGRAM)
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    sources = [tmp_path / "main.c", folder / "model.cc"]
    call(compiler, *options, *warnings, f"-I{folder}", *sources, "-o", tmp_path / "dump")
    done = subprocess.run([tmp_path / "dump"], capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == digits
    assert done.stderr.decode() == hashlib.sha256(digits).hexdigest()


# Kotlin.

MAIN = """
fun main() {
    val tensor = MODEL_INPUTS[0].quantization!!
    println(MODEL_INPUTS[0].name + " " + MODEL_INPUTS[0].shape.joinToString(",") + " " + MODEL_INPUTS[0].type)
    var line = readLine()
    while (line != null) {
        val integer = tensor.quantize(line.toDouble())
        println(integer.toString() + " " + tensor.dequantize(integer))
        line = readLine()
    }
}
"""


@pytest.mark.slow
def test_the_kotlin_arithmetic_is_that_of_python(folder, digits, tmp_path):
    """1000 values: the ends, every half between two steps, and random ones."""
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("no kotlinc on this machine (Debian: kotlin, default-jre-headless)")
    (tmp_path / "Main.kt").write_text(MAIN)
    jar = tmp_path / "arithmetic.jar"
    call("kotlinc", folder / "ModelArithmetic.kt", tmp_path / "Main.kt", "-include-runtime", "-d", jar)
    info = open_model(digits).inputs[0]
    parameters = info.parameters
    halves = (np.arange(-200, 200) + 0.5) * parameters.scale
    random = np.random.default_rng(2).normal(0, 1, 594)
    values = np.concatenate([halves, random, [0.0, -0.0, 1e30, -1e30, np.inf, -np.inf]])
    assert len(values) == 1000
    text = "\n".join(repr(float(v)).replace("inf", "Infinity") for v in values)
    head, *lines = call("java", "-jar", jar, input=text + "\n").splitlines()
    assert head == f"{info.name} -1,8,8,1 int8"
    integers = quantize(values, parameters)
    np.testing.assert_array_equal([int(line.split()[0]) for line in lines], integers)
    reals = np.array([np.float32(line.split()[1]) for line in lines])
    np.testing.assert_array_equal(reals, dequantize(integers, parameters))


def test_the_kotlin_call_is_labelled_as_not_run(folder):
    runner = (folder / "ModelRunner.kt").read_text()
    assert runner.startswith("// NOT RUN HERE")
    assert "org.tensorflow" not in (folder / "ModelArithmetic.kt").read_text()


@pytest.mark.parametrize("text", ["", "plain", 'a"b', "$x ${y}", "\\", "\n\t\f\b\0", "ü\u2028\U0001f600"])
def test_kotlin_literals_hold_no_template_and_no_control_character(text):
    import json

    literal = snippets.kotlin_text(text)
    assert json.loads(literal) == text
    assert "$" not in literal and "\\f" not in literal and literal.isprintable() and literal.isascii()


@pytest.mark.parametrize("text", ["a\nb", '"""', "*/ x /*", "|", "<script>", "`", "[a](b)", "\\", "x\x1b[0m"])
def test_plain_text_ends_nothing(text):
    for mark in ("\n", '"', "*/", "/*", "|", "<", ">", "`", "[", "\\", "\x1b"):
        assert mark not in snippets.plain(text)


# Whole or not at all.


def test_an_existing_bundle_is_replaced_only_when_asked(folder, digits, tmp_path):
    place = tmp_path / "b"
    place.mkdir()  # an empty folder is no obstacle
    bundle(digits, place, source="a", target="t")
    with pytest.raises(OutputError, match="exists already"):
        bundle(digits, place, source="b", target="t")
    bundle(digits, place, source="b", target="t", overwrite=True)
    assert (place / "MODEL_CARD.md").read_text().startswith("# b for t")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="with notes.txt"):
        bundle(digits, place, source="c", target="t", overwrite=True)
    assert (place / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


@pytest.mark.parametrize(
    ("place", "message"), [("no/such/b", "parent folder must exist"), ("file", "is a folder")], ids=str
)
def test_an_impossible_place_is_refused(digits, tmp_path, place, message):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=message):
        bundle(digits, tmp_path / place, source="a", target="t", overwrite=True)


def test_bad_input_leaves_nothing(digits, tmp_path):
    name = open_model(digits).inputs[0].name
    with pytest.raises(DataError):
        bundle(digits, tmp_path / "b", source="a", target="t", samples={name: np.zeros((2, 3))})
    with pytest.raises(ModelError):
        bundle(b"nothing", tmp_path / "b", source="a", target="t")
    with pytest.raises(ValueError, match="one line of text"):
        bundle(digits, tmp_path / "b", source="a", target="t", labels=["a\nb"])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_bundle(digits, tmp_path):
    """RLIMIT_FSIZE stands for the full disk: the C array is larger than the limit."""
    place = tmp_path / "b"
    bundle(digits, place, source="old", target="t")
    code = f"""
import resource, signal, sys
from pathlib import Path
from tfcompress.bundling import bundle
from tfcompress.errors import OutputError
content = Path({str(DIGITS)!r}).read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    bundle(content, {str(place)!r}, source="new", target="t", overwrite=True)
except OutputError as error:
    print(error)
"""
    printed = call(
        sys.executable, "-c", code, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    )
    assert "Could not write" in printed
    assert (place / "MODEL_CARD.md").read_text().startswith("# old")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_every_operator_of_tflite_micro_has_a_method_of_its_own():
    lines = op_resolver.resolver_code(supported_ops.MICRO).splitlines()
    methods = {line.removeprefix("resolver.").removesuffix("();") for line in lines[1:]}
    assert lines[0] == f"tflite::MicroMutableOpResolver<{len(supported_ops.MICRO)}> resolver;"
    assert len(methods) == len(supported_ops.MICRO)
    assert all(method.isalnum() for method in methods)
    named = {"AddConv2D", "AddPadV2", "AddCumSum", "AddSpaceToBatchNd", "AddRelu6", "AddUnidirectionalSequenceLSTM"}
    assert named <= methods  # as micro_mutable_op_resolver.h spells them
    with pytest.raises(ValueError, match="RFFT"):
        op_resolver.resolver_code(["ADD", "RFFT"])
