"""A child process that answers, raises, chatters, crashes, hangs: what its parent sees and what stays on the disk."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from tfcompress import errors
from tfcompress.system.isolation import run_isolated

HERE = "test_isolation"
WAIT_SECONDS = 30


# What the child runs.


def double(request, report):
    report.stage("doubling")
    for done in range(3):
        report(done + 1, 3)
    return {"twice": request["values"] * 2, "legacy": os.environ.get("TF_USE_LEGACY_KERAS"), "path": sys.path}


def raise_it(request, report):
    kind, message = request
    raise kind(message)


def end_by(request, report):
    report.stage("lowering model.keras")
    os.write(2, b"error: 'tf.Odd' op of layer odd_3 is not supported\n")
    os.kill(os.getpid(), request) if request else os.abort()


def exhaust(request, report):
    report.stage("calibrating model.keras")
    raise MemoryError("Unable to allocate 4.00 TiB")


def leave(request, report):
    os._exit(request)


def chatter(request, report):
    print("noise on stdout")
    os.write(1, b"native noise\n")
    os.write(2, b"more\n" * 100_000)
    report(1, None)
    warnings.warn("from elsewhere", RuntimeWarning, stacklevel=1)
    return "heard"


def warn_as_the_package(request, report):
    warnings.warn_explicit("too few samples", UserWarning, "<our module>", 1)


def hang(request, report):
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(request).write_text(f"{os.getpid()} {grandchild.pid}")
    list(report.pieces)
    time.sleep(600)


def add_up(request, report):
    return sum(piece.sum() for piece, _ in zip(report.pieces, range(request), strict=False))


def crash_at_the_second(request, report):
    next(report.pieces)
    os.kill(os.getpid(), signal.SIGSEGV)


class Odd(errors.StrictError):
    """A class that the parent does not know by name."""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files that must be empty after the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def test_the_result_and_the_progress_come_back(temporary, monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    seen = []
    answer = run_isolated(
        f"{HERE}:double", {"values": np.arange(3)}, on_progress=lambda done, total: seen.append((done, total))
    )
    np.testing.assert_array_equal(answer["twice"], [0, 2, 4])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert answer["legacy"] is None
    assert answer["path"] == sys.path


@pytest.mark.parametrize("kind", [*(getattr(errors, name) for name in errors.__all__), ValueError, TypeError, OSError])
def test_expected_errors_come_back_as_they_are(temporary, kind):
    with pytest.raises(kind, match="^The rule. Received: 3. Do this.$") as caught:
        run_isolated(f"{HERE}:raise_it", (kind, "The rule. Received: 3. Do this."))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("kind", "expected"), [(UnicodeError, ValueError), (Odd, errors.StrictError), (FileNotFoundError, OSError)]
)
def test_subclasses_come_back_as_the_class_that_is_known(temporary, kind, expected):
    with pytest.raises(expected, match="gone") as caught:
        run_isolated(f"{HERE}:raise_it", (kind, "gone"))
    assert type(caught.value) is expected


def ones(count):
    return (np.ones(100_000) for _ in range(count))


@pytest.mark.parametrize(("wanted", "given"), [(5, 5), (9, 5), (1, 200)])
def test_pieces_are_handed_over_as_they_are_asked_for(temporary, wanted, given):
    assert run_isolated(f"{HERE}:add_up", wanted, pieces=ones(given)) == 100_000 * min(wanted, given)


def test_an_error_between_the_pieces_is_the_callers(temporary):
    def broken():
        yield np.ones(3)
        raise errors.DataError("no more")

    with pytest.raises(errors.DataError, match="no more"):
        run_isolated(f"{HERE}:add_up", 9, pieces=broken())


def test_a_crash_between_the_pieces_is_explained_by_the_caller(temporary):
    def explain(ended):
        return errors.DeviceError(f"{ended.how}, {ended.said or 'silent'}")

    with pytest.raises(errors.DeviceError, match="SIGSEGV, silent"):
        run_isolated(f"{HERE}:crash_at_the_second", None, pieces=ones(200), explain=explain)


def test_an_unexpected_error_is_one_line(temporary):
    with pytest.raises(errors.ConversionError, match="unexpected ZeroDivisionError: a b. --debug shows") as caught:
        run_isolated(f"{HERE}:raise_it", (ZeroDivisionError, "a\nb."))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "SIGABRT"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGFPE, "SIGFPE")], ids=str
)
def test_a_crash_names_the_signal_the_stage_and_the_last_words(temporary, number, name):
    with pytest.raises(errors.ConversionError) as caught:
        run_isolated(f"{HERE}:end_by", number)
    message = str(caught.value)
    assert f"Received: {name}." in message
    assert "while lowering model.keras" in message
    assert "layer odd_3" in message
    assert "\n" not in message


def test_a_kill_speaks_of_memory(temporary):
    with pytest.raises(errors.ConversionError, match=r"memory runs out.*Received: SIGKILL\. Free memory"):
        run_isolated(f"{HERE}:end_by", signal.SIGKILL)


def test_exhausted_memory_names_the_stage(temporary):
    message = r"^Memory ran out while calibrating model.keras. Received: Unable to allocate 4.00 TiB. Free memory"
    with pytest.raises(errors.ConversionError, match=message):
        run_isolated(f"{HERE}:exhaust", None)


@pytest.mark.parametrize("code", [0, 3])
def test_an_end_without_an_answer(temporary, code):
    with pytest.raises(errors.ConversionError, match=f"gave no answer. Received: exit code {code}."):
        run_isolated(f"{HERE}:leave", code)


def test_noise_is_dropped_and_shown_with_debug(temporary, capfd):
    seen = []
    assert run_isolated(f"{HERE}:chatter", None, on_progress=lambda *pair: seen.append(pair)) == "heard"
    assert seen == [(1, None)]
    assert capfd.readouterr() == ("", "")
    assert run_isolated(f"{HERE}:chatter", None, debug=True) == "heard"
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "noise on stdout" in captured.err and "native noise" in captured.err


def test_our_warnings_come_back(temporary):
    with pytest.warns(UserWarning, match="too few samples"):
        run_isolated(f"{HERE}:warn_as_the_package", None)


def test_works_in_a_thread(temporary):
    answers = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(run_isolated("tfcompress.system.isolation:count_letters", "abc"))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [3, 3]


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc to look for processes in")
@pytest.mark.parametrize("pieces", ["None", "iter(lambda: time.sleep(0.1), 1)"], ids=["at once", "piece by piece"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=str,
)
def test_a_hanging_child_goes_with_its_parent(tmp_path, number, code, pieces):
    temporary, note = tmp_path / "temporary", tmp_path / "pids"
    temporary.mkdir()
    # A run in the background starts with SIGINT ignored, and so would its children.
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
                "from tfcompress.system.isolation import run_isolated as r\n"
                f"r('{HERE}:hang', {str(note)!r}, pieces={pieces})"
            ),
        ],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + WAIT_SECONDS
    while not (note.exists() and len(note.read_text().split()) == 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(pid) for pid in note.read_text().split()]
    assert all(is_alive(pid) for pid in pids)
    parent.send_signal(number)
    assert parent.wait(WAIT_SECONDS) == code
    while (any(map(is_alive, pids)) or list(temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    assert list(temporary.iterdir()) == []


def loop(request, report):
    re.match("(a+)+$", "a" * 60 + "b")  # one call that does not come back and holds the interpreter's lock


def test_the_time_ends_a_native_loop(temporary):
    with pytest.raises(errors.ConversionError, match="did not end in time. Received: SIGALRM"):
        run_isolated(f"{HERE}:loop", None, timeout_seconds=5)
