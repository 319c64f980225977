"""The front end of a bundle, in Python, Kotlin and C, computes what training computed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfcompress.bundling import bundle, device_folder
from tfcompress.data.log_mel import LogMel

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits" / "digits_int8.tflite"
SETTINGS = [
    LogMel(),
    LogMel(rate=16_000, frame_length=480, hop_length=320, bands=40, lowest_hz=20, highest_hz=7_600, floor=1e-6),
]
IDS = [str(settings.rate) for settings in SETTINGS]


def sound(front_end):
    """Two seconds of 16-bit samples: silence, a quiet rising tone, loud noise, and a square wave that clips."""
    quarter = front_end.rate // 2
    time = np.arange(quarter) / front_end.rate
    tone = 0.01 * np.sin(2 * np.pi * (200 + 2000 * time) * time)
    noise = np.random.default_rng(0).normal(0, 0.3, quarter)
    square = np.sign(np.sin(2 * np.pi * 440 * time))
    values = np.concatenate([np.zeros(quarter), tone, noise, square])
    return np.clip(np.round(values * 32768), -32768, 32767).astype(np.int16)


def written(front_end, folder):
    bundle(DIGITS.read_bytes(), folder, source="words.keras", target="cpu-int8", front_end=front_end)
    return folder


def call(*command, data=b""):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), input=data, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout


def features_of(printed, front_end):
    return np.array(printed.split(), np.float64).reshape(-1, front_end.bands)


def check(found, front_end, samples):
    """Within 1e-4, and the same int8 number, or the next one, with the scale of an input from silence up to 8."""
    expected = front_end(samples)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    scale = (8 - np.log(front_end.floor)) / 255
    integers = np.round(np.stack([found, expected]) / scale)
    assert np.abs(integers[0] - integers[1]).max() <= 1
    assert np.mean(integers[0] == integers[1]) > 0.998


def test_the_bundle_names_the_files(tmp_path):
    folder = written(LogMel(), tmp_path / "b")
    names = {path.name for path in folder.iterdir()}
    assert {"log_mel.py", "LogMel.kt", "log_mel.h", "log_mel.c"} <= names <= set(device_folder.FILES)
    assert "LogMel.kt" in (folder / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("front_end", SETTINGS, ids=IDS)
def test_python_is_the_same(front_end, tmp_path):
    folder = written(front_end, tmp_path / "b")
    samples = sound(front_end)
    code = "import sys, numpy as np, log_mel\n"
    code += "sys.stdout.buffer.write(log_mel.FRONT_END(np.frombuffer(sys.stdin.buffer.read(), np.int16)).tobytes())\n"
    (folder / "main.py").write_text(code)
    found = np.frombuffer(call(sys.executable, folder / "main.py", data=samples.tobytes()), np.float32)
    np.testing.assert_array_equal(found, front_end(samples).ravel())


C_MAIN = r"""
#include <stdio.h>

#include "log_mel.h"

int main(void) {
  static int16_t sound[65536];
  const size_t samples = fread(sound, sizeof(int16_t), 65536, stdin);
  for (size_t start = 0; start + LOG_MEL_FRAME_LENGTH <= samples; start += LOG_MEL_HOP_LENGTH) {
    float features[LOG_MEL_BANDS];
    log_mel_frame(sound + start, features);
    for (int band = 0; band < LOG_MEL_BANDS; ++band) printf("%.9g ", features[band]);
  }
  return 0;
}
"""


@pytest.mark.parametrize("front_end", SETTINGS, ids=IDS)
def test_c_is_the_same_within_float32(front_end, tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("no cc on this machine (Debian: gcc)")
    folder = written(front_end, tmp_path / "b")
    (folder / "main.c").write_text(C_MAIN)
    options = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1")
    call("cc", *options, folder / "log_mel.c", folder / "main.c", "-lm", "-o", tmp_path / "main")
    samples = sound(front_end)
    check(features_of(call(tmp_path / "main", data=samples.tobytes()), front_end), front_end, samples)


KOTLIN_MAIN = r"""
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun main() {
    val buffer = ByteBuffer.wrap(System.`in`.readBytes()).order(ByteOrder.nativeOrder()).asShortBuffer()
    val sound = ShortArray(buffer.remaining())
    buffer.get(sound)
    print(LogMel.features(sound).joinToString(" "))
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("front_end", SETTINGS, ids=IDS)
def test_kotlin_is_the_same_within_float32(front_end, tmp_path):
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("no kotlinc on this machine (Debian: kotlin, default-jre-headless)")
    folder = written(front_end, tmp_path / "b")
    (folder / "Main.kt").write_text(KOTLIN_MAIN)
    jar = tmp_path / "front_end.jar"
    call("kotlinc", "-Werror", folder / "LogMel.kt", folder / "Main.kt", "-include-runtime", "-d", jar)
    samples = sound(front_end)
    found = features_of(call("java", "-jar", jar, data=samples.tobytes()), front_end)
    check(found, front_end, samples)
    assert front_end.frames(front_end.frame_length - 1) == 0
