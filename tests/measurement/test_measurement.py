"""Measurements of real files with the real interpreter: known accuracies, complete records, clear refusals."""

import gzip
import hashlib
import os
import signal

import numpy as np
import pytest

import tfcompress
from tfcompress.errors import DataError, DeviceError, ModelError
from tfcompress.measurement import EvaluationOptions, LatencyOptions, RuntimeOptions
from tfcompress.measurement.devices.local import LocalDevice, run_agent
from tfcompress.measurement.devices.on_device.agent import resident_bytes
from tfcompress.measurement.measuring import measure
from tfcompress.measurement.records import json_text, measurements_from_json
from tfcompress.measurement.tables import measurement_table
from tfcompress.tflite.interpreter import open_model

QUICK = {"latency": LatencyOptions(warmup=0, runs=2)}
# The figures in the table of the shared data's README have three digits, and a sample more or less may tip over
# between processors: float sums in another order.
TOLERANCE = 0.003


@pytest.fixture(scope="module")
def cifar10(shared_data):
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
        return arrays["x_test"], arrays["y_test"]


@pytest.fixture(scope="module")
def mnist(shared_data):
    pictures = gzip.decompress((shared_data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(pictures, np.uint8, offset=16).reshape(-1, 28, 28)[:4000]
    return x.astype(np.float32) / 255, np.frombuffer(labels, np.uint8, offset=8)[:4000]


@pytest.fixture(scope="module")
def wake_word(shared_data):
    with np.load(shared_data / "mlperf_sww" / "calibration_samples.npz") as arrays:
        return arrays["specs"], arrays["labels"]


@pytest.fixture
def resnet(shared_data):
    return shared_data / "mlperf_resnet8" / "pretrainedResnet_quant.tflite"


@pytest.mark.parametrize(
    "file, data, accuracy",
    [
        ("mlperf_resnet8/pretrainedResnet.tflite", "cifar10", 0.888),
        ("mlperf_resnet8/pretrainedResnet_quant.tflite", "cifar10", 0.884),
        ("mnist/trained_lstm.tflite", "mnist", 0.918),
        ("mnist/trained_lstm_int8.tflite", "mnist", 0.916),
        ("mlperf_sww/str_ww_ref_model.tflite", "wake_word", 0.911),
    ],
)
def test_known_accuracies(shared_data, request, file, data, accuracy):
    record = measure(shared_data / file, request.getfixturevalue(data), **QUICK)
    assert record.accuracy == pytest.approx(accuracy, abs=TOLERANCE)
    assert record.settings.state == ("carried" if "lstm" in file else "none")


@pytest.mark.parametrize("file", ["trained_lstm.tflite", "trained_lstm_int8.tflite"])
def test_lstm_that_starts_anew_for_each_sample_is_better(shared_data, mnist, file):
    record = measure(shared_data / "mnist" / file, mnist, evaluation=EvaluationOptions(reset_state=True), **QUICK)
    assert record.accuracy > 0.97  # 0.978 and 0.9775: the state of the sample before costs six points
    assert record.settings.state == "reset"


def test_record_is_complete(resnet, cifar10):
    record = measure(resnet, cifar10, threads=2, latency=LatencyOptions(warmup=1, runs=3), label="int8")
    content = resnet.read_bytes()
    assert record.model == str(resnet) and record.label == "int8" and record.kind == "measured"
    assert record.model_sha256 == hashlib.sha256(content).hexdigest()
    assert record.size_bytes == len(content) and 0 < record.gzip_bytes < len(content)
    assert record.samples == 500 and len(record.data_sha256) == 64
    assert (record.input_dtypes, record.output_dtypes) == (("int8",), ("int8",))
    assert (record.settings.threads, record.settings.warmup_runs, record.settings.runs) == (2, 1, 3)
    assert record.settings.xnnpack and record.settings.delegate_nodes == 2
    assert record.device.name == "local" and record.device.runtime.startswith("ai-edge-litert ")
    latency = record.latency
    assert 0 < latency.min_ms <= latency.median_ms <= latency.p90_ms <= latency.p99_ms
    assert measurements_from_json(json_text(record)) == [record]


def test_without_data_there_is_no_accuracy(resnet):
    record = measure(resnet, **QUICK)
    assert (record.accuracy, record.samples, record.data_sha256) == (None, 0, None)


def test_list_of_models_keeps_order_and_labels(shared_data, cifar10):
    names = ["pretrainedResnet_quant.tflite", "pretrainedResnet.tflite"]
    paths = [shared_data / "mlperf_resnet8" / name for name in names]
    records = measure(paths, cifar10, label=["int8", "float32"], **QUICK)
    assert [record.name for record in records] == names
    assert [record.label for record in records] == ["int8", "float32"]


def test_data_from_a_file_is_the_same_data(resnet, cifar10, tmp_path):
    np.savez(tmp_path / "test.npz", x=cifar10[0][:50], y=cifar10[1][:50])
    from_file = measure(resnet, tmp_path / "test.npz", **QUICK)
    from_arrays = measure(resnet, (cifar10[0][:50], cifar10[1][:50]), **QUICK)
    assert from_file.accuracy == from_arrays.accuracy
    assert from_file.data_sha256 == from_arrays.data_sha256


def test_folder_with_one_sub_folder_per_class(resnet, cifar10, tmp_path):
    from PIL import Image

    x, y = cifar10[0][:40], cifar10[1][:40]
    for label in range(10):
        (tmp_path / str(label)).mkdir()
    for i, (picture, label) in enumerate(zip(x, y, strict=True)):
        Image.fromarray(picture).save(tmp_path / str(label) / f"{i}.png")
    assert measure(resnet, tmp_path, scaling="raw", **QUICK).accuracy == measure(resnet, (x, y), **QUICK).accuracy


def test_bytes_are_a_model_too(resnet):
    assert measure(resnet.read_bytes(), **QUICK).model_sha256 == measure(resnet, **QUICK).model_sha256


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0, 10]), r"\[0, 9\] for a model with 10 outputs. Received: a label 10"),
        (np.array([0, -1]), "-1"),
        (np.array([0, 1, 2]), "3 labels"),
    ],
)
def test_labels_that_do_not_match(resnet, cifar10, labels, message):
    with pytest.raises(DataError, match=message):
        measure(resnet, (cifar10[0][:2], labels), **QUICK)


def test_samples_of_another_shape(resnet):
    with pytest.raises(DataError, match="28"):
        measure(resnet, (np.zeros((2, 28, 28, 1)), np.zeros(2, int)), **QUICK)


def test_nan_in_the_data(resnet):
    with pytest.raises(DataError, match="finite"):
        measure(resnet, (np.full((2, 32, 32, 3), np.nan), np.zeros(2, int)), **QUICK)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x1c\0\0\0TFL3" + bytes(range(256)) * 20])
def test_bad_file_is_one_clear_line(tmp_path, content, capfd):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="bad.tflite") as caught:
        measure(path, **QUICK)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_file_that_litert_refuses(shared_data):
    with pytest.raises(ModelError, match="person_detect.tflite: quantized_dimension"):
        measure(shared_data / "person_detect" / "person_detect.tflite", **QUICK)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"device": "toaster"}, "toaster"),
        ({"threads": 0}, "threads"),
        ({"latency": LatencyOptions(interleave=True)}, "interleave runs several models"),
        ({"label": ["a", "b"]}, "label must be one text per model"),
    ],
)
def test_wrong_settings(resnet, settings, message):
    with pytest.raises(ValueError, match=message):
        measure(resnet, **settings)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of Unix")
def test_crash_of_the_child_is_one_clear_line(tmp_path, monkeypatch):
    # A module that Python runs at start-up ends the child by a signal, as a native crash would.
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match="m.tflite was ended by SIGSEGV"):
        run_agent({"model": "m.tflite", "threads": 1, "warmup_runs": 0, "runs": 1, "seed": 0, "debug": False})


def test_child_without_an_answer_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.stderr.write('no luck'); sys.stderr.flush()\nimport os; os._exit(3)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"exit code 3\): no luck"):
        run_agent({"model": "m.tflite", "threads": 1, "warmup_runs": 0, "runs": 1, "seed": 0, "debug": False})


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's /proc")
def test_memory_of_the_parent_is_not_counted(resnet):
    ballast = np.ones(40_000_000)  # 320 MB
    record = measure(resnet, **QUICK)
    assert resident_bytes() > ballast.nbytes
    assert record.runtime_bytes <= record.peak_bytes < ballast.nbytes


def test_exported_at_the_top():
    assert tfcompress.measure is measure


@pytest.fixture(scope="module")
def windows(shared_data):
    """Log-mel windows of one clip: 196 of five frames of 128, each its own truth."""
    raw = np.fromfile(shared_data / "mlperf_ad" / "normal_id_01_00000000_hist_librosa.bin", "<f4").reshape(200, 128)
    return np.stack([raw[i : i + 5].reshape(-1) for i in range(196)])


@pytest.mark.parametrize(("file", "error"), [("ad01_fp32.tflite", 9.71), ("ad01_int8.tflite", 10.27)])
def test_reconstruction_error_of_an_autoencoder(shared_data, windows, file, error):
    record = measure(shared_data / "mlperf_ad" / file, windows, metric="mse", **QUICK)
    # The table has two digits after the point.
    assert record.scores["mse"] == pytest.approx(error, abs=0.005 + TOLERANCE)
    assert (record.accuracy, record.metric, record.samples) == (None, "mse", 196)


@pytest.mark.slow
def test_uint8_inputs_and_outputs(shared_data, cifar10):
    hub = shared_data / "mlperf_resnet8" / "pretrainedResnet.tflite"
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
        samples = arrays["x_train"][:500].astype(np.float32)
    file = tfcompress.convert(hub, representative_data=samples, target="cpu-uint8-io").tflite
    record = measure(file, cifar10, reference=hub, **QUICK)
    assert (record.input_dtypes, record.output_dtypes) == (("uint8",), ("uint8",))
    assert record.accuracy == pytest.approx(0.884, abs=TOLERANCE)  # of the official int8 file
    assert record.reference.same_answers > 0.96
    # The same tensors by hand, one by one.
    interpreter = open_model(file)
    raw = [interpreter.run_raw(cifar10[0][i : i + 1]) for i in range(100)]
    answers = np.array([next(iter(each.values())).argmax() for each in raw])
    again = measure(file, (cifar10[0][:100], cifar10[1][:100]), **QUICK)
    assert again.accuracy == np.mean(answers == cifar10[1][:100])


@pytest.mark.parametrize(
    "settings",
    [
        {"runtime": RuntimeOptions(api="compiled")},
        {"runtime": RuntimeOptions(xnnpack=False)},
        {"evaluation": EvaluationOptions(batch=1, workers=1)},
    ],
    ids=str,
)
def test_accuracy_does_not_depend_on_how_it_is_run(resnet, cifar10, settings):
    record = measure(resnet, cifar10, **settings, **QUICK)
    assert record.accuracy == pytest.approx(0.884, abs=TOLERANCE)


def test_steady_times_end_the_warm_up(resnet):
    record = measure(resnet, latency=LatencyOptions(runs=20))
    assert record.latency.warmup_runs >= 10 and record.latency.steady is not None
    assert record.latency.low_ms <= record.latency.median_ms <= record.latency.high_ms
    assert record.noise.cores >= 1 and record.run_bytes > 0


class Board:
    """A device of the user's own: this machine under another name, which fails on one file."""

    kind = "emulated"

    def __init__(self, name, bad=""):
        self.name, self.bad, self.closed, self.device = name, bad, False, LocalDevice()

    def run(self, request, files, results, *, progress=None):
        if self.bad and self.bad in request["name"]:
            raise DeviceError("The board's disk is full. Received: no space.")
        return self.device.run(request, files, results, progress=progress)

    def interrupt(self):
        self.device.interrupt()

    def close(self):
        self.closed = True


def test_several_devices_fill_one_table(shared_data, cifar10):
    folder = shared_data / "mlperf_resnet8"
    boards = [Board("ssh://one", bad="_quant"), Board("ssh://two")]
    files = [folder / "pretrainedResnet.tflite", folder / "pretrainedResnet_quant.tflite"]
    rows = measure(files, (cifar10[0][:60], cifar10[1][:60]), device=["local", *boards], **QUICK)
    assert [(row.name[:-7], getattr(row.device, "name", row.device)) for row in rows] == [
        (name, device)
        for name in ("pretrainedResnet", "pretrainedResnet_quant")
        for device in ("local", "ssh://one", "ssh://two")
    ]
    assert [hasattr(row, "reason") for row in rows] == [False, False, False, False, True, False]
    assert rows[4].reason.startswith("The board's disk is full")
    assert [row.kind for row in rows[:4]] == ["measured", "emulated", "emulated", "measured"]
    assert rows[3].accuracy == rows[5].accuracy
    text = measurement_table(rows)
    assert "emulated ms" in text and "failed: The board's disk is full." in text
    assert max(map(len, text.splitlines())) <= 80


def test_samples_travel_in_parts(resnet, cifar10, monkeypatch):
    from tfcompress.measurement import accuracy as evaluating

    whole = measure(resnet, cifar10, **QUICK)
    monkeypatch.setattr(evaluating, "PART_BYTES", 500_000)
    seen = []
    parted = measure(resnet, cifar10, progress=lambda *each: seen.append(each), **QUICK)
    assert parted.accuracy == whole.accuracy and parted.data_sha256 == whole.data_sha256
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen) and seen[-1][1:] == (500, 500)
    assert len(seen) >= 4  # 1.5 MB in parts of at most 0.5 MB


def test_a_function_of_the_users_own(resnet, cifar10, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef second(outputs, labels):\n"
        "    scores = next(iter(outputs.values()))\n    return np.mean(scores.argsort(axis=1)[:, -2] == labels)\n"
    )
    record = measure(resnet, cifar10, metric=["top1", f"{tmp_path}/mine.py:second"], **QUICK)
    assert 0 < record.scores["second"] < 1 - record.accuracy
    alone = measure(resnet, cifar10, metric=f"{tmp_path}/mine.py:second", **QUICK)
    assert (alone.metric, alone.accuracy) == ("second", record.scores["second"])
