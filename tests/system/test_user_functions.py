"""``path.py:function`` is run as the user wrote it, and what is wrong with it is one line."""

import sys

import pytest

from tfcompress.errors import DataError
from tfcompress.system import call_function, load_function, names_a_function


def test_the_function_finds_its_neighbours_and_leaves_no_trace(tmp_path):
    (tmp_path / "neighbour.py").write_text("NUMBER = 7\n")
    (tmp_path / "load.py").write_text("import neighbour\ndef number(): return neighbour.NUMBER\n")
    before = list(sys.path)
    assert call_function(f"{tmp_path}/load.py:number") == 7
    assert sys.path == before
    sys.modules.pop("neighbour")


@pytest.mark.parametrize("text", ["load.py", "load.npy:x", "load.py:1x", "load.py:", "C:/load.npy", "a.py:b.c"])
def test_other_texts_name_no_function(text):
    assert not names_a_function(text)
    with pytest.raises(DataError, match="named as path.py:function"):
        load_function(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.py:data", "The script must exist. Received: .*gone.py"),
        ("load.py:gone", "without 'gone'. It has: data, works"),
        ("load.py:number", "without 'number'"),
        ("load.py:data", "raised ValueError: no data left"),
        ("broken.py:data", "The script must run. Received: .*broken.py .ZeroDivisionError: division by zero"),
        ("wrong.py:data", "The script must run. Received: .*wrong.py .SyntaxError"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, name, message):
    (tmp_path / "load.py").write_text(
        "number = 3\ndef data(): raise ValueError('no data left.\\nSee above.')\ndef works(): return 1\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "wrong.py").write_text("def data(:\n")
    with pytest.raises(DataError, match=message) as caught:
        call_function(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)
