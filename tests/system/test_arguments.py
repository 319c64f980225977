"""A misspelt argument of a public call: the error names the nearest argument, or the option value that has it."""

import copy
import dataclasses
import inspect
import pickle

import pytest

from tfcompress.calibration.options import CalibrationOptions
from tfcompress.lowering.options import SourceOptions
from tfcompress.measurement.options import EvaluationOptions, LatencyOptions, RuntimeOptions
from tfcompress.system import checked_arguments


@dataclasses.dataclass(frozen=True)
class Options:
    runs: int = 50
    names: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Answer:
    value: int


@checked_arguments
def measure(model, /, data=None, *, threads: int = 1, latency: Options | None = None, answer: Answer | None = None):
    """Doc."""
    return model, data, threads


class Callback:
    @checked_arguments
    def __init__(self, *, sparsity=0.5):
        self.sparsity = sparsity


@pytest.mark.parametrize(
    "keyword, way_out",
    [
        ("thread", "Did you mean 'threads'?"),
        ("dada", "Did you mean 'data'?"),
        ("runs", r"Did you mean latency=Options\(runs=...\)\?"),
        ("num_runs", r"Did you mean latency=Options\(runs=...\)\?"),
        ("value", r"It has: model, data, threads, latency, answer\."),  # an Answer is no option: it needs a value
    ],
)
def test_an_unknown_keyword_names_the_nearest(keyword, way_out):
    with pytest.raises(TypeError, match=rf"^measure\(\) has no argument '{keyword}'\. {way_out}"):
        measure("m", **{keyword: 1})


def test_a_class_is_named_by_its_own_name():
    with pytest.raises(TypeError, match=r"^Callback\(\) has no argument 'sparcity'\. Did you mean 'sparsity'\?$"):
        Callback(sparcity=0.7)
    assert Callback(sparsity=0.7).sparsity == 0.7


def test_the_function_stays_what_it_was():
    assert measure("m", 1, threads=2) == ("m", 1, 2)
    assert (measure.__name__, measure.__doc__) == ("measure", "Doc.")
    assert list(inspect.signature(measure).parameters) == ["model", "data", "threads", "latency", "answer"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        measure()


@pytest.mark.parametrize(
    "kind, field, nearest",
    [
        (LatencyOptions, "run", "runs"),
        (EvaluationOptions, "worker", "workers"),
        (RuntimeOptions, "cpu", "cpus"),
        (CalibrationOptions, "observers", "observer"),
        (SourceOptions, "input_shape", "input_shapes"),
    ],
)
def test_option_values_name_the_nearest_field(kind, field, nearest):
    with pytest.raises(
        TypeError, match=rf"^{kind.__name__}\(\) has no argument '{field}'\. Did you mean '{nearest}'\?$"
    ):
        kind(**{field: 1})
    assert copy.deepcopy(pickle.loads(pickle.dumps(kind()))) == kind()
