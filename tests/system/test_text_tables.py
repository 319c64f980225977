"""One layout for every table: aligned, never wider than asked, whole numbers, names that lose their middle."""

import pytest

from tfcompress.system.text_tables import cell_len, columns, shortened

HEADINGS = ("name", "size", "gzip", "ms")
ROWS = [("digits", "24.0 kB", "12.0 kB", "0.100"), ("数字_" * 12, "1.0 kB", "0.5 kB", "12.000")]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_asked_and_numbers_end_together(width):
    lines = columns(HEADINGS, ROWS, width=width)
    assert max(map(cell_len, lines)) <= width
    assert len({cell_len(line) for line in lines}) == 1
    assert all(text in lines[3] for text in ROWS[1][1:])


def test_columns_go_one_after_the_other_while_the_name_has_too_little():
    assert columns(HEADINGS, ROWS, width=40, smallest=20, dispensable=(2, 1))[0].split() == ["name", "size", "ms"]
    assert columns(HEADINGS, ROWS, width=32, smallest=20, dispensable=(2, 1))[0].split() == ["name", "ms"]
    assert columns(HEADINGS, ROWS[:1], width=40, smallest=20, dispensable=(2, 1))[0].split() == [*HEADINGS]


def test_the_last_text_of_a_short_row_takes_the_rest_of_the_line():
    lines = columns(HEADINGS, [*ROWS, ("broken", "failed: " + "why " * 30)], width=60)
    assert lines[:4] == columns(HEADINGS, ROWS, width=60)
    start = lines[4].index("failed")
    assert all(line[:start].isspace() and line[start] == "w" for line in lines[5:])
    assert " ".join(" ".join(lines[4:]).split()).count("why") == 30
    assert max(map(cell_len, lines)) <= 60


@pytest.mark.parametrize("name", ["mobilenet_v2_pruned_int8", "数字" * 9, "a数" * 9])
@pytest.mark.parametrize("length", [3, 8, 15, 60])
def test_shortened_names_fit_and_keep_both_ends(name, length):
    short = shortened(name, length)
    assert cell_len(short) <= length
    assert short == name or "…" in short


def test_a_table_without_rows_has_its_headings():
    assert columns(HEADINGS, []) == ["name size gzip ms", "─" * 17]
