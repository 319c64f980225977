"""The command line as a stranger meets it: exit codes, one line, stdout kept clean, nothing half written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.cli import main

ROOT = Path(__file__).resolve().parents[2]
X, Y = striped_pictures(64)


def call(tool, *arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    model = compiled(tiny_cnn())
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", x=X, y=Y)
    tfc.convert(model, representative_data=X).save(folder / "int8.tflite")
    tfc.convert(model, target="float32").save(folder / "float.tflite")
    return folder


@pytest.mark.parametrize("tool", ["convert", "measure"])
def test_help_names_every_flag_and_exits_with_0(tool):
    done = call(tool, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 100
    for flag in ("--model", "--json", "--overwrite", "--debug", "--scaling"):
        assert flag in done.stdout


@pytest.mark.parametrize("tool", ["convert", "measure"])
def test_help_imports_no_tensorflow(tool):
    code = (
        "import sys\nfrom tfcompress.cli import run\n"
        f"run({tool!r}, ['--help'], program='x')\n"
        "print([m for m in ('tensorflow', 'keras', 'ai_edge_litert', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--model must be given"),
        (("--modle=x",), "Unknown command line flag"),
        (("model.keras",), "Every input is a flag"),
        (("--model=m.keras", "--output=o.tflite", "--target=cpu-int9"), "cpu-int9"),
    ],
    ids=str,
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, message, tmp_path):
    done = call("convert", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_convert_and_measure(folder, tmp_path):
    output = tmp_path / "model.tflite"
    data = f"--representative_data={folder / 'data.npz'}"
    done = call("convert", f"--model={folder / 'model.keras'}", data, f"--output={output}", "--target=cpu-int8")
    assert done.returncode == 0, done.stderr
    assert "0 trained, 7 calibrated, 0 missing" in done.stdout or "calibrated, 0 missing" in done.stdout
    assert all(line.startswith("calibrating: ") for line in done.stderr.splitlines())
    assert output.read_bytes() == (folder / "int8.tflite").read_bytes()

    models = f"--model={folder / 'float.tflite'},{output}"
    done = call("measure", models, f"--data={folder / 'data.npz'}", "--runs=5", "--json=-")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert len(records) == 2
    assert all(0 <= record["accuracy"] <= 1 for record in records)
    done = call("measure", models, f"--data={folder / 'data.npz'}", "--runs=5", f"--report={tmp_path / 'r.html'}")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "<html" in (tmp_path / "r.html").read_text()


def test_json_on_stdout_is_only_json(folder, tmp_path):
    done = call("convert", f"--model={folder / 'model.keras'}", f"--output={tmp_path / 'm.tflite'}", "--json=-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"]["name"] == "dynamic"


def test_works_after_a_users_import_of_the_toolkit(folder, tmp_path):
    done = call(
        "convert",
        f"--model={folder / 'model.keras'}",
        f"--representative_data={folder / 'data.npz'}",
        f"--output={tmp_path / 'm.tflite'}",
        TF_USE_LEGACY_KERAS="1",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.tflite").read_bytes() == (folder / "int8.tflite").read_bytes()


def test_library_works_after_an_import_of_the_toolkit(folder):
    code = f"""
import tensorflow_model_optimization
import numpy as np, tfcompress as tfc
data = np.load({str(folder / "data.npz")!r})
result = tfc.convert({str(folder / "model.keras")!r}, representative_data=data["x"])
record = tfc.measure(result.tflite, (data["x"], data["y"]), latency=tfc.LatencyOptions(runs=3))
print(len(result.float_tensors), record.accuracy >= 0)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["0 True"], done.stderr[-2000:]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("convert", ("--model=gone.keras", "--output=o.tflite"), "must exist"),
        ("convert", ("--model={folder}/data.npz", "--output=o.tflite"), "The .keras file is damaged"),
        ("convert", ("--model={folder}/model.keras", "--output=gone/o.tflite"), "folder must exist"),
        ("convert", ("--model={folder}/model.keras", "--output={folder}/int8.tflite"), "exists already"),
        (
            "convert",
            ("--model={folder}/model.keras", "--output=o.tflite", "--target=cpu-int8"),
            "--representative_data",
        ),
        (
            "convert",
            ("--model={folder}/model.keras", "--output=o.tflite", "--representative_data=."),
            "Received",
        ),
        ("measure", ("--model=gone.tflite",), "gone.tflite"),
        ("measure", ("--model={folder}/model.keras",), "model.keras"),
        ("measure", ("--model={folder}/int8.tflite", "--data=gone.npz"), "gone.npz"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_exit_1(folder, tmp_path, tool, arguments, message):
    done = call(tool, *(argument.format(folder=folder) for argument in arguments), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_no_file(folder, tmp_path):
    import signal
    import time

    output = tmp_path / "model.tflite"
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "tools" / "convert.py"),
            f"--model={folder / 'model.keras'}",
            f"--representative_data={folder / 'data.npz'}",
            f"--output={output}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ([output.name] if process.returncode == 0 else [])


def test_one_name_for_two_files_is_refused_before_any_work(tmp_path, capsys):
    model = tmp_path / "m.keras"
    model.write_bytes(b"x")
    for arguments in (
        [f"--model={model}", f"--output={model}", "--overwrite"],
        [f"--model={model}", f"--output={tmp_path}/a", f"--json={tmp_path}/../{tmp_path.name}/a"],
    ):
        assert main(["convert", *arguments]) == 1
        assert "name of its own" in capsys.readouterr().err
    assert model.read_bytes() == b"x"


def test_a_link_is_written_through_and_a_device_is_refused(tmp_path):
    from tfcompress.errors import OutputError
    from tfcompress.system.files import write_atomically

    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="plain file"):
        write_atomically(tmp_path / "pipe", "new", overwrite=True)


@pytest.mark.parametrize("arguments", [["--model=a.tflite,"], ["--model=a.tflite", "--report=-"]])
def test_measure_says_what_is_wrong_with_its_flags(arguments, capsys):
    assert main(["measure", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
