"""``tfcompress measure`` as a stranger meets it: rows that fail, files for machines, repeated records, Ctrl-C."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfcompress.cli import main
from tfcompress.measurement.records import measurements_from_json

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--runs=3", "--warmup=0"]


@pytest.fixture(scope="module")
def models(shared_data):
    folder = shared_data / "mlperf_resnet8"
    return folder / "pretrainedResnet.tflite", folder / "pretrainedResnet_quant.tflite"


@pytest.fixture(scope="module")
def pictures(shared_data, tmp_path_factory):
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
        path = tmp_path_factory.mktemp("data") / "test.npz"
        np.savez(path, x=arrays["x_test"][:100], y=arrays["y_test"][:100])
    return path


def measure(*arguments):
    return main(["measure", *map(str, arguments)])


def test_everything_at_once(models, pictures, tmp_path, capsys):
    code = measure(
        f"--model={models[0]},{models[1]}",
        f"--data={pictures}",
        "--interleave",
        "--profile",
        "--metric=top1,top5",
        "--confusion",
        f"--reference={models[0]}",
        f"--json={tmp_path}/r.json",
        f"--json_lines={tmp_path}/r.jsonl",
        f"--csv={tmp_path}/r.csv",
        f"--report={tmp_path}/r.html",
        *QUICK,
    )
    assert code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    for words in ("ratio: pretrainedResnet_quant.tflite takes", "labels (rows)", "off the delegate: AVERAGE_POOL_2D"):
        assert words in text
    assert "times as long" in text or "times as long," in text
    records = measurements_from_json((tmp_path / "r.json").read_text())
    assert records == measurements_from_json((tmp_path / "r.jsonl").read_text())
    assert [set(record.scores) for record in records] == [{"top1", "top5"}] * 2
    assert [sum(map(sum, record.confusion)) for record in records] == [100, 100]
    assert records[0].reference.same_answers == 1.0 and records[0].reference.max_difference == 0.0
    assert 0.9 < records[1].reference.same_answers <= 1.0 and records[1].reference.max_steps > 1
    assert records[1].ratio.pairs == 3 and records[0].ratio is None
    assert records[1].settings.interleaved and records[1].profile.runs > 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert [float(row["accuracy"]) for row in rows] == [record.accuracy for record in records]
    page = (tmp_path / "r.html").read_text()
    assert "<h2>Time per op</h2>" in page and "<h2>Accuracy against latency</h2>" in page


def test_records_of_tensorflow_are_labelled_data_too(models, pictures, tmp_path, capsys):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    name = Interpreter(str(models[1])).get_input_details()[0]["name"]
    with np.load(pictures) as arrays, tf.io.TFRecordWriter(str(tmp_path / "test.tfrecord")) as writer:
        for pixels, label in zip(arrays["x"], arrays["y"].ravel(), strict=True):
            named = {
                "pixels": tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString())
    features = {name: {"feature": "pixels", "kind": "bytes", "dtype": "uint8"}, "y": "label"}
    (tmp_path / "features.json").write_text(json.dumps(features))
    records = []
    for data in (
        [f"--data={tmp_path}/test.tfrecord", f"--features={tmp_path}/features.json"],
        [f"--data={pictures}"],
    ):
        assert measure(f"--model={models[1]}", *data, *QUICK, "--json=-") == 0
        records += measurements_from_json(capsys.readouterr().out)
    assert records[0].accuracy == records[1].accuracy > 0.5 and records[0].data_sha256 == records[1].data_sha256


def test_a_record_is_repeated_from_itself(models, pictures, tmp_path, capsys):
    settings = ["--threads=2", "--noxnnpack", "--reset_state", "--metric=top1", "--batch=5", *QUICK]
    assert measure(f"--model={models[1]}", f"--data={pictures}", f"--json={tmp_path}/a.json", *settings) == 0
    assert measure(f"--like={tmp_path}/a.json", f"--json={tmp_path}/b.json") == 0
    assert "on the same data" in capsys.readouterr().out
    (first,), (second,) = (measurements_from_json((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert (first.call, first.settings, first.accuracy) == (second.call, second.settings, second.accuracy)
    assert not second.settings.xnnpack and second.settings.threads == 2
    assert measure(f"--like={tmp_path}/a.json", "--threads=1", f"--json={tmp_path}/c.json") == 0
    assert measurements_from_json((tmp_path / "c.json").read_text())[0].settings.threads == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record | {"call": {}}, "says how it was made"),
        (lambda record: record | {"call": record["call"] | {"data": None}, "samples": 9}, "data that was in memory"),
        (lambda record: record | {"call": record["call"] | {"model": None}}, "given as bytes"),
        (lambda record: record | {"model_sha256": "0" * 64}, "is of the same file"),
        (lambda record: {"nothing": 1}, "Not a measurement record"),
    ],
)
def test_a_record_that_cannot_be_repeated(models, tmp_path, capsys, change, message):
    assert measure(f"--model={models[1]}", f"--json={tmp_path}/a.json", *QUICK) == 0
    (record,) = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps([change(record)]))
    capsys.readouterr()
    assert measure(f"--like={tmp_path}/b.json") == 1
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and said.out == ""


@pytest.mark.parametrize("extra", [[], ["--interleave"]])
def test_one_that_fails_is_a_row_and_the_others_go_on(models, shared_data, tmp_path, capsys, extra):
    (tmp_path / "empty.tflite").write_bytes(b"")
    broken = shared_data / "person_detect" / "person_detect.tflite"
    files = f"--model={models[1]},{broken},{tmp_path}/empty.tflite,{tmp_path}/gone.tflite,{models[0]}"
    assert measure(files, f"--json={tmp_path}/r.json", f"--report={tmp_path}/r.html", *QUICK, *extra) == 1
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("failed: ") == 3
    entries = json.loads((tmp_path / "r.json").read_text())
    assert ["reason" in entry for entry in entries] == [False, True, True, True, False]
    assert [len(entry["reason"].splitlines()) for entry in entries[1:4]] == [1, 1, 1]
    assert len(measurements_from_json((tmp_path / "r.json").read_text())) == 2
    assert "Not measured" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--cpus=a"], 2, "--cpus must be numbers"),
        (["--json=-", "--csv=-"], 2, "can be '-'"),
        (["--api=other"], 2, "--help"),
        (["--accelerator=gpu", "--api=interpreter"], 1, "needs api='compiled'"),
        (["--accelerator=gpu"], 1, "must find a GPU"),
        (["--accelerator=npu"], 1, "must find an NPU"),
        (["--cpus=4095"], 1, "cpus must be among"),
        (["--metric=top9"], 1, "metric must be one of"),
        (["--interleave"], 1, "several models"),
        (["--reference=gone.npz", "--data={data}"], 1, "reference must exist"),
    ],
    ids=str,
)
def test_wrong_settings_are_one_line(models, pictures, capsys, arguments, code, message):
    assert measure(f"--model={models[1]}", *QUICK, *(each.format(data=pictures) for each in arguments)) == code
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and said.out == ""


def test_lines_of_json_on_standard_output(models, capsys):
    assert measure(f"--model={models[0]},{models[1]}", "--json_lines=-", *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["measured", "measured"]


def children_of(process):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in Linux's /proc")
@pytest.mark.parametrize("stage", ["latency", "accuracy"])
def test_interrupt_keeps_what_was_measured_and_leaves_no_process(models, shared_data, tmp_path, stage):
    long = ["--runs=1000000", "--warmup=1"] if stage == "latency" else QUICK
    data = []
    if stage == "accuracy":
        with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
            x = np.concatenate([arrays["x_test"]] * 20)
            np.savez(tmp_path / "long.npz", x=x, y=np.concatenate([arrays["y_test"]] * 20))
        data = [f"--data={tmp_path}/long.npz", "--batch=1", "--workers=1", "--noxnnpack"]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "tools" / "measure.py"),
            f"--model={models[1]},{models[0]}",
            f"--json={tmp_path}/r.json",
            *long,
            *data,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        children_of(process.pid) and (stage == "latency" or list(temporary.glob("*/inputs.npz")))
    ):
        time.sleep(0.02)
    time.sleep(2.0)  # past the start of Python in the child and into its work
    children = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "are kept" in errors
    (record,) = measurements_from_json((tmp_path / "r.json").read_text())
    assert record.interrupted and record.latency.runs > 0
    assert "interrupted: pretrainedResnet_quant.tflite" in output
    if stage == "accuracy":
        assert 0 < record.samples < 10_000 and 0.8 < record.accuracy < 1
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(temporary.iterdir()) == []
