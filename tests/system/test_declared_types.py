"""A record of other types: which field, what it must be, what it is; for every field and every kind of value."""

import dataclasses
import json
from collections.abc import Mapping

import pytest

from tfcompress.errors import DataError
from tfcompress.measurement.latency import Noise, Ratio
from tfcompress.measurement.op_times import OpTime, Profile
from tfcompress.measurement.records import Measurement, Reference, example_measurement, measurements_from_json
from tfcompress.system.declared_types import from_plain

FULL = example_measurement(
    scores={"top1": 0.5},
    confusion=((3, 1), (0, 4)),
    reference=Reference("float.tflite", "0" * 64, 0.9, 0.5, 2.0, 0.1),
    activation_bytes=1000,
    noise=Noise(0.2, None, (800.0, None), 0, 3.5, 40, (50.0, 71.0), cores=2),
    ratio=Ratio("float.tflite", 0.5, 0.4, 0.6, 9),
    profile=Profile((OpTime("CONV", 0, 0, 0.9), OpTime("SOFTMAX", 3, None, 0.1, "int8")), 1.02, 1.0, 50),
    estimates={"cycles": 12},
    call={"model": "digits.tflite", "data": None, "cpus": [0, 1], "threads": 1, "metric": "top1"},
)
WRONG = (None, True, -1, 1.5, 1e400, float("nan"), 1 << 70, "", "12", [], {}, [[None]], {"a": {"b": 1}})


def places(value, path=()):
    """Yields the path of every part of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def changed(record, path, value):
    record = json.loads(json.dumps(record))
    if not path:
        return value
    inside = record
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return record


def test_a_whole_record_comes_back():
    assert Measurement.from_json(FULL.to_json()) == FULL


@pytest.mark.parametrize("wrong", WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_any_part_of_a_record_replaced_is_a_record_or_one_line(wrong):
    """Whatever stands in whichever place: a record that can be shown, or an error that names the place."""
    plain, refused = FULL.to_json(), 0
    for path in places(plain):
        try:
            record = Measurement.from_json(changed(plain, path, wrong))
            str(record), record.run_bytes, str(record.device), str(record.settings)
            assert Measurement.from_json(json.loads(json.dumps(record.to_json()))) == record
        except DataError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 20


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("size_bytes",), "many", "size_bytes must be a whole number, and is 'many'"),
        (("latency",), [1], "latency must be an object, and is a list"),
        (("latency", "median_ms"), True, "latency.median_ms must be a finite number, and is true"),
        (("call", "model"), ["a"], "call.model must be a text, and is a list"),
        (("call", "shell"), "ls", "call has the unknown 'shell'"),
        (("profile", "ops", 1, "ms"), None, "profile.ops.ms must be a finite number, and is null"),
        (("noise", "frequency_mhz"), [1.0], "noise.frequency_mhz must have 2 parts, and has 1"),
        (("surprise",), 1, "has the unknown 'surprise'"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_place_is_named(path, value, message):
    with pytest.raises(DataError, match=f"^Not a measurement record: .*{message}"):
        measurements_from_json(json.dumps([changed(FULL.to_json(), path, value)]))


def test_a_missing_field_is_named():
    record = FULL.to_json()
    del record["device"]["cpu"]
    with pytest.raises(DataError, match="device lacks 'cpu'"):
        Measurement.from_json(record)


@dataclasses.dataclass
class Example:
    names: Mapping[str, int]
    either: int | str = 0


def test_unions_and_mappings():
    assert from_plain(Example, {"names": {"a": 1}, "either": "x"}) == Example({"a": 1}, "x")
    for wrong in ({"names": {"a": "1"}}, {"names": []}, {"names": {}, "either": []}, []):
        with pytest.raises(ValueError, match="must be"):
            from_plain(Example, wrong)


def test_a_type_that_json_lacks_is_an_error_of_the_declaration():
    with pytest.raises(TypeError, match="one that JSON has"):
        from_plain(complex, 1)
