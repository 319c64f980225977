"""The table on the terminal: one line per measurement, never wider than 80 columns, numbers under each other."""

import csv
import dataclasses
import io

import pytest

from tfcompress.measurement.latency import Noise, Ratio
from tfcompress.measurement.records import Failure, example_measurement
from tfcompress.measurement.tables import csv_text, measurement_table
from tfcompress.system.text_tables import shortened

SLOW = dataclasses.replace(example_measurement().latency, median_ms=12345.6, p90_ms=23456.7, p99_ms=34567.8)
RECORDS = [
    example_measurement(),
    example_measurement(model="a/" + "very_long_name_of_a_[bold]model_" * 4 + ".tflite", accuracy=1.0),
    example_measurement(accuracy=None, peak_bytes=None, size_bytes=123_456_789, gzip_bytes=99_999_999, latency=SLOW),
]


def test_one_unbroken_line_per_measurement():
    lines = measurement_table(RECORDS).splitlines()
    assert len(lines) == 2 + len(RECORDS)
    assert max(map(len, lines)) <= 80


def test_numbers_are_flush_right():
    lines = measurement_table(RECORDS).splitlines()
    for heading in ("accuracy", "gzip", "median ms", "p99"):
        end = lines[0].index(heading) + len(heading)
        assert all(line[end - 1] != " " and line[end : end + 1] in ("", " ") for line in lines[2:])


def test_nothing_is_cut_but_names():
    text = measurement_table(RECORDS)
    assert [line.count("…") for line in text.splitlines()[2:]] == [0, 1, 0]
    for expected in ("97.2 %", "100.0 %", "24.0 kB", "123.5 MB", "34568", "60.0"):
        assert expected in text


def test_missing_values_are_dashes():
    assert measurement_table(RECORDS[2]).splitlines()[-1].split().count("-") == 2


def test_wide_terminal_shows_the_whole_name():
    assert "very_long_name_of_a_[bold]model_" * 4 in measurement_table(RECORDS, width=240)


def test_narrow_terminal_is_refused():
    with pytest.raises(ValueError, match="Received: width=40"):
        measurement_table(RECORDS, width=40)


@pytest.mark.parametrize("length", [3, 8, 20, 21])
def test_shortened_names_keep_both_ends(length):
    short = shortened("mobilenet_v2_pruned_int8", length)
    assert len(short) == length
    assert short[0] == "m" and short[-1] == "8"


DEVICES = [
    example_measurement(device=dataclasses.replace(example_measurement().device, name="ssh://pi@raspberrypi.local")),
    example_measurement(
        kind="modelled", device=dataclasses.replace(example_measurement().device, name="ethos-u55-128")
    ),
    example_measurement(kind="emulated", peak_bytes=1),
    Failure(
        "a/digits.tflite", "adb://x", "The phone must allow this computer. Received: unauthorized. Accept the key."
    ),
]


def test_kinds_never_share_a_column():
    head, _, *rows = measurement_table(DEVICES, width=120).splitlines()[:5]
    for kind in ("median ms", "modelled ms", "emulated ms"):
        end = head.index(kind) + len(kind)
        assert sum(row[end - 5 : end] == "0.100" for row in rows) == 1
        assert sum(row[end - 1] == "-" for row in rows) == 2
    assert [row.split()[-1] for row in rows] == ["60.0", "-", "-"]  # memory is of measured ones only


def test_a_modelled_time_is_shown_and_an_interpreter_that_has_none_has_no_column():
    model = example_measurement(kind="modelled", latency=None, estimates={"inference ms": 0.0272, "cycles": 13_621.0})
    head, _, row = measurement_table(model, width=120).splitlines()[:3]
    end = head.index("modelled ms") + len("modelled ms")
    assert row[end - 5 : end] == "0.027"
    arena = example_measurement(kind="modelled", latency=None, estimates={"arena bytes": 6848.0})
    assert "modelled ms" not in measurement_table(arena, width=120)


def test_devices_and_failures_fit_80_columns():
    text = measurement_table(DEVICES)
    assert max(map(len, text.splitlines())) <= 80
    assert "ssh://pi@…" in text and "failed: The phone must allow this computer." in text
    assert "Accept the key." in " ".join(text.split())


def test_what_else_has_to_be_said_stands_below():
    noise = Noise(0.3, "powersave", (None, None), None, 9.0, 5, (None, None), cores=2)
    ratio = Ratio("float.tflite", 1.5, 1.4, 1.6, 50)
    text = measurement_table(example_measurement(noise=noise, ratio=ratio, interrupted=True, estimates={"cycles": 1e6}))
    words = " ".join(text.split())
    assert "noisy: digits.tflite: times spread by 30 %; governor powersave; load 9.0 on 2 cores" in words
    assert "takes 1.500 times float.tflite (95 % interval 1.400 to 1.600, 50 pairs)" in words
    assert "interrupted: digits.tflite was measured in part (500 samples)" in words
    assert "cycles 1e+06" in words or "cycles 1,000,000" in words
    assert max(map(len, text.splitlines())) <= 80


def test_metrics_head_their_columns():
    text = measurement_table(
        [
            example_measurement(metric="mse", accuracy=None, scores={"mse": 9.7123}),
            example_measurement(metric="coco_map", accuracy=0.31, scores={"coco_map": 0.31}),
        ]
    )
    head, _, first, second = text.splitlines()
    assert "mse" in head and "mAP" in head and "9.712" in first and "0.31" in second


def test_comma_separated_values_are_read_back():
    rows = list(csv.DictReader(io.StringIO(csv_text([*RECORDS, *DEVICES]))))
    assert len(rows) == 7
    assert [row["median_ms"] for row in rows] == ["0.1", "0.1", "12345.6", "0.1", "", "", ""]
    assert rows[4]["modelled median_ms"] == rows[5]["emulated median_ms"] == "0.1"
    assert rows[6]["failure"].startswith("The phone") and rows[0]["failure"] == ""
    assert rows[0]["run_bytes"] == "10000000"
