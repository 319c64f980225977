"""Per-op profiles: events add up, LiteRT's own profiler finds every op, and the answer to why one file is slower."""

import dataclasses
import json
from pathlib import Path

import pytest

from tfcompress.errors import DeviceError
from tfcompress.measurement.devices.local import LocalDevice
from tfcompress.measurement.devices.on_device.events import Event, profile_of, reason_off, split_runs
from tfcompress.measurement.op_times import OpTime, Profile, compare_profiles, family

WHOLE, OPERATOR, DELEGATED = 1, 2, 8
OPERATIONS = [{"op": "CONV_2D", "dtypes": ["int8"]}, {"op": "SOFTMAX", "dtypes": ["int8"]}]


def run(factor=1):
    return [
        Event(WHOLE, "Invoke", 0, 100 * factor),
        Event(DELEGATED, "Convolution (NHWC, QC8) IGEMM", 0, 40 * factor),
        Event(DELEGATED, "Add (ND)", 1, 10 * factor),
        Event(OPERATOR, "SOFTMAX", 1, 20 * factor),
        Event(DELEGATED, "Convolution (NHWC, QC8) IGEMM", 0, 20 * factor),
    ]


def profile(shared_data, file, **settings):
    files = {"model": shared_data / file}
    request = {"kind": "profile", "runs": 20, "warmup_runs": 2, **settings}
    return Profile.from_json(LocalDevice().run(request, files, {})["profile"])


def test_events_add_up_by_part_and_number():
    found = profile_of(run() + run(), OPERATIONS, plain_ms=0.09)
    assert [(op.name.split()[0], op.part, op.node, op.ms) for op in found.ops] == [
        ("Convolution", 0, 0, 0.0405),
        ("Add", 0, 1, 0.0105),
        ("SOFTMAX", None, 1, 0.02),
        ("Convolution", 1, 0, 0.0205),
    ]
    assert found.parts == pytest.approx({0: 0.051, 1: 0.0205})
    assert found.whole_ms == 0.1 and found.sum_ms == pytest.approx(0.0915) and found.runs == 2
    assert found.delegated_share == pytest.approx(0.0715 / 0.0915) and found.overhead == pytest.approx(1 / 9, abs=1e-6)


def test_slower_part_of_the_runs_does_not_count():
    found = profile_of(run() + run(50) + run() + run(70), OPERATIONS, plain_ms=0.1)
    assert found.whole_ms == 0.1 and found.runs == 4


def test_events_before_the_first_run_belong_to_none():
    assert len(split_runs([Event(OPERATOR, "ADD", 0, 3), *run()])) == 1


@pytest.mark.parametrize(
    ("op", "dtype", "reason"),
    [
        ("SOFTMAX", "int8", "float32 kernel for it, none for int8"),
        ("CAST", "float32", "no kernel for it"),
        ("ADD", "int32", "not int32"),
        ("CONV_2D", "int8", "does not take these"),
    ],
)
def test_reasons_to_stay_off_the_delegate(op, dtype, reason):
    assert reason in reason_off([{"op": op, "dtypes": [dtype]}], 0, op)


def test_every_op_of_a_real_file_is_found(shared_data):
    found = profile(shared_data, "mlperf_resnet8/pretrainedResnet_quant.tflite")
    assert sum(family(op.name) == "Convolution" for op in found.ops) == 9
    assert [op.name for op in found.off_delegate] == ["AVERAGE_POOL_2D", "SOFTMAX"]
    assert all("none for int8" in op.reason for op in found.off_delegate)
    assert set(found.parts) == {0, 1}
    assert 0.5 < found.sum_ms / found.whole_ms <= 1.02  # a file this small: a microsecond is the clock's resolution
    assert found.delegated_share > 0.9
    assert len(found.top()) == 10 and found.top()[0].ms == max(op.ms for op in found.ops)


def test_without_xnnpack_every_op_is_the_interpreters(shared_data):
    found = profile(shared_data, "mlperf_resnet8/pretrainedResnet_quant.tflite", xnnpack=False)
    assert found.delegated_share == 0 and {op.reason for op in found.ops} == {"XNNPACK is off"}
    assert [op.node for op in found.ops] == list(range(16))


def test_float_file_is_delegated_whole(shared_data):
    found = profile(shared_data, "mlperf_resnet8/pretrainedResnet.tflite")
    assert found.off_delegate == () and set(found.parts) == {0}


def test_file_that_the_profiler_does_not_take_is_one_line(shared_data):
    with pytest.raises(DeviceError, match="profiler must take the file") as caught:
        profile(shared_data, "mnist/trained_lstm_int8.tflite")
    assert "\n" not in str(caught.value)


def test_profile_survives_json_and_is_readable():
    found = profile_of(run(), OPERATIONS, plain_ms=0.09)
    assert Profile.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert max(map(len, str(found).splitlines())) <= 80
    assert "off the delegate: SOFTMAX" in str(found)


def test_comparison_puts_the_largest_difference_first():
    slow = Profile((OpTime("Convolution (NHWC, QC8)", 0, 0, 3.0), OpTime("Convert (NC, F32, QS8)", 1, 0, 0.5)), 4, 4, 9)
    fast = Profile((OpTime("Convolution (NHWC, F32)", 0, 0, 1.0), OpTime("Softmax (NC, F32)", 1, 0, 0.1)), 1, 1, 9)
    lines = compare_profiles("int8", slow, "float", fast).splitlines()
    assert lines[0].startswith("int8 takes 3.500 ms, float 1.100 ms: 3.18 times as long")
    assert (
        "+2.000 ms  Convolution" in lines[1] and "+0.500 ms  Convert" in lines[2] and "-0.100 ms  Softmax" in lines[3]
    )
    assert "0.500 ms of it go into conversions" in lines[4]


def test_a_file_without_the_library_says_what_to_install(monkeypatch):
    from tfcompress.measurement.devices.on_device import profiler

    monkeypatch.setattr(profiler, "LIBRARY", "libNothing.so")
    with pytest.raises(DeviceError, match="libNothing.so of ai-edge-litert"):
        profiler.Profiler(str(Path("m.tflite")), "m.tflite")
