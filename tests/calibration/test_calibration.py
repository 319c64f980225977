"""Ranges are those of the values themselves, whatever the workers and batches, and belong to one model only."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from models import striped_pictures, tiny_cnn
from tfcompress import lowering
from tfcompress.calibration.calibrator import Calibration, calibrate, resolve_observer, usable
from tfcompress.calibration.observers import OBSERVERS, Entropy, MinMax, MovingAverage, Percentile
from tfcompress.data import load_representative
from tfcompress.errors import ConversionError, DataError, OutputError
from tfcompress.quantization import quantizers
from tfcompress.quantization.targets import TARGETS
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.fingerprints import model_sha256


@pytest.fixture(scope="module")
def pictures():
    return striped_pictures(48)[0]


@pytest.fixture(scope="module")
def hub(pictures):
    model = tiny_cnn()
    model(pictures, training=True)
    return lowering.lower_keras(model)


@pytest.fixture(scope="module")
def head(hub):
    graph = flatbuffer.parse(hub.content).subgraphs[0]
    return flatbuffer.tensor_name(graph.tensors[graph.outputs[0]])


def run(hub, data, **options):
    return calibrate(hub.content, load_representative(data, hub.inputs), **options)


@pytest.mark.parametrize("name", OBSERVERS)
def test_ranges_do_not_depend_on_workers_and_batches(hub, pictures, name):
    observer = OBSERVERS[name]
    whole = run(hub, pictures, observer=observer, workers=1, batch=48)
    for workers, batch in [(1, 1), (2, 5), (3, 16)]:
        again = run(hub, pictures, observer=observer, workers=workers, batch=batch)
        for tensor, pair in whole.ranges.items():
            # XNNPACK sums in another order for another batch; an end may then fall into the next bin of a histogram.
            assert again.ranges[tensor] == pytest.approx(pair, abs=2e-3 * (pair[1] - pair[0])), tensor
    assert run(hub, pictures, observer=observer, workers=3, batch=5) == run(
        hub, pictures, observer=observer, workers=1, batch=5
    )


def test_min_max_is_what_the_float_interpreter_shows(hub, pictures):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    measured = run(hub, pictures).ranges
    reference = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=hub.content, experimental_preserve_all_tensors=True, experimental_op_resolver_type=reference
    )
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], pictures.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pictures)
    interpreter.invoke()
    seen = 0
    for detail in interpreter.get_tensor_details():
        if detail["name"] in measured and detail["shape"].size:
            values = interpreter.get_tensor(detail["index"])
            low, high = float(min(values.min(), 0)), float(max(values.max(), 0))
            assert measured[detail["name"]] == pytest.approx((low, high), abs=1e-5 * (high - low))  # sums of floats
            seen += 1
    assert seen == len(measured)


def test_overrides_are_for_the_tensors_they_name_and_the_last_wins(hub, pictures, head):
    depthwise = next(name for name in run(hub, pictures).ranges if "depthwise" in name)
    odd = Percentile(percentile=60)
    overrides = [("*", "moving_average"), ("*depthwise*", odd), (f"?{head[1:]}", MinMax())]
    measured = run(hub, pictures, overrides=overrides)
    plain, average, clipped = (run(hub, pictures, observer=each) for each in (MinMax(), MovingAverage(), odd))
    assert measured.ranges[head] == plain.ranges[head]
    assert measured.ranges[depthwise] == clipped.ranges[depthwise]
    assert measured.ranges["image"] == average.ranges["image"]
    assert measured.observers[depthwise] == repr(odd) and head not in measured.observers
    assert measured.observer == "MinMax()"


def test_an_override_that_matches_nothing_names_the_nearest(hub, pictures):
    with pytest.raises(ValueError, match=r"must match a tensor. Received: 'tiny/depthwize\*'.* Nearest: .*depthwise"):
        run(hub, pictures, overrides=[("tiny/depthwize*", "entropy")])
    with pytest.raises(ValueError, match="Unknown observer 'entropie'.*Did you mean entropy?"):
        run(hub, pictures, overrides=[("*", "entropie")])


def test_what_was_sampled_is_said(hub, pictures, head):
    assert run(hub, pictures).sampled is None
    assert run(hub, pictures, observer=Entropy(values_per_sample=40)).sampled == 40
    assert run(hub, pictures, overrides=[(head, Entropy())]).sampled == Entropy().values_per_sample


def test_every_observer_makes_a_model_that_agrees(hub, pictures):
    from tfcompress.tflite.interpreter import open_model

    expected = open_model(hub.content).run({"image": pictures})[hub.outputs[0]]
    for name, observer in OBSERVERS.items():
        ranges = quantizers.complete_ranges(hub.content, run(hub, pictures, observer=observer).ranges)
        found = open_model(quantizers.quantize(hub.content, ranges, TARGETS["cpu-int8"])).run({"image": pictures})
        assert (found[hub.outputs[0]].argmax(1) == expected.argmax(1)).mean() > 0.85, name


def test_not_finite_tensors_are_named(pictures):
    inputs = keras.Input((8, 8, 2), name="image")
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.ops.log(inputs)))
    hub = lowering.lower_keras(model)
    for name in ("min_max", "entropy"):
        with pytest.raises(
            ConversionError, match="must stay finite on the representative data.*Check the data's scaling"
        ):
            run(hub, pictures, observer=OBSERVERS[name])


@pytest.mark.parametrize("option", ["workers", "batch"])
def test_wrong_numbers(hub, pictures, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1. Received: {option}=0"):
        run(hub, pictures, **{option: 0})


def test_inputs_are_shown_in_order(hub, pictures):
    shown = []
    run(hub, pictures, batch=5, on_inputs=lambda batch: shown.append(batch["image"].copy()))
    np.testing.assert_array_equal(np.concatenate(shown), pictures)


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, hub):
    (tmp_path / "hub.tflite").write_bytes(hub.content)
    code = """
import resource, sys
import numpy as np
from tfcompress.data import InputSpec
from tfcompress.calibration.calibrator import calibrate
from tfcompress.data import load_representative
from tfcompress.calibration.observers import Entropy
content = open(sys.argv[1], "rb").read()
spec = InputSpec("image", (None, 64, 64, 2), np.float32)
def run(source):
    calibrate(content, load_representative(source, [spec]), observer=Entropy(), tensors={"image"}, batch=4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def stream(count):
    return (np.full((64, 64, 2), i, np.float32) for i in range(count))
print(run(stream(64)), run(stream(4096)), run(sys.argv[2]))
"""
    # The hub's own shape, 8 x 8, is too small to see anything: a model of one op on 32 kB samples.
    model = keras.Sequential([keras.Input((64, 64, 2), name="image"), keras.layers.ReLU(name="relu")])
    (tmp_path / "hub.tflite").write_bytes(lowering.lower_keras(model).content)
    np.save(tmp_path / "x.npy", np.zeros((4096, 64, 64, 2), np.float32))
    command = [sys.executable, "-c", code, str(tmp_path / "hub.tflite"), str(tmp_path / "x.npy")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    few, many, from_file = map(int, done.stdout.split())
    assert many - few < 30_000, done.stdout  # kB; all samples would be 130,000
    assert from_file - few < 70_000, done.stdout  # 32 MB of the file are mapped at a time


# Calibrations as files.


@pytest.fixture(scope="module")
def measured(hub, pictures):
    return run(hub, pictures, observer=Percentile(), overrides=[("image", "min_max")])


def test_a_file_holds_everything(measured, tmp_path):
    path = measured.save(tmp_path / "ranges.json")
    assert Calibration.load(path) == measured
    record = json.loads(path.read_text())
    assert record["tensors"]["image"]["observer"] == "MinMax()"
    assert {"format", "samples", "sampled", "data_sha256", "model_sha256"} <= set(record)
    with pytest.raises(OutputError, match="exists already"):
        measured.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]


def test_it_is_of_its_model_alone(hub, pictures, measured):
    usable(measured, hub.content)
    other = tiny_cnn(seed=1)
    other(pictures, training=True)
    with pytest.raises(ConversionError, match="must be of the model it is used for.*graph or its weights differ"):
        usable(measured, lowering.lower_keras(other).content)
    strange = dataclasses.replace(measured, ranges={"strange": (0.0, 1.0)})
    with pytest.raises(ConversionError, match=r"unknown names \(strange"):
        usable(strange, hub.content)


def test_other_names_of_the_same_tensors_are_translated(hub, measured, tmp_path):
    model = flatbuffer.parse(hub.content)
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"again/" + tensor.name
    loaded = Calibration.load(measured.save(tmp_path / "ranges.json"))
    found = usable(loaded, flatbuffer.pack(model))
    assert found.ranges == {f"again/{name}": pair for name, pair in measured.ranges.items()}
    assert list(found.observers) == ["again/image"]
    assert usable(loaded, hub.content) == measured


def test_the_hash_is_of_what_computes(hub):
    here = model_sha256(hub.content)
    model = flatbuffer.parse(hub.content)
    flatbuffer.set_ranges(model, {"image": (0.0, 1.0)})
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"renamed"
    model.description, model.metadata = b"other", None
    assert model_sha256(flatbuffer.pack(model)) == here
    weights = next(buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data) > 100)
    weights.data = np.array(weights.data)
    weights.data[0] ^= 1
    assert model_sha256(flatbuffer.pack(model)) != here


def test_the_hash_is_the_same_in_another_process(tmp_path, hub, pictures):
    model = tiny_cnn()
    model(pictures, training=True)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras; from tfcompress import lowering; from tfcompress.tflite import fingerprints\n"
        "print(fingerprints.model_sha256(lowering.lower_keras(keras.models.load_model(sys.argv[1])).content))"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "model.keras")], check=False, capture_output=True, text=True
        ).stdout.split()[-1]
        for _ in range(2)
    ]
    assert done[0] == done[1] == model_sha256(hub.content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "must be JSON that"),
        (lambda text: "", "must be JSON that"),
        (lambda text: "[" * 100_000, "must be JSON that|nested too deeply"),
        (lambda text: "[1]", "no key 'format'"),
        (lambda text: text.replace('"format": 1', '"format": 7'), "must be of format 1. Received: .* of format 7"),
        (lambda text: text.replace('"samples"', '"sample"'), "no key 'samples'"),
        (lambda text: text.replace('"samples": 48', '"samples": "48"'), "no whole numbers"),
        (lambda text: text.replace('"range": [', '"range": [NaN, '), "too many values"),
        (
            lambda text: json.dumps({**json.loads(text), "tensors": {"x": {"range": [1, 2], "observer": ""}}}),
            "lacks zero",
        ),
        (lambda text: json.dumps({**json.loads(text), "tensors": [1]}), "must be JSON that"),
    ],
)
def test_damaged_files_are_one_line(measured, tmp_path, change, message):
    path = measured.save(tmp_path / "ranges.json")
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message) as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match="must be readable. Received: .*missing.json"):
        Calibration.load(tmp_path / "missing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no text"):
        Calibration.load(tmp_path / "binary.json")


def test_observers_by_name():
    assert resolve_observer("entropy") == Entropy()
    with pytest.raises(ValueError, match="Unknown observer 'minmax'. Known: min_max"):
        resolve_observer("minmax")
