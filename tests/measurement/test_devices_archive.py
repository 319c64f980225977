"""What travels to a board: complete, alone, and in the Python that boards have."""

import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, tiny_cnn
from tfcompress.measurement.devices.on_device.agent import MODULES
from tfcompress.measurement.devices.remote.board import agent_archive, agent_sources

OLDEST = (3, 9)
TRAVELS = {"numpy", "ai_edge_litert", "tflite_runtime"}
PATIENCE = 60


@pytest.mark.parametrize("name", sorted(agent_sources()))
def test_python_3_9_reads_it(name):
    ast.parse(agent_sources()[name], name, feature_version=OLDEST)


@pytest.mark.parametrize("name", sorted(agent_sources()))
def test_python_3_9_runs_it(name):
    """No call or annotation that a newer Python brought: the grammar alone does not tell."""
    tree = ast.parse(agent_sources()[name])
    is_lazy = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = {keyword.arg for keyword in node.keywords}
            function = ast.unparse(node.func)
            assert not (function == "zip" and "strict" in words), f"{name}:{node.lineno} zip(strict=)"
            assert not (function.endswith("dataclass") and words & {"slots", "kw_only"}), f"{name}:{node.lineno}"
            if function in ("isinstance", "issubclass"):
                assert not isinstance(node.args[1], ast.BinOp), f"{name}:{node.lineno} isinstance(x, A | B)"
        annotations = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for annotation in annotations:
            unions = [] if annotation is None else [n for n in ast.walk(annotation) if isinstance(n, ast.BinOp)]
            assert is_lazy or not unions, f"{name}:{node.lineno} A | B without annotations from __future__"


def test_it_imports_nothing_that_stays_behind():
    own = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in agent_sources()}
    for name, source in agent_sources().items():
        package = name.removesuffix(".py").split("/")[:-1]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1]
                module = ".".join([*base, *([node.module] if node.module else [])])
                targets = [module] if node.module else [f"{module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [node.module]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            for target in targets:
                root = target.partition(".")[0]
                known = target in own if root == "tfcompress" else root in TRAVELS | set(sys.stdlib_module_names)
                assert known, f"{name}:{node.lineno} imports {target}"


def test_it_holds_what_the_agent_names_and_is_the_same_each_time():
    names = zipfile.ZipFile(io.BytesIO(agent_archive())).namelist()
    assert {f"tfcompress/{name}" for name in MODULES} <= set(names)
    before = agent_archive()
    agent_archive.cache_clear()
    assert agent_archive() == before


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / hashlib.sha256(agent_archive()).hexdigest()
    path.write_bytes(agent_archive())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.tflite"
    tfc.convert(compiled(tiny_cnn()), target="float32").save(path)
    return path


def started(runner, job):
    """Starts the archive as a board does: without this project on the path, in the job's folder."""
    return subprocess.Popen(
        [sys.executable, "-P", str(runner)],
        cwd=job,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def say(process, record):
    process.stdin.write(json.dumps(record).encode() + b"\n")
    process.stdin.flush()


def test_it_runs_alone(runner, model, tmp_path):
    job = tmp_path / "job"
    job.mkdir()
    with started(runner, job) as process:
        say(process, {"kind": "latency", "runs": 3, "warmup_runs": 0, "paths": {"model": str(model)}})
        lines = process.stdout.read().splitlines()
        assert process.wait(PATIENCE) == 0, process.stderr.read().decode()
    answer = json.loads(lines[-1])
    assert answer["complete"] is True
    assert answer["sha256"]["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert answer["latency"]["runs"] == 3
    assert job.is_dir()  # the answer is taken: the host removes it, after it pulled the results


def test_stop_gives_the_answer_early(runner, model, tmp_path):
    job = tmp_path / "job"
    job.mkdir()
    with started(runner, job) as process:
        say(process, {"kind": "latency", "runs": 10**9, "warmup_runs": 0, "paths": {"model": str(model)}})
        process.stdin.write(b"stop\n")  # during the imports already
        process.stdin.flush()
        lines = process.stdout.read().splitlines()
        assert process.wait(PATIENCE) == 0, process.stderr.read().decode()
    answer = json.loads(lines[-1])
    assert answer["interrupted"] is True
    assert 0 < answer["latency"]["runs"] < 10**9


def test_end_of_the_connection_removes_the_job(runner, model, tmp_path):
    job = tmp_path / "job"
    job.mkdir()
    np.save(job / "half.npy", np.zeros(3))
    with started(runner, job) as process:
        say(process, {"kind": "latency", "runs": 10**9, "warmup_runs": 0, "paths": {"model": str(model)}})
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until = time.monotonic() + PATIENCE
        while not (agents := children.read_text().split()):
            assert time.monotonic() < until
            time.sleep(0.02)
        process.stdin.close()
        assert process.wait(PATIENCE) != 0
    assert not job.exists()
    while Path(f"/proc/{agents[0]}").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
