"""The table on the terminal: one line per measurement, never wider than 80 columns, numbers under each other."""

import dataclasses

import pytest

from tfcompress.records import example_measurement
from tfcompress.tables import measurement_table, shortened

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
