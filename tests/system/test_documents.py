"""JSON and YAML of strangers: bounded in size, depth and parts, and one line for what is over the bound, whoever reads it."""

import json

import pytest

from tfcompress.calibration import Calibration
from tfcompress.data.readers.tfrecords import read_feature_map
from tfcompress.errors import DataError, ModelError, SignatureError
from tfcompress.measurement.records import measurements_from_json
from tfcompress.quantization import TrainedRanges
from tfcompress.quantization.precision import read_rules
from tfcompress.security import verify
from tfcompress.system.documents import MOST_DEPTH, parse_json, parse_yaml, read_document

DEEP = 3000


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ä[{"]}, [], "[[[", 3, [[[1]], {"b": {"c": '"['}}]])
def test_json_is_what_the_json_module_says(value):
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, ensure_ascii=False).encode()):
        assert parse_json(text) == value


def test_depth_is_counted_outside_of_texts():
    just = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parse_json(just) is not None
    for text in (f"[{just}]", '{"a":' * (MOST_DEPTH + 1) + "1" + "}" * (MOST_DEPTH + 1), "[" * DEEP):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            parse_json(text)
    assert parse_json('["' + "[" * DEEP + '", "\\"[[\\\\", 1]')[2] == 1


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * DEEP, "nested more than 100 deep"),
        ("- " * DEEP, "nested more than 100 deep"),
        ("\n".join(" " * i + "a:" for i in range(200)), "nested more than 100 deep"),
        (BOMB, r"repeats a part by an alias, \*a"),
        ("!!python/object/apply:os.getcwd []", "by a tag"),
        ("!!float ''", "by a tag"),
        ("a: " + "1:" * 5000 + "1", "a number of more than 1000 digits"),
        ("a: " + "9" * 1001, "a number of more than 1000 digits"),
        ("2020-13-45", "month"),
        ("? [a]\n: b", "unhashable"),
        ("x" * (1 << 21), "larger than 1 MB"),
    ],
    ids=["flow", "dashes", "indents", "aliases", "object", "tag", "base 60", "digits", "date", "key", "size"],
)
def test_yaml_beyond_bounds(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_a_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    assert read_document(path) == [1, 2]
    with pytest.raises(ValueError, match="larger than 0 MB"):
        read_document(path, most_bytes=3)
    with pytest.raises(ValueError, match="no regular file"):
        read_document("/dev/zero")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="no text"):
        read_document(path)


def a_signature(path):
    model = path.with_suffix(".tflite")
    model.write_bytes(b"x")
    path.rename(f"{model}.sig")
    verify(model, key=path)


READERS = {
    "rules": (read_rules, DataError),
    "feature map": (read_feature_map, DataError),
    "calibration": (Calibration.load, DataError),
    "record": (lambda path: measurements_from_json(path.read_text()), DataError),
    "trained ranges": (lambda path: TrainedRanges.from_json(path.read_bytes()), ModelError),
    "signature": (a_signature, SignatureError),
}
TEXTS = {
    "lists": "[" * DEEP + "]" * DEEP,
    "objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "unfinished": "[" * 100_000,
    "digits": "9" * 5000,
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_one_line(reader, text, tmp_path):
    read, kind = READERS[reader]
    path = tmp_path / "a.json"
    path.write_text(TEXTS[text])
    with pytest.raises(kind) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("read", [read_rules, read_feature_map])
def test_yaml_readers_say_one_line(read, tmp_path):
    path = tmp_path / "a.yaml"
    for text in ("- " * DEEP, BOMB, "a: [", "\0"):
        path.write_text(text)
        with pytest.raises(DataError, match="must be YAML") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1
