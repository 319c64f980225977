"""Where a model rounds: one point at the end of each fused chain, on every kind of model."""

import keras
import numpy as np
import pytest
from keras import layers

from models import tiny_cnn
from tfcompress.layers import interception, quantization_points


def test_a_chain_has_one_point_at_its_end():
    assert quantization_points.plan(tiny_cnn()).tracked == (
        "input:image",
        "stem_relu",
        "depthwise_relu",
        "pointwise",
        "residual",
        "logits",
    )


def test_average_pooling_follows_its_input():
    plan = quantization_points.plan(tiny_cnn())
    assert plan.sites["average", 0].follows == "residual"


def test_a_branch_ends_the_chain():
    image = keras.Input((8, 8, 1), name="image")
    conv = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    both = layers.Add(name="sum")([layers.ReLU(name="relu")(conv), conv])
    assert quantization_points.plan(keras.Model(image, both)).tracked == ("input:image", "conv", "relu", "sum")


def test_an_output_in_the_middle_ends_the_chain():
    image = keras.Input((8, 8, 1), name="image")
    conv = layers.Conv2D(4, 3, name="conv")(image)
    assert "conv" in quantization_points.plan(keras.Model(image, [conv, layers.ReLU(name="relu")(conv)])).tracked


def test_activations_with_a_prescribed_range_have_an_inner_point():
    model = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, activation="softmax", name="head")])
    plan = quantization_points.plan(model)
    assert plan.tracked == ("input:x", "head:inner")
    assert plan.sites["head", 0].fixed == (0.0, 255 / 256)


def test_nested_subclassed_and_operator_models_are_the_same_to_it():
    keras.utils.clear_session()  # the operator's layer is numbered by session
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a"), layers.ReLU(name="b")], name="inner")
    x = keras.Input((4,), name="x")
    nested = keras.Model(x, layers.Dense(2, name="head")(inner(x) + x))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(4)
            self.activate = layers.ReLU()
            self.blocks = [layers.Dense(2)]

        def call(self, inputs):
            return self.blocks[0](self.activate(self.first(inputs)))

    subclassed = Subclassed()
    subclassed(np.zeros((1, 4), np.float32))
    assert quantization_points.plan(nested).tracked == ("input:x", "inner/b", "add", "head")
    assert quantization_points.plan(subclassed).tracked == ("input:input", "activate", "blocks/0")


def test_a_shared_layer_has_a_point_for_each_call():
    x, dense = keras.Input((4,), name="x"), layers.Dense(4, name="shared")
    model = keras.Model(x, dense(dense(x)))
    assert quantization_points.plan(model).tracked == ("input:x", "shared", "shared#1")


def test_what_no_rule_describes_is_listed_with_the_reason():
    class Mystery(layers.Layer):
        def call(self, inputs):
            return inputs * 2

    model = keras.Sequential([keras.Input((4,), name="x"), Mystery(name="mystery"), layers.Dense(2, name="head")])
    plan = quantization_points.plan(model)
    assert list(plan.skipped) == ["mystery"]
    assert "no rule for Mystery" in plan.skipped["mystery"]


class Twice(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Narrow(layers.Dense):
    """Computes as its parent."""


def test_a_subclass_counts_as_its_parent_unless_its_call_is_its_own():
    model = keras.Sequential([keras.Input((4,), name="x"), Narrow(4, name="same"), Twice(4, name="other")])
    plan = quantization_points.plan(model)
    assert plan.tracked == ("input:x", "same")
    assert plan.skipped == {"other": "its call is its own; see tfcompress.quantization_points.register"}
    assert [rule.attribute for rule in plan.sites["other", 0].weights] == ["kernel"]


class Residual(layers.Layer):
    """A layer of layers: the addition between them is none."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(4)
        self.flat = layers.Reshape((4,))

    def call(self, x):
        return x + self.flat(self.dense(keras.ops.reshape(x, (-1, 4))))


def test_what_is_computed_between_layers_is_listed_by_its_layer():
    own = "what it computes between its layers has no output in Keras"
    model = keras.Sequential([keras.Input((4,), name="x"), Residual(name="residual"), layers.Dense(2, name="head")])
    assert quantization_points.plan(model).skipped == {"residual": own}
    series = keras.Input((6, 4), name="series")
    attention = layers.MultiHeadAttention(2, 4, use_bias=False, name="attention")(series, series)
    assert quantization_points.plan(keras.Model(series, attention)).skipped == {"attention": own}
    moved = keras.layers.TimeDistributed(layers.Dense(2, name="each"), name="moved")(
        series
    )  # it moves, it computes nothing
    assert quantization_points.plan(keras.Model(series, moved)).skipped == {}


def test_what_a_concatenation_touches_is_tied_except_a_prescribed_range():
    image = keras.Input((8, 8, 1), name="image")
    a = layers.Conv2D(4, 3, name="a")(image)
    b = layers.Conv2D(4, 3, activation="sigmoid", name="b")(image)
    first = layers.Concatenate(name="first")([layers.MaxPooling2D(2)(a), layers.AveragePooling2D(2)(b)])
    c = layers.Conv2D(4, 1, name="c")(first[..., :4])
    second = layers.Maximum(name="second")([first[..., 4:], c])
    plan = quantization_points.plan(keras.Model(image, layers.Conv2D(2, 1, name="head")(second)))
    assert plan.tied == (("a", "c", "first", "second"),)


def test_operations_inside_a_layer_are_points_or_prescribed():
    model = keras.Sequential(
        [
            keras.Input((4,), name="x"),
            layers.Rescaling(2.0, offset=1.0, name="scaled"),
            layers.Dense(3, activation="silu", name="own"),
            layers.Activation("silu", name="alone"),
        ]
    )
    plan = quantization_points.plan(model)
    assert plan.tracked == ("input:x", "scaled:product", "scaled", "own:inner", "own", "alone")
    assert plan.sites["own", 0].inside == {"own:gate": (0.0, 255 / 256)}
    assert plan.sites["alone", 0].inside == {"alone:gate": (0.0, 255 / 256)}
    assert not plan.skipped


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(4.0),
        layers.ReLU(6.0, negative_slope=0.1),
        layers.Activation("softplus"),
        layers.Activation(lambda x: x * x),
        layers.Dense(3, activation="mish"),
    ],
    ids=["relu of 4", "leaky relu6", "softplus", "own function", "inside dense"],
)
def test_several_operations_without_ranges_are_listed(layer):
    plan = quantization_points.plan(keras.Sequential([keras.Input((4,)), layer]))
    assert list(plan.skipped) == [layer.name]
    assert "several operations" in plan.skipped[layer.name]
    assert layer.name in plan.tracked  # its output has a range all the same


class Flagged(layers.Layer):
    """A linear layer whose ``bias`` is no variable."""

    def __init__(self):
        super().__init__()
        self.bias, self.activation = True, keras.activations.linear

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


@pytest.mark.parametrize(("equation", "bias", "listed"), [("abc,cde->abde", "e", True), ("abc,cd->abd", "d", False)])
def test_a_bias_of_some_of_the_outputs_is_an_operation_of_its_own(equation, bias, listed):
    shape = (None, 2, 4) if listed else (None, 8)
    layer = layers.EinsumDense(equation, shape, bias_axes=bias, name="einsum")
    plan = quantization_points.plan(keras.Sequential([keras.Input((5, 6)), layer]))
    assert ("einsum" in plan.skipped) is listed
    assert (plan.sites["einsum", 0].bias is None) is listed


def test_an_attribute_called_bias_need_not_be_one():
    quantization_points.register(
        Flagged, quantization_points.Rule("linear", (quantization_points.WeightRule("kernel"),))
    )
    try:
        plan = quantization_points.plan(keras.Sequential([keras.Input((6,)), Flagged()]))
        assert [site.bias for site in plan.sites.values()] == [None]
        assert len(plan.tracked) == 2
    finally:
        del quantization_points.RULES["Flagged"]


def test_dropout_is_transparent():
    model = keras.Sequential(
        [keras.Input((4,), name="x"), layers.Dense(4, name="a"), layers.Dropout(0.5), layers.ReLU(name="relu")]
    )
    assert quantization_points.plan(model).tracked == ("input:x", "relu")


def test_planning_leaves_no_trace_on_the_model():
    model = tiny_cnn()
    before = {id(layer): dict(vars(layer)) for layer in model.layers}
    quantization_points.plan(model)
    assert all("call" not in vars(layer) for layer in (model, *model.layers))
    assert {id(layer): dict(vars(layer)).keys() for layer in model.layers} == {k: v.keys() for k, v in before.items()}


def test_interception_comes_off_after_an_exception():
    model = tiny_cnn()

    def fail(path, index, layer, call, args, kwargs):
        raise RuntimeError("inside a layer")

    with pytest.raises(RuntimeError), interception.Interception(model, interception.layer_paths(model), fail):
        model(np.zeros((1, 8, 8, 2), np.float32))
    assert not interception.restore(model)


def test_unbuilt_model_is_one_clear_error():
    from tfcompress.errors import ModelError

    with pytest.raises(ModelError, match="must be built"):
        quantization_points.plan(keras.Sequential([layers.Dense(2)]))
