"""The page: complete, self-contained, safe to show, written whole or not at all."""

import dataclasses
import itertools
import re
import subprocess
import sys

import pytest
from html_page import Page

import tfcompress
from tfcompress.errors import OutputError
from tfcompress.measurement.op_times import OpTime, Profile
from tfcompress.measurement.records import Failure, example_measurement
from tfcompress.reporting import plots
from tfcompress.reporting.measurement_plots import pareto_front
from tfcompress.reporting.measurement_report import report, short_names

RECORDS = [
    example_measurement(model="out/float32.tflite", label="", size_bytes=81_000, accuracy=0.984),
    example_measurement(model="out/int8.tflite", label="", size_bytes=31_000, accuracy=0.983),
    example_measurement(model="out/pruned.tflite", label="", size_bytes=31_000, accuracy=0.983),
]
SPARSITY = {"float32": {"conv": 0.0}, "pruned": {"conv": 0.75, "dense": 0.5}}


@pytest.fixture
def page(tmp_path):
    return report(RECORDS, tmp_path / "r.html", sparsity=SPARSITY, notes=["A note."]).read_text()


def test_page_asks_for_nothing_from_outside(page):
    assert "http" not in page
    assert all(link.startswith(("#", "data:")) for link in Page(page).links)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "script" not in Page(page).tags


def test_page_is_well_formed(page):
    parsed = Page(page)
    assert parsed.open == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_every_number_and_plot_is_there(page):
    for text in ("float32.tflite", "98.4", "81.0 kB", "12.0 kB", "0.100", "0.120", "A note.", "1 thread, XNNPACK on"):
        assert text in page
    for heading in ("Summary", "Accuracy against size", "Latency", "Weight sparsity per layer", "Device and settings"):
        assert f"<h2>{heading}</h2>" in page
    assert Page(page).tags.count("svg") == 4  # accuracy by size and by latency, latency, the one sparse model
    assert "no layer has more than 5 % zeros: float32" in page


def test_names_cannot_inject_markup(tmp_path):
    evil = example_measurement(model="<script>alert(1)</script>.tflite", label="<b>x</b>")
    page = report(evil, tmp_path / "r.html", title="<i>t</i>", sparsity={"<u>": {"<s>": 0.5}}, notes="<em>").read_text()
    assert not {"script", "b", "i", "u", "s", "em"} & set(Page(page).tags)


def test_mathematical_signs_in_names_are_text(tmp_path):
    report(example_measurement(model="a$b_{2$.tflite"), tmp_path / "r.html", sparsity={"a": {"x$y^{$": 0.5}})


def test_names_in_any_script(tmp_path):
    assert "数字.tflite" in report(example_measurement(model="数字.tflite"), tmp_path / "r.html").read_text()


def test_devices_kinds_profiles_and_failures(tmp_path):
    profile = Profile(
        (OpTime("Convolution (NHWC, QC8) IGEMM", 0, 0, 0.9), OpTime("SOFTMAX", 1, None, 0.1, "no kernel <for it>")),
        1.02,
        1.0,
        50,
    )
    device = RECORDS[0].device
    board = dataclasses.replace(device, name="ssh://pi@board", details={"temperature": "50 °C"})
    rows = [
        dataclasses.replace(RECORDS[0], profile=profile),
        dataclasses.replace(RECORDS[0], device=board),
        dataclasses.replace(RECORDS[0], kind="modelled", device=dataclasses.replace(device, name="ethos-u55-128")),
        Failure("out/int8.tflite", "adb://x", "The phone must allow this computer."),
    ]
    page = report(rows, tmp_path / "r.html").read_text()
    for heading in ("Accuracy against latency", "Devices side by side", "Time per op"):
        assert f"<h2>{heading}</h2>" in page
    for text in (
        "int8.tflite on adb://x: The phone",
        "no kernel &lt;for it&gt;",
        "Modelled,<br>ms",
        "Temperature",
        "50 °C",
    ):
        assert text in page
    # Sizes; accuracy by latency and bars for two kinds; two devices of one kind side by side; one profile.
    assert Page(page).tags.count("svg") == 1 + 2 + 2 + 1 + 1
    assert len(set(Page(page).ids)) == len(Page(page).ids)


def test_failures_alone_are_a_report(tmp_path):
    page = report(Failure("a.tflite", "local", "No luck."), tmp_path / "r.html").read_text()
    assert "a.tflite on local: No luck." in page and "No time was measured" in page


def test_front_holds_what_nothing_beats():
    times, values = [3.0, 1.0, 2.0, 2.0, 4.0], [0.9, 0.5, 0.8, 0.7, 0.9]
    assert pareto_front(times, values) == [1, 2, 0]


def test_without_accuracy_and_sparsity(tmp_path):
    page = report(example_measurement(accuracy=None, samples=0, peak_bytes=None), tmp_path / "r.html").read_text()
    assert "no labelled data was given" in page
    assert "Weight sparsity" not in page


def test_carried_state_is_told(tmp_path):
    settings = dataclasses.replace(example_measurement().settings, state="carried")
    page = report(example_measurement(settings=settings), tmp_path / "r.html").read_text()
    assert "was not reset between labelled samples" in page


def test_many_models_of_one_accuracy(tmp_path):
    records = [example_measurement(model=f"m{i}.tflite", size_bytes=10 ** (3 + i % 4)) for i in range(30)]
    assert all(f"m{i}.tflite" in report(records, tmp_path / f"{i}.html").read_text() for i in (0, 29))


def test_existing_file_stays_unless_told(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report(RECORDS, path)
    assert path.read_text() == "mine"
    assert report(RECORDS, path, overwrite=True).read_text() != "mine"


@pytest.mark.parametrize("records, sparsity", [([], None), (RECORDS, {"a": {"b": 75.0}})])
def test_wrong_arguments(tmp_path, records, sparsity):
    with pytest.raises(ValueError, match="Received: "):
        report(records, tmp_path / "r.html", sparsity=sparsity)
    assert not list(tmp_path.iterdir())


def test_names_are_unique():
    records = [*RECORDS, RECORDS[0], example_measurement(label="x")]
    assert len(set(short_names(records))) == len(records)


@pytest.mark.parametrize("places", [[0.5] * 4, [0.0, 0.0, 1.0, 1.0], [0.1, 0.4, 0.6, 0.9], [1.0] * 6])
def test_labels_keep_their_distance(places):
    gap = 0.15
    moved = plots.spread(places, gap)
    assert all(b - a >= gap - 1e-12 for a, b in itertools.pairwise(moved))
    assert moved[0] >= -1e-12 and moved[-1] <= 1 + 1e-12


def test_pyplot_is_never_loaded(tmp_path):
    code = (
        "import sys, tfcompress; from tfcompress.measurement.records import example_measurement\n"
        "print('matplotlib' in sys.modules, 'jinja2' in sys.modules)\n"
        "tfcompress.report(example_measurement(), sys.argv[1])\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r.html")]
    root = tfcompress.__path__[0] + "/.."
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout == "False False\nFalse\n"
    )


def test_equal_files_have_equal_pages(tmp_path):
    from pathlib import Path

    from tfcompress.reporting import inspection_report
    from tfcompress.tflite import inspect

    found = inspect(Path(__file__).resolve().parents[2] / "models/digits/digits_int8.tflite", run=False)
    first, second = (inspection_report(found, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
