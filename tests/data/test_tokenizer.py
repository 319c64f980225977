"""A tokenizer and its Python and Kotlin snippets give the same ids, on real messages and on strange ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcompress.bundling import bundle, device_folder
from tfcompress.data.tokenizer import RESERVED, Tokenizer
from tfcompress.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits" / "digits_int8.tflite"
STRANGE = [
    "",
    " ",
    "CAPITALS, ÄÖÜ and Iİıſ K",
    "don't 'quote' 0800 1234567890123456",
    "£5.99!!! €5 ½ ×÷ ÿ \x7f\x80\xa0\xad",
    "emoji \U0001f600\ud7ff x\u2028y\u00a0z\tw\r.",
    "٣ ４ ² a1b2c3",
    "a" * 300,
    "x " * 300,
]


@pytest.fixture(scope="module")
def messages(shared_data):
    lines = (shared_data / "sms_spam" / "SMSSpamCollection").read_bytes().decode("utf-8").split("\n")
    return [line.partition("\t")[2] for line in lines[1:] if line]


@pytest.fixture(params=["word", "character"])
def tokenizer(request, messages):
    return Tokenizer.learned_from(messages[::2], size=500, length=48, unit=request.param)


def written(tokenizer, folder):
    bundle(DIGITS.read_bytes(), folder, source="text.keras", target="cpu-int8", tokenizer=tokenizer)
    return folder


def ids_of(printed):
    return np.array([line.split() for line in printed.splitlines()], np.int32)


def call(*command, text=""):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], input=text.encode(), capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


def test_words_by_hand():
    tokenizer = Tokenizer((*RESERVED, "call", "00", "£"), length=5)
    assert tokenizer.split("Call £25 NOW") == ["call", "£", "00", "now"]
    np.testing.assert_array_equal(tokenizer(["Call £25 NOW", ""]), [[2, 4, 3, 1, 0], [0] * 5])
    assert tokenizer.text([2, 4, 3, 0, 2]) == "call £ 00"


def test_frequent_tokens_come_first_and_ties_by_their_signs():
    learned = Tokenizer.learned_from(["b a c", "c a", "c"], size=4)
    assert learned.vocabulary == (*RESERVED, "c", "a")
    assert Tokenizer.learned_from(["b a"], size=9).vocabulary == (*RESERVED, "a", "b")


def test_characters_come_back():
    tokenizer = Tokenizer.learned_from(["Hello, world"], size=99, length=20, unit="character")
    assert tokenizer.text(tokenizer(["Hello, world"])[0]) == "Hello, world"


def test_the_bundle_names_its_files(tmp_path):
    folder = written(Tokenizer(RESERVED), tmp_path / "b")
    assert {path.name for path in folder.iterdir()} == set(device_folder.FILES) - {
        "labels.txt",
        "samples.npz",
        *device_folder.FRONT_END_FILES,
    }
    assert "Tokenizer.kt" in (folder / "MODEL_CARD.md").read_text()
    assert (folder / "vocabulary.txt").read_bytes() == b"<end>\n<unknown>\n"


def test_the_python_snippet_gives_the_same_ids(tokenizer, messages, tmp_path):
    folder = written(tokenizer, tmp_path / "b")
    texts = [*messages, *STRANGE]
    printed = call(sys.executable, folder / "tokenizer.py", text="".join(f"{text}\n" for text in texts))
    np.testing.assert_array_equal(ids_of(printed), tokenizer(texts))


MAIN = r"""
fun main() {
    val tokenizer = Tokenizer(java.io.File("vocabulary.txt").readText(Charsets.UTF_8))
    val text = String(System.`in`.readBytes(), Charsets.UTF_8)
    val answer = StringBuilder()
    for (line in text.split("\n").dropLast(1)) answer.append(tokenizer.encode(line).joinToString(" ")).append("\n")
    print(answer)
}
"""


@pytest.mark.slow
def test_the_kotlin_snippet_gives_the_same_ids(tokenizer, messages, tmp_path):
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("no kotlinc on this machine (Debian: kotlin, default-jre-headless)")
    folder = written(tokenizer, tmp_path / "b")
    (folder / "Main.kt").write_text(MAIN.replace("vocabulary.txt", str(folder / "vocabulary.txt")))
    jar = tmp_path / "tokenizer.jar"
    call("kotlinc", folder / "Tokenizer.kt", folder / "Main.kt", "-include-runtime", "-d", jar)
    texts = [*messages, *STRANGE]
    printed = call("java", "-jar", jar, text="".join(f"{text}\n" for text in texts))
    np.testing.assert_array_equal(ids_of(printed), tokenizer(texts))


def test_a_vocabulary_is_kept_as_a_file(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path / "vocabulary.txt")
    assert Tokenizer.load(path, length=tokenizer.length, unit=tokenizer.unit) == tokenizer
    path.write_text("hello\n")
    with pytest.raises(DataError, match="A vocabulary is <end>, <unknown> and tokens"):
        Tokenizer.load(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="must be UTF-8"):
        Tokenizer.load(path)
    with pytest.raises(DataError, match="must be readable"):
        Tokenizer.load(tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "syllable"}, "unit must be one of word, character"),
        ({"length": 0}, "length must be above 0"),
        ({"vocabulary": ("a",)}, "A vocabulary is"),
        ({"vocabulary": (*RESERVED, "a", "a")}, "each once"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(**{"vocabulary": RESERVED, **arguments})
