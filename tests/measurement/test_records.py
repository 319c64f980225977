"""Records: what is written is what is read, and what is wrong does not become a record."""

import dataclasses
import json

import pytest

from tfcompress.errors import DataError
from tfcompress.measurement.records import (
    Latency,
    Measurement,
    Settings,
    example_measurement,
    json_text,
    measurements_from_json,
)

VARIANTS = [
    example_measurement(),
    example_measurement(accuracy=None, samples=0, data_sha256=None),
    example_measurement(peak_bytes=None, runtime_bytes=None, label=""),
    example_measurement(input_dtypes=("int8", "float32"), model="folder/ümlaut name.tflite"),
]


@pytest.mark.parametrize("record", VARIANTS)
def test_round_trip(record):
    assert Measurement.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_array_keeps_order_and_puts_accuracy_on_top():
    text = json_text(VARIANTS)
    assert measurements_from_json(text) == VARIANTS
    assert [entry["accuracy"] for entry in json.loads(text)] == [0.972, None, 0.972, 0.972]
    assert isinstance(json.loads(json_text(VARIANTS[0])), list)


def test_latency_summarizes_runs():
    latency = Latency.of([4.0, 1.0, 2.0, 3.0, 5.0], warmup_runs=2, load_ms=7.0, first_ms=9.0)
    assert (latency.median_ms, latency.mean_ms, latency.min_ms) == (3.0, 3.0, 1.0)
    assert latency.p90_ms == pytest.approx(4.6) and latency.p99_ms == pytest.approx(4.96)
    assert (latency.runs, latency.warmup_runs, latency.load_ms, latency.first_ms) == (5, 2, 7.0, 9.0)
    assert latency.std_ms == pytest.approx(2**0.5, abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: example_measurement(accuracy=97.2),
        lambda: example_measurement(accuracy=float("nan")),
        lambda: example_measurement(model_sha256="short"),
        lambda: example_measurement(size_bytes=0),
        lambda: dataclasses.replace(example_measurement().latency, p90_ms=float("nan")),
        lambda: Latency.of([], warmup_runs=0, load_ms=0, first_ms=0),
        lambda: Settings(1, True, 1, 0, 1, state="lost"),
    ],
)
def test_wrong_values_are_refused(make):
    with pytest.raises(ValueError, match="Received: "):
        make()


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[{}]", '[{"latency": 3}]'])
def test_what_is_no_record(text):
    with pytest.raises(DataError):
        measurements_from_json(text)


def test_text_names_the_file_and_the_numbers():
    text = str(example_measurement(model="some/folder/digits.tflite"))
    assert text.startswith("digits.tflite: accuracy 97.2 %, 24.0 kB")
    assert "\n" not in text
    assert "accuracy" not in str(example_measurement(accuracy=None))
