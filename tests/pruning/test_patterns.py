"""Patterns of zeros: blocks, n of m and one ranking for all, in arrays, in fits and in the file."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress.errors import TrainingError
from tfcompress.pruning import masks
from tfcompress.pruning.magnitude_pruning import prunable_weights
from tfcompress.tflite import flatbuffer

X, Y = striped_pictures(128)


def fit(model, *callbacks, **options):
    return model.fit(X, Y, batch_size=32, verbose=0, callbacks=list(callbacks), **{"epochs": 2, **options})


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (16, 1), (2, 2), (3, 5)], ids=str)
@pytest.mark.parametrize("size", [(16, 16), (7, 9), (1, 5)], ids=str)
def test_blocks_are_whole_and_exactly_as_many_as_asked(shape, size):
    weights = np.random.default_rng(0).normal(size=size)
    mask = masks.Block(shape)(weights, 0.5)
    blocks = [
        mask[row : row + shape[0], column : column + shape[1]]
        for row in range(0, size[0], shape[0])
        for column in range(0, size[1], shape[1])
    ]
    assert all(block.min() == block.max() for block in blocks)
    assert sum(block.max() == 0 for block in blocks) == masks.pruned_count(len(blocks), 0.5)


def test_blocks_go_by_their_mean_magnitude_also_at_the_edge():
    weights = np.array([[1.0, 1.0, 1.0, 1.0, 3.0]])  # the last block holds one weight
    assert masks.Block((1, 4))(weights, 0.5).tolist() == [[0, 0, 0, 0, 1]]


def test_ties_are_exact():
    assert int((masks.Block((1, 2))(np.ones((8, 8)), 0.25) == 0).sum()) == 16
    assert int((masks.NofM(2, 4)(np.ones((8, 8)), 0.5) == 0).sum()) == 32


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8)])
def test_n_of_m_keeps_the_largest_of_each_group(n, m):
    weights = np.random.default_rng(0).normal(size=(6, 4 * m))
    pattern = masks.NofM(n, m)
    groups = (np.abs(weights) * pattern(weights, pattern.most)).reshape(6, -1, m)
    assert ((groups > 0).sum(-1) == n).all()
    largest = np.sort(np.abs(weights).reshape(6, -1, m), axis=-1)[..., m - n :]
    assert np.array_equal(np.sort(groups, axis=-1)[..., m - n :], largest)


def test_n_of_m_climbs_and_keeps_n_at_the_end_of_a_row():
    pattern = masks.NofM(1, 4)
    weights = np.random.default_rng(0).normal(size=(3, 10))
    kept = [int(pattern(weights, sparsity)[:, :8].sum()) for sparsity in (0.0, 0.25, 0.5, 0.75)]
    assert kept == [24, 18, 12, 6]
    assert (pattern(weights, 0.75)[:, 8:].sum(1) >= 1).all()
    with pytest.raises(ValueError, match="1:4 sparsity is 0.75 at most"):
        pattern(weights, 0.8)


def test_one_ranking_counts_all_weights_together():
    random = np.random.default_rng(0)
    arrays = {"small": random.normal(0, 0.1, (20, 20)), "large": random.normal(0, 1, (20, 20))}
    found = masks.jointly(masks.magnitude, arrays, 0.5)
    zeros = {name: int((mask == 0).sum()) for name, mask in found.items()}
    assert zeros["small"] + zeros["large"] == 400
    assert zeros["small"] > 350
    assert masks.jointly(masks.magnitude, arrays, 0.99)["small"].sum() >= 1
    blocks = masks.jointly(masks.Block((1, 4)), arrays, 0.5)
    assert sum(int((mask == 0).sum()) for mask in blocks.values()) == 400


def test_one_ranking_in_a_fit():
    model = compiled(tiny_cnn())
    history = fit(model, tfc.MagnitudePruning(0.5, scope="global", frequency=1))
    kernels = [np.asarray(variable) for variable in prunable_weights(model).values()]
    assert sum(int((k == 0).sum()) for k in kernels) == masks.pruned_count(sum(k.size for k in kernels), 0.5)
    assert history.history["sparsity"][-1] == pytest.approx(0.5, abs=0.001)
    shares = [history.history[f"sparsity/{name}"][-1] for name in prunable_weights(model)]
    assert max(shares) - min(shares) > 0.05


def test_first_and_last_layer_are_protected_on_request():
    model = compiled(tiny_cnn())
    fit(model, tfc.MagnitudePruning(0.5, protect=("first", "last"), frequency=1))
    shares = {name: masks.sparsity(np.asarray(kernel)) for name, kernel in prunable_weights(model).items()}
    assert shares["stem/kernel"] == shares["logits/kernel"] == 0.0
    assert shares["pointwise/kernel"] == 0.5
    with pytest.raises(TrainingError, match="beside the protected ones"):
        fit(compiled(tiny_cnn()), tfc.MagnitudePruning(0.5, layers="stem", protect="first"))


def wide():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(16, 3, activation="relu", name="stem"),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv"),
            keras.layers.Conv2DTranspose(16, 2, name="up"),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )


@pytest.mark.parametrize(
    ("mask", "sparsity"),
    [
        (masks.NofM(2, 4), 0.5),
        (masks.NofM(1, 4), 0.75),
        (masks.Block((1, 4)), 0.5),
        (masks.Block((4, 1)), 0.5),
        (masks.Block((16, 1), norm="l2"), 0.5),
    ],
    ids=str,
)
def test_patterns_lie_along_the_axes_of_the_file(mask, sparsity):
    """The zeros of the int8 file, in TFLite's own layout: outputs first, inputs last."""
    model = compiled(wide())
    fit(model, tfc.MagnitudePruning(sparsity, layers=["conv", "up", "hidden"], mask=mask, frequency=1))
    kernels = kernels_of(tfc.convert(model, target="cpu-int8", representative_data=X).tflite)
    found = [(op, kernel) for op, kernel in kernels if np.mean(kernel == 0) > 0.45]
    assert sorted(op for op, _ in found) == ["CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"]
    for _, kernel in found:
        assert_pattern(kernel, mask, sparsity)


class OwnEinsumDense(keras.layers.EinsumDense):
    """A class of one's own that computes as its parent."""


class Spatial(keras.layers.DepthwiseConv2D):
    """Another, whose name says nothing."""


LAYERS = {
    "Conv1D": ((16, 8), keras.layers.Conv1D, (16, 3), {}),
    "DepthwiseConv1D": ((16, 16), keras.layers.DepthwiseConv1D, (4,), {}),
    "SeparableConv1D": ((16, 8), keras.layers.SeparableConv1D, (32, 4), {"depth_multiplier": 2}),
    "grouped": ((8, 8, 16), keras.layers.Conv2D, (16, 3), {"groups": 2}),
    "DepthwiseConv2D": ((8, 8, 16), keras.layers.DepthwiseConv2D, (4,), {}),
    "multiplier": ((8, 8, 8), keras.layers.DepthwiseConv2D, (4,), {"depth_multiplier": 2}),
    "SeparableConv2D": ((8, 8, 8), keras.layers.SeparableConv2D, (32, 4), {"depth_multiplier": 2}),
    "EinsumDense": ((6, 16), keras.layers.EinsumDense, ("abc,cde->abde", (6, 4, 8)), {}),
    "EinsumDense of heads": ((6, 4, 8), keras.layers.EinsumDense, ("abde,dec->abc", (6, 16)), {}),
    "EinsumDense transposed": ((6, 16), keras.layers.EinsumDense, ("abc,dc->abd", (6, 16)), {}),
    "own EinsumDense": ((6, 16), OwnEinsumDense, ("abc,dc->abd", (6, 16)), {}),
    "own DepthwiseConv2D": ((8, 8, 8), Spatial, (4,), {"depth_multiplier": 2}),
    "LSTM": ((5, 16), keras.layers.LSTM, (8,), {"unroll": True}),
    "GRU": ((5, 16), keras.layers.GRU, (8,), {"unroll": True}),
    "MultiHeadAttention": ((6, 16), keras.layers.MultiHeadAttention, (2, 8), {}),
}


@pytest.mark.parametrize(
    ("mask", "sparsity"),
    [(masks.NofM(2, 4), 0.5), (masks.NofM(1, 4), 0.75), (masks.Block((1, 4)), 0.5), (masks.Block((4, 1)), 0.5),
     (masks.Block((16, 1)), 0.5)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", LAYERS)
def test_patterns_of_every_layer(name, mask, sparsity):
    shape, layer, arguments, options = LAYERS[name]
    keras.utils.set_random_seed(0)
    given = keras.Input(shape)
    inputs = (given, given) if layer is keras.layers.MultiHeadAttention else (given,)
    model = keras.Model(given, layer(*arguments, **options)(*inputs))
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32)
    model.fit(x, np.zeros((16, *model.output_shape[1:])), verbose=0,
              callbacks=[tfc.MagnitudePruning(sparsity, mask=mask, frequency=1)])  # fmt: skip
    kernels = kernels_of(tfc.convert(model, target="cpu-int8", representative_data=x).tflite)
    assert len(kernels) == len(prunable_weights(model))
    for _, kernel in kernels:
        assert_pattern(kernel, mask, sparsity)


def kernels_of(tflite):
    """Every int8 weight of more than one axis, once, with the op that reads it; not what is added, such as a bias of heads."""
    parsed = flatbuffer.parse(tflite)
    graph = parsed.subgraphs[0]
    found = {}
    for operator in graph.operators:
        op = flatbuffer.op_name(parsed, operator)
        for index in operator.inputs if op != "ADD" else ():
            values = flatbuffer.constant(parsed, graph.tensors[int(index)]) if int(index) >= 0 else None
            if values is not None and values.ndim > 1 and values.dtype == np.int8:
                found[values.shape, values.tobytes()] = (
                    op,
                    values,
                )  # the file may hold a kernel twice, for its first step
    return list(found.values())


def assert_pattern(kernel, mask, sparsity):
    matrix = kernel.reshape(-1, kernel.shape[-1])
    if isinstance(mask, masks.NofM):
        assert ((matrix.reshape(matrix.shape[0], -1, mask.m) != 0).sum(-1) <= mask.n).all()
    else:
        rows, columns = mask.shape
        matrix = np.pad(matrix, [(0, -size % part) for size, part in zip(matrix.shape, mask.shape, strict=True)])
        blocks = matrix.reshape(matrix.shape[0] // rows, rows, matrix.shape[1] // columns, columns)
        empty = (blocks == 0).all(axis=(1, 3))
        # Weights that are not pruned may be rounded to zero.
        assert empty.sum() == pytest.approx(masks.pruned_count(empty.size, sparsity), abs=0.01 * empty.size)


def test_taylor_importance_ranks_by_the_loss():
    model = compiled(tiny_cnn())
    by = tfc.importance.Taylor(X, Y)
    fit(model, tfc.MagnitudePruning(0.5, importance=by, frequency=2), epochs=1)
    assert masks.sparsity(np.asarray(model.get_layer("pointwise").kernel)) == 0.5
    dense = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(1, name="head")]
    )
    dense.get_layer("hidden").kernel.assign(np.repeat([[5.0] * 4 + [0.1] * 4], 4, axis=0))
    dense.get_layer("head").kernel.assign([[0.0]] * 4 + [[1.0]] * 4)  # reads the small ones only
    x, y = np.ones((8, 4), np.float32), np.zeros((8, 1), np.float32)
    for importance, gone in ((tfc.importance.Taylor(x, y), [0, 1, 2, 3]), ("magnitude", [4, 5, 6, 7])):
        trained = keras.models.clone_model(dense)
        trained.set_weights(dense.get_weights())
        trained.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
        trained.fit(x, y, verbose=0, callbacks=[tfc.MagnitudePruning(0.5, layers="hidden", importance=importance)])
        assert np.flatnonzero(~np.asarray(trained.get_layer("hidden").kernel).any(axis=0)).tolist() == gone
    with pytest.raises(TrainingError, match="needs a loss"):
        by(tiny_cnn(), [])


def test_schedules_join_and_wave():
    wave = tfc.schedules.Cosine(final=0.8, end=110, begin=10)
    assert [wave(0), round(wave(60), 6), wave(110), wave(500)] == [0.0, 0.4, 0.8, 0.8]
    joined = tfc.schedules.Join([0.0, tfc.schedules.Cosine(final=0.5, end=10), 0.75], [5, 20])
    assert [joined(4), joined(5), joined(15), joined(19), joined(20)] == [0.0, 0.0, 0.5, 0.5, 0.75]
    for wrong in ({"schedules": [0.5], "boundaries": [3]}, {"schedules": [0.1, 0.2, 0.3], "boundaries": [5, 5]}):
        with pytest.raises(ValueError, match="one rising boundary"):
            tfc.schedules.Join(**wrong)
    with pytest.raises(ValueError, match="end must come after begin"):
        tfc.schedules.Cosine(final=0.5, end=5, begin=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masks.Block((0, 4)), "must be .rows, columns."),
        (lambda: masks.Block(4), "must be .rows, columns."),
        (lambda: masks.Block((1, 4), norm="max"), "norm must be 'l1' or 'l2'"),
        (lambda: masks.NofM(4, 4), "1 <= n < m"),
        (lambda: tfc.MagnitudePruning(0.5, scope="all"), "scope must be"),
        (lambda: tfc.MagnitudePruning(0.5, scope="global", mask=masks.NofM(2, 4)), "scope='global' needs"),
        (lambda: tfc.MagnitudePruning(0.5, protect="middle"), "protect must be"),
        (lambda: tfc.MagnitudePruning(0.5, importance="size"), "importance must be"),
        (lambda: tfc.importance.Taylor(X, Y, batch_size=0), "batch_size must be"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_beyond_the_pattern_is_refused_before_training():
    model = compiled(tiny_cnn())
    with pytest.raises(ValueError, match="2:4 sparsity is 0.5 at most"):
        fit(model, tfc.MagnitudePruning(0.75, mask=masks.NofM(2, 4)))
    assert int(model.optimizer.iterations) == 0
