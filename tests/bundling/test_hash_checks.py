"""The checks of a model's hash before it is loaded, in C and in Kotlin: NIST's examples, every length, a changed byte."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tfcompress.bundling import bundle

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits" / "digits_int8.tflite"
# NIST, "Secure Hash Standard": examples of FIPS 180-4 and SHA-2 additional test vectors.
VECTORS = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    b"\xbd": "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b",
    b"a" * 1_000_000: "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
}
C_MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

int main(int count, char** arguments) {
  static unsigned char content[1 << 20];
  if (count > 1) {  /* lengths from standard input's bytes */
    const size_t longest = fread(content, 1, sizeof content, stdin);
    char digits[65];
    for (size_t length = strtoul(arguments[1], 0, 10); length <= longest; ++length) {
      sha256_hex(content, length, digits);
      puts(digits);
    }
    return 0;
  }
  return checked_model() == model_tflite ? 0 : 3;
}
"""


def compiled(folder, place, compiler="cc", options=("-std=c11", "-x", "c")):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine (Debian: gcc, g++)")
    (place / "main.c").write_text(C_MAIN)
    sources = [place / "main.c", folder / "model.cc", folder / "sha256.c"]
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined", "-fno-sanitize-recover"]
    command = [compiler, *options, *warnings, f"-I{folder}", *sources, "-o", place / "main"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return place / "main"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hashes") / "b"
    bundle(DIGITS, folder)
    return folder


def test_c_gives_the_hashes_of_the_standard_and_of_every_length(folder, tmp_path):
    program = compiled(folder, tmp_path)
    for content, expected in VECTORS.items():
        done = subprocess.run([program, str(len(content))], input=content, capture_output=True, check=True)
        assert done.stdout.decode().split() == [expected] == [hashlib.sha256(content).hexdigest()]
    content = bytes(i * 37 % 256 for i in range(200))
    done = subprocess.run([program, "0"], input=content, capture_output=True, check=True)
    assert done.stdout.decode().split() == [hashlib.sha256(content[:length]).hexdigest() for length in range(201)]


@pytest.mark.parametrize(
    "options", [("cc", ("-std=c11", "-x", "c")), ("c++", ("-std=c++11", "-x", "c++"))], ids=["c", "c++"]
)
def test_a_changed_array_is_not_loaded(folder, tmp_path, options):
    assert subprocess.run([compiled(folder, tmp_path, *options)], check=False).returncode == 0
    changed = shutil.copytree(folder, tmp_path / "changed")
    text = (changed / "model.cc").read_text()
    (changed / "model.cc").write_text(text.replace("0x54,0x46,0x4c,0x33", "0x54,0x46,0x4c,0x34", 1))
    assert subprocess.run([compiled(changed, tmp_path, *options)], check=False).returncode == 3


KOTLIN_MAIN = r"""
import java.nio.ByteBuffer

fun main(arguments: Array<String>) {
    for (name in arguments) {
        val content = ByteBuffer.wrap(java.io.File(name).readBytes())
        println(sha256(content) + " " + try { checkedModel(content).remaining() } catch (e: SecurityException) { e.message })
    }
}
"""


@pytest.mark.slow
def test_kotlin_refuses_other_bytes(folder, tmp_path):
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("no kotlinc on this machine (Debian: kotlin, default-jre-headless)")
    (tmp_path / "Main.kt").write_text(KOTLIN_MAIN)
    jar = tmp_path / "hash.jar"
    command = ["kotlinc", folder / "ModelHash.kt", tmp_path / "Main.kt", "-include-runtime", "-d", jar]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    content = DIGITS.read_bytes()
    (tmp_path / "changed").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "empty").write_bytes(b"")
    names = [DIGITS, tmp_path / "changed", tmp_path / "empty"]
    done = subprocess.run(["java", "-jar", jar, *names], check=True, capture_output=True, text=True)
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [hashlib.sha256(name.read_bytes()).hexdigest() for name in names]
    assert lines[0][2] == str(len(content))
    assert all("model.tflite must have SHA-256" in line[2] for line in lines[1:])
    assert "Interpreter(checkedModel(model))" in (folder / "ModelRunner.kt").read_text()
