"""TFRecord files with a feature map: the same samples as from arrays, and one clear line for what does not fit."""

import gzip
import json
import struct

import numpy as np
import pytest

from tfcompress.data import Feature, InputSpec, TFRecords, load_representative
from tfcompress.data.readers.tfrecord_frames import crc32c, masked, read_frames
from tfcompress.data.readers.tfrecords import read_feature_map
from tfcompress.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3)).astype(np.uint8)
AGES = np.arange(7)
IMAGE, AGE = InputSpec("image", (None, 4, 5, 3), np.float32), InputSpec("age", (None, 1), np.int32)
MAP = {"image": {"feature": "image/encoded", "kind": "image"}, "age": "person/age"}


def example(**features):
    import tensorflow as tf

    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        values = np.ravel(value)
        if values.dtype.kind == "i":
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write(path, records):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def people():
    import tensorflow as tf

    for pixels, age in zip(PIXELS, AGES, strict=True):
        yield example(
            image__encoded=tf.io.encode_png(pixels).numpy(),
            person__age=age,
            floats=pixels.astype(np.float32),
            raw=pixels.tobytes(),
        )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write(tmp_path_factory.mktemp("records") / "people.tfrecord", people())


def read(path, features, inputs=(IMAGE, AGE), **options):
    blocks = list(load_representative(TFRecords(path, features), inputs, **options).batches(3))
    return {spec.name: np.concatenate([block[spec.name] for block in blocks]) for spec in inputs}


@pytest.mark.parametrize("form", ["mapping", "json", "yaml"])
def test_a_map_says_which_feature_feeds_which_input(records, tmp_path, form):
    path = tmp_path / f"map.{form}"
    if form == "json":
        path.write_text(json.dumps(MAP))
    else:
        path.write_text("image: {feature: image/encoded, kind: image}\nage: person/age\n")
    found = read(records, MAP if form == "mapping" else path, scaling="raw")
    np.testing.assert_array_equal(found["image"], PIXELS)
    np.testing.assert_array_equal(found["age"], AGES[:, None])


@pytest.mark.parametrize(
    "feature",
    [
        Feature("image/encoded", "image"),
        Feature("floats"),
        Feature("raw", "bytes", dtype="uint8"),
        {"feature": "raw", "kind": "bytes", "dtype": "uint8", "shape": [4, 5, 3]},
    ],
    ids=["image", "values", "bytes", "shape"],
)
def test_every_kind_of_feature_is_the_same_picture(records, feature):
    found = read(records, {"image": feature}, (IMAGE,), scaling=None if feature == Feature("floats") else "raw")
    np.testing.assert_array_equal(found["image"], PIXELS)


def test_pictures_are_scaled_as_those_in_folders(records):
    found = read(records, {"image": Feature("image/encoded", "image")}, (IMAGE,), scaling="minus_one_one")
    np.testing.assert_allclose(found["image"], PIXELS / 127.5 - 1, atol=1e-6)  # float32 against float64


def test_folders_and_packed_files_are_read_in_order(records, tmp_path):
    all_records = list(people())
    write(tmp_path / "b.tfrecord", all_records[4:])
    write(tmp_path / "a.tfrecords", all_records[:4])
    np.testing.assert_array_equal(read(tmp_path, MAP)["age"][:, 0], AGES)
    packed = tmp_path / "people.tfrecord.gz"
    packed.write_bytes(gzip.compress(records.read_bytes()))
    np.testing.assert_array_equal(read(packed, MAP)["age"][:, 0], AGES)


def test_the_value_is_a_source_like_any_other(records):
    source = TFRecords(records, MAP)
    found = next(load_representative(source, (IMAGE, AGE), scaling="raw").batches(7))
    np.testing.assert_array_equal(found["image"], PIXELS)
    np.testing.assert_array_equal(found["age"], AGES[:, None])
    assert source == TFRecords([str(records)], MAP)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must be readable"),
        ("{", "must be JSON.*Name it .yaml if it is"),
        ("[1]", "must name the feature of each input"),
        ("{}", "must name the feature of each input"),
        ('{"image": 3}', "feature, kind, dtype and shape. Received: 'image'"),
        ('{"image": {"kind": "image"}}', "its keys are kind"),
        ('{"image": {"feature": "x", "kind": "picture"}}', "kind must be one of values, image, bytes"),
        ('{"image": {"feature": "x", "kind": "bytes", "dtype": "object"}}', "dtype must be of numbers"),
        ('{"image": {"feature": "x", "kind": "bytes", "dtype": "none"}}', "'image'"),
    ],
)
def test_wrong_maps_are_one_line(tmp_path, text, message):
    path = tmp_path / "map.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_feature_map(path)
    assert "\n" not in str(caught.value)


def test_wrong_yaml_is_one_line(tmp_path):
    (tmp_path / "map.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"must be YAML.*map\.yaml"):
        read_feature_map(tmp_path / "map.yaml")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"picture": "floats"}, "each input once: image. Received: picture"),
        ({"image": "depth"}, "must have the feature 'depth'.*record 0 of .*with floats, image/encoded"),
        ({"image": "raw"}, "must hold values.*a bytes_list"),
        ({"image": Feature("floats", "image")}, "must hold image.*a float_list"),
        ({"image": Feature("raw", "image")}, "record 0"),
        ({"image": Feature("raw", "bytes", dtype="float64")}, "whole values of .*float64|60 bytes"),
        ({"image": Feature("raw", "bytes", dtype="float32")}, r"sample of shape \(4, 5, 3\).*15 values"),
        ({"image": "person/age"}, r"sample of shape \(4, 5, 3\).*1 values"),
    ],
)
def test_records_that_do_not_fit_are_one_line(records, features, message):
    with pytest.raises(DataError, match=message) as caught:
        read(records, features, (IMAGE,))
    assert "\n" not in str(caught.value)


def test_missing_damaged_and_foreign_files_are_named(records, tmp_path):
    with pytest.raises(DataError, match="must exist. Received: .*gone.tfrecord"):
        read(tmp_path / "gone.tfrecord", MAP)
    with pytest.raises(DataError, match="must exist. Received: none"):
        read(tmp_path, MAP)
    whole = records.read_bytes()
    for name, content in (
        ("cut", whole[:-9]),
        ("random", np.random.default_rng(0).bytes(500)),
        ("changed", whole[:40] + b"\xff" + whole[41:]),
    ):
        (tmp_path / f"{name}.tfrecord").write_bytes(content)
        with pytest.raises(DataError, match=rf"must be whole. Received: .*{name}\.tfrecord") as caught:
            read(tmp_path / f"{name}.tfrecord", MAP)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match="sample"):
        read(tmp_path / "empty.tfrecord", MAP)
    write(tmp_path / "foreign.tfrecord", [b"no example at all"])
    with pytest.raises(DataError, match="no tf.train.Example"):
        read(tmp_path / "foreign.tfrecord", MAP)


def test_damaged_files_with_good_checksums_are_read_or_refused(tmp_path):
    """A record's checksum hides nothing here: the mutated content is written as a record of its own."""
    random = np.random.default_rng(0)
    sound = next(people())
    refused = 0
    for _ in range(40):
        content = bytearray(sound)
        for place in random.integers(0, len(content), random.integers(1, 5)):
            content[place] = random.integers(256)
        path = write(tmp_path / "mutated.tfrecord", [bytes(content)])
        try:
            read(path, MAP)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused < 40


def frame(record, *, length=None, checksum=None):
    head = struct.pack("<Q", len(record) if length is None else length)
    ends = masked(crc32c(record)) if checksum is None else checksum
    return head + struct.pack("<I", masked(crc32c(head))) + record + struct.pack("<I", ends)


def test_frames_are_those_of_tensorflow(records):
    import tensorflow as tf

    assert list(read_frames(records)) == list(tf.data.TFRecordDataset(str(records)).as_numpy_iterator())


def test_frames_of_any_length_that_we_write_are_read_by_tensorflow(tmp_path):
    import tensorflow as tf

    random = np.random.default_rng(0)
    contents = [random.bytes(size) for size in (0, 1, 64, 65, 511, 512, 1023, 1024, 1025, 70_001)]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(map(frame, contents)))
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == contents
    assert list(read_frames(path)) == contents


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (frame(b"x", length=1 << 40), "record 0 says it is 1,099,511,627,776 bytes long, more than 1 GiB"),
        (frame(b"x", length=(1 << 64) - 1), "more than 1 GiB"),
        (frame(b"x", length=1 << 29), "536,870,912 bytes long, and the file ends before"),
        (frame(b"x")[:11], "record 0 does not begin with its length"),
        (b"\0" * 16, "record 0 does not begin with its length"),
        (frame(b"x", checksum=3), "the check sum of record 0 is not that of its bytes"),
        (frame(b"\xff\xff"), "a record is no tf.train.Example"),
    ],
    ids=["2^40", "2^64", "2^29", "cut", "zeros", "sum", "no Example"],
)
def test_a_frame_is_checked_before_its_record(content, message, is_packed, tmp_path):
    """TensorFlow's own reader ends the process on the first."""
    path = tmp_path / ("a.tfrecord.gz" if is_packed else "a.tfrecord")
    path.write_bytes(gzip.compress(content) if is_packed else content)
    with pytest.raises(DataError, match=f"must be whole. Received: .*{message}"):
        read(path, MAP)


def test_the_record_is_numbered(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame(b"first") + frame(b"x", length=6))
    frames = read_frames(path)
    assert next(frames) == b"first"
    with pytest.raises(DataError, match="record 1 says it is 6 bytes long, and the file ends before"):
        next(frames)


def test_a_packed_file_that_is_cut_or_is_none(tmp_path):
    path = tmp_path / "a.tfrecord.gz"
    for content in (
        gzip.compress(frame(b"x" * 999))[:-12],
        b"plain bytes of no gzip file",
        b"\x1f\x8b\x08" + b"\0" * 40,
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match="must be whole") as caught:
            read(path, MAP)
        assert len(str(caught.value).splitlines()) == 1
