"""Every kind of labelled data that ``convert`` accepts gives ``measure`` the same samples, and the same accuracy on LiteRT."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tfcompress as tfc
from tfcompress.data import Feature, load_digits
from tfcompress.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits" / "digits_int8.tflite"
ONCE = {"latency": tfc.LatencyOptions(runs=1, warmup=0)}
COUNT = 60


@pytest.fixture(scope="module")
def data():
    digits = load_digits()
    return digits.x_test[:COUNT], digits.y_test[:COUNT]


@pytest.fixture(scope="module")
def expected(data):
    return tfc.measure(DIGITS, data, **ONCE)


def dataset(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y))


def records(folder, x, y):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / "test.tfrecord")) as writer:
        for sample, label in zip(x, y, strict=True):
            named = {
                "pixels": tf.train.Feature(float_list=tf.train.FloatList(value=sample.ravel())),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString())
    return tfc.TFRecords(folder / "test.tfrecord", {"image": Feature("pixels", shape=x.shape[1:]), "y": "label"})


def saved(folder, x, y):
    np.savez(folder / "test.npz", x=x, y=y)
    return folder / "test.npz"


def script(folder, x, y):
    path = saved(folder, x, y)
    text = (
        f"import numpy as np\ndef both():\n    with np.load(r'{path}') as file:\n        return file['x'], file['y']\n"
    )
    (folder / "load.py").write_text(text)
    return f"{folder / 'load.py'}:both"


SOURCES = {
    "file": saved,
    "script": script,
    "arrays": lambda folder, x, y: (x, y),
    "one-hot labels": lambda folder, x, y: (x, np.eye(10)[y]),
    "lists": lambda folder, x, y: (x.tolist(), y.tolist()),
    "list of samples": lambda folder, x, y: (list(x), list(y)),
    "dictionary": lambda folder, x, y: {"x": x, "y": y},
    "dictionary of inputs": lambda folder, x, y: ({"image": x}, y),
    "tf.data": lambda folder, x, y: dataset(x, y),
    "tf.data in batches": lambda folder, x, y: dataset(x, y).batch(8),
    "tf.data of dictionaries": lambda folder, x, y: dataset(x, y).batch(7).map(lambda a, b: ({"image": a}, b)),
    "generator": lambda folder, x, y: ((a, b) for a, b in zip(x, y, strict=True)),
    "generator of batches": lambda folder, x, y: ((x[i : i + 9], y[i : i + 9]) for i in range(0, COUNT, 9)),
    "generator of dictionaries": lambda folder, x, y: (({"image": a}, b) for a, b in zip(x, y, strict=True)),
    "generator and labels": lambda folder, x, y: (iter(x), y),
    "function": lambda folder, x, y: lambda: zip(x, y, strict=True),
    "TFRecords": records,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_each_kind_of_data_gives_the_same_accuracy(data, expected, tmp_path, kind):
    record = tfc.measure(DIGITS, SOURCES[kind](tmp_path, *data), **ONCE)
    assert expected.accuracy > 0.9 and expected.samples == COUNT
    assert (record.accuracy, record.samples, record.data_sha256) == (
        expected.accuracy,
        expected.samples,
        expected.data_sha256,
    )


@pytest.mark.parametrize("kind", ["tf.data", "generator", "generator and labels", "TFRecords"])
def test_several_files_read_the_same_data(data, expected, tmp_path, kind):
    """The second file's input has another name, so that the data is read again: also what can be read once."""
    model = keras.Sequential([keras.Input((8, 8, 1), name="other"), keras.layers.Flatten(), keras.layers.Dense(10)])
    source = SOURCES[kind](tmp_path, *data)
    if kind == "TFRecords":
        model = keras.models.load_model(ROOT / "models" / "digits" / "digits.keras", compile=False)
    rows = tfc.measure([DIGITS, model], source, **ONCE)
    assert [getattr(row, "reason", None) for row in rows] == [None, None]
    assert rows[0].accuracy == expected.accuracy and [row.samples for row in rows] == [COUNT, COUNT]
    right = np.mean(model.predict(data[0], verbose=0).argmax(1) == data[1])
    assert rows[1].accuracy == pytest.approx(right, abs=1e-9)


def test_pictures_in_folders_by_class(tmp_path):
    """What ``convert`` calibrates on is what ``measure`` scores on, once each class has a folder."""
    digits = load_digits()
    x, y = digits.x_test[:COUNT], digits.y_test[:COUNT]
    pixels = np.round(x[..., 0] * 255).astype(np.uint8)
    for label in range(10):
        (tmp_path / str(label)).mkdir()
    for number, (picture, label) in enumerate(zip(pixels, y, strict=True)):
        Image.fromarray(picture).save(tmp_path / str(label) / f"{number}.png")
    record = tfc.measure(DIGITS, tmp_path, **ONCE)
    assert record.accuracy == tfc.measure(DIGITS, (pixels[..., None], y), scaling="zero_one", **ONCE).accuracy


@pytest.mark.parametrize("source", ["x", "generator of x", "tf.data of x"])
def test_data_without_labels_says_so(data, source):
    import tensorflow as tf

    made = {
        "x": data[0],
        "generator of x": (sample for sample in data[0]),
        "tf.data of x": tf.data.Dataset.from_tensor_slices(data[0]),
    }
    with pytest.raises(DataError, match="Labelled data needs an array y"):
        tfc.measure(DIGITS, made[source], **ONCE)
