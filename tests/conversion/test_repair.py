"""Accuracy repairs keep their laws on real files, and win back what int8 lost where it lost something."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models import striped_pictures, tiny_cnn
from tfcompress import TARGETS, lowering
from tfcompress.calibration import calibrator
from tfcompress.conversion.repair import METHODS, Score, check_methods, repair
from tfcompress.conversion.repair.activations import capture, channel_bounds, on_grid
from tfcompress.conversion.repair.adaptive_rounding import (
    OutputError,
    choose_rounding,
    measure_output_error,
    round_weights,
)
from tfcompress.conversion.repair.bias_correction import correct_bias, mean_outputs
from tfcompress.conversion.repair.equalization import balance, equalize, find_pairs, rescale
from tfcompress.conversion.repair.linear_layers import (
    Layer,
    assign,
    bias_of,
    find_layers,
    is_per_channel,
    mean_patch,
    patches,
    scales_of,
    weights_of,
)
from tfcompress.conversion.repair.scores import answers, score
from tfcompress.conversion.repair.weight_clipping import clip_weights, search_clips
from tfcompress.data import loading
from tfcompress.data.digits import load_digits
from tfcompress.errors import DataError
from tfcompress.lowering import sources
from tfcompress.quantization import quantizers
from tfcompress.tflite import constant_tensors as stored
from tfcompress.tflite import flatbuffer
from tfcompress.tflite.interpreter import open_model

PER_CHANNEL = TARGETS["cpu-int8"]
PER_TENSOR = dataclasses.replace(PER_CHANNEL, name="per-tensor", per_channel=False, per_channel_dense=False)
MODELS = Path(__file__).resolve().parents[2] / "models"
X, _ = striped_pictures(64)
both_targets = pytest.mark.parametrize("target", [PER_CHANNEL, PER_TENSOR], ids=lambda target: target.name)


def measured_ranges(content, inputs, x):
    ranges = calibrator.calibrate(content, loading.load_representative(x, inputs)).ranges
    return quantizers.complete_ranges(content, ranges)


@pytest.fixture(scope="module")
def tiny():
    """The float file of a small model with batch statistics of its own: stem, depthwise with RELU6, residual, pools."""
    model = tiny_cnn()
    for _ in range(20):
        model(X, training=True)
    return lowering.lower_keras(model)


@pytest.fixture(scope="module")
def tiny_ranges(tiny):
    return measured_ranges(tiny.content, tiny.inputs, X)


@pytest.fixture(scope="module")
def digits():
    return load_digits(seed=0)


@pytest.fixture(scope="module")
def digits_file():
    return lowering.lower_keras(sources.open_source(MODELS / "digits" / "digits.keras").value)


def scaled(content, seed):
    """The same function, with each channel between two layers made smaller by a factor from 1 to 1000."""
    random = np.random.default_rng(seed)
    pairs = find_pairs(flatbuffer.parse(content))
    return rescale(content, {pair.first.name: 1000 ** random.uniform(0, 1, pair.first.channels) for pair in pairs})


def assert_same_outputs(first, second, samples, tolerance=1e-4):
    """Equal up to float rounding: relative to the largest output, as sums of large terms lose what is small."""
    for a, b in zip(answers(first, samples), answers(second, samples), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(a).max())


# Layers as matrix products


def test_every_layer_is_its_patches_times_its_matrix(tiny):
    model = flatbuffer.parse(tiny.content)
    layers = find_layers(model)
    assert [layer.op for layer in layers] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"]
    for layer in layers:
        values = capture(model, {"image": X[:4]}, [layer.source, layer.output])
        taken = patches(layer, values[layer.source], positions=10**6)  # (G, M, K)
        products = np.einsum("gmk,gok->mgo", taken, weights_of(model, layer)).reshape(taken.shape[1], -1)
        products = products + bias_of(model, layer)
        low, high = {0: (-np.inf, np.inf), 1: (0, np.inf), 3: (0, 6)}[layer.activation]
        expected = values[layer.output].reshape(products.shape)
        np.testing.assert_allclose(np.clip(products, low, high), expected, atol=1e-4)  # float32 sums of about 1


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("kind", "strides", "dilations", "size"),
    [("conv", 2, 1, 3), ("conv", 1, 2, 3), ("grouped", 1, 1, 3), ("depthwise", 2, 1, 5), ("multiplied", 1, 1, 2)],
)
def test_patches_follow_strides_dilations_groups_and_padding(padding, kind, strides, dilations, size):
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    make = {
        "conv": lambda: layers.Conv2D(6, size, strides, padding),
        "grouped": lambda: layers.Conv2D(6, size, strides, padding, groups=2),
        "depthwise": lambda: layers.DepthwiseConv2D(size, strides, padding),
        "multiplied": lambda: layers.DepthwiseConv2D(size, strides, padding, depth_multiplier=3),
    }[kind]
    image = keras.Input((9, 8, 4), name="image")
    content = lowering.lower_keras(keras.Model(image, make()(image))).content
    x = np.random.default_rng(0).normal(size=(3, 9, 8, 4)).astype(np.float32)
    model = flatbuffer.parse(content)
    # The converter writes Keras's dilated convolutions as plain ones between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND.
    if dilations > 1:
        options = model.subgraphs[0].operators[find_layers(model)[0].number].builtinOptions
        options.dilationHFactor = options.dilationWFactor = dilations
    (layer,) = find_layers(model)
    values = capture(model, {"image": x}, [layer.source, layer.output])
    taken = patches(layer, values[layer.source], positions=10**6)
    products = np.einsum("gmk,gok->mgo", taken, weights_of(model, layer)).reshape(values[layer.output].shape)
    np.testing.assert_allclose(products + bias_of(model, layer), values[layer.output], atol=1e-4)
    np.testing.assert_allclose(taken.mean(axis=1), mean_patch(layer, values[layer.source]), atol=1e-5)
    stored = flatbuffer.constant(model, model.subgraphs[0].tensors[layer.weights])
    np.testing.assert_array_equal(layer.stored(layer.matrix(stored)), stored)
    assert layer.dilations == (dilations, dilations)
    assert layer.strides == (strides, strides)


def test_quantizing_takes_the_scales_that_we_expect(tiny, tiny_ranges):
    for target in (PER_CHANNEL, PER_TENSOR):
        integer = flatbuffer.parse(quantizers.quantize(tiny.content, tiny_ranges, target))
        floats = flatbuffer.parse(tiny.content)
        for layer, small in zip(find_layers(floats), find_layers(integer), strict=True):
            expected = scales_of(weights_of(floats, layer), per_channel=is_per_channel(layer, target)).ravel()
            got = np.asarray(integer.subgraphs[0].tensors[small.weights].quantization.scale)
            np.testing.assert_allclose(np.broadcast_to(got, expected.shape), expected, rtol=1e-6)


def test_a_constant_that_layers_share_is_written_for_one_of_them(tiny):
    model = flatbuffer.parse(tiny.content)
    first, second = find_layers(model)[:2]
    graph = model.subgraphs[0]
    operator = graph.operators[second.number]
    operator.inputs = np.array([*operator.inputs[:2], first.bias], np.int32)
    assign(model, first, 2, np.full(first.channels, 7, np.float32))
    again = flatbuffer.parse(flatbuffer.pack(model))
    assert set(bias_of(again, find_layers(again)[0])) == {7.0}
    np.testing.assert_array_equal(bias_of(again, find_layers(again)[1]), bias_of(model, first))


def test_layers_that_share_weights_are_left_alone(tiny):
    model = flatbuffer.parse(tiny.content)
    graph = model.subgraphs[0]
    stem = find_layers(model)[0]
    operator = graph.operators[find_layers(model)[2].number]
    operator.inputs = np.array([operator.inputs[0], stem.weights, operator.inputs[2]], np.int32)
    assert stem.name not in [layer.name for layer in find_layers(model)]


# Equalization


@both_targets
def test_equalization_keeps_the_function(tiny, target):
    done = equalize(tiny.content, target, {"image": X})
    assert done.pairs >= 1
    assert done.largest_factor > 1.05
    assert done.content != tiny.content
    assert_same_outputs(tiny.content, done.content, {"image": X})


@both_targets
def test_equalization_without_relu6_keeps_the_function_on_any_input(digits_file, digits, target):
    done = equalize(digits_file.content, target, {"image": digits.x_train[:16]})
    elsewhere = np.random.default_rng(0).normal(0, 10, (32, 8, 8, 1)).astype(np.float32)
    assert done.pairs == 5
    assert_same_outputs(digits_file.content, done.content, {"image": elsewhere})


def test_relu6_is_scaled_only_where_its_clip_is_not_reached(tiny):
    model = flatbuffer.parse(tiny.content)
    pair = next(pair for pair in find_pairs(model) if pair.first.op == "DEPTHWISE_CONV_2D")
    assert pair.first.activation == 3
    reaching = {"image": 40 * X}  # drives channels into the clip
    bounds = channel_bounds(model, reaching, [pair.first.output])[pair.first.output]
    clipped = bounds >= 6
    assert clipped.any()
    done = flatbuffer.parse(equalize(tiny.content, PER_CHANNEL, reaching).content)
    assert_same_outputs(tiny.content, flatbuffer.pack(done), reaching)
    after = channel_bounds(done, reaching, [pair.first.output])[pair.first.output]
    np.testing.assert_array_equal(after[clipped], bounds[clipped])
    assert after.max() <= 6


@both_targets
@pytest.mark.parametrize("seed", range(3))
def test_equalization_undoes_any_scaling(digits_file, digits, target, seed):
    samples = {"image": digits.x_train[:32]}
    plain = flatbuffer.parse(equalize(digits_file.content, target, samples).content)
    undone = flatbuffer.parse(equalize(scaled(digits_file.content, seed), target, samples).content)
    for first, second in zip(find_layers(plain), find_layers(undone), strict=True):
        a, b = weights_of(plain, first), weights_of(undone, second)
        # Sweeps end when factors change by 0.1 %; a factor that all channels have in common is free.
        np.testing.assert_allclose(a / np.abs(a).max(), b / np.abs(b).max(), atol=0.02)


def test_outputs_of_the_file_and_branches_are_no_pairs(tiny):
    model = flatbuffer.parse(tiny.content)
    pairs = find_pairs(model)
    assert [(pair.first.op, pair.second.op) for pair in pairs] == [("DEPTHWISE_CONV_2D", "CONV_2D")]
    graph = model.subgraphs[0]
    graph.outputs = np.array([*graph.outputs, pairs[0].first.output], np.int32)
    assert find_pairs(model) == ()


def test_balance_makes_both_ranges_equal():
    random = np.random.default_rng(0)
    first, second = random.uniform(0.01, 100, (2, 50))
    factors = balance(first, second)
    np.testing.assert_allclose(first / factors, second * factors)


# Clipping


@pytest.mark.parametrize("per_channel", [True, False])
def test_clipping_is_never_worse_than_no_clipping(per_channel):
    random = np.random.default_rng(0)
    matrix = random.standard_t(3, (2, 5, 40))
    importance = random.uniform(0.1, 10, (2, 40))
    clips, ratios = search_clips(matrix, importance, per_channel=per_channel)
    largest = 127 * scales_of(matrix, per_channel=per_channel)[..., 0]
    assert np.all(ratios <= 1)
    assert np.all((clips <= largest) & (clips >= 0.499 * largest))
    step = clips[..., None] / 127
    error = (importance[:, None] * (np.clip(np.round(matrix / step), -127, 127) * step - matrix) ** 2).sum(axis=2)
    step = largest[..., None] / 127
    plain = (importance[:, None] * (np.round(matrix / step) * step - matrix) ** 2).sum(axis=2)
    if per_channel:
        np.testing.assert_allclose(error / plain, ratios, rtol=1e-6)
    else:
        np.testing.assert_allclose(error.sum() / plain.sum(), ratios, rtol=1e-6)


def test_clipping_only_shortens(tiny):
    content, fraction = clip_weights(tiny.content, PER_CHANNEL, {"image": X})
    before, after = flatbuffer.parse(tiny.content), flatbuffer.parse(content)
    for a, b in zip(find_layers(before), find_layers(after), strict=True):
        old, new = weights_of(before, a), weights_of(after, b)
        assert np.all(np.abs(new) <= np.abs(old))
        assert np.all(old * new >= 0)
    assert 0 <= fraction <= 1


# Rounding


def random_moments(seed, groups=2, rows=4, columns=12, samples=60):
    random = np.random.default_rng(seed)
    meant = random.normal(size=(groups, rows, columns))
    inputs = np.abs(random.normal(size=(groups, samples, columns))) + random.normal(size=(groups, samples, 1))
    residual = 0.01 * random.normal(size=(groups, samples, rows))
    moments = OutputError(
        inputs.transpose(0, 2, 1) @ inputs / samples,
        residual.transpose(0, 2, 1) @ inputs / samples,
        (residual**2).mean(axis=1),
    )
    return meant, inputs, residual, moments


def test_the_quadratic_form_is_the_mean_squared_error():
    meant, inputs, residual, moments = random_moments(0)
    difference = np.random.default_rng(1).normal(size=meant.shape)
    direct = ((inputs @ difference.transpose(0, 2, 1) + residual) ** 2).mean(axis=1)
    np.testing.assert_allclose(moments.error(difference), direct)
    step = np.zeros_like(meant)
    step[1, 2, 3] = 1e-6
    slope = (moments.error(difference + step) - moments.error(difference - step))[1, 2] / 2e-6
    assert moments.gradient(difference)[1, 2, 3] == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_takes_a_neighbour_and_is_never_worse_than_nearest(seed):
    meant, _, _, moments = random_moments(seed)
    scales = scales_of(meant, per_channel=True)
    integers = choose_rounding(meant, scales, moments, meant=meant)
    ratio = meant / scales
    assert np.all((integers == np.floor(ratio)) | (integers == np.ceil(ratio)) | (np.abs(integers - ratio) < 1e-3))
    assert np.all(np.abs(integers).max(axis=2) == 127)
    nearest = moments.error(np.round(ratio) * scales - meant)
    chosen = moments.error(integers * scales - meant)
    assert np.all(chosen <= nearest * (1 + 1e-9))
    assert chosen.sum() < 0.7 * nearest.sum()


def test_rounding_finds_the_best_of_all_directions_or_comes_near():
    meant, _, _, moments = random_moments(5, groups=1, rows=1, columns=10)
    scales = scales_of(meant, per_channel=True)
    floor = np.floor(meant / scales + 1e-6)
    choices = np.array(np.meshgrid(*[[0, 1]] * 10)).reshape(10, -1).T[:, None, None]
    allowed = np.abs(floor + choices).max(axis=-1, keepdims=True) <= 127
    errors = np.array([moments.error((floor + choice) * scales - meant)[0, 0] for choice in choices])
    best = errors[allowed.ravel()].min()
    worst = moments.error(np.round(meant / scales) * scales - meant)[0, 0]
    found = moments.error(choose_rounding(meant, scales, moments, meant=meant) * scales - meant)[0, 0]
    assert best * (1 - 1e-9) <= found <= best + 0.25 * (worst - best)


@pytest.mark.parametrize("target", [PER_CHANNEL, PER_TENSOR, TARGETS["cpu-int4"]], ids=lambda target: target.name)
def test_the_quantizer_takes_the_integers_that_rounding_chose(tiny, tiny_ranges, target):
    done = round_weights(tiny.content, tiny_ranges, target, {"image": X})
    assert not done.skipped
    assert len(done.ratios) == 4
    assert all(ratio <= 1 for ratio in done.ratios.values())
    before, after = flatbuffer.parse(tiny.content), flatbuffer.parse(done.content)
    integer = flatbuffer.parse(quantizers.quantize(done.content, tiny_ranges, target))
    for old, new, small in zip(find_layers(before), find_layers(after), find_layers(integer), strict=True):
        most = 7 if target.weights == "int4" and old.op != "DEPTHWISE_CONV_2D" else 127
        scales = scales_of(weights_of(before, old), per_channel=is_per_channel(old, target), largest=most)
        chosen = weights_of(after, new) / scales
        kept = small.matrix(stored.integers(integer, integer.subgraphs[0].tensors[small.weights]))
        np.testing.assert_allclose(chosen, kept, atol=1e-3)  # float32 holds scale * q to seven digits
        assert np.abs(kept).max() == most
        assert np.abs(kept - weights_of(before, old) / scales).max() < 1.001


def test_zero_weights_stay_zero(digits_file, digits):
    ranges = measured_ranges(digits_file.content, digits_file.inputs, digits.x_train[:32])
    done = round_weights(digits_file.content, ranges, PER_CHANNEL, {"image": digits.x_train[:32]})
    before, after = flatbuffer.parse(digits_file.content), flatbuffer.parse(done.content)
    for a, b in zip(find_layers(before), find_layers(after), strict=True):
        assert np.all(weights_of(after, b)[weights_of(before, a) == 0] == 0)


# Bias


@both_targets
def test_bias_correction_brings_every_mean_back(digits_file, digits, target):
    samples = {"image": digits.x_train[:64]}
    ranges = measured_ranges(digits_file.content, digits_file.inputs, samples["image"])
    integer = quantizers.quantize(digits_file.content, ranges, target)
    done = correct_bias(digits_file.content, integer, samples)
    original = flatbuffer.parse(digits_file.content)

    def mean_errors(content):
        finished = flatbuffer.parse(content)
        errors = []
        for layer, small in zip(find_layers(original), find_layers(finished), strict=True):
            wanted = mean_outputs(original, layer, capture(original, samples, [layer.source])[layer.source])
            got = mean_outputs(finished, small, capture(finished, samples, [small.source])[small.source])
            step = np.asarray(finished.subgraphs[0].tensors[small.bias].quantization.scale, np.float64)
            errors.append(np.abs(wanted - got) / step)
        return errors

    before, after = mean_errors(integer), mean_errors(done.integer)
    for was, now in zip(before, after, strict=True):
        assert now.max() <= 0.51  # half a step of the int32 bias
        assert np.mean(now) < np.mean(was)
    # The float file leads to the same integer file.
    again = flatbuffer.parse(quantizers.quantize(done.content, ranges, target))
    finished = flatbuffer.parse(done.integer)
    for first, second in zip(find_layers(again), find_layers(finished), strict=True):
        a, b = (flatbuffer.constant(m, m.subgraphs[0].tensors[layer.bias]).astype(np.int64)
                for m, layer in ((again, first), (finished, second)))  # fmt: skip
        assert np.abs(a - b).max() <= 1


# Scores and the ladder


def test_dilated_convolutions_are_repaired_too():
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 2), name="image")
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu")(image)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, activation="relu")(x)
    x = layers.Dense(3, name="logits")(layers.Flatten()(x))
    lowered = lowering.lower_keras(keras.Model(image, x))
    assert "SPACE_TO_BATCH_ND" in flatbuffer.op_counts(flatbuffer.parse(lowered.content))
    pictures = np.random.default_rng(0).normal(size=(32, 12, 12, 2)).astype(np.float32)
    ranges = measured_ranges(lowered.content, lowered.inputs, pictures)
    samples = loading.load_representative(pictures, lowered.inputs)
    done = repair(lowered.content, samples, PER_CHANNEL, ranges=ranges, methods=list(METHODS))
    assert [step.method for step in done.steps if step.kept] == ["clipping", "rounding", "bias"]
    # Untrained and fed with noise it has nothing to win; misread positions would cost far more than 3 dB.
    assert done.steps[-1].after.sqnr_db > done.steps[0].before.sqnr_db - 3


def test_score_of_equal_answers_is_perfect():
    same = [np.random.default_rng(0).normal(size=(5, 3))]
    perfect = score(same, same)
    assert (perfect.agreement, perfect.sqnr_db) == (1.0, 200.0)
    assert perfect.cosine == pytest.approx(1.0)
    assert perfect.is_better_than(Score(199.0, 1.0, 1.0, 5))


def test_grid_is_that_of_the_interpreter():
    values = np.linspace(-2, 3, 101, dtype=np.float32)
    gone = on_grid(values, (-1.0, 2.0))
    assert np.abs(gone - np.clip(values, -1, 2)).max() <= 0.51 * 3 / 255 + 3 / 255  # half a step, and the zero point's
    assert len(np.unique(gone)) <= 256
    assert 0.0 in gone


@pytest.mark.parametrize("methods", [["nonsense"], [], "biass"])
def test_unknown_methods_are_refused(methods):
    with pytest.raises(ValueError, match="some of equalization, clipping, rounding, bias"):
        check_methods(methods)


def test_float_targets_and_single_samples_are_refused(tiny, tiny_ranges):
    def samples(count):
        return loading.load_representative(X[:count], tiny.inputs)

    with pytest.raises(ValueError, match="integer targets"):
        repair(tiny.content, samples(8), TARGETS["float32"], ranges=tiny_ranges)
    with pytest.raises(DataError, match="at least 2 samples"):
        repair(tiny.content, samples(1), PER_CHANNEL, ranges=tiny_ranges)


def test_named_repairs_are_all_applied_in_order_and_reported(tiny, tiny_ranges):
    seen = []
    stream = loading.load_representative((sample for sample in X), tiny.inputs)  # read once
    done = repair(
        tiny.content, stream, PER_CHANNEL, ranges=tiny_ranges, methods=["bias", "clipping"], on_step=seen.append
    )
    assert [step.method for step in done.steps] == ["clipping", "bias"]
    assert tuple(seen) == done.steps
    assert all(step.kept and step.reason.endswith("asked for") for step in done.steps)
    assert done.steps[1].before == done.steps[0].after
    assert done.steps[0].before.samples == len(X) // 2
    assert set(done.ranges) == set(tiny_ranges)


@both_targets
def test_auto_keeps_what_helps_and_gives_the_same_bytes_twice(tiny, tiny_ranges, target):
    first, second = (
        repair(tiny.content, loading.load_representative(X, tiny.inputs), target, ranges=tiny_ranges) for _ in range(2)
    )
    assert first.content == second.content
    assert [step.method for step in first.steps] == list(METHODS)
    start, kept = first.steps[0].before, [step for step in first.steps if step.kept]
    for step in first.steps:
        helps = step.after.sqnr_db >= step.before.sqnr_db + 0.1 and step.after.agreement >= start.agreement
        assert step.kept == helps
    integer = quantizers.quantize(first.content, first.ranges, target)
    last = kept[-1].after if kept else start
    judged = score(answers(integer, {"image": X[1::2]}), answers(tiny.content, {"image": X[1::2]}))
    assert judged == last


@pytest.mark.parametrize("seed", range(3))
@both_targets
def test_auto_repairs_a_model_whose_channels_differ_a_thousandfold(digits_file, digits, target, seed):
    content = scaled(digits_file.content, seed)
    x = digits.x_train[:128]
    ranges = measured_ranges(content, digits_file.inputs, x)

    def accuracy(file):
        logits = open_model(file).run({"image": digits.x_test})["logits"]
        return np.mean(logits.argmax(1) == digits.y_test)

    floats = accuracy(content)
    broken = accuracy(quantizers.quantize(content, ranges, target))
    equalized, repaired = (
        repair(content, loading.load_representative(x, digits_file.inputs), target, ranges=ranges, methods=methods)
        for methods in (["equalization"], "auto")
    )
    assert floats > 0.97
    assert broken < 0.5
    assert accuracy(quantizers.quantize(equalized.content, equalized.ranges, target)) >= floats - 0.01
    assert accuracy(quantizers.quantize(repaired.content, repaired.ranges, target)) >= floats - 0.01
    assert "equalization" in [step.method for step in repaired.steps if step.kept]


def test_four_bits_gain_most(digits_file, digits):
    """With 15 integers to choose from, which of two neighbours a weight takes is what decides."""
    lowered, target = digits_file, TARGETS["cpu-int4"]
    ranges = measured_ranges(lowered.content, lowered.inputs, digits.x_train[:100])
    samples = loading.load_representative(digits.x_train[:100], lowered.inputs)
    done = repair(lowered.content, samples, target, ranges=ranges)
    assert "rounding" in [step.method for step in done.steps if step.kept]
    files = [quantizers.quantize(*pair, target) for pair in ((lowered.content, ranges), (done.content, done.ranges))]
    wanted = answers(lowered.content, {"image": digits.x_test})
    plain, repaired = (score(answers(file, {"image": digits.x_test}), wanted).sqnr_db for file in files)
    assert repaired > plain + 3
    assert len(files[1]) <= 1.02 * len(files[0])  # what was replaced does not stay in the file


@pytest.mark.slow
def test_resnet8_loses_less_with_repair(shared_data):
    lowered = lowering.lower_flatbuffer(
        (shared_data / "mlperf_resnet8" / "pretrainedResnet.tflite").read_bytes(), place="ResNet-8"
    )
    with np.load(shared_data / "cifar10" / "cifar10_subset.npz") as arrays:
        x_train, x_test, y_test = arrays["x_train"][:128], arrays["x_test"].astype(np.float32), arrays["y_test"].ravel()
    x = x_train.astype(np.float32)
    ranges = measured_ranges(lowered.content, lowered.inputs, x)
    target = dataclasses.replace(PER_CHANNEL, per_channel=False)
    done = repair(lowered.content, loading.load_representative(x, lowered.inputs), target, ranges=ranges)
    name = lowered.inputs[0].name
    wanted = answers(lowered.content, {name: x_test})
    plain, repaired = (
        answers(quantizers.quantize(*pair, target), {name: x_test})
        for pair in ((lowered.content, ranges), (done.content, done.ranges))
    )
    before, after = score(plain, wanted), score(repaired, wanted)
    assert after.sqnr_db >= before.sqnr_db + 2  # measured 25.3 to 30.0 dB
    assert np.mean(repaired[0].argmax(1) == y_test) >= np.mean(plain[0].argmax(1) == y_test) - 0.005


def test_moments_of_equal_inputs_have_no_residual():
    layer = Layer(0, "FULLY_CONNECTED", "y", 0, 3, 1, 2, (2, 3))
    inputs = np.arange(12, dtype=np.float32).reshape(4, 3)
    moments = measure_output_error(layer, np.ones((1, 2, 3)), inputs, inputs, positions=8)
    np.testing.assert_allclose(moments.gram[0], inputs.T @ inputs / 4)
    assert not moments.cross.any()
    assert not moments.constant.any()
