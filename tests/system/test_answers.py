"""The answer of a child that is in other hands is data: nothing of it is run, whatever it is."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcompress import errors
from tfcompress.system import run_isolated
from tfcompress.system.answers import read_answer, write_answer

HERE = "test_answers"


def _answer_with(content):
    """Leaves bytes as the answer of this child and ends it."""
    Path(sys.argv[2], "answer").write_bytes(content)
    os._exit(0)


class Attack:
    def __reduce__(self):
        return os.system, ("echo owned > /tmp/owned",)


def answer_by_a_pickle(request, report):
    _answer_with(pickle.dumps({"result": Attack(), "warnings": []}))


def answer_by_a_link(request, report):
    Path(sys.argv[2], "answer").symlink_to(request)
    os._exit(0)


def answer_by_a_pipe(request, report):
    os.mkfifo(Path(sys.argv[2], "answer"))
    os._exit(0)


def answer_by_escapes(request, report):
    os.write(1, b"\xff" * 200_000 + b"[" * 200_000)
    raise errors.ModelError("a\x1b]0;owned\x07\u202eb")


def answer_by_another_error(request, report):
    _answer_with(write_answer({"error": "SystemExit", "message": "bye", "warnings": []}))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text("secret")
    return path


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (
            "answer_by_a_pickle",
            errors.SandboxError,
            r"must answer with plain values. Received: something else \(no header\)",
        ),
        ("answer_by_a_link", errors.ConversionError, "gave no answer"),
        ("answer_by_a_pipe", errors.SandboxError, "must answer with a file of at most"),
        ("answer_by_escapes", errors.ModelError, r"^a\\x1b\]0;owned\\x07\\u202eb$"),
        ("answer_by_another_error", errors.SandboxError, "^bye$"),
    ],
)
def test_an_answer_is_data(secret, function, kind, message):
    with pytest.raises(kind, match=message):
        run_isolated(f"{HERE}:{function}", str(secret))
    assert not Path("/tmp/owned").exists()


def test_values_come_back_as_they_were():
    from tfcompress.quantization import TARGETS

    value = {
        "arrays": [np.arange(6, dtype=np.int8).reshape(2, 3), np.array(["a", "bc"]), np.zeros((0, 3), np.float16)],
        "numbers": (1, 2.5, float("inf"), True, None, 1 << 80, np.float32(0.1), np.int64(3)),
        3: {"set": {1, 2}, "frozen": frozenset({3}), "bytes": b"\0\1", "dtype": np.dtype("int8")},
        "target": TARGETS["cpu-int8"],
    }
    found = read_answer(write_answer(value))
    for mine, other in zip(found.pop("arrays"), value.pop("arrays"), strict=True):
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype
    assert found == value
    assert [type(each) for each in found["numbers"]] == [type(each) for each in value["numbers"]]


def _marked(text, *pieces):
    lengths = np.array([len(text), *map(len, pieces)], "<u8")
    return b"".join([b"tfcompress answer 1\n", len(lengths).to_bytes(8, "little"), lengths.tobytes(), text, *pieces])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"tfcompress answer 1\n" + b"\xff" * 8,
        _marked(b"["),
        _marked(b"[" * 100_000),
        _marked(b'["bytes", 7]'),
        _marked(b'["array", "O", [1], 0]', b"12345678"),
        _marked(b'["array", "<f4", [1000000000000], 0]', b"1234"),
        _marked(b'["array", [["a", "O"]], [1], 0]', b"12345678"),
        _marked(b'["value", "subprocess", "Popen", {}]'),
        _marked(b'["value", "tfcompress.system.sandbox", "os", {}]'),
        _marked(b'["value", "tfcompress.system.sandbox", "Path", {}]'),
        _marked(b'["value", "tfcompress.system.sandbox", "Sandbox", {}]'),
        _marked(b'["value", "tfcompress.system.sandbox", "enter", {}]'),
        _marked(b'["value", "tfcompress.system.isolated_child", "Reporter", {}]'),
        _marked(b'["named", "tfcompress.system.isolated_child", "ChildExit", []]'),
        _marked(b'["call", "os.system"]'),
        _marked(b'{"a": 1}'),
    ],
    ids=range(17),
)
def test_other_answers_are_refused(content):
    with pytest.raises(errors.SandboxError, match="must answer with plain values"):
        read_answer(content)
