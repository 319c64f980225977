"""Callbacks used wrongly: one clear error before the first step."""

import os
import subprocess
import sys
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.errors import TrainingError
from tfcompress.pruning.importance import CHANNEL_SCORES, ChannelScore
from tfcompress.pruning.l1_penalty import PenaltyPart
from tfcompress.pruning.masked_training import Scope
from tfcompress.qat.range_trackers import ActivationRanges, WeightRanges

X, Y = np.ones((32, 8), np.float32), np.zeros((32, 3), np.float32)

CALLBACKS = {
    "MagnitudePruning": lambda **options: tfc.MagnitudePruning(0.5, **options),
    "ChannelPruning": lambda **options: tfc.ChannelPruning(0.5, multiple_of=1, **options),
    "WeightClustering": tfc.WeightClustering,
    "L1Penalty": lambda **options: tfc.L1Penalty(1e-3, **options),
}
each_callback = pytest.mark.parametrize("name", CALLBACKS)


def dense(*, built: bool = True) -> keras.Model:
    layers = [keras.layers.Dense(16, name="hidden"), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *layers] if built else layers)
    model.compile("sgd", "mse", jit_compile=False)
    return model


@each_callback
def test_a_model_that_was_not_built(name):
    model = dense(built=False)
    with pytest.raises(TrainingError, match="must be built before"):
        model.fit(X, Y, verbose=0, callbacks=[CALLBACKS[name]()])
    assert int(model.optimizer.iterations) == 0


@each_callback
@pytest.mark.parametrize(
    "layers",
    ["nothing*", ["*", "nothing"], keras.layers.Conv1D, ["*", keras.layers.Conv1D], lambda path, layer: False],
    ids=["name", "list", "type", "list with a type", "function"],
)
def test_layers_that_do_not_exist(name, layers):
    model = dense()
    with pytest.raises(ValueError, match="must match a layer|must choose at least one layer"):
        model.fit(X, Y, verbose=0, callbacks=[CALLBACKS[name](layers=layers)])
    assert int(model.optimizer.iterations) == 0
    assert all(v.constraint is None and v.regularizer is None for v in model.variables)


@pytest.mark.parametrize("callback", [tfc.MagnitudePruning, tfc.ChannelPruning])
@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (75, "Write 0.75 for 75 %"),
        (-0.5, "must be a fraction"),
        (1.0, "must be a fraction"),
        (lambda step: 75.0, "Write 0.75 for 75 %"),
        (lambda step: -0.1, "must be a fraction"),
    ],
    ids=["75", "-0.5", "1.0", "answers 75", "answers -0.1"],
)
def test_sparsities_out_of_range(callback, schedule, message):
    model = dense()
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[callback(schedule)])
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("schedule", [tfc.schedules.Polynomial, tfc.schedules.Cosine])
def test_a_begin_after_the_end(schedule):
    with pytest.raises(ValueError, match="end must come after begin. Received: begin=20, end=10"):
        schedule(final=0.5, begin=20, end=10)


BACKEND = """
import numpy as np
import tfcompress as tfc
import keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
for make in (lambda: tfc.MagnitudePruning(0.5), lambda: tfc.ChannelPruning(0.5), lambda: tfc.WeightClustering(4),
             lambda: tfc.L1Penalty(1e-3), lambda: tfc.QuantizationAwareTraining(), lambda: tfc.distill(model, model)):
    try:
        make()
    except tfc.TfcompressError as error:
        print(error)
"""


# Keras's NumPy backend imports jax too, which only the extra [torch] brings.
@pytest.mark.torch
@pytest.mark.parametrize(("backend", "needs"), [("torch", "torch"), ("jax", "jax"), ("numpy", "jax")])
def test_another_backend(backend, needs):
    pytest.importorskip(needs)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", BACKEND], check=False, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("The callbacks need")]
    assert len(lines) == 6, done.stderr[-2000:]
    (message,) = set(lines)
    assert message == (
        f"The callbacks need Keras on TensorFlow. Received: the {backend} backend. Set KERAS_BACKEND=tensorflow before "
        "Keras is imported."
    )


@pytest.mark.parametrize(
    ("call", "argument", "nearest"),
    [
        (lambda **options: tfc.MagnitudePruning(0.5, **options), "frequence", "frequency"),
        (lambda **options: tfc.ChannelPruning(0.5, **options), "multiples_of", "multiple_of"),
        (tfc.WeightClustering, "cluster", "clusters"),
        (lambda **options: tfc.L1Penalty(1e-3, **options), "layer", "layers"),
        (tfc.QuantizationAwareTraining, "begin_epochs", "begin_epoch"),
        (lambda **options: tfc.distill(dense(), dense(), **options), "temperatur", "temperature"),
        (lambda **options: tfc.remove_channels(dense(), **options), "latency", "target_latency"),
    ],
)
def test_a_misspelt_argument(call, argument, nearest):
    with pytest.raises(TypeError, match=f"has no argument '{argument}'. Did you mean '{nearest}'"):
        call(**{argument: 1})


def test_names_that_a_type_checker_knows_are_those_that_are_accepted():
    for name in get_args(Scope):
        tfc.MagnitudePruning(0.5, scope=name)
        tfc.ChannelPruning(0.5, scope=name)
    for name in get_args(PenaltyPart):
        tfc.L1Penalty(1e-3, on=name)
    assert get_args(ChannelScore) == CHANNEL_SCORES
    for name in get_args(ChannelScore):
        tfc.ChannelPruning(0.5, importance=name)
    for activations in get_args(ActivationRanges):
        for weights in get_args(WeightRanges):
            tfc.QuantizationAwareTraining(activation_ranges=activations, weight_ranges=weights)
    target = get_type_hints(tfc.QuantizationAwareTraining.__init__)["target"]
    named, _ = get_args(target)
    assert set(get_args(named)) == set(tfc.TARGETS)
