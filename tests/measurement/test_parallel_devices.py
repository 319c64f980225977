"""Several devices at once: they overlap, Ctrl-C reaches all of them, and what is known is kept."""

import _thread
import threading
from pathlib import Path

import pytest

from tfcompress.measurement.measuring import measure
from tfcompress.measurement.parallel_devices import Interrupted
from tfcompress.measurement.records import Failure, Measurement

ANSWER = {
    "latency": {
        "median_ms": 1.0,
        "p90_ms": None,
        "p99_ms": None,
        "mean_ms": 1.0,
        "std_ms": 0.0,
        "min_ms": 1.0,
        "runs": 3,
        "warmup_runs": 0,
        "load_ms": 1.0,
        "first_ms": 1.0,
    },
    "device": {"name": "?", "cpu": "x", "cores": 1, "os": "y", "python": "", "runtime": "z"},
    "settings": {"threads": 1, "xnnpack": True, "delegate_nodes": None, "warmup_runs": 0, "runs": 3},
}


class Waiting:
    """Answers at once, or only when it is interrupted or when the others have begun too."""

    kind = "measured"

    def __init__(self, name, *, meeting=None, waits=False):
        self.name, self.meeting, self.waits = name, meeting, waits
        self.asked, self.stopped = threading.Event(), threading.Event()

    def run(self, request, files, results, *, progress=None):
        self.asked.set()
        if self.meeting is not None:
            self.meeting.wait(timeout=30)
        if self.waits:
            assert self.stopped.wait(timeout=30)
            return {**ANSWER, "interrupted": True}
        return ANSWER

    def interrupt(self):
        self.stopped.set()

    def close(self):
        self.stopped.set()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(Path("models/digits/digits_int8.tflite").read_bytes())
    return path


def test_devices_work_at_the_same_time(model):
    meeting = threading.Barrier(3)  # none comes through alone
    rows = measure(model, device=[Waiting(name, meeting=meeting) for name in "abc"])
    assert [row.device.name for row in rows] == ["a", "b", "c"]
    assert all(isinstance(row, Measurement) and row.latency.p90_ms is None for row in rows)


def test_interrupt_reaches_all_and_keeps_what_is_known(model):
    done, slow, slower = Waiting("done"), Waiting("slow", waits=True), Waiting("slower", waits=True)

    def press():
        for device in (done, slow, slower):
            device.asked.wait(timeout=30)
        _thread.interrupt_main()

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted) as caught:
        measure(model, device=[slow, done, slower])
    assert isinstance(caught.value, KeyboardInterrupt)
    found = {row.device.name: row.interrupted for row in caught.value.records}
    assert found == {"done": False, "slow": True, "slower": True}


def test_a_lone_failure_is_raised_and_a_list_has_a_row(tmp_path):
    from tfcompress.errors import ModelError

    gone = tmp_path / "gone.tflite"
    with pytest.raises(ModelError, match="must exist"):
        measure(gone, device=Waiting("a"))
    (row,) = measure([gone], device=Waiting("a"))
    assert isinstance(row, Failure) and row.device == "a" and "must exist" in row.reason
