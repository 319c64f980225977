"""ARM64 instructions per inference: the count repeats, and knows what the processor can do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from devicelab import RESNET, skip

pytestmark = pytest.mark.devicelab
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "instructions.py"
MACS = 12_501_632  # of ResNet-8's convolutions and its dense layer


def count(*words):
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)


def test_instructions_repeat_and_fall_with_the_dot_product(lab):
    if shutil.which("qemu-aarch64") is None or shutil.which("cc") is None:
        skip("qemu-aarch64 (package qemu-user) or cc is missing")
    done = count(f"--model={lab.data / RESNET}", f"--lab={lab.folder}", f"--shared={lab.scripts.parent}", "--json=-")
    assert done.returncode == 0, done.stderr
    pi4, pi5 = json.loads(done.stdout)
    for found, cpu in ((pi4, "cortex-a72"), (pi5, "cortex-a76")):
        assert (found["cpu"], found["kind"], found["runs"]) == (cpu, "emulated", 3)
        assert found["spread"] < 0.01  # the interpreter's own housekeeping: 0 to 0.2 % were seen
        assert MACS / 16 < found["instructions"] < MACS  # one instruction multiplies at most 16 pairs of int8
    assert pi5["instructions"] < 0.8 * pi4["instructions"]


def test_a_lab_that_was_not_built_is_one_line(tmp_path):
    done = count("--model=a.tflite", f"--lab={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"instructions.py: The device lab must be built. Received: no board in {tmp_path}. See docs/devices.md."
    ]
