"""Channels that belong together: the smaller model answers as the masked one, on every kind of graph."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress.errors import ModelError, TrainingError
from tfcompress.layers import costs, interception
from tfcompress.pruning import channel_groups, importance, rebuilding

X = np.random.default_rng(0).uniform(0, 1, (8, 32, 32, 3)).astype(np.float32)


def conv(x, width, size=3, **options):
    x = layers.Conv2D(width, size, padding="same", use_bias=False, **options)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def residual(x):
    x = conv(x, 32)
    return layers.Add()([x, conv(conv(x, 16), 32)])


def concatenation(x):
    x = conv(x, 16)
    return conv(layers.Concatenate()([x, conv(x, 24), layers.MaxPooling2D(3, 1, padding="same")(x)]), 16)


def squeeze_and_excite(x):
    x = conv(x, 32)
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(16, 1, activation="relu")(s)
    return layers.Multiply()([x, layers.Conv2D(32, 1, activation="sigmoid")(s)])


def squeeze_through_dense(x):
    x = conv(x, 32)
    s = layers.Dense(16, "relu")(layers.GlobalAveragePooling2D()(x))
    return x * layers.Reshape((1, 1, 32))(layers.Dense(32, "hard_sigmoid")(s))


def depthwise(x):
    x = conv(x, 16)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    return conv(layers.PReLU(shared_axes=(1, 2))(x), 24, 1)


def separable_and_transposed(x):
    x = layers.SeparableConv2D(16, 3, padding="same", activation="relu")(conv(x, 16))
    return layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="swish")(x)


def hard_swish(x):
    x = layers.Conv2D(24, 3)(x)
    return layers.Conv2D(16, 1)(x * layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0))


def sigmoid_read_by_a_weight(x):
    return layers.Conv2D(16, 1)(layers.Conv2D(24, 3, activation="sigmoid")(x))


def shared(x):
    block = layers.Conv2D(16, 3, padding="same", activation="relu")
    return block(block(conv(x, 16)))


def nested(x):
    given = keras.Input((32, 32, 16))
    inner = keras.Model(given, layers.Conv2D(16, 3, padding="same")(conv(given, 32)), name="inner")
    return inner(conv(x, 16))


def grouped(x):
    return conv(layers.Conv2D(16, 3, groups=4)(conv(x, 16)), 16)


GRAPHS = [residual, concatenation, squeeze_and_excite, squeeze_through_dense, depthwise, separable_and_transposed,
          hard_swish, sigmoid_read_by_a_weight, shared, nested, grouped]  # fmt: skip


def build(graph, flat=False) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = graph(image)
    x = layers.Flatten()(layers.AveragePooling2D(8)(x)) if flat else layers.GlobalAveragePooling2D()(x)
    return trained(keras.Model(image, layers.Dense(10)(layers.Dropout(0.5)(x))), X)


def trained(model, x):
    """BatchNorm statistics of real activations, and offsets that are not zero."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    random = np.random.default_rng(1)
    for layer in norms:
        layer.momentum = 0.9
        layer.beta.assign(random.normal(0, 0.3, layer.beta.shape))
    for layer in model._flatten_layers():
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(random.normal(0, 0.3, layer.bias.shape))
    return model


def mask(model, plan, removed):
    for variable, values in rebuilding.masks_without(plan, removed, model).values():
        variable.assign(np.asarray(variable) * values)


def assert_smaller_equals_masked(model, x, sparsity=0.5, multiple_of=8):
    plan = channel_groups.plan(model)
    removed = rebuilding.choose(plan, importance.channel_scores(model, plan), sparsity, multiple_of=multiple_of)
    assert removed
    smaller = rebuilding.remove(model, plan, removed)
    mask(model, plan, removed)
    expected = model.predict(x, verbose=0)
    assert np.abs(smaller.predict(x, verbose=0) - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max())
    assert smaller.count_params() < model.count_params()
    assert rebuilding.emptied(plan, model, multiple_of=multiple_of) == removed
    return smaller


@pytest.mark.parametrize("flat", [False, True], ids=["pooled", "flattened"])
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.__name__)
def test_the_smaller_model_equals_the_masked_one(graph, flat):
    model = build(graph, flat)
    names = list(interception.layer_paths(model))
    smaller = assert_smaller_equals_masked(model, X)
    assert len(interception.layer_paths(smaller)) == len(names)


def test_kept_channels_are_multiples_of_eight_and_tied_ones_agree():
    model = build(residual)
    smaller = assert_smaller_equals_masked(model, X, sparsity=0.4)
    widths = [layer.filters for layer in smaller.layers if isinstance(layer, layers.Conv2D)]
    assert widths == [24, 16, 24]  # 32 * 0.6 = 19.2 and 16 * 0.6 = 9.6, rounded up; the sum's two ends agree
    tied = [block for block in channel_groups.plan(model).blocks if len(block.makers) == 2]
    assert len(tied) == 1


def test_what_a_weight_reads_behind_a_sigmoid_stays():
    plan = channel_groups.plan(build(sigmoid_read_by_a_weight))
    assert [len(block.labels) for block in plan.blocks] == [16]  # the head reads the second convolution alone


def test_what_cannot_be_followed_is_named():
    plan = channel_groups.plan(build(lambda x: conv(layers.Permute((3, 1, 2), name="turn")(conv(x, 16)), 16)))
    assert plan.kept["turn"] == "channels cannot be followed through Permute"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50"])
def test_applications(name):
    keras.utils.set_random_seed(0)
    build_application = getattr(keras.applications, name)
    model = build_application(weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None)
    x = np.random.default_rng(0).uniform(0, 255 if "V3" in name else 1, (8, 64, 64, 3)).astype(np.float32)
    before = costs.multiply_adds(model)
    smaller = assert_smaller_equals_masked(trained(model, x), x)
    assert costs.multiply_adds(smaller) < 0.35 * before


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.ones((1, 3), np.float32))
    with pytest.raises(TrainingError, match="a subclassed model"):
        channel_groups.plan(model)
    with pytest.raises(ModelError, match="a subclassed model"):
        costs.multiply_adds(model)


def small():
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(conv(conv(image, 32), 64))
    return trained(keras.Model(image, layers.Dense(10, name="head")(x)), X)


def test_budgets():
    model = small()
    assert [
        layer.filters for layer in tfc.remove_channels(model, sparsity=0.5).layers if hasattr(layer, "filters")
    ] == [
        16,
        32,
    ]
    half = tfc.remove_channels(model, multiply_adds=0.5)
    assert 0.25 < costs.multiply_adds(half) / costs.multiply_adds(model) <= 0.5
    only = tfc.remove_channels(model, sparsity=0.5, layers="conv2d*", scope="global", by="l2", multiple_of=4)
    assert sum(layer.filters for layer in only.layers if hasattr(layer, "filters")) <= 52
    with pytest.raises(TrainingError, match="must be within reach"):
        tfc.remove_channels(model, multiply_adds=0.001)


@pytest.mark.slow
def test_a_latency_budget_is_met_as_measured():
    from tfcompress.pruning import channel_removal

    keras.utils.set_random_seed(0)
    # Wide full convolutions: their time is that of their multiply-adds on any processor, a MobileNet's is not.
    convolutions = [keras.layers.Conv2D(128, 3, padding="same", activation="relu") for _ in range(3)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((48, 48, 3)), *convolutions, *head])
    smaller = tfc.remove_channels(model, target_latency=0.6)
    ratio = costs.multiply_adds(smaller) / costs.multiply_adds(model)
    assert 0.2 < ratio < 0.75
    assert (
        channel_removal.latency_ratio(channel_removal._int8(smaller), channel_removal._int8(model)) < 0.8
    )  # a second, noisy look


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TrainingError, "must be channels that are zero"),
        ({"sparsity": 0.5, "multiply_adds": 0.5}, ValueError, "At most one budget"),
        ({"sparsity": 50}, ValueError, "Write 0.5 for 50 %"),
        ({"sparsity": -0.1}, ValueError, "must be a fraction"),
        ({"multiply_adds": 0}, ValueError, "must be a fraction"),
        ({"target_latency": 1.5}, ValueError, "must be a fraction"),
        ({"sparsity": 0.5, "multiple_of": 0}, ValueError, "multiple_of"),
        ({"sparsity": 0.5, "scope": "model"}, ValueError, "scope must be"),
        ({"sparsity": 0.5, "by": "size"}, ValueError, "Importance must be one of"),
        ({"sparsity": 0.5, "layers": "nothing*"}, ValueError, "must match a layer"),
    ],
    ids=str,
)
def test_wrong_use(options, error, message):
    with pytest.raises(error, match=message):
        tfc.remove_channels(small(), **options)


def test_taylor_keeps_what_the_loss_needs():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="hidden"), layers.Dense(1, name="head")])
    kernel = np.zeros((8, 1), np.float32)
    kernel[3:5] = 1.0  # only two units reach the answer, though their weights are the smallest
    model.get_layer("head").kernel.assign(kernel)
    hidden = np.full((4, 8), 5.0, np.float32)
    hidden[:, 3:5] = 0.1
    model.get_layer("hidden").kernel.assign(hidden)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(1, 1, (64, 4)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    by = tfc.importance.Taylor(x, np.zeros((64, 1), np.float32))
    smaller = tfc.remove_channels(model, sparsity=0.75, multiple_of=1, by=by)
    assert smaller.get_layer("hidden").units == 2
    assert np.allclose(smaller.predict(x, verbose=0), expected, atol=1e-5)
    by_size = tfc.remove_channels(model, sparsity=0.75, multiple_of=1)
    assert not np.allclose(by_size.predict(x, verbose=0), expected, atol=1e-2)


def one_for_each_importance():
    """A model of four channels of which every importance finds another one the least."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, use_bias=False, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(1, use_bias=False, name="head"),
        ]
    )
    # By column: the smallest sum of magnitudes, the smallest root of squares, the smallest scale, unread by the head.
    kernel = [[2.0, 0.0, 0.0, 0.0], [0.9, 0.9, 0.9, 0.9], [2.0, 2.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]]
    model.get_layer("hidden").kernel.assign(np.transpose(kernel))
    model.get_layer("norm").gamma.assign([1.0, 1.0, 0.1, 1.0])
    model.get_layer("head").kernel.assign([[1.0], [1.0], [20.0], [0.0]])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    return model


ONES, ZEROS = np.ones((8, 4), np.float32), np.zeros((8, 1), np.float32)


@pytest.mark.parametrize(
    ("by", "least"),
    [("l1", 0), ("l2", 1), ("batch_norm", 2), (tfc.importance.Taylor(ONES, ZEROS), 3)],
    ids=["l1", "l2", "batch_norm", "Taylor"],
)
def test_every_importance_takes_the_channel_that_it_finds_least(by, least):
    model = one_for_each_importance()
    kernel = np.asarray(model.get_layer("hidden").kernel)
    smaller = tfc.remove_channels(model, sparsity=0.25, multiple_of=1, by=by)
    assert np.array_equal(smaller.get_layer("hidden").kernel, np.delete(kernel, least, axis=1))
    model.fit(ONES, ZEROS, verbose=0, callbacks=[tfc.ChannelPruning(0.25, multiple_of=1, importance=by, frequency=1)])
    emptied = ~np.asarray(model.get_layer("hidden").kernel).any(axis=0)
    assert np.flatnonzero(emptied).tolist() == [least]


def test_importance_by_batch_norm_needs_one():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(16), layers.ReLU(), layers.Dense(2)])
    with pytest.raises(TrainingError, match="needs a BatchNorm"):
        tfc.remove_channels(model, sparsity=0.5, by="batch_norm")
    assert tfc.remove_channels(small(), sparsity=0.5, by="batch_norm").count_params() < small().count_params()
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(
        layers.Conv2D(16, 3, activation="relu", name="bare")(conv(image, 16, name="normed"))
    )
    model = keras.Model(image, layers.Dense(2)(x))
    with pytest.raises(TrainingError, match="none behind bare. Use 'l1' or leave these layers out"):
        tfc.remove_channels(model, sparsity=0.5, by="batch_norm")
    assert tfc.remove_channels(model, sparsity=0.5, by="batch_norm", layers="normed").get_layer("normed").filters == 8


def test_multiply_adds_of_the_papers():
    model = keras.applications.MobileNet(weights=None)
    assert costs.multiply_adds(model) == pytest.approx(569e6, rel=0.01)  # table 4 of Howard et al., 2017
    model = keras.applications.MobileNetV2(weights=None)
    assert costs.multiply_adds(model) == pytest.approx(300e6, rel=0.01)  # table 4 of Sandler et al., 2018
