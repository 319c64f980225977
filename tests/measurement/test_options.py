"""The four values that ``measure`` takes: defaults, what they refuse, how they print; and the names that have a type."""

import dataclasses
from typing import get_args

import pytest

import tfcompress as tfc
from tfcompress.data import SCALINGS, ScalingName
from tfcompress.measurement import ConnectionOptions, EvaluationOptions, LatencyOptions, RuntimeOptions
from tfcompress.measurement.conditions import ACCELERATORS, APIS, Accelerator, Api
from tfcompress.measurement.devices.on_device.agent import SETTINGS
from tfcompress.metrics import METRICS, MetricName

OPTIONS = (LatencyOptions, EvaluationOptions, RuntimeOptions, ConnectionOptions)
each_kind = pytest.mark.parametrize("kind", OPTIONS)


@each_kind
def test_options_are_exported_hashable_and_frozen(kind):
    value = kind()
    assert getattr(tfc, kind.__name__) is kind and hash(value) == hash(kind())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(kind)[0].name, None)


@each_kind
def test_a_repr_is_the_call_that_makes_it(kind):
    assert repr(kind()) == f"{kind.__name__}()"
    other = {"runs": 3, "batch": 3, "cpus": (0, 2), "timeout_seconds": 2.5}
    changed = kind(**{field.name: other[field.name] for field in dataclasses.fields(kind) if field.name in other})
    assert changed != kind() and eval(repr(changed), {kind.__name__: kind}) == changed


@pytest.mark.parametrize(
    ("kind", "settings", "error", "message"),
    [
        (LatencyOptions, {"runs": 0}, ValueError, "runs must be at least 1. Received: runs=0."),
        (LatencyOptions, {"runs": 1.5}, TypeError, "runs must be a whole number. Received: runs=1.5."),
        (LatencyOptions, {"warmup": -1}, ValueError, "warmup must be at least 0. Received: warmup=-1."),
        (LatencyOptions, {"seed": -1}, ValueError, "seed must be at least 0"),
        (EvaluationOptions, {"batch": 0}, ValueError, "batch must be at least 1. Received: batch=0."),
        (EvaluationOptions, {"workers": -1}, ValueError, "workers must be at least 0"),
        (RuntimeOptions, {"api": "other"}, ValueError, "api must be one of interpreter, compiled"),
        (RuntimeOptions, {"accelerator": "tpu"}, ValueError, "accelerator must be one of cpu, gpu, npu"),
        (RuntimeOptions, {"api": "interpreter", "accelerator": "npu"}, ValueError, "A npu needs api='compiled'"),
        (RuntimeOptions, {"cpus": ["0"]}, TypeError, "cpus must be a whole number"),
        (ConnectionOptions, {"timeout_seconds": -1}, ValueError, "timeout_seconds must be above 0"),
    ],
    ids=str,
)
def test_wrong_values(kind, settings, error, message):
    with pytest.raises(error, match=message.replace(".", r"\.")):
        kind(**settings)


def test_names_that_have_a_type_are_those_of_the_tables():
    assert set(get_args(MetricName)) == set(METRICS)
    assert set(get_args(ScalingName)) == set(SCALINGS)
    assert (get_args(Api), get_args(Accelerator)) == (APIS, ACCELERATORS)


def test_an_agent_answers_with_the_same_defaults():
    """A request that leaves a setting out, from a program of one's own, is the one of ``measure``."""
    assert SETTINGS["batch"] == EvaluationOptions().batch and SETTINGS["xnnpack"] is RuntimeOptions().xnnpack
    assert SETTINGS["seed"] == LatencyOptions().seed


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("num_runs", r"Did you mean latency=LatencyOptions\(runs=...\)\?"),
        ("warm_up", r"latency=LatencyOptions\(warmup=...\)"),
        ("thread", "Did you mean 'threads'"),
        ("allow_pickles", r"evaluation=EvaluationOptions\(allow_pickle=...\)"),
        ("benchmark_modell", r"connection=ConnectionOptions\(benchmark_model=...\)"),
        ("acelerator", r"runtime=RuntimeOptions\(accelerator=...\)"),
    ],
)
def test_a_misspelt_argument_is_an_error_with_the_nearest_name(wrong, message):
    with pytest.raises(TypeError, match=message):
        tfc.measure("model.tflite", **{wrong: 1})
