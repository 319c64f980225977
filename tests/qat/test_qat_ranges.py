"""Learned ranges, where ranges start, when statistics stand still, and whether the file is what was trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from models import compiled, striped_pictures, tiny_cnn
from tfcompress import demo
from tfcompress.data.digits import load_digits
from tfcompress.errors import DataError, TrainingError
from tfcompress.qat.file_agreement import SAME_ANSWERS, compare_with_file
from tfcompress.quantization import fake_quantization
from tfcompress.quantization.trained_ranges import TrainedRanges, read_archive
from tfcompress.tflite import constant_tensors as constants_of_a_file
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.interpreter import open_model

X, Y = striped_pictures(256)
TEST_X = striped_pictures(1000, seed=1)[0]


def fit(model, *callbacks, epochs=3, **options):
    return model.fit(X, Y, batch_size=32, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def test_slope_of_a_weight_bound_is_that_of_its_formula():
    weights = tf.constant([[0.11, -0.9], [0.62, 2.0]])
    bound, upstream = tf.constant([[0.5, 1.0]]), tf.constant([[1.0, 2.0], [3.0, 4.0]])
    slopes = []
    with tf.GradientTape() as tape:
        tape.watch(weights)
        rounded = fake_quantization.bounded_weights(weights, bound, (-1,), 8, slopes.append)
        loss = tf.reduce_sum(upstream * rounded)
    gradient = tape.gradient(loss, weights)
    step = np.array([0.5, 1.0]) / 127
    np.testing.assert_allclose(
        rounded, [[round(0.11 / step[0]) * step[0], round(-0.9 / step[1]) * step[1]], [0.5, 1.0]]
    )
    np.testing.assert_allclose(gradient, [[1.0, 2.0], [0.0, 0.0]])  # 0.62 and 2.0 are clipped
    inside = (np.array(rounded) - np.array(weights))[0] / [0.5, 1.0]
    np.testing.assert_allclose(slopes[0], [[inside[0] + 3.0, 2 * inside[1] + 4.0]], rtol=1e-5)


def test_slopes_of_a_range_are_those_of_its_formula():
    values, upstream = tf.constant([-3.0, 0.13, 0.77, 5.0, 6.0]), tf.constant([1.0, 2.0, 3.0, 4.0, 5.0])
    slopes = []
    with tf.GradientTape() as tape:
        tape.watch(values)
        rounded = fake_quantization.learned_activations(
            values, tf.constant(-1.0), tf.constant(2.0), 8, lambda low, high: slopes.extend([low, high])
        )
        loss = tf.reduce_sum(upstream * rounded)
    np.testing.assert_allclose(tape.gradient(loss, values), [0.0, 2.0, 3.0, 0.0, 0.0])
    error = float(np.sum(np.array([2.0, 3.0]) * (np.array(rounded) - np.array(values))[1:3])) / 3.0
    np.testing.assert_allclose(slopes, [1.0 - error, 9.0 + error], rtol=1e-5)


@pytest.mark.parametrize("target", ["cpu-int8", "cpu-int4", "micro"])
def test_learned_ranges_arrive_in_the_file(target, tmp_path):
    model = compiled(tiny_cnn())
    fit(model, epochs=2)
    qat = tfc.QuantizationAwareTraining(activation_ranges="learned", weight_ranges="learned", target=target)
    fit(model, qat, epochs=8)
    model.save(tmp_path / "m.keras")
    stored = read_archive(tmp_path / "m.keras")
    kernel = np.asarray(model.get_layer("logits").kernel)
    bounds = np.array(stored.weights["logits/kernel"])
    assert len(bounds) == (1 if target == "micro" else 3)
    largest = np.abs(kernel).max() if target == "micro" else np.abs(kernel).max(0)
    # Below the largest value: it was learned. Twenty averaging batches aside, 64 - 20 steps of at most 0.2 % each.
    assert (bounds <= largest * (1 + 1e-6)).all() and (bounds < largest).any()
    result = tfc.convert(tmp_path / "m.keras")
    assert result.target.name == target
    assert result.points.calibrated == 0 and result.float_tensors == ()
    file = open_model(result.tflite, keep_all=True)
    answers = file.run({"image": TEST_X})["logits"]
    fake = model.predict(TEST_X, verbose=0, callbacks=[qat])
    assert np.mean(answers.argmax(1) == fake.argmax(1)) >= SAME_ANSWERS
    parsed = flatbuffer.parse(result.tflite)
    found = [
        constants_of_a_file.scales(tensor)[0]
        for tensor in parsed.subgraphs[0].tensors
        if tensor.shape is not None and list(tensor.shape) == [3, 32] and tensor.quantization.scale is not None
    ]
    levels = 7 if target == "cpu-int4" else 127
    np.testing.assert_allclose(found[0], bounds / levels, rtol=1e-5)


def test_learned_ranges_and_points_that_share_a_grid():
    keras.utils.set_random_seed(0)
    image = keras.Input(X.shape[1:], name="image")
    a = layers.Conv2D(4, 3, activation="relu", name="a")(image)
    b = layers.Conv2D(4, 3, name="b")(image)
    c = layers.Conv2D(4, 1, name="c")(layers.Concatenate(name="both")([a, b]))
    model = compiled(keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalMaxPooling2D()(c))))
    qat = tfc.QuantizationAwareTraining(activation_ranges="learned")
    fit(model, qat, epochs=4)
    assert qat.ranges["a"] == qat.ranges["b"] == qat.ranges["both"] != qat.ranges["c"]
    points = compare_with_file(model, qat, X, by_point=True).points
    assert max(each.mean_steps for each in points) <= 2e-3


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=str)
def test_learned_ranges_under_every_way_to_run(options):
    model = compiled(tiny_cnn(), **options)
    qat = tfc.QuantizationAwareTraining(activation_ranges="learned", weight_ranges="learned")
    fit(model, qat, epochs=4)
    before = qat.snapshot()
    fit(model, qat, epochs=1)
    after = qat.snapshot()
    moved = [name for name in before if not np.allclose(before[name], after[name], rtol=1e-6)]
    assert set(moved) == set(before)


def test_ranges_start_from_representative_data():
    seen = {}
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining(representative_data=10 * X, momentum=0.99)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.setdefault(batch, dict(qat.ranges))
    )
    fit(model, qat, watch, epochs=1)
    assert seen[0]["input:image"][1] == pytest.approx(
        np.mean([10 * X[i : i + 32].max() for i in range(0, 256, 32)]), rel=0.2
    )
    assert seen[0]["input:image"][1] > 5 * X[:32].max()
    with pytest.raises(DataError, match="image"):
        fit(compiled(tiny_cnn()), tfc.QuantizationAwareTraining(representative_data=X[..., :1]))


def test_begins_at_a_step():
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining(begin_step=12)
    settled = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: settled.append(qat.settled()))
    fit(model, qat, watch, epochs=3)
    assert settled.index(True) == 12
    assert all(settled[12:])
    assert tfc.convert(model).points.calibrated == 0
    late = tfc.QuantizationAwareTraining(begin_step=1000)
    with pytest.warns(UserWarning, match="begin_step=1000, and no range was learned"):
        fit(compiled(tiny_cnn()), late, epochs=1)


def test_batch_norm_statistics_stand_still_from_their_epoch():
    model = compiled(tiny_cnn())
    means = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: means.append(model.get_layer("stem_norm").moving_mean.numpy())
    )
    fit(model, tfc.QuantizationAwareTraining(freeze_batch_norm_epoch=2, freeze_epoch=9), watch, epochs=4)
    assert not np.array_equal(means[0], means[1])
    np.testing.assert_array_equal(means[1], means[2])
    np.testing.assert_array_equal(means[1], means[3])
    fit(model, watch, epochs=1)  # plain again afterwards
    assert not np.array_equal(means[3], means[4])
    means.clear()
    fit(model, tfc.QuantizationAwareTraining(), watch, epochs=4)  # by default never
    assert not np.array_equal(means[2], means[3])


@pytest.mark.slow
def test_the_last_epoch_loses_nothing():
    """At the demo's learning rate, which does not fall: statistics that stood still cost it 8 points in one epoch."""
    digits = load_digits()
    model, qat = demo.train_compressed(digits, seed=0)
    fake = model.predict(digits.x_test, verbose=0, callbacks=[qat]).argmax(1)
    assert np.mean(fake == digits.y_test) >= 0.97


def test_the_callback_compares_itself_with_its_file(capsys):
    model = compiled(tiny_cnn())
    qat = tfc.QuantizationAwareTraining(verify=TEST_X, verify_layers=True)
    model.fit(X, Y, epochs=6, verbose=2, callbacks=[qat])
    agreement = qat.file_agreement
    assert agreement.samples == 1000 and agreement.same_answers >= SAME_ANSWERS and agreement.calibrated == 0
    assert {point.name for point in agreement.points} == set(qat.ranges)
    assert all(point.within_one_step > 0.97 for point in agreement.points)
    assert agreement.points[0].max_steps == 0  # the input: the same rounding of the same numbers
    assert str(agreement) in capsys.readouterr().out
    assert "call" not in vars(model)


class Unrounded(layers.Dense):
    """A layer of one's own."""


def test_a_file_that_differs_is_one_warning():
    """A rule that forgets the kernel: training never saw that the file has 4 bits for it."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 2), name="image"), layers.Flatten(), Unrounded(8), Unrounded(3)])
    noise = np.random.default_rng(0).normal(size=(500, 8, 8, 2)).astype(np.float32)  # no stripes: answers lie close
    tfc.quantization_points.register(Unrounded, tfc.quantization_points.Rule("linear"))
    qat = tfc.QuantizationAwareTraining(target="cpu-int4", verify=noise)
    try:
        with pytest.warns(UserWarning) as caught:
            fit(compiled(model, jit_compile=False), qat)
    finally:
        del tfc.quantization_points.RULES["Unrounded"]
    assert qat.file_agreement.calibrated == 0
    assert qat.file_agreement.same_answers < SAME_ANSWERS
    assert len(caught) == 1
    assert str(caught[0].message) == (
        f"The file must answer as the model does in training. Received: {qat.file_agreement.same_answers:.1%} of same answers. "
        "The callback's file_agreement says how far they are apart; verify_layers=True says where."
    )


def test_the_comparison_sees_a_file_that_differs():
    """A trained range that the file does not have: the comparison must see it."""
    model, qat = compiled(tiny_cnn()), tfc.QuantizationAwareTraining()
    fit(model, qat, epochs=4)
    good = compare_with_file(model, qat, TEST_X)
    state = qat.snapshot()
    state["stem_relu"][1] *= 0.05
    qat._quantized.trackers.recall(state)  # the callback computes otherwise now; the model's asset is as it was
    bad = compare_with_file(model, qat, TEST_X, by_point=True)
    assert bad.same_answers < good.same_answers
    assert bad.outputs[0].mean_steps > good.outputs[0].mean_steps


def test_a_layer_without_a_rule_is_calibrated_in_the_comparison():
    keras.utils.set_random_seed(0)
    model = compiled(
        keras.Sequential([keras.Input((8, 8, 2)), layers.Flatten(), layers.LayerNormalization(), layers.Dense(3)])
    )
    qat = tfc.QuantizationAwareTraining(verify=X)
    with pytest.warns(UserWarning, match="calibrated at conversion"):
        fit(model, qat)
    assert qat.file_agreement.calibrated > 0


@pytest.mark.parametrize("target", ["cpu-int8", "cpu-int16x8"])
def test_a_separable_convolution_is_its_two_operations(target):
    keras.utils.set_random_seed(0)
    model = compiled(
        keras.Sequential(
            [
                keras.Input((8, 8, 2), name="image"),
                layers.SeparableConv2D(8, 3, padding="same", use_bias=False, depth_multiplier=2, name="separable"),
                layers.BatchNormalization(momentum=0.8),
                layers.ReLU(),
                layers.Reshape((16, 32)),
                layers.SeparableConv1D(8, 3, activation="tanh", name="along"),
                layers.Flatten(),
                layers.Dense(3, name="logits"),
            ]
        )
    )
    qat = tfc.QuantizationAwareTraining(target=target, verify=TEST_X)
    fit(model, qat, epochs=5)
    assert {"separable:depthwise", "along:depthwise", "along:inner"} <= set(qat.ranges)
    assert qat.file_agreement.same_answers >= SAME_ANSWERS
    assert qat.file_agreement.calibrated == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin_step": -1}, "begin_step must be a step"),
        ({"begin_step": 5, "begin_epoch": 1}, "at an epoch or at a step"),
        ({"freeze_batch_norm_epoch": 0.5}, "freeze_batch_norm_epoch must be an epoch"),
        ({"weight_ranges": "lsq"}, "weight_ranges must be one of abs_max, learned"),
        ({"activation_ranges": "ema"}, "activation_ranges must be one of moving_average, learned"),
        ({"activation_ranges": "learned", "target": "cpu-int16x8"}, "for 8 bits"),
    ],
    ids=str,
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tfc.QuantizationAwareTraining(**options)


def test_a_model_that_is_not_built_is_refused_before_training():
    model = compiled(keras.Sequential([layers.Flatten(), layers.Dense(3)]))
    with pytest.raises(TrainingError, match="must be built before training"):
        fit(model, tfc.QuantizationAwareTraining())


def test_bounds_of_another_shape_are_refused():
    ranges = TrainedRanges({}, "0" * 64, weights={"head/kernel": (1.0, 2.0)})
    with pytest.raises(tfc.errors.ModelError, match="2 for head/kernel of shape"):
        ranges.clipped("head/kernel", np.zeros((4, 3), np.float32), (-1,))
    assert TrainedRanges.from_json(ranges.to_json()) == ranges
