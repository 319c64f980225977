"""The flags of ``convert`` that write more than the file or steer the ranges, on the real command."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import striped_pictures, tiny_cnn
from tfcompress.tflite import flatbuffer, metadata
from tfcompress.tflite.interpreter import open_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convert")
    tiny_cnn().save(folder / "model.keras")
    np.save(folder / "x.npy", striped_pictures(64)[0])
    (folder / "labels.txt").write_text("rows\ncolumns\nboth\n")
    return folder


def convert(folder, *arguments):
    command = [sys.executable, "tools/convert.py", f"--model={folder}/model.keras", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)


def test_saved_ranges_give_the_same_file_again(folder):
    same = ("--target=cpu-int8", f"--labels={folder}/labels.txt", "--name=stripes", "--version=3")
    first = convert(
        folder,
        *same,
        f"--representative_data={folder}/x.npy",
        "--observer=percentile",
        "--observe=*logits*=min_max",
        f"--save_calibration={folder}/ranges.json",
        f"--output={folder}/first.tflite",
        f"--report={folder}/account.html",
        f"--bundle={folder}/device",
        "--json=-",
    )
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    assert record["output"] == f"{folder}/first.tflite"
    assert {layer["observer"] for layer in record["layers"]} == {"percentile", "min_max", None}
    assert record["calibration"]["sampled"] == 4096
    assert (folder / "account.html").read_text().lower().startswith("<!doctype html>")
    written = {path.name for path in (folder / "device").iterdir()}
    assert any(name.endswith(".tflite") for name in written)
    assert "labels.txt" in written
    stated = json.loads((folder / "device" / "provenance.json").read_text())["predicate"]["buildDefinition"]
    given = {"target": "cpu-int8", "observer": "percentile", "observe": ["*logits*=min_max"], "name": "stripes"}
    assert stated["externalParameters"]["flags"] == {**given, "version": "3"}
    named = {each["name"]: each["uri"] for each in stated["resolvedDependencies"] if "digest" in each}
    assert named == {"model": "model.keras", "representative_data": "x.npy", "labels": "labels.txt"}
    same_ranges = (*same, f"--calibration={folder}/ranges.json")
    again = convert(folder, *same_ranges, f"--output={folder}/again.tflite", f"--report={folder}/account.txt")
    assert again.returncode == 0, again.stderr
    assert "by Percentile(values_per_sample=4096, seed=0, percentile=99.99) on 64 samples" in " ".join(
        again.stdout.split()
    )
    assert max(map(len, again.stdout.splitlines()[1:-2])) <= 80  # but for the names of files
    account = (folder / "account.txt").read_text()
    assert "loses    most in #" in account or "not checked" in account
    assert account.count(" percentile ") >= 4  # a line for each layer
    assert (folder / "again.tflite").read_bytes() == (folder / "first.tflite").read_bytes()


DATA = {
    "pictures": ("{folder}/pictures", "--scaling=mean=128;std=64"),
    "records": ("{folder}/x.tfrecord", "--features={folder}/features.yaml"),
    "function": ("{folder}/samples.py:batches",),
}


@pytest.mark.parametrize("kind", DATA)
def test_every_kind_of_data_gives_the_ranges_of_the_same_arrays(folder, kind):
    """Arrays in files are in test_conversion; here is what only the command line has to take apart."""
    import tensorflow as tf
    from PIL import Image

    model = keras.models.load_model(folder / "model.keras")
    x = np.load(folder / "x.npy")
    if kind == "pictures":
        model = keras.Sequential([keras.Input((8, 8, 3), name="image"), keras.layers.Conv2D(2, 3, name="stem")])
        model.save(folder / "colours.keras")
        pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
        (folder / "pictures" / "deep").mkdir(parents=True)
        for number, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / "pictures" / "deep" / f"{number:02}.png")
        x = (pixels.astype(np.float32) - 128) / 64
    elif kind == "records":
        (folder / "features.yaml").write_text("image: {feature: values}\n")
        with tf.io.TFRecordWriter(str(folder / "x.tfrecord")) as writer:
            for sample in x:
                values = tf.train.Feature(float_list=tf.train.FloatList(value=sample.ravel()))
                record = tf.train.Example(features=tf.train.Features(feature={"values": values}))
                writer.write(record.SerializeToString())
    else:
        (folder / "samples.py").write_text(
            "import numpy as np\n\n\ndef batches():\n"
            f"    x = np.load({str(folder / 'x.npy')!r})\n    yield from (x[:50], x[50:])\n"
        )
    source, *flags = (text.format(folder=folder) for text in DATA[kind])
    name = "colours" if kind == "pictures" else "model"
    output = folder / f"{kind}.tflite"
    done = convert(
        folder,
        f"--model={folder}/{name}.keras",
        f"--representative_data={source}",
        *flags,
        f"--output={output}",
        "--json=-",
    )
    assert done.returncode == 0, done.stderr
    expected = tfc.convert(model, target="cpu-int8", representative_data=x)
    measured = json.loads(done.stdout)["calibration"]
    assert (measured["samples"], measured["data_sha256"]) == (len(x), expected.calibration.data_sha256)
    if kind == "pictures":
        normalisation = metadata.read(output.read_bytes()).normalisation["image"]
        assert (set(normalisation.mean), set(normalisation.std)) == ({128}, {64})
    else:
        assert output.read_bytes() == expected.tflite


def test_rules_leave_a_layer_in_float_and_repairs_are_reported(folder):
    (folder / "rules.yaml").write_text("- {pattern: '*', precision: int8}\n- {pattern: '*logits*', precision: null}\n")
    done = convert(
        folder,
        "--target=cpu-int8-float-io",
        f"--representative_data={folder}/x.npy",
        f"--rules={folder}/rules.yaml",
        f"--output={folder}/mixed.tflite",
    )
    assert done.returncode == 0, done.stderr
    assert open_model(folder / "mixed.tflite").outputs[0].dtype == np.float32
    done = convert(
        folder,
        "--target=cpu-int8",
        f"--representative_data={folder}/x.npy",
        "--repair=auto",
        f"--report={folder}/account.json",
        f"--output={folder}/repaired.tflite",
    )
    assert done.returncode == 0, done.stderr
    assert "equalization" in done.stdout
    assert "bytes_by_kind" in json.loads((folder / "account.json").read_text())


def test_weights_with_one_scale_each_or_for_dense_alone(folder):
    scales = {}
    for name, flag in (("every", "--noper_channel"), ("dense", "--noper_channel_dense")):
        done = convert(
            folder,
            "--target=cpu-int8",
            f"--representative_data={folder}/x.npy",
            flag,
            f"--output={folder}/{name}.tflite",
        )
        assert done.returncode == 0, done.stderr
        parsed = flatbuffer.parse((folder / f"{name}.tflite").read_bytes())
        graph = parsed.subgraphs[0]
        scales[name] = {
            flatbuffer.op_name(parsed, operator): len(graph.tensors[operator.inputs[1]].quantization.scale)
            for operator in graph.operators
            if flatbuffer.op_name(parsed, operator) in ("CONV_2D", "FULLY_CONNECTED")
        }
    assert set(scales["every"].values()) == {1}
    assert scales["dense"]["FULLY_CONNECTED"] == 1 < scales["dense"]["CONV_2D"]
    done = convert(folder, "--noper_channel", f"--output={folder}/never.tflite")
    assert done.returncode == 2
    assert "Received: no --target" in done.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--observe=logits", "--observe"),
        ("--repair=magic", "magic"),
        ("--report=account.pdf", "--report must name a .html, .htm, .json, .txt file. Received: 'account.pdf'"),
        ("--rules=/no/such/file.yaml", "/no/such/file.yaml"),
        ("--calibration=/no/such/ranges.json", "/no/such/ranges.json"),
        ("--labels=/no/such/labels.txt", "/no/such/labels.txt"),
        ("--input_shape=image:8,8", "--input_shape|image"),
        ("--nhwc", "nhwc is for PyTorch models"),
        ("--signature=other", "other"),
    ],
)
def test_wrong_flags_are_one_line_and_leave_nothing(folder, flag, message):
    import re

    output = folder / "never.tflite"
    done = convert(folder, "--target=cpu-int8", f"--representative_data={folder}/x.npy", flag, f"--output={output}")
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not output.exists()


def test_a_crash_takes_neither_files_nor_the_command_with_it(folder):
    """The data's own function ends the process as a fault in a native library does."""
    (folder / "crash.py").write_text("import os, signal\n\ndef data():\n    os.kill(os.getpid(), signal.SIGSEGV)\n")
    (folder / "kept.tflite").write_bytes(b"an older file")
    done = convert(
        folder,
        "--target=cpu-int8",
        f"--representative_data={folder}/crash.py:data",
        f"--output={folder}/kept.tflite",
        "--overwrite",
    )
    assert done.returncode == 1
    assert f"The function must return data. Received: {folder}/crash.py:data ended its process by" in done.stderr
    assert "SIGSEGV" in done.stderr and "Traceback" not in done.stderr
    assert (folder / "kept.tflite").read_bytes() == b"an older file"
