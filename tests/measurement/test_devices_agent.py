"""The agent and the child process it runs in: what travels, how an answer is complete, early ends, batches, interfaces."""

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tfcompress.errors import DeviceError, ModelError
from tfcompress.measurement.devices.local import AGENT, LocalDevice, answer_of
from tfcompress.measurement.devices.on_device import agent
from tfcompress.measurement.devices.on_device.inference import evaluate, worker_count
from tfcompress.measurement.devices.protocol import Exchange
from tfcompress.tflite.interpreter import open_model

PACKAGE = Path(agent.__file__).resolve().parents[3]
LATENCY = {"kind": "latency", "runs": 3, "warmup_runs": 0}


@pytest.fixture
def resnet(shared_data):
    return shared_data / "mlperf_resnet8" / "pretrainedResnet_quant.tflite"


@pytest.fixture
def pictures(shared_data, tmp_path):
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
        raw = (arrays["x_test"][:150].astype(np.int16) - 128).astype(np.int8)
    np.savez(tmp_path / "inputs.npz", input_1_int8=raw)
    return raw, tmp_path / "inputs.npz"


def travelling():
    return {name: (PACKAGE / name).read_text() for name in agent.MODULES}


def test_what_travels_is_what_is_imported():
    code = (
        "import sys, pathlib, tfcompress.measurement.devices.on_device.agent\n"
        "folder = pathlib.Path(tfcompress.__file__).parent\n"
        "print(*sorted(str(pathlib.Path(m.__file__).relative_to(folder)) for n, m in sys.modules.items()"
        " if n.startswith('tfcompress.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    # A package's __init__, which offers its names lazily, is another one on a board.
    imported = {name for name in done.stdout.split() if not name.endswith("__init__.py")} - {"system/lazy.py"}
    assert imported == set(agent.MODULES)


@pytest.mark.parametrize("name", agent.MODULES)
def test_what_travels_is_python_3_9(name):
    text = travelling()[name]
    tree = ast.parse(text, feature_version=(3, 9))
    has_postponed = "from __future__ import annotations" in text
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert not (called == "zip" and node.keywords), f"{name}:{node.lineno}: zip(strict=) is of 3.10"
            is_check = called in ("isinstance", "issubclass")
            assert not (is_check and isinstance(node.args[1], ast.BinOp)), f"{name}:{node.lineno}: A | B is of 3.10"
        if isinstance(node, ast.arg | ast.AnnAssign | ast.FunctionDef) and not has_postponed:
            notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
            assert not any(isinstance(note, ast.BinOp) for note in notes), f"{name}:{node.lineno}: X | Y is of 3.10"
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            assert not {"Self", "TypeAlias", "ParamSpec"} & {alias.name for alias in node.names}, name


def test_answer_ends_with_its_mark_and_the_hash_of_the_file(resnet):
    import hashlib

    answer = LocalDevice().run(LATENCY, {"model": resnet}, {})
    assert answer["complete"] is True
    assert answer["sha256"] == {"model": hashlib.sha256(resnet.read_bytes()).hexdigest()}
    assert answer["settings"]["runs"] == 3 and answer["settings"]["delegate_nodes"] == 2
    assert answer["activation_bytes"] == 49152  # 32 x 32 x 16 int8 three times: two branches and their sum


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ([], 0, "no answer"),
        (['{"latency": {}}'], 0, "no answer"),
        (['{"complete": true}'], 3, "exit code 3"),
        ([], -signal.SIGSEGV, "SIGSEGV"),
    ],
)
def test_answer_that_was_cut_off_is_an_error(lines, code, message):
    end = f"os.kill(os.getpid(), {-code})" if code < 0 else f"sys.exit({code})"
    child = f"import os, sys; print(*{lines!r}, sep='\\n', flush=True); {end}"
    reply, ended = Exchange([sys.executable, "-c", child], {}).answer(timeout_seconds=60)
    assert ended.code == code
    with pytest.raises(DeviceError, match=message):
        answer_of(reply, ended, "m.tflite")


@pytest.mark.parametrize("settings", [{}, {"threads": 2}, {"xnnpack": False}, {"api": "compiled"}], ids=str)
def test_settings_are_what_the_child_ran_with(resnet, settings):
    found = LocalDevice().run({**LATENCY, **settings}, {"model": resnet}, {})["settings"]
    assert found["xnnpack"] is settings.get("xnnpack", True)
    assert (found["threads"], found["api"]) == (settings.get("threads", 1), settings.get("api", "interpreter"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processors can be chosen on Linux only")
def test_child_is_pinned_to_the_processors_that_were_chosen(resnet):
    chosen = max(os.sched_getaffinity(0))
    answer = LocalDevice().run({**LATENCY, "cpus": [chosen]}, {"model": resnet}, {})
    assert answer["device"]["cores"] == answer["noise"]["cores"] == 1
    assert answer["settings"]["cpus"] == [chosen]
    with pytest.raises(DeviceError, match="Received: \\[4095\\]"):
        LocalDevice().run({**LATENCY, "cpus": [4095]}, {"model": resnet}, {})


@pytest.mark.parametrize(("accelerator", "said"), [("gpu", "a GPU"), ("npu", "an NPU")])
def test_accelerator_that_is_not_there_is_one_line(resnet, accelerator, said):
    with pytest.raises(DeviceError, match=f"LiteRT must find {said} that runs m.tflite. Received: none") as caught:
        LocalDevice().run(
            {**LATENCY, "api": "compiled", "accelerator": accelerator, "name": "m.tflite"}, {"model": resnet}, {}
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"batch": 7, "workers": 3}, {"api": "compiled"}, {"workers": 1}], ids=str)
def test_batches_on_all_cores_answer_as_one_by_one(resnet, pictures, tmp_path, settings):
    raw, inputs = pictures
    model = open_model(resnet)
    expected = np.concatenate([model.run_raw(raw[i : i + 1])[model.outputs[0].name] for i in range(len(raw))])
    seen = []
    answer = LocalDevice().run(
        {"kind": "outputs", **settings},
        {"model": resnet, "inputs": inputs},
        {"outputs": tmp_path / "outputs.npz"},
        progress=lambda done, total: seen.append((done, total)),
    )
    with np.load(tmp_path / "outputs.npz") as found:
        np.testing.assert_array_equal(found[model.outputs[0].name], expected)
    assert answer["samples"] == 150 and answer["state"] == "none" and answer["seconds"] > 0
    assert all(done <= total == 150 for done, total in seen)


def test_files_in_turns_have_as_many_times_each(resnet, shared_data):
    files = {"model0": shared_data / "mlperf_resnet8" / "pretrainedResnet.tflite", "model1": resnet}
    answer = LocalDevice().run({"kind": "interleave", "runs": 5, "warmup_runs": 2}, files, {})
    assert [len(times) for times in answer["times_ms"]] == [5, 5]
    assert set(answer["sha256"]) == {"model0", "model1"} and answer["warmup_runs"] == 2


def test_missing_file_names_it(tmp_path):
    with pytest.raises(ModelError, match="must exist. Received: other.tflite"):
        LocalDevice().run({**LATENCY, "name": "other.tflite"}, {"model": tmp_path / "gone.tflite"}, {})


class SlowModel:
    """Takes a while for each block and answers with its sum."""

    def __init__(self, started: threading.Event):
        self.started = started

    def run_raw(self, block, *, batch):
        self.started.set()
        time.sleep(0.02)
        return {"y": block["x"].sum(axis=1)}


def test_early_end_keeps_the_beginning(monkeypatch):
    from tfcompress.measurement.devices.on_device import inference

    stop = inference.STOP.__class__()
    monkeypatch.setattr(inference, "STOP", stop)
    started = threading.Event()
    x = np.arange(4000).reshape(2000, 2)
    threading.Thread(target=lambda: started.wait() and setattr(stop, "requested", True), daemon=True).start()
    found, samples, _ = evaluate(lambda: SlowModel(started), {"x": x}, batch=4, workers=3)
    assert 0 < samples < 2000
    np.testing.assert_array_equal(found["y"], x.sum(axis=1)[:samples])


def test_error_of_a_worker_is_raised_and_ends_the_others():
    class Failing:
        def run_raw(self, block, *, batch):
            raise DeviceError("no luck")

    with pytest.raises(DeviceError, match="no luck"):
        evaluate(Failing, {"x": np.zeros((50, 1))}, batch=2, workers=2)


def test_workers_share_the_cores_with_their_threads():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert worker_count(0, 1, 1000) == cores
    assert worker_count(0, 2 * cores, 1000) == 1
    assert worker_count(5, 1, 1000) == 5


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of Unix")
def test_signal_makes_the_agent_answer_with_what_it_has(resnet):
    request = {"kind": "latency", "paths": {"model": str(resnet)}, "runs": 1_000_000, "warmup_runs": 5}
    child = subprocess.Popen(
        [sys.executable, "-c", AGENT, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    child.stdin.write(json.dumps(request) + "\n")
    child.stdin.flush()
    time.sleep(2.0)
    child.send_signal(signal.SIGINT)
    answer = json.loads(child.communicate(timeout=60)[0].strip().splitlines()[-1])
    assert child.returncode == 0
    assert answer["complete"] and answer["interrupted"]
    assert 0 < answer["latency"]["runs"] < 1_000_000
