"""Samples and labels are the same from every source, and labels that are none are one clear line."""

import numpy as np
import pytest
from PIL import Image

from tfcompress.data import Feature, InputSpec, Labelled, TFRecords, load_labelled, load_representative
from tfcompress.errors import DataError

PICTURE = InputSpec("image", (None, 8, 6, 3), np.float32)
VECTOR = InputSpec("vector", (None, 4), np.float32)
PLAIN = InputSpec("x", (None, 2), np.float32)
X = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
CLASSES = np.arange(11) % 3
VALUES = np.random.default_rng(1).normal(size=(11, 2, 3)).astype(np.float32)
PIXELS = np.random.default_rng(2).integers(0, 256, (5, 8, 6, 3)).astype(np.uint8)
PICTURE_CLASSES = np.array([0, 0, 1, 2, 2])


def save_npz(folder, x, y, names=("x", "y")):
    np.savez(folder / "data.npz", **dict(zip(names, (x, y), strict=True)))
    return folder / "data.npz"


def save_script(folder, x, y):
    save_npz(folder, x, y)
    text = f"import numpy as np\ndef pair():\n    with np.load(r'{folder / 'data.npz'}') as file:\n"
    (folder / "load.py").write_text(f"{text}        return file['x'], file['y']\n")
    return f"{folder / 'load.py'}:pair"


def dataset(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y))


def save_records(folder, x, y):
    import tensorflow as tf

    def feature(values):
        values = np.ravel(values)
        if values.dtype.kind == "i":
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    with tf.io.TFRecordWriter(str(folder / "data.tfrecord")) as writer:
        for sample, label in zip(x, y, strict=True):
            named = {"sample": feature(sample), "label": feature(label)}
            writer.write(tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString())
    return TFRecords(folder, {"vector": "sample", "y": Feature("label", shape=y.shape[1:] or None)})


SOURCES = {
    "npz": lambda folder, x, y: save_npz(folder, x, y),
    "npz by name": lambda folder, x, y: save_npz(folder, x, y, ("vector", "targets")),
    "npz as text": lambda folder, x, y: str(save_npz(folder, x, y)),
    "folder of one npz": lambda folder, x, y: save_npz(folder, x, y).parent,
    "pair": lambda folder, x, y: (x, y),
    "list of two": lambda folder, x, y: [x, y],
    "pair of lists": lambda folder, x, y: (x.tolist(), y),
    "dictionary": lambda folder, x, y: {"vector": x, "labels": y},
    "dictionary and y": lambda folder, x, y: ({"vector": x}, y),
    "tf.data": lambda folder, x, y: dataset(x, y),
    "tf.data batches": lambda folder, x, y: dataset(x, y).batch(4),
    "tf.data dictionaries": lambda folder, x, y: dataset(x, y).map(lambda a, b: {"vector": a, "label": b}),
    "tf.data weights": lambda folder, x, y: dataset(x, y).map(lambda a, b: (a, b, 1.0)),
    "generator": lambda folder, x, y: ((a, b) for a, b in zip(x, y, strict=True)),
    "generator of batches": lambda folder, x, y: ((x[i : i + 2], y[i : i + 2]) for i in range(0, len(x), 2)),
    "generator of dictionaries": lambda folder, x, y: ({"x": a, "y": b} for a, b in zip(x, y, strict=True)),
    "function": lambda folder, x, y: lambda: zip(x, y, strict=True),
    "path.py:function": save_script,
    "generator and y": lambda folder, x, y: (iter(x), y),
    "TFRecords": save_records,
}


@pytest.mark.parametrize("kind", ["classes", "values", "any"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_samples_and_labels(tmp_path, name, kind):
    y = CLASSES if kind == "classes" else VALUES
    found = load_labelled(SOURCES[name](tmp_path, X, y), [VECTOR], kind=kind)
    np.testing.assert_array_equal(found.x["vector"], X)
    np.testing.assert_array_equal(found.y, y)
    assert found.y.dtype == y.dtype and found.samples == 11
    assert found.sha256 == load_labelled((X, y), [VECTOR], kind=kind).sha256


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in ("list of two", "generator and y")])
def test_every_labelled_source_gives_the_same_samples_without_labels(tmp_path, name):
    samples = load_representative(SOURCES[name](tmp_path, X, CLASSES), [VECTOR])
    np.testing.assert_array_equal(np.concatenate([batch["vector"] for batch in samples.batches(4)]), X)
    assert samples.sha256 == load_representative(X, [VECTOR]).sha256


def test_pictures_and_their_classes_are_the_same_from_folders_arrays_and_records(tmp_path):
    import tensorflow as tf

    for i, (pixels, number) in enumerate(zip(PIXELS, PICTURE_CLASSES, strict=True)):
        (tmp_path / "classes" / "abc"[number]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "classes" / "abc"[number] / f"{i}.png")
    with tf.io.TFRecordWriter(str(tmp_path / "data.tfrecord")) as writer:
        for pixels, number in zip(PIXELS, PICTURE_CLASSES, strict=True):
            picture = tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.io.encode_png(pixels).numpy()]))
            label = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes([number])]))
            features = tf.train.Features(feature={"png": picture, "class": label})
            writer.write(tf.train.Example(features=features).SerializeToString())
    features = {"image": Feature("png", "image"), "labels": Feature("class", "bytes")}
    found = [
        load_labelled(source, [PICTURE], scaling="zero_one")
        for source in (
            tmp_path / "classes",
            (PIXELS, PICTURE_CLASSES),
            dataset(PIXELS, PICTURE_CLASSES),
            TFRecords(tmp_path / "data.tfrecord", features),
        )
    ]
    for each in found:
        np.testing.assert_array_equal(each.x["image"], PIXELS / np.float32(255))
        np.testing.assert_array_equal(each.y, PICTURE_CLASSES)
    assert len({each.sha256 for each in found}) == 1
    assert load_labelled(tmp_path / "classes", [PICTURE], kind="any").class_names == ("a", "b", "c")


@pytest.mark.parametrize("form", ["dictionary", "pair", "npz", "tf.data", "generator"])
def test_boxes_are_the_same_from_every_source(tmp_path, form):
    y = {"boxes": np.random.default_rng(3).random((11, 2, 4)).astype(np.float32), "classes": np.zeros((11, 2), int)}
    np.savez(tmp_path / "boxes.npz", x=X, **y)
    source = {
        "dictionary": {"x": X, **y},
        "pair": (X, y),
        "npz": tmp_path / "boxes.npz",
        "tf.data": dataset(X, y),
        "generator": ({"x": x, "boxes": b, "classes": c} for x, b, c in zip(X, *y.values(), strict=True)),
    }[form]
    found = load_labelled(source, [VECTOR], kind="boxes")
    assert set(found.y) == {"boxes", "classes"} and len(found.first(3)["boxes"]) == 3
    for name, array in y.items():
        np.testing.assert_array_equal(found.y[name], array)
    assert found.sha256 == load_labelled((X, y), [VECTOR], kind="boxes").sha256


@pytest.mark.parametrize("source", [lambda: X, lambda: [X], lambda: list(X), lambda: dataset(X, X).map(lambda a, b: a)])
def test_values_that_are_missing_are_the_input_itself(source):
    found = load_labelled(source(), [VECTOR], kind="values")
    np.testing.assert_array_equal(found.y, X)
    assert repr(found) == "Labelled(11 samples with y float32 (11, 4))"


def test_an_array_with_an_inputs_name_is_no_label():
    inputs = [InputSpec(name, (None, 4), np.float32) for name in ("x", "y")]
    found = load_labelled({"x": X, "y": 2 * X, "labels": CLASSES}, inputs)
    np.testing.assert_array_equal(found.x["y"], 2 * X)
    np.testing.assert_array_equal(found.y, CLASSES)


def test_labels_of_a_stream_fit_its_samples():
    with pytest.raises(DataError, match="3 samples and 2 labels"):
        load_labelled(iter([(X[:3], CLASSES[:2])]), [VECTOR])
    with pytest.raises(DataError, match="Labels must have one shape"):
        load_labelled(iter([(X[:3], VALUES[:3]), (X[:3], VALUES[:3, :1])]), [VECTOR], kind="values")
    with pytest.raises(DataError, match="must have one size"):
        spec = InputSpec("x", (None, None), np.float32)
        load_labelled(iter([(X[:3], CLASSES[:3]), (X[:3, :2], CLASSES[:3])]), [spec])


def test_labels_in_a_feature_map_are_values_or_bytes(tmp_path):
    source = save_records(tmp_path, X, CLASSES)
    picture = TFRecords(source.paths, {"vector": "sample", "y": Feature("label", "image")})
    with pytest.raises(DataError, match="Labels are values or bytes. Received: an image for y"):
        load_labelled(picture, [VECTOR])
    unlabelled = TFRecords(source.paths, {"vector": "sample"})
    with pytest.raises(DataError, match="needs an array y"):
        load_labelled(unlabelled, [VECTOR])


def test_labelled_needs_one_label_for_each_sample():
    with pytest.raises(DataError, match="3 samples and 2 labels"):
        Labelled({"x": np.zeros((3, 2))}, np.zeros(2), "hash")


@pytest.mark.parametrize(
    "y",
    [
        np.array([2, 0, 1]),
        np.array([2, 0, 1], np.uint8),
        np.array([2.0, 0.0, 1.0]),
        np.array([[2], [0], [1]]),
        np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        np.eye(3, dtype=np.float32)[[2, 0, 1]],
    ],
    ids=["int64", "uint8", "whole floats", "column", "one-hot", "float one-hot"],
)
def test_labels_of_every_form_become_indices(tmp_path, y):
    x = np.zeros((3, 4))
    np.savez(tmp_path / "a.npz", x=x, y=y)
    for source in (tmp_path / "a.npz", tmp_path, (x, y), [x, y.tolist()], {"x": x, "labels": y}, ({"vector": x}, y)):
        labelled = load_labelled(source, [VECTOR])
        np.testing.assert_array_equal(labelled.y, [2, 0, 1])
        assert labelled.y.dtype == np.int64 and labelled.x["vector"].dtype == np.float32
    assert len({load_labelled(s, [VECTOR]).sha256 for s in (tmp_path / "a.npz", (x, y), (x, [2, 0, 0]))}) == 2


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0.5, 0, 1]), "whole numbers from 0. Received: 0.5 for sample 0"),
        (np.array([0, np.nan, 1]), "Received: nan for sample 1"),
        (np.array([0, 1, np.inf]), "Received: inf for sample 2"),
        (np.array([0, -1, 1]), "Received: -1 for sample 1"),
        (np.array(["a", "b", "c"]), "dtype <U1"),
        (np.array([[1, 1], [0, 1], [1, 0]]), "must be one-hot"),
        (np.array([[0.2, 0.8], [0, 1], [1, 0]]), "must be one-hot"),
        (np.zeros((3, 1, 1)), r"shape \(n,\). Received: y of shape \(3, 1, 1\)"),
        (np.zeros(2), "3 samples and 2 labels"),
        (np.array(1), r"shape \(\)"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y, message):
    with pytest.raises(DataError, match=message):
        load_labelled((np.zeros((3, 4)), y), [VECTOR])


def test_labelled_data_needs_labels(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    np.save(tmp_path / "a.npy", X)
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError, match="needs an array y"):
            load_labelled(tmp_path / name, [VECTOR])


def save_images(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(PIXELS[:count]):
        Image.fromarray(pixels).save(folder / f"{i}.png")


def read_all(samples, size=4):
    batches = list(samples.batches(size))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_class_folders_are_numbered_in_sorted_order(tmp_path):
    for name, count in [("dog", 2), ("cat", 3), ("empty", 0), ("zebra", 1)]:
        save_images(tmp_path / name, count)
    labelled = load_labelled(tmp_path, [PICTURE])
    assert labelled.class_names == ("cat", "dog", "empty", "zebra")
    np.testing.assert_array_equal(labelled.y, [0, 0, 0, 1, 1, 3])
    np.testing.assert_array_equal(labelled.x["image"], read_all(load_representative(tmp_path, [PICTURE]))["image"])
    assert repr(labelled) == "Labelled(6 samples of 4 classes)"
    save_images(tmp_path, 1)
    with pytest.raises(DataError, match="one sub-folder per class. Received: .*0.png"):
        load_labelled(tmp_path, [PICTURE])


def test_labels_of_values_from_every_source(tmp_path):
    x, y = np.ones((4, 2), np.float32), np.arange(12.0).reshape(4, 3)
    np.savez(tmp_path / "both.npz", x=x, y=y)
    np.save(tmp_path / "alone.npy", x)
    (tmp_path / "load.py").write_text("import numpy as np\ndef both(): return np.ones((4, 2)), np.zeros((4, 3))\n")
    for source in ((x, y), {"x": x, "y": y}, tmp_path / "both.npz"):
        np.testing.assert_array_equal(load_labelled(source, [PLAIN], kind="values").y, y)
    assert load_labelled(f"{tmp_path}/load.py:both", [PLAIN], kind="values").y.shape == (4, 3)
    alone = load_labelled(tmp_path / "alone.npy", [PLAIN], kind="values")
    np.testing.assert_array_equal(alone.y, x)
    assert (
        load_labelled((x, y), [PLAIN], kind="values").sha256 != load_labelled((x, y + 1), [PLAIN], kind="values").sha256
    )


def test_labels_of_boxes_need_both_arrays():
    boxes, classes = np.zeros((4, 2, 4)), np.zeros((4, 2))
    found = load_labelled({"x": np.ones((4, 2)), "boxes": boxes, "classes": classes}, [PLAIN], kind="boxes")
    assert found.samples == 4 and set(found.first(3)) == {"boxes", "classes"} and len(found.first(3)["boxes"]) == 3
    with pytest.raises(DataError, match="array y"):
        load_labelled(np.ones((4, 2)), [PLAIN], kind="boxes")
    with pytest.raises(DataError, match="one label"):
        load_labelled((np.ones((4, 2)), np.zeros(3)), [PLAIN], kind="values")
