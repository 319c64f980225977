"""Attacks stay within their bounds and find what they should; corruptions, calibration and disagreement are what they say."""

import json

import html_page
import numpy as np
import pytest
from scipy.stats import binom

import tfcompress as tfc
from tfcompress.cli import main
from tfcompress.data import load_digits
from tfcompress.errors import DataError, ModelError
from tfcompress.metrics import expected_calibration_error, probabilities, wilson_interval
from tfcompress.reporting import robustness_report
from tfcompress.security.robustness import (
    CORRUPTIONS,
    AttackOptions,
    PixelRange,
    Robustness,
    art_classifier,
    corrupt,
    disagreement,
    fgsm,
    gradients_of,
    pgd,
    square,
)
from tfcompress.security.robustness.gradient_attacks import LossGradient
from tfcompress.security.robustness.square_attack import margins

KERAS = "models/digits/digits.keras"
INT8 = "models/digits/digits_int8.tflite"
UNIT = PixelRange((0.0,), (1.0,))
EPS = 0.1
ROUNDING = 1e-6  # of float32 near 1
FEW = AttackOptions(eps=EPS, samples=60, steps=5, restarts=1, queries=60)


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def keras_model():
    import keras

    return keras.models.load_model(KERAS)


@pytest.fixture(scope="module")
def gradients(keras_model):
    return gradients_of(keras_model, UNIT, are_probabilities=False)


@pytest.fixture(scope="module")
def float_file(keras_model):
    return tfc.convert(keras_model, target="float32").tflite


@pytest.fixture(scope="module")
def assessed(float_file, digits, keras_model):
    return tfc.robustness([float_file, INT8], (digits.x_test, digits.y_test), keras_model=keras_model, attacks=FEW)


def attack(name, gradients, x, y, eps):
    """One of the three attacks on the same model; Square sees the margin of two classes, "y" and "not y"."""
    if name == "square":

        def answers(pictures):
            right = np.exp(-gradients(pictures, np.resize(y, len(pictures))).loss)
            return np.stack([right, 1 - right], axis=1)

        return square(answers, x[:1], np.zeros(1, int), eps=eps, queries=20)
    return {"fgsm": fgsm, "pgd": pgd}[name](gradients, x, y, eps=eps)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "square"])
def test_no_eps_changes_nothing(name, gradients, digits):
    x, y = digits.x_test[:8], digits.y_test[:8]
    found = attack(name, gradients, x, y, 0.0)
    np.testing.assert_array_equal(found, x[: len(found)])


@pytest.mark.parametrize("name", ["fgsm", "pgd", "square"])
def test_changes_stay_within_eps_and_the_range(name, gradients, digits):
    x, y = digits.x_test[:32], digits.y_test[:32]
    found = attack(name, gradients, x, y, EPS)
    apart = np.abs(found - x[: len(found)]).max()
    assert 0 < apart <= EPS + ROUNDING
    assert found.min() >= 0 and found.max() <= 1 and found.dtype == np.float32


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_pgd_finds_all_that_fgsm_finds(steps, gradients, digits):
    x, y = digits.x_test[:200], digits.y_test[:200]
    once = gradients(fgsm(gradients, x, y, eps=EPS), y)
    often = gradients(pgd(gradients, x, y, eps=EPS, steps=steps, restarts=1), y)
    assert (often.wrong >= once.wrong).all()
    if steps > 1:
        assert often.wrong.sum() > 1.3 * once.wrong.sum()


def test_pgd_takes_the_worst_point_of_a_loss_with_a_peak_inside():
    """loss = -|x - 0.55|: the last step overshoots the peak, which PGD must not return."""

    def peaked(x, y):
        return LossGradient(-np.abs(x - 0.55).sum(axis=1), np.zeros(len(x), bool), -np.sign(x - 0.55))

    found = pgd(peaked, np.full((1, 1), 0.5, np.float32), np.zeros(1, int), eps=0.2, steps=10, step_size=0.04)
    assert abs(found.item() - 0.55) <= 0.02 + ROUNDING


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_sure_answer_hides_no_gradient(activation):
    """Probabilities of 1 - 1e-62: through the softmax itself the gradient is 0, in float64 too."""
    import keras

    units = 2 if activation == "softmax" else 1
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation=activation)])
    model.set_weights([np.array([[80.0, -80.0], [0.0, 0.0]])[:, :units], np.zeros(units)])
    gradients = gradients_of(model, UNIT, are_probabilities=True)
    said = gradients(np.array([[0.9, 0.5]], np.float32), np.array([0 if units == 2 else 1]))
    assert not said.wrong[0] and said.gradient[0, 0] < 0 and said.gradient[0, 1] == 0


def test_gradients_of_other_ranges_are_those_of_the_pixels(keras_model, gradients, digits):
    import keras

    x, y = digits.x_test[:16], digits.y_test[:16]
    raw = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras_model])
    shifted = gradients_of(raw, PixelRange((0.0,), (255.0,)), are_probabilities=False)
    expected, found = gradients(x, y), shifted(x, y)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-3, atol=1e-6)  # float32 of another order
    assert (np.sign(found.gradient) == np.sign(expected.gradient)).mean() > 0.99


def test_square_leaves_wrong_answers_alone_and_asks_no_more_than_it_may():
    asked = []

    def answers(x):
        asked.append(len(x))
        total = x.reshape(len(x), -1).sum(axis=1)
        return np.stack([total, 10 - total], axis=1)

    x = np.full((3, 2, 3, 1), 0.5, np.float32)
    found = square(answers, x, np.array([0, 1, 1]), eps=0.1, queries=7)
    np.testing.assert_array_equal(found[0], x[0])  # 3 < 7: wrong from the start
    assert asked == [3, *[2] * 7]


def test_margins_are_those_of_an_argmax():
    scores = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    assert (margins(scores, np.array([0, 1, 0])) > 0).tolist() == [True, False, True]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_stronger_corruption_is_further_away(name):
    random = np.random.default_rng(0)
    for size in (8, 64):
        x = np.clip(random.random((4, size // 4, size // 4, 3)).repeat(4, 1).repeat(4, 2), 0.1, 0.6).astype(np.float32)
        apart = [np.abs(corrupt(name, x, strength=i) - x).mean() for i in range(1, 6)]
        assert apart == sorted(apart) and apart[0] > 0
        again = corrupt(name, x, strength=3, seed=1)
        assert again.shape == x.shape and again.dtype == np.float32 and again.min() >= 0 and again.max() <= 1
        assert np.array_equal(again, corrupt(name, x, strength=3, seed=2)) == (not name.endswith("noise"))


def test_corruptions_by_hand():
    x = np.array([[[[0.2, 0.4, 0.0]]]], np.float32)
    bright = corrupt("brightness", x, strength=5)  # V 0.4 -> 0.7, hue and saturation the same
    np.testing.assert_allclose(bright.ravel(), [0.35, 0.7, 0.0], atol=ROUNDING)
    flat = np.full((1, 16, 16, 1), 0.5, np.float32)
    assert corrupt("gaussian noise", flat.repeat(16, 1), strength=5).std() == pytest.approx(0.10, rel=0.05)
    assert corrupt("shot noise", flat.repeat(16, 1), strength=5).std() == pytest.approx((0.5 / 50) ** 0.5, rel=0.05)
    np.testing.assert_allclose(corrupt("blur", flat, strength=5), flat, atol=ROUNDING)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        corrupt("JPEG", np.zeros((1, 8, 8, 2), np.float32), strength=1)


def test_calibration_error_by_hand():
    """Five bins of 0.2: (0.6, 0.8] has confidences 0.7, 0.8 and one right; (0.8, 1] has 0.9, 0.9, all right."""
    sure = np.array([0.7, 0.8, 0.9, 0.9])
    outputs = np.stack([sure, 1 - sure], axis=1)
    error = expected_calibration_error(outputs, np.array([0, 1, 0, 0]), bins=5)
    assert error == pytest.approx((abs(1 - 1.5) + abs(2 - 1.8)) / 4)
    assert expected_calibration_error(np.log(outputs), np.array([0, 1, 0, 0]), bins=5) == pytest.approx(error)
    np.testing.assert_allclose(probabilities(np.array([[1000.0, 0.0]])), [[1.0, 0.0]])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_wilson_intervals_hold_the_share_19_times_of_20(share):
    samples = 100
    covered = [low <= share <= high for low, high in (wilson_interval(k, samples) for k in range(samples + 1))]
    chance = binom.pmf(np.arange(samples + 1), samples, share)[covered].sum()
    assert 0.92 <= chance <= 0.99  # of so few samples, which share it is makes a difference


def test_a_class_that_quantization_turns_is_found_and_honest_rounding_is_not():
    random = np.random.default_rng(0)
    first = random.integers(0, 10, 2000)
    honest, alarms = np.empty_like(first), 0
    for _ in range(200):
        turned = random.random(2000) < 0.02
        honest = np.where(turned, random.integers(0, 10, 2000), first)
        alarms += bool(disagreement(first, honest, classes=10).suspicious)
    assert alarms <= 6  # p < 0.01 of either side, corrected: 2 expected at most
    backdoored = np.where((first == 4) & (random.random(2000) < 0.3), 9, honest)
    found = disagreement(first, backdoored, classes=10)
    assert {(each.number, each.side) for each in found.suspicious} == {(4, "from"), (9, "into")}
    assert "class 4" in str(found.suspicious[0])


def test_accuracy_falls_from_clean_to_pgd_and_int8_follows_the_float_model(assessed):
    white = assessed.white_box
    assert white["none"].value > 0.95 > white["FGSM"].value > white["PGD"].value
    for file in assessed.files:
        assert file.attacked["none"].value > file.attacked["Square"].value > file.attacked["PGD"].value
        assert abs(file.attacked["PGD"].value - white["PGD"].value) < 0.1
        assert file.clean.samples == 540 and file.attacked["PGD"].samples == FEW.samples
        assert set(file.corrupted) == set(CORRUPTIONS)
        assert file.calibration_error < 0.05
    reference, int8 = assessed.files
    assert reference.disagreement is None and int8.disagreement.share < 0.02 and not assessed.suspicions
    assert Robustness.from_json(json.loads(json.dumps(assessed.to_json()))) == assessed


def test_a_file_that_was_made_to_turn_a_class_is_named(float_file, digits, keras_model):
    """The "quantized" file of a clone whose bias prefers 8 over 3: what such an attack looks like from outside."""
    import keras

    clone = keras.models.clone_model(keras_model)
    clone.set_weights(keras_model.get_weights())
    kernel, bias = clone.layers[-1].get_weights()
    kernel[:, 3] -= 0.9 * kernel[:, 3]
    clone.layers[-1].set_weights([kernel, bias])
    bad = tfc.convert(clone, target="float32").tflite
    few = AttackOptions(samples=5, queries=1)
    found = tfc.robustness([float_file, bad], (digits.x_test, digits.y_test), attacks=few)
    assert any("class 3" in text for text in found.suspicions)
    assert "class 3" in str(found)


def test_the_page_and_the_text_say_the_same(assessed, tmp_path):
    page = robustness_report(assessed, tmp_path / "page.html").read_text()
    for row in assessed.rows:
        assert row[0] in page and all(text in page for text in row)
        assert row[1] in str(assessed)
    read = html_page.Page(page)
    assert read.tags.count("svg") == 1 + len(CORRUPTIONS) and not read.open
    assert len(set(read.ids)) == len(read.ids) and all(link.startswith(("#", "data:")) for link in read.links)


def test_the_command_writes_json_and_a_page(tmp_path, digits, capsys):
    np.savez(tmp_path / "test.npz", x=digits.x_test[:80], y=digits.y_test[:80])
    flags = [f"--model={INT8}", f"--data={tmp_path / 'test.npz'}", "--samples=20", "--queries=10", "--eps=0.1"]
    outputs = [f"--json={tmp_path / 'found.json'}", f"--report={tmp_path / 'page.html'}"]
    assert main(["robustness", *flags, *outputs]) == 0
    shown = capsys.readouterr().out
    found = Robustness.from_json(json.loads((tmp_path / "found.json").read_text()))
    assert str(found) == shown.rstrip("\n")
    assert set(found.skipped) == {"FGSM", "PGD"} and found.white_box is None
    assert main(["robustness", *flags, *outputs]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--model=a.tflite"], 2, "--data must be given"),
        ([f"--model={INT8}", "--data=none.npz", "--eps=8"], 1, "eps must be in [0, 1]"),
        ([f"--model={INT8}", "--data=x.npz", "--input_range=1,0"], 2, "--input_range must be LOW,HIGH"),
        (["--model=none.tflite", "--data=x.npz"], 1, "none.tflite"),
        ([f"--model={INT8}", "--data=x.npz", "--report=page.txt"], 2, "--report must name"),
    ],
    ids=["no data", "eps", "range", "no file", "page"],
)
def test_bad_flags_are_one_line(flags, code, said, capsys):
    assert main(["robustness", *flags]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_bad_input_is_one_clear_error(digits, float_file):
    x, y = digits.x_test[:20], digits.y_test[:20]
    with pytest.raises(ValueError, match=r"Give input_range"):
        tfc.robustness(INT8, (x * 300 - 20, y))
    with pytest.raises(ValueError, match=r"input_range must hold every sample"):
        tfc.robustness(INT8, (x, y), input_range=(0, 0.5))
    with pytest.raises(DataError, match=r"Labels must be in \[0, 9\]"):
        tfc.robustness(INT8, (x, y + 7))
    with pytest.raises(ModelError, match=r"keras_model must be a Keras 3 model"):
        tfc.robustness(INT8, (x, y), keras_model=INT8)
    with pytest.raises(ValueError, match=r"at least one file"):
        tfc.robustness([], (x, y))
    with pytest.raises(TypeError, match=r"Did you mean attacks=AttackOptions\(eps=...\)"):
        tfc.robustness(INT8, (x, y), eps=0.1)


def test_the_ranges_of_scalings():
    pixels = PixelRange.of(np.zeros((1, 2, 2, 3)), scaling="imagenet_caffe")
    assert pixels.low == pytest.approx((-103.939, -116.779, -123.68))
    np.testing.assert_allclose(pixels.to_unit(pixels.from_unit(np.full((2, 3), 0.25, np.float32))), 0.25, atol=ROUNDING)


def test_a_file_is_an_estimator_of_the_toolbox(digits):
    pytest.importorskip("art", reason="the extra [robustness] is not installed")
    from art.attacks.evasion import HopSkipJump

    estimator = art_classifier(INT8, input_range=(0.0, 1.0))
    x = digits.x_test[:2]
    found = HopSkipJump(estimator, norm=np.inf, max_iter=2, max_eval=50, init_eval=5, verbose=False).generate(x)
    assert (estimator.predict(found).argmax(axis=1) != estimator.predict(x).argmax(axis=1)).all()
