"""Android phones: a real adbd behind the real adb client, with Python of its own or with benchmark_model."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from devicelab import RESNET, free_port, phone_server

from tfcompress.errors import DeviceError, ModelError
from tfcompress.measurement import ConnectionOptions, LatencyOptions
from tfcompress.measurement.devices.addresses import Adb, parse
from tfcompress.measurement.devices.local import LocalDevice
from tfcompress.measurement.devices.opening import resolve
from tfcompress.measurement.devices.remote import adb as adb_module
from tfcompress.measurement.measuring import measure

lab_only = pytest.mark.devicelab
SHORT = {"kind": "latency", "runs": 1, "warmup_runs": 0}
TOOL = Path(__file__).with_name("benchmark_model")
PATIENCE = 60


@contextlib.contextmanager
def opened(address, **settings):
    with contextlib.closing(resolve(address, **settings)) as device:
        yield device


def connect(serial):
    subprocess.run(["adb", "connect", serial], check=True, capture_output=True)


def jobs(phone):
    return list((phone.root / "data/local/tmp/tfcompress").glob("job-*"))


@pytest.fixture
def pictures(lab):
    with np.load(lab.data / "cifar10/cifar10_subset.npz") as arrays:
        return arrays["x_test"].astype(np.float32), arrays["y_test"]


@pytest.fixture
def integers(lab, tmp_path):
    """Two pictures as ResNet-8 takes them: the stand-in for benchmark_model starts a Python for each."""
    path = tmp_path / "in.npz"
    with np.load(lab.data / "cifar10/cifar10_subset.npz") as arrays:
        np.savez(path, input_1_int8=(arrays["x_test"][:2].astype(np.int16) - 128).astype(np.int8))
    return path


def outputs(device, model, inputs, folder):
    result = folder / "out.npz"
    answer = device.run({"kind": "outputs"}, {"model": model, "inputs": inputs}, {"outputs": result})
    with np.load(result) as arrays:
        return answer["samples"], dict(arrays)


@lab_only
def test_int8_model_on_a_phone_answers_as_here(lab, phone, adb, pictures):
    before = jobs(phone)
    here, there = measure(
        lab.data / RESNET, pictures, device=["local", phone.name], latency=LatencyOptions(runs=2, warmup=1)
    )
    assert there.accuracy == here.accuracy == 0.884
    assert there.samples == 500
    assert (there.device.name, there.kind, there.settings.xnnpack) == (phone.name, "emulated", True)
    expected = {
        "model": "tfcompress Standin Phone",
        "Android": "14 (SDK 34)",
        "SoC": "qemu-cortex-a76",
        "ABI": "arm64-v8a",
    }
    assert expected.items() <= there.device.details.items()
    assert jobs(phone) == before
    assert not phone.processes("python")


@lab_only
def test_outputs_are_bit_equal_by_python_and_by_raw_tensors(lab, phone, adb, integers, tmp_path):
    model = lab.data / RESNET
    samples, here = outputs(LocalDevice(), model, integers, tmp_path)
    for tool in (None, TOOL):
        with opened(phone.name, benchmark_model=tool) as device:
            assert outputs(device, model, integers, tmp_path)[0] == samples == 2
        with np.load(tmp_path / "out.npz") as there:
            np.testing.assert_array_equal(there["Identity_int8"], here["Identity_int8"])
            assert there["Identity_int8"].dtype == np.int8


@lab_only
def test_benchmark_model_times_and_profiles(lab, phone, adb):
    record = measure(
        lab.data / RESNET,
        device=phone.name,
        latency=LatencyOptions(runs=3, warmup=1, profile=True),
        connection=ConnectionOptions(benchmark_model=TOOL),
        threads=2,
    )
    assert record.kind == "emulated"
    assert (record.latency.runs, record.latency.p90_ms) == (3, None)
    assert 0 < record.latency.min_ms <= record.latency.median_ms
    assert (record.settings.threads, record.settings.xnnpack, record.settings.delegate_nodes) == (2, True, 2)
    assert record.device.runtime.startswith("benchmark_model ")
    assert record.peak_bytes == round(6.5 * 2**20)
    assert [(op.name, op.part) for op in record.profile.ops] == [
        ("SOFTMAX", None),
        ("Convolution (NHWC, QC8) IGEMM", 0),
    ]


@lab_only
def test_benchmark_model_says_in_one_line_what_it_cannot(lab, phone, adb, tmp_path):
    damaged = tmp_path / "half.tflite"
    damaged.write_bytes((lab.data / RESNET).read_bytes()[:5000])
    (tmp_path / "script").write_text("not a program\n")
    cases = [
        (TOOL, {"accelerator": "gpu"}, lab.data / RESNET, DeviceError, "The GPU of adb://.* must take over some"),
        (TOOL, {"kind": "interleave"}, lab.data / RESNET, DeviceError, "cannot do 'interleave'"),
        (TOOL, {}, damaged, ModelError, "half.tflite"),
        (tmp_path / "script", {}, lab.data / RESNET, DeviceError, "not found|inaccessible|syntax error"),
    ]
    for tool, request, model, kind, said in cases:
        with opened(phone.name, benchmark_model=tool) as device, pytest.raises(kind, match=said) as caught:
            device.run({**SHORT, **request}, {"model": model}, {})
        assert "\n" not in str(caught.value)


@lab_only
def test_battery_and_temperature_are_recorded(phone, adb):
    script = phone.root / "system/bin/dumpsys"
    # As Android 14 prints it.
    lines = [
        "Current Battery Service state:",
        "  AC powered: false",
        "  USB powered: true",
        "  level: 81",
        "  temperature: 284",
    ]
    script.write_text("#!/bin/sh\n" + "\n".join(f"echo '{line}'" for line in lines) + "\n")
    script.chmod(0o755)
    try:
        with contextlib.closing(adb_module.AdbChannel(parse(phone.name))) as channel:
            details = channel.details()
    finally:
        script.unlink()
    assert details["battery"] == "81 %, charging"
    assert details["battery temperature"] == "28.4 °C"


@lab_only
def test_no_phone_and_an_unknown_one(lab, adb):
    for address, said in (
        ("adb://", "adb knows no phone. Plug one in and switch USB debugging on"),
        ("adb://R58M123ABC", "adb knows no phone R58M123ABC. Received: none"),
        (f"adb://127.0.0.1:{free_port()}", "adb cannot reach 127.0.0.1:.*Connection refused"),
    ):
        with opened(address) as device, pytest.raises(DeviceError, match=said) as caught:
            device.run(SHORT, {"model": lab.data / RESNET}, {})
        assert "\n" not in str(caught.value)


@lab_only
def test_two_phones_and_no_serial(lab, phone, adb, monkeypatch):
    with phone_server(lab) as second:
        connect(phone.serial)
        connect(second.serial)
        with opened("adb://") as device, pytest.raises(DeviceError, match="adb:// means the only phone") as caught:
            device.run(SHORT, {"model": lab.data / RESNET}, {})
        assert phone.serial in str(caught.value) and second.serial in str(caught.value)
        monkeypatch.setenv("ANDROID_SERIAL", second.serial)
        channel = adb_module.AdbChannel(Adb())
        assert channel.run("echo hello").text == "hello\n"
        assert channel.name == second.name


@lab_only
def test_the_only_phone_needs_no_serial(phone, adb):
    connect(phone.serial)
    channel = adb_module.AdbChannel(Adb())
    assert channel.run("exit 3").code == 3
    assert channel.name == phone.name


@lab_only
def test_unauthorized_phone(lab, adb):
    port = free_port()
    fake = [sys.executable, str(lab.scripts / "unauthorized_phone.py"), str(port)]
    with subprocess.Popen(fake, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "READY\n"
            with opened(f"adb://127.0.0.1:{port}") as device, pytest.raises(DeviceError) as caught:
                device.run(SHORT, {"model": lab.data / RESNET}, {})
        finally:
            process.kill()
    assert re.fullmatch(
        rf"The phone 127\.0\.0\.1:{port} does not let this computer in( yet)?\. Unlock it and accept the question about USB "
        r"debugging\.",
        str(caught.value),
    )


@lab_only
def test_offline_phone(lab, adb):
    import socket

    # It takes the connection and never says a word, as a phone does whose daemon hangs.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        serial = f"127.0.0.1:{silent.getsockname()[1]}"
        client = subprocess.Popen(["adb", "connect", serial], stdout=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while all(listed.serial != serial for listed in adb_module.listed_phones()) and time.monotonic() < until:
            time.sleep(0.1)
        with (
            opened(f"adb://{serial}") as device,
            pytest.raises(DeviceError, match=f"The phone {serial} is offline") as caught,
        ):
            device.run(SHORT, {"model": lab.data / RESNET}, {})
        client.kill()
        client.wait()
    assert "\n" not in str(caught.value)


def cut(phone, lab, act, tool=None):
    """Returns what becomes of a long request after ``act`` in the middle of it."""
    said = []

    def work():
        with opened(phone.name, benchmark_model=tool) as device:
            try:
                said.append(device.run({**SHORT, "runs": 1_000_000}, {"model": lab.data / RESNET}, {}))
            except DeviceError as error:
                said.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    needle = "--graph=" if tool else "on_device.agent"
    until = time.monotonic() + PATIENCE
    while not said and not phone.processes(needle) and time.monotonic() < until:
        time.sleep(0.1)
    act()
    thread.join(PATIENCE)
    assert said, "no answer"
    return said[0]


@lab_only
@pytest.mark.parametrize("tool", [None, TOOL], ids=["python", "benchmark_model"])
def test_daemon_dies_in_the_middle(lab, adb, tool):
    with phone_server(lab) as phone:
        error = cut(phone, lab, lambda: phone.kill("adbd"), tool)
        assert isinstance(error, DeviceError)
        assert f"connection to {phone.name} was lost" in str(error)
        assert "\n" not in str(error)


@lab_only
def test_runner_dies_in_the_middle(lab, phone, adb):
    before = jobs(phone)
    error = cut(phone, lab, lambda: phone.kill("on_device.agent"))
    assert isinstance(error, DeviceError)
    assert f"on {phone.name} was ended by SIGKILL" in str(error)
    assert not phone.processes("python")
    assert jobs(phone) == before


@lab_only
def test_ctrl_c_leaves_no_process_or_file_on_the_phone(lab, phone, adb, tmp_path):
    code = "import sys; from tfcompress.cli import main; sys.exit(main())"
    line = [sys.executable, "-c", code, "measure", f"--model={lab.data / RESNET}", f"--device={phone.name}"]
    child = subprocess.Popen(
        [*line, "--runs=1000000", "--warmup=0", f"--json={tmp_path / 'r.json'}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + PATIENCE
    while not (agents := list(phone.processes("on_device.agent"))) and time.monotonic() < until:
        time.sleep(0.1)
    job = Path(os.readlink(f"/proc/{agents[0]}/cwd"))
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130, said
    assert json.loads((tmp_path / "r.json").read_text())[0]["interrupted"] is True
    assert not phone.processes("python")
    assert job.name.startswith("job-") and not job.exists()


@lab_only
def test_damaged_model_is_the_same_error_as_here(lab, phone, adb, tmp_path):
    path = tmp_path / "half.tflite"
    path.write_bytes((lab.data / RESNET).read_bytes()[:5000])
    with opened(phone.name) as device, pytest.raises(ModelError, match="half.tflite"):
        device.run({**SHORT, "name": "half.tflite"}, {"model": path}, {})


def test_benchmark_model_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="benchmark_model must be a file. Received: .*none"):
        resolve("adb://", benchmark_model=tmp_path / "none")


def test_adb_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with opened("adb://") as device, pytest.raises(DeviceError, match="'adb' must be installed"):
        device.run(SHORT, {"model": tmp_path}, {})
