"""``inspect`` and ``compare`` on the command line: clean streams, exit codes, pages, and files that are no models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from html_page import Page

import tfcompress as tfc
from models import striped_pictures, tiny_cnn
from tfcompress.cli import main
from tfcompress.comparison.layer_comparison import layer_reports
from tfcompress.errors import OutputError
from tfcompress.reporting.file_report import conversion_record, conversion_report, conversion_text, inspection_report
from tfcompress.tflite.inspection import inspect

ROOT = Path(__file__).resolve().parents[2]
X, Y = striped_pictures(64)


def call(tool, *arguments, cwd=None):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    model = tiny_cnn()
    model(X, training=True)
    np.savez(folder / "data.npz", x=X, y=Y)
    tfc.convert(model, representative_data=X).save(folder / "int8.tflite")
    tfc.convert(model, target="float32").save(folder / "float.tflite")
    (folder / "cut.tflite").write_bytes((folder / "int8.tflite").read_bytes()[:1000])
    return folder


@pytest.fixture(scope="module")
def account(folder):
    model = tiny_cnn()
    model(X, training=True)
    result = tfc.convert(model, representative_data=X)
    hub = (folder / "float.tflite").read_bytes()
    return result, layer_reports(hub, result.tflite, {"image": X[:4]}, {"Identity": "calibrated"})


@pytest.mark.parametrize(("tool", "command"), [("inspect_model", "inspect"), ("compare", "compare")])
def test_help_names_every_flag_and_imports_little(tool, command):
    done = call(tool, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert all(flag in done.stdout for flag in ("--model", "--json", "--overwrite", "--debug"))
    code = (
        "import sys\nfrom tfcompress.cli import run\n"
        f"run({command!r}, ['--help'], program='x')\n"
        "heavy = ('tensorflow', 'keras', 'ai_edge_litert', 'matplotlib', 'numpy')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_inspect_as_text_json_and_page(folder, tmp_path):
    page = tmp_path / "page.html"
    done = call("inspect_model", f"--model={folder / 'int8.tflite'}", f"--report={page}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs on ai-edge-litert" in done.stdout and "2 CONV_2D" in done.stdout
    assert Page(page.read_text()).open == []
    done = call("inspect_model", f"--model={folder / 'int8.tflite'}", "--json=-", "--norun")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert sum(record["bytes_by_kind"].values()) == record["size_bytes"] and record["trial"] is None


def test_the_report_is_what_its_name_ends_in(folder, tmp_path, capsys):
    arguments = ["inspect", f"--model={folder / 'int8.tflite'}", "--norun"]
    for suffix in ("json", "txt", "html"):
        assert main([*arguments, f"--report={tmp_path}/r.{suffix}"]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "r.txt").read_text() * 3 == shown
    assert json.loads((tmp_path / "r.json").read_text())["ops"]["CONV_2D"] == 2
    assert Page((tmp_path / "r.html").read_text()).open == []
    assert main([*arguments, f"--report={tmp_path}/r.pdf"]) == 2
    assert "--report must name a .html, .htm, .json, .txt file" in capsys.readouterr().err


def test_compare_as_text_and_json(folder, tmp_path):
    models = f"--model={folder / 'float.tflite'},{folder / 'int8.tflite'}"
    done = call("compare", models, f"--data={folder / 'data.npz'}", "--samples=16")
    assert (done.returncode, done.stderr) == (0, "")
    assert "16 samples" in done.stdout and "same arg-max" in done.stdout
    done = call("compare", models, "--json=-", "--threshold_db=90")
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert record["random"] is True and record["parting"]["layer"] == "stem_relu"


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "message"),
    [
        ("inspect_model", (), 2, "--model must be given"),
        ("inspect_model", ("m.tflite",), 2, "Every input is a flag"),
        ("inspect_model", ("--model=gone.tflite",), 1, "must exist"),
        ("inspect_model", ("--model={folder}/data.npz",), 1, "TFL3"),
        ("inspect_model", ("--model={folder}/cut.tflite",), 1, "damaged"),
        ("inspect_model", ("--model={folder}/int8.tflite", "--report=gone/r.html"), 1, "folder must exist"),
        ("compare", ("--model={folder}/int8.tflite",), 2, "two files"),
        ("compare", ("--model={folder}/int8.tflite,gone.tflite",), 1, "must exist"),
        ("compare", ("--model={folder}/int8.tflite,{folder}/cut.tflite",), 1, "damaged"),
        ("compare", ("--model={folder}/int8.tflite,{folder}/int8.tflite", "--data=gone.npz"), 1, "gone.npz"),
        ("compare", ("--model={folder}/int8.tflite,{folder}/int8.tflite", "--samples=0"), 2, "samples"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(folder, tmp_path, tool, arguments, code, message):
    done = call(tool, *(argument.format(folder=folder) for argument in arguments), cwd=tmp_path)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_refused_file_on_the_command_line(shared_data):
    path = shared_data / "person_detect/person_detect.tflite"
    done = call("inspect_model", f"--model={path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "does not run on" in done.stdout and "14 DEPTHWISE_CONV_2D" in done.stdout
    done = call("compare", f"--model={path},{path}")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "quantized_dimension" in done.stderr


def test_page_of_a_conversion(account, tmp_path):
    result, layers = account
    text = conversion_report(result, tmp_path / "r.html", layers=layers).read_text()
    page = Page(text)
    assert page.open == [] and len(set(page.ids)) == len(page.ids)
    assert all(link.startswith(("#", "data:")) for link in page.links) and "script" not in page.tags
    assert page.tags.count("svg") == 4 and "http" not in text
    for word in ("Where it loses", "Where the bytes are", "Ops by type", "calibrated", "depthwise_relu", "per channel"):
        assert word in text
    with pytest.raises(OutputError, match="exists already"):
        conversion_report(result, tmp_path / "r.html", layers=layers)


def test_page_without_layers(account, tmp_path):
    result, _ = account
    text = conversion_report(result, tmp_path / "r.html", title="<b>t</b>").read_text()
    assert "Where it loses" not in text and Page(text).tags.count("svg") == 2 and "b" in Page(text).tags
    assert "&lt;b&gt;t" in text


def test_text_and_json_of_a_conversion_say_the_same(account):
    result, layers = account
    record = json.loads(json.dumps(conversion_record(result, layers), allow_nan=False))
    text = conversion_text(result, layers)
    assert sum(record["bytes_by_kind"].values()) == result.size_bytes
    worst = record["layers"][record["ranking"][0]]["layer"]
    assert f"most in #{record['ranking'][0]} {worst}" in " ".join(text.split())
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert text.startswith(str(result))


@pytest.mark.parametrize("name", ["mlperf_sww/str_ww_ref_model", "mnist/trained_lstm", "person_detect/person_detect"])
def test_pages_of_real_files(shared_data, tmp_path, name):
    found = inspect(shared_data / f"{name}.tflite", run=False)
    assert Page(inspection_report(found, tmp_path / "r.html").read_text()).open == []
