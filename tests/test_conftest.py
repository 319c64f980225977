"""A test without its shared data is skipped with the reason; one that skips in spite of the data fails the run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import os
import pytest

def test_reads(shared_data):
    assert shared_data.is_dir()

def test_refuses(shared_root):
    if os.environ.get("CHILD_SKIPS"):
        pytest.skip(os.environ["CHILD_SKIPS"])

def test_is_marked(request, shared_data):
    assert request.node.get_closest_marker("shared")

def test_needs_nothing(request):
    assert not request.node.get_closest_marker("shared")
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
"""


@pytest.fixture
def run(tmp_path):
    """Runs the tests of ``CHILD`` in a process of their own; returns its exit code and output."""
    tests = tmp_path / "project" / "tests"
    tests.mkdir(parents=True)
    for name in ("conftest.py", "devicelab.py"):
        (tests / name).write_text(Path(__file__).with_name(name).read_text())
    (tests / "test_child.py").write_text(CHILD)
    (tests.parent / "pytest.ini").write_text("[pytest]\nmarkers =\n    shared: needs shared data\naddopts = -ra\n")

    def child(*arguments, shared=None, skips=""):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TFCOMP"))}
        environment |= {"TF_USE_LEGACY_KERAS": "1"}
        environment |= {"TFCOMPRESS_SHARED": str(shared)} if shared else {}
        environment |= {"CHILD_SKIPS": skips} if skips else {}
        command = [sys.executable, "-m", "pytest", "--strict-markers", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(
            command, check=False, cwd=tests.parent, env=environment, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout

    return child


def test_absent_data_skips_with_the_reason_and_passes(run, tmp_path):
    code, output = run()
    assert code == 0, output
    assert re.search(r"^3 skipped: shared data absent: no folder data in \.\./shared$", output, re.MULTILINE), output
    code, output = run(shared=tmp_path / "nowhere")
    assert code == 0, output
    assert f"3 skipped: shared data absent: no folder data in TFCOMPRESS_SHARED={tmp_path / 'nowhere'}" in output


def test_data_is_found_beside_the_project(run, tmp_path):
    (tmp_path / "shared" / "data").mkdir(parents=True)
    code, output = run()
    assert code == 0 and "4 passed" in output, output


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_skip_in_spite_of_the_data_fails_the_run(run, tmp_path, workers):
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    code, output = run(*workers, shared=tmp_path / "elsewhere")
    assert code == 0 and "4 passed" in output, output
    code, output = run(*workers, shared=tmp_path / "elsewhere", skips="no reason at all")
    assert code == 1, output
    assert re.search(r"^1 skipped: no reason at all$", output, re.MULTILINE), output
    assert "test_refuses: skipped although the shared data is present" in output


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_a_second_run_leaves_out_what_passed_and_repeats_what_was_skipped(run, tmp_path, workers):
    passed = tmp_path / "passed"
    code, output = run(*workers, f"--passed={passed}")
    assert code == 0 and "1 passed, 3 skipped" in output, output
    (tmp_path / "shared" / "data").mkdir(parents=True)
    code, output = run(*workers, f"--without={passed}")
    assert code == 0 and "3 passed" in output and "4 passed" not in output, output


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_missing_extra_is_left_to_the_run_that_has_every_extra(run, tmp_path, workers):
    (tmp_path / "elsewhere" / "data").mkdir(parents=True)
    extra = {"shared": tmp_path / "elsewhere", "skips": "the extra [tflm] is not installed"}
    code, output = run(*workers, f"--passed={tmp_path / 'passed'}", **extra)
    assert code == 0 and "3 passed, 1 skipped" in output, output
    code, output = run(*workers, f"--without={tmp_path / 'passed'}", **extra)
    assert code == 1 and "test_refuses: skipped although the shared data is present" in output, output
    code, output = run(*workers, f"--passed={tmp_path / 'passed'}", **extra | {"skips": "no reason at all"})
    assert code == 1 and "test_refuses: skipped although the shared data is present" in output, output
