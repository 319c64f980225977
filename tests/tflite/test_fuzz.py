"""Thousands of damaged files: each ends in an error of our own tree or in success, in time, in a living process.

The files are made with a fixed seed. Workers open them one after the other; a worker that dies or takes too long is a
failure, except where the product opens such files in a child process of its own: there the same file is given to the
product's own path.
"""

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import mutations
import numpy as np
import pytest

from tfcompress.errors import DeviceError, ModelError
from tfcompress.measurement.devices.local import run_agent

pytestmark = pytest.mark.fuzz

ROOT = Path(__file__).resolve().parents[2]
SECONDS_PER_FILE = 60  # HDF5 is given 20; all others take less than a second on an idle machine
MOST_BYTES = 4 << 30
WORKERS = 2


class Worker:
    """A process that opens files; started anew when it has died."""

    def __init__(self):
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "fuzz_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )

    def open(self, kind, path):
        """Returns what became of the file: a dictionary as the worker writes it, or one that says how it died."""
        if self.process is None:
            self.start()
        timer = threading.Timer(SECONDS_PER_FILE, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(f"{kind} {path}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            hung = not timer.is_alive()
            timer.cancel()
        if line:
            return json.loads(line)
        code = self.process.wait()
        self.close()
        return {"outcome": "died", "foreign": "too slow" if hung else f"died with code {code}", "peak_bytes": 0}

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


def open_all(kind, paths):
    """Returns what became of each file, by path; two workers side by side."""
    waiting, answers = queue.Queue(), {}
    for path in paths:
        waiting.put(path)

    def work():
        worker = Worker()
        try:
            while True:
                try:
                    path = waiting.get_nowait()
                except queue.Empty:
                    return
                answers[path] = worker.open(kind, path)
        finally:
            worker.close()

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def damaged(folder, originals, ways, count, *, seed=0):
    """Writes ``count`` damaged copies of the files, way after way; returns their paths."""
    random = np.random.default_rng(seed)
    paths = []
    turns = itertools.cycle(itertools.product(ways, originals))
    for number, (way, original) in zip(range(count), turns, strict=False):
        path = folder / f"{number}_{way.__name__}{original.suffix}"
        path.write_bytes(way(original.read_bytes(), random))
        paths.append(path)
    return paths


def check(answers, count):
    assert len(answers) == count
    bad = {path.name: answer["foreign"] for path, answer in answers.items() if answer["foreign"]}
    assert not bad, f"{len(bad)} of {count}, the first: " + "\n".join(map(str, list(bad.items())[:3]))
    assert max(answer["peak_bytes"] for answer in answers.values()) < MOST_BYTES
    return Counter(answer["outcome"] for answer in answers.values())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A .keras, an .h5 and two .tflite files of small models; one of them with metadata and labels."""
    from models import tiny_cnn
    from tfcompress.lowering import lower_keras
    from tfcompress.tflite import metadata

    folder = tmp_path_factory.mktemp("models")
    model = tiny_cnn()
    model.save(folder / "tiny.keras")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "tiny.h5")
    (folder / "float.tflite").write_bytes(lower_keras(model).content)
    labels = [f"digit {i}" for i in range(10)]
    digits = (ROOT / "models" / "digits" / "digits_int8.tflite").read_bytes()
    (folder / "digits.tflite").write_bytes(metadata.attach(digits, name="digits", version="1", labels=labels))
    return folder


def test_damaged_tflite_files(models, tmp_path):
    originals = [models / "float.tflite", models / "digits.tflite"]
    paths = damaged(tmp_path, originals, mutations.FLATBUFFER, 1500)
    outcomes = check(open_all("flatbuffer", paths), 1500)
    assert outcomes["ModelError"] > 300
    assert outcomes["opened"] > 100


def test_damaged_tflite_files_in_the_interpreter(models, tmp_path):
    """LiteRT itself may crash on such a file; the product then says so, because it opens files in a child process."""
    originals = [models / "float.tflite", models / "digits.tflite"]
    paths = damaged(tmp_path, originals, mutations.FLATBUFFER, 400, seed=1)
    answers = open_all("interpreter", paths)
    crashed = [path for path, answer in answers.items() if answer["outcome"] == "died"]
    outcomes = check({path: answer for path, answer in answers.items() if path not in crashed}, 400 - len(crashed))
    assert outcomes["ModelError"] > 100
    request = {"threads": 1, "warmup_runs": 0, "runs": 1, "seed": 0, "debug": False}
    for path in [*crashed[:8], *paths[:4]]:
        try:
            run_agent({**request, "model": str(path)})
        except (DeviceError, ModelError) as error:
            assert len(str(error).splitlines()) == 1


def test_damaged_keras_and_h5_files(models, tmp_path):
    """Fewer than of the others: for each the product starts a process that reads all of its HDF5 first."""
    archives = damaged(tmp_path, [models / "tiny.keras"], mutations.ARCHIVE, 120, seed=2)
    folder = tmp_path / "h5"
    folder.mkdir()
    legacy = damaged(folder, [models / "tiny.h5"], mutations.HDF5, 80, seed=3)
    outcomes = check(open_all("source", [*archives, *legacy]), 200)
    assert outcomes["ModelError"] > 100


def test_damaged_arrays(tmp_path):
    random = np.random.default_rng(0)
    values = random.random((6, 8, 8, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", (values * 255).astype(np.uint8))
    np.savez(tmp_path / "a.npz", image=values, y=np.arange(6))
    np.savez_compressed(tmp_path / "b.npz", image=values, y=np.arange(6))
    folder = tmp_path / "damaged"
    folder.mkdir()
    npy = damaged(folder, [tmp_path / "a.npy", tmp_path / "b.npy"], mutations.NPY, 700, seed=4)
    npz = damaged(folder, [tmp_path / "a.npz", tmp_path / "b.npz"], mutations.ARCHIVE, 700, seed=5)
    outcomes = check(open_all("data", [*npy, *npz]), 1400)
    assert outcomes["DataError"] > 400


def test_damaged_pictures(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    for suffix in ("png", "jpg", "bmp", "gif", "tiff", "webp", "ppm"):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(tmp_path / "sixteen.png")
    originals = sorted(path for path in tmp_path.iterdir() if path.is_file())
    folder = tmp_path / "damaged"
    folder.mkdir()
    folders = []
    for path in damaged(folder, originals, mutations.PICTURE, 1000, seed=6):
        (folder / path.stem).mkdir()
        path.rename(folder / path.stem / path.name)
        folders.append(folder / path.stem)
    outcomes = check(open_all("data", folders), 1000)
    assert outcomes["DataError"] > 300


def test_damaged_records_and_rules(tmp_path):
    from tfcompress.calibration import Calibration
    from tfcompress.measurement.records import example_measurement, json_text

    (tmp_path / "record.json").write_text(json_text(example_measurement(call={"model": "a.tflite", "threads": 1})))
    (tmp_path / "rules.json").write_text(
        '[{"pattern": "logits", "op": "CONV_*", "precision": null}, ["*", "*", "int8"]]'
    )
    (tmp_path / "map.json").write_text('{"image": {"feature": "png", "kind": "image", "shape": [4, 4]}, "age": "age"}')
    Calibration({"x": (-0.1, 1.0)}, "MinMax()", 100, "0" * 64).save(tmp_path / "ranges.json")
    originals = sorted(tmp_path.iterdir())
    folder = tmp_path / "damaged"
    folder.mkdir()
    outcomes = check(open_all("document", damaged(folder, originals, mutations.DOCUMENT, 800, seed=7)), 800)
    assert outcomes["opened"] > 50 and sum(outcomes.values()) - outcomes["opened"] > 300


def test_damaged_tfrecords(tmp_path):
    import tensorflow as tf

    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for age in range(4):
            png = tf.io.encode_png(np.full((4, 4, 3), age, np.uint8)).numpy()
            features = {
                "png": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
                "age": tf.train.Feature(int64_list=tf.train.Int64List(value=[age])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    folder = tmp_path / "damaged"
    folder.mkdir()
    outcomes = check(open_all("records", damaged(folder, [path], mutations.TFRECORD, 500, seed=8)), 500)
    assert outcomes["DataError"] > 300
