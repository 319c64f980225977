"""Boards over SSH: the same answers as here, files that are sent once, and one clear line for each thing that fails."""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from devicelab import RESNET, free_port

from tfcompress.cli import main
from tfcompress.errors import DeviceError, ModelError
from tfcompress.measurement import LatencyOptions
from tfcompress.measurement.devices.addresses import Ssh, parse
from tfcompress.measurement.devices.local import LocalDevice
from tfcompress.measurement.devices.remote.board import Board, agent_archive
from tfcompress.measurement.devices.remote.cache import sha256_of
from tfcompress.measurement.devices.remote.ssh import SshChannel
from tfcompress.measurement.measuring import measure
from tfcompress.measurement.records import Failure

pytestmark = pytest.mark.devicelab

LONG = {"kind": "latency", "runs": 1_000_000, "warmup_runs": 0}
SHORT = {"kind": "latency", "runs": 1, "warmup_runs": 0}
PATIENCE = 60


@contextlib.contextmanager
def opened(server, *, cache=None, client=(), **settings):
    """Gives a board whose client also gets the options ``client``."""
    channel = SshChannel(parse(server.name), client=[server.client[0], *client, *server.client[1:]])
    if cache is not None:
        channel.cache = cache
    with contextlib.closing(Board(channel, **settings)) as board:
        yield board


def wait_until(happened, what):
    until = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < until, f"not within {PATIENCE} s: {what}"
        time.sleep(0.1)
    return found


def while_it_runs(device, server, act):
    """Acts as soon as the agent works on the board and returns what became of the request."""
    said = []

    def work():
        try:
            said.append(device.run(LONG, {"model": Path(server.lab.data / RESNET)}, {}))
        except DeviceError as error:
            said.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_until(lambda: said or server.processes("on_device.agent"), "the agent")
    act()  # during its imports, or later
    thread.join(PATIENCE)
    assert said, "no answer"
    return said[0]


def test_int8_model_answers_alike_on_both_boards_and_here(lab, boards, monkeypatch, tmp_path):
    data = np.load(lab.data / "cifar10/cifar10_subset.npz")
    x, y = data["x_test"].astype(np.float32), data["y_test"]
    model = lab.data / RESNET
    feeds = tmp_path / "in.npz"
    np.savez(feeds, input_1_int8=(data["x_test"].astype(np.int16) - 128).astype(np.int8))
    described = LocalDevice().run(SHORT, {"model": model}, {})
    assert [info["name"] for info in described["inputs"]] == ["input_1_int8"]
    reference = tmp_path / "reference.npz"
    LocalDevice().run({"kind": "outputs", "workers": 1}, {"model": model, "inputs": feeds}, {"outputs": reference})
    (output,) = described["outputs"]
    raw = np.load(reference)[output["name"]].astype(np.float32)
    np.savez(reference, **{output["name"]: (raw - output["zero_point"]) * np.float32(output["scale"])})
    monkeypatch.setenv("TFCOMPRESS_SSH", boards["cortex-a72"].environment["TFCOMPRESS_SSH"])

    names = ["local", *(board.name for board in boards.values())]
    here, pi4, pi5 = measure(model, (x, y), device=names, latency=LatencyOptions(runs=2, warmup=1), reference=reference)

    assert here.accuracy == 0.884
    for record, name in zip((pi4, pi5), names[1:], strict=True):
        assert not isinstance(record, Failure), record.reason
        assert record.accuracy == here.accuracy
        assert record.samples == 500
        assert record.reference.same_answers == 1.0
        # SOFTMAX stays off XNNPACK and takes its exp from each system's C library: one output in thousands may round
        # the other way. The next test has no such op and no such tolerance.
        assert record.reference.max_steps <= 1.0
        assert record.reference.mean_steps < 0.001
        assert (record.device.name, record.kind, record.settings.xnnpack) == (name, "emulated", True)
        assert "aarch64" in record.device.os
        assert record.device.python.startswith("3.11")


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_int8_outputs_are_equal_bit_by_bit(cpu, lab, boards, tmp_path):
    windows = np.random.default_rng(0).integers(-128, 128, (200, 640), np.int8)
    model, inputs = lab.data / "mlperf_ad/ad01_int8.tflite", tmp_path / "in.npz"
    described = LocalDevice().run(SHORT, {"model": model}, {})
    np.savez(inputs, **{described["inputs"][0]["name"]: windows})
    answers = []
    with opened(boards[cpu]) as board:
        for device in (LocalDevice(), board):
            found = tmp_path / f"{device.name[:3]}.npz"
            answer = device.run({"kind": "outputs"}, {"model": model, "inputs": inputs}, {"outputs": found})
            assert answer["samples"] == 200
            answers.append(np.load(found)[described["outputs"][0]["name"]])
    here, there = answers
    assert here.dtype == there.dtype == np.int8
    assert len(np.unique(here)) > 50
    np.testing.assert_array_equal(here, there)


def test_command_line_measures_over_ssh_and_profiles(lab, boards, monkeypatch, capsys):
    board = boards["cortex-a76"]
    monkeypatch.setenv("TFCOMPRESS_SSH", board.environment["TFCOMPRESS_SSH"])
    line = ["measure", f"--model={lab.data / RESNET}", f"--device={board.name}", "--runs=2", "--warmup=1"]
    assert main([*line, "--profile", "--json=-"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["kind"] == "emulated"
    assert record["latency"]["runs"] == 2
    assert record["profile"]["ops"]


def test_files_travel_once_and_the_cache_can_be_listed_and_cleared(lab, boards, monkeypatch, capsys):
    server, model = boards["cortex-a76"], lab.data / RESNET
    folder = f"/tmp/{os.getpid()}/tfcompress"
    with opened(server, cache=folder) as board:
        board.run(SHORT, {"model": model}, {})
        files = server.root / folder[1:] / "files"
        written = {path.name: path.stat().st_mtime_ns for path in files.iterdir()}
        assert sorted(written) == sorted([sha256_of(model), hashlib.sha256(agent_archive()).hexdigest()])
        assert [file.sha256 for file in board.cache.cached()] == sorted(
            written, key=lambda name: -(files / name).stat().st_size
        )
    with opened(server, cache=folder) as board:
        board.run(SHORT, {"model": model}, {})
        assert {path.name: path.stat().st_mtime_ns for path in files.iterdir()} == written
        board.cache.clear()
        assert board.cache.cached() == []
    assert not (server.root / folder[1:]).exists()

    monkeypatch.setenv("TFCOMPRESS_SSH", server.environment["TFCOMPRESS_SSH"])
    assert main(["devices", f"--device={server.name}"]) == 0
    assert re.search(r"\d+ files, ", capsys.readouterr().out)


def test_damaged_model_is_the_same_error_as_here(lab, boards, tmp_path):
    path = tmp_path / "half.tflite"
    path.write_bytes((lab.data / RESNET).read_bytes()[:5000])
    with opened(boards["cortex-a76"]) as board, pytest.raises(ModelError, match="ssh://root@") as caught:
        board.run({**SHORT, "name": "half.tflite"}, {"model": path}, {})
    assert "half.tflite" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_key(lab, boards, tmp_path):
    server = boards["cortex-a76"]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    server_client = [str(tmp_path / "key") if word == str(lab.folder / "key") else word for word in server.client]
    channel = SshChannel(parse(server.name), client=server_client)
    with contextlib.closing(Board(channel)) as board, pytest.raises(DeviceError) as caught:
        board.run(SHORT, {"model": lab.data / RESNET}, {})
    assert re.fullmatch(
        rf"{server.name} cannot be reached: it accepts none of your keys \(root@127\.0\.0\.1: Permission denied "
        rf"\(publickey\)\)\. Bring one there: ssh-copy-id -p {server.port} root@127\.0\.0\.1\.",
        str(caught.value),
    )


def test_host_key_that_changed(lab, boards, tmp_path):
    server = boards["cortex-a76"]
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    with (
        opened(server, client=["-o", f"UserKnownHostsFile={tmp_path / 'known'}"]) as board,
        pytest.raises(DeviceError, match=r"its host key is not the one in known_hosts\..*ssh-keygen -R") as caught,
    ):
        board.run(SHORT, {"model": lab.data / RESNET}, {})
    assert "\n" not in str(caught.value)


def test_host_key_that_nobody_knows_yet(lab, boards, tmp_path):
    server = boards["cortex-a76"]
    with (
        opened(server, client=["-o", f"UserKnownHostsFile={tmp_path / 'none'}"]) as board,
        pytest.raises(DeviceError, match=f"not in known_hosts yet. Log in by hand once: ssh -p {server.port} root@"),
    ):
        board.run(SHORT, {"model": lab.data / RESNET}, {})


def test_nobody_listens_and_no_such_host(lab):
    for address, said in (
        (Ssh("127.0.0.1", port=free_port()), "no SSH server listens there .*Connection refused"),
        (Ssh("no-such-board.invalid"), "no machine of that name is known"),
    ):
        with (
            contextlib.closing(Board(SshChannel(address, client=["ssh", "-F", "none"]))) as board,
            pytest.raises(DeviceError, match=f"{address} cannot be reached: {said}"),
        ):
            board.run(SHORT, {"model": lab.data / RESNET}, {})


def test_host_that_never_answers(lab):
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        address = Ssh("127.0.0.1", port=silent.getsockname()[1])
        channel = SshChannel(address, client=["ssh", "-F", "none"], connect_seconds=1)
        board = stack.enter_context(contextlib.closing(Board(channel)))
        with pytest.raises(DeviceError, match="it does not answer .*Check that it is switched on"):
            board.run(SHORT, {"model": lab.data / RESNET}, {})


def test_no_python_then_no_litert_then_full_disk_then_install(lab, spare_board):
    server, model = spare_board, lab.data / RESNET
    packages = server.root / "usr/local/lib/python3.11/dist-packages"
    server.inside("mount", "-t", "tmpfs", "tmpfs", packages)
    server.inside("mount", "--bind", "/dev/null", server.root / "usr/bin/python3.11")
    with opened(server, cache="/root/none") as board, pytest.raises(DeviceError) as caught:
        board.run(SHORT, {"model": model}, {})
    assert str(caught.value) == (
        f"{server.name} must have Python 3.10 or newer (3.9 with tflite-runtime). Received: no Python. Install it, on "
        f"Debian: ssh -p {server.port} root@127.0.0.1 'sudo apt-get install -y python3 python3-venv'"
    )

    server.inside("umount", server.root / "usr/bin/python3.11")
    with opened(server, cache="/root/none") as board, pytest.raises(DeviceError) as caught:
        board.run(SHORT, {"model": model}, {})
    assert str(caught.value) == (
        f"{server.name} must have ai-edge-litert and numpy for /usr/bin/python3 (Python 3.11). Received: none. Install "
        f"with --install, or type: ssh -p {server.port} root@127.0.0.1 '/usr/bin/python3 -m venv /root/none/venv && "
        "/root/none/venv/bin/pip install ai-edge-litert numpy'"
    )

    with opened(server, cache="/root/none", install=True) as board:
        answer = board.run(SHORT, {"model": model}, {})
        assert answer["device"]["runtime"].startswith("ai-edge-litert")
        assert board.kind == "emulated"
        board.cache.clear()
    assert not (server.root / "root/none").exists()


def test_full_disk(lab, spare_board, tmp_path):
    (spare_board.root / "small").mkdir(exist_ok=True)
    spare_board.inside("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", spare_board.root / "small")
    with opened(spare_board, cache="/small/tfcompress") as board, pytest.raises(DeviceError) as caught:
        board.run(SHORT, {"model": lab.data / RESNET}, {})
    assert re.fullmatch(
        rf"{spare_board.name} did not take pretrainedResnet_quant\.tflite(?: \(\d+ bytes\) as it is)?: its disk is full "
        r"\(No space left on device\)\. Free space there, or clear the cache: tfcompress devices "
        rf"--device={spare_board.name} --clear\.",
        str(caught.value),
    )


def test_runner_killed_in_the_middle(boards):
    server = boards["cortex-a72"]
    with opened(server) as board:
        error = while_it_runs(board, server, lambda: server.kill("on_device.agent"))
    assert isinstance(error, DeviceError)
    assert f"on {server.name} was ended by SIGKILL" in str(error)
    assert not server.processes("python")


def test_server_killed_in_the_middle(spare_board):
    with opened(spare_board) as board:
        error = while_it_runs(board, spare_board, lambda: spare_board.kill())
    assert isinstance(error, DeviceError)
    assert str(error).startswith(f"The connection to {spare_board.name} was lost in the middle of a run")
    assert "\n" not in str(error)


def test_interrupt_keeps_what_was_measured(boards):
    server = boards["cortex-a76"]
    with opened(server) as board:
        answer = while_it_runs(board, server, board.interrupt)
    assert answer["interrupted"] is True
    assert 0 < answer["latency"]["runs"] < LONG["runs"]
    assert not server.processes("python")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_leaves_no_process_port_or_file(number, spare_board, tmp_path):
    """Ctrl-C at the terminal, or the end of this program without a word: nothing stays on the board."""
    code = "import sys; from tfcompress.cli import main; sys.exit(main())"
    line = [sys.executable, "-c", code, "measure", f"--model={spare_board.lab.data / RESNET}"]
    child = subprocess.Popen(
        [*line, f"--device={spare_board.name}", "--runs=1000000", "--warmup=0", f"--json={tmp_path / 'r.json'}"],
        env={**os.environ, **spare_board.environment, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    (agent, *_) = wait_until(lambda: spare_board.processes("on_device.agent"), "the agent")
    job = Path(os.readlink(f"/proc/{agent}/cwd"))
    assert job.name.startswith("job-")
    assert job.is_dir()
    child.send_signal(number)
    _, said = child.communicate(timeout=PATIENCE)
    wait_until(lambda: not spare_board.processes("python"), "the end of the processes")
    wait_until(lambda: not job.exists(), "the end of the job's folder")
    if number == signal.SIGINT:
        assert child.returncode == 130, said
        assert "1 of 1 measurements are kept" in said
        (record,) = json.loads((tmp_path / "r.json").read_text())
        assert record["interrupted"] is True
        assert record["latency"]["runs"] > 0
        assert not list(tmp_path.glob("tf*-*"))
        assert len(spare_board.processes("sshd")) == 1
