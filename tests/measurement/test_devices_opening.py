"""Names of devices, and a list of devices of which one fails."""

import json
import shutil

import pytest
from devicelab import RESNET, free_port

from tfcompress.cli import main
from tfcompress.measurement import LatencyOptions
from tfcompress.measurement.devices.addresses import ETHOS_U, Adb, EthosU, Local, Ssh, Tflm, parse
from tfcompress.measurement.devices.opening import resolve, same_machine
from tfcompress.measurement.measuring import measure
from tfcompress.measurement.records import Failure


@pytest.mark.parametrize(
    "name, address",
    [
        ("local", Local()),
        ("tflm", Tflm()),
        ("ethos-u85-2048", EthosU("ethos-u85-2048")),
        ("ssh://board", Ssh("board")),
        ("ssh://pi@Board.local:2222", Ssh("Board.local", "pi", 2222)),
        ("ssh://pi@[fe80::1]:22", Ssh("fe80::1", "pi", 22)),
        ("adb://", Adb()),
        ("adb://R58M123ABC", Adb("R58M123ABC")),
        ("adb://192.168.0.9:5555", Adb("192.168.0.9:5555")),
    ],
)
def test_names_of_devices(name, address):
    assert parse(name) == address
    assert parse(str(address)) == address
    assert resolve(name).name == name


@pytest.mark.parametrize(
    "name, said",
    [
        ("toaster", "device must be one of: local"),
        ("ethos-u55-129", "Did you mean 'ethos-u55-128'"),
        ("ssh://", "A board is named ssh://user@host:port"),
        ("ssh://-oProxyCommand=evil", "A board is named"),
        ("ssh://-x@board", "A board is named"),
        ("ssh://board:port", "A board is named"),
        ("ssh://board:0", "A board is named"),
        ("ssh://board:70000", "A board is named"),
        ("ssh://pi:secret@board", "passwords belong to ssh's own configuration"),
        ("ssh://board/folder", "A board is named"),
        ("ssh://board;reboot", "A board is named"),
        ("adb://-d", "A phone is named adb://SERIAL"),
        ("adb://a b", "A phone is named adb://SERIAL"),
    ],
)
def test_wrong_names(name, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse(name)
    assert "\n" not in str(caught.value)


def test_every_ethos_u_is_known():
    assert {parse(name).processor for name in ETHOS_U} == set(ETHOS_U)


def test_devices_of_one_machine_take_turns():
    assert same_machine("local") == same_machine("tflm") == same_machine("ethos-u55-32")
    assert same_machine("ssh://a@board") == same_machine("ssh://b@board")
    assert len({same_machine(name) for name in ("local", "ssh://board", "ssh://board:2222", "adb://x", "adb://y")}) == 5


def test_benchmark_model_is_for_phones(tmp_path):
    with pytest.raises(ValueError, match="runs on Android phones"):
        resolve("ssh://board", benchmark_model=tmp_path)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs the OpenSSH client")
def test_device_that_fails_is_a_row_and_the_others_go_on(shared_data, monkeypatch, capsys):
    monkeypatch.setenv("TFCOMPRESS_SSH", "ssh -F none")
    gone = f"ssh://127.0.0.1:{free_port()}"
    here, failed = measure(shared_data / RESNET, device=["local", gone], latency=LatencyOptions(runs=2, warmup=0))
    assert here.device.name == "local" and here.latency.runs == 2
    assert isinstance(failed, Failure)
    assert failed.device == gone
    assert "no SSH server listens there" in failed.reason

    line = ["measure", f"--model={shared_data / RESNET}", f"--device=local,{gone}", "--runs=2", "--warmup=0"]
    assert main([*line, "--json=-"]) == 1
    records = json.loads(capsys.readouterr().out)
    assert [record["device"]["name"] for record in records if "latency" in record] == ["local"]
    assert any("no SSH server listens" in record.get("reason", "") for record in records)
