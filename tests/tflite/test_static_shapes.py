"""Fixing dynamic axes: what is fixed stays, what does not fit is refused."""

import keras
import numpy as np
import pytest

from tfcompress.lowering import lower_keras
from tfcompress.tflite import Model, flatbuffer
from tfcompress.tflite.static_shapes import fix_shapes

KNOWN = {"image": (None, None, 8, 3), "state": (None, 4)}


def test_nothing_wanted_changes_nothing():
    assert fix_shapes(KNOWN, None, place="m") == KNOWN
    assert fix_shapes(KNOWN, {"image": (None, None, None, None)}, place="m") == KNOWN


def test_fixing_twice_is_fixing_once():
    once = fix_shapes(KNOWN, {"image": (1, 6, None, 3)}, place="m")
    assert once == {"image": (1, 6, 8, 3), "state": (None, 4)}
    assert fix_shapes(once, {"image": (1, 6, None, 3)}, place="m") == once


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"picture": (1,)}, "must name inputs of m: 'image', 'state'. Received: 'picture'"),
        ({"image": (1, 8, 3)}, "must have 4 axes"),
        ({"image": (1, 6, 9, 3)}, r"keep the sizes .*Received: \(1, 6, 9, 3\)"),
        ({"state": (0, 4)}, "at least 1"),
    ],
    ids=["name", "axes", "size", "zero"],
)
def test_what_does_not_fit_is_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        fix_shapes(KNOWN, wanted, place="m")


def _dense_on(shape):
    x = keras.Input(shape, name="x")
    return keras.Model(x, keras.layers.Dense(4, name="y")(keras.layers.Dense(3)(x)))


@pytest.mark.parametrize(
    ("shape", "computed"), [((7, 5), 0), ((None, 5), 2), ((None, None, 5), 2)], ids=["known", "series", "grid"]
)
def test_a_shape_of_which_one_size_changes_is_a_constant(shape, computed):
    """Behind unknown axes the way in, (all, 5), needs no computing; the way back has several sizes that change."""
    model = _dense_on(shape)
    content = lower_keras(model).content
    parsed = flatbuffer.parse(content)
    graph = parsed.subgraphs[0]
    shapes = [
        flatbuffer.constant(parsed, graph.tensors[int(operator.inputs[1])])
        for operator in graph.operators
        if flatbuffer.op_name(parsed, operator) == "RESHAPE"
    ]
    assert sum(each is None for each in shapes) == computed
    assert [5] in [each[1:].tolist() for each in shapes if each is not None]
    values = np.random.default_rng(0).normal(size=(1, *(size or 6 for size in shape))).astype(np.float32)
    runner = Model(content)
    runner.feed({"x": values})
    runner.invoke()
    np.testing.assert_allclose(runner.tensor(runner.outputs[0].index), model(values), atol=1e-5)  # float32 sums
