"""The detector of the zoo answers once for each of its anchors, where they lie, and learns by its losses."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.detection.anchors import targets
from tfcompress.detection.losses import box_loss, focal_loss
from tfcompress.detection.non_max_suppression import Detections
from tfcompress.detection.postprocessing import OP
from tfcompress.tflite.interpreter import open_model
from tfcompress.zoo.ssdlite import DEFAULT_SIZES, ssdlite, ssdlite_anchors

SHAPE = (64, 96, 3)
SIZES = (((0.2, 0.15), (0.3, 0.2)), ((0.5, 0.4),))


def squares(count, seed):
    """Returns pictures with one bright or dark square on grey, its box and its class."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.05, (count, *SHAPE)).astype(np.float32)
    boxes, kinds = np.zeros((count, 1, 4)), rng.integers(0, 2, (count, 1))
    for i in range(count):
        side, top, left = rng.integers(14, 30), rng.integers(0, 34), rng.integers(0, 66)
        x[i, top : top + side, left : left + side] += 1 - 2 * kinds[i, 0]
        boxes[i, 0] = [top / 64, left / 96, (top + side) / 64, (left + side) / 96]
    return x, boxes, kinds


@pytest.mark.parametrize(
    ("shape", "sizes"), [((64, 96, 3), SIZES), ((75, 83, 1), SIZES), ((300, 300, 3), DEFAULT_SIZES)]
)
def test_there_is_an_answer_for_each_anchor(shape, sizes):
    model = ssdlite(input_shape=shape, classes=5, width=0.25, sizes=sizes)
    count = len(ssdlite_anchors(input_shape=shape, sizes=sizes))
    shapes = {name: output.shape for name, output in model.output.items()}
    assert shapes == {"boxes": (None, count, 4), "logits": (None, count, 5)}


@pytest.mark.parametrize("place", [(8, 8), (8, 80), (52, 8), (52, 80)])
def test_answers_change_where_the_picture_does(place):
    keras.utils.set_random_seed(1)
    model, anchors = ssdlite(input_shape=SHAPE, classes=2, sizes=SIZES), ssdlite_anchors(input_shape=SHAPE, sizes=SIZES)
    x = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    changed = x.copy()
    changed[0, place[0] - 4 : place[0] + 4, place[1] - 4 : place[1] + 4] += 3
    before, after = (model(each, training=False)["boxes"].numpy()[0] for each in (x, changed))
    most = np.abs(after - before).sum(axis=1).argmax()
    assert np.abs(anchors[most, :2] - np.array(place) / SHAPE[:2]).max() < 0.25


@pytest.mark.parametrize("wrong", [{"classes": 0}, {"width": 0.0}, {"sizes": ()}])
def test_impossible_models_are_refused(wrong):
    with pytest.raises(ValueError, match="must be above 0"):
        ssdlite(**{"input_shape": SHAPE, "classes": 2, **wrong})


def test_losses_against_their_formulas():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(2, 7, 5)).astype(np.float32)
    truth[..., 4] = rng.integers(0, 2, (2, 7))
    codes = rng.normal(size=(2, 7, 4)).astype(np.float32)
    distance = np.abs(codes - truth[..., :4])
    each = np.where(distance < 1, distance**2 / 2, distance - 0.5).sum(-1)
    expected = each[truth[..., 4] == 1].sum() / truth[..., 4].sum()
    assert float(box_loss(truth, codes)) == pytest.approx(expected, rel=1e-5)
    wanted, logits = rng.integers(-1, 2, (2, 7, 3)).astype(np.float32), rng.normal(size=(2, 7, 3)).astype(np.float32)
    total = 0.0
    for right, logit in zip(wanted.ravel(), logits.ravel().astype(np.float64), strict=True):
        p = 1 / (1 + np.exp(-logit if right == 1 else logit))
        total += 0.0 if right == -1 else -(0.25 if right == 1 else 0.75) * (1 - p) ** 2 * np.log(p)
    assert float(focal_loss(wanted, logits)) == pytest.approx(total / (wanted == 1).sum(), rel=1e-5)


def test_losses_of_a_picture_without_objects_are_finite_and_zero_when_right():
    nothing = np.zeros((1, 4, 5), np.float32)
    assert float(box_loss(nothing, np.ones((1, 4, 4), np.float32))) == 0
    assert float(focal_loss(np.zeros((1, 4, 2), np.float32), np.full((1, 4, 2), -40, np.float32))) < 1e-12
    assert float(focal_loss(np.full((1, 4, 2), -1, np.float32), np.ones((1, 4, 2), np.float32))) == 0


@pytest.mark.slow
def test_it_learns_with_rounding_and_loses_channels_and_its_file_finds_squares():
    keras.utils.set_random_seed(0)
    anchors = ssdlite_anchors(input_shape=SHAPE, sizes=SIZES)
    x, boxes, kinds = squares(192, seed=0)
    each = [targets(box, kind, anchors, classes=2) for box, kind in zip(boxes, kinds, strict=True)]
    y = {"boxes": np.stack([one.boxes for one in each]), "logits": np.stack([one.scores for one in each])}
    model = ssdlite(input_shape=SHAPE, classes=2, sizes=SIZES, width=0.5)

    def fit(epochs, *callbacks):
        model.compile(keras.optimizers.Adam(3e-3), {"boxes": box_loss, "logits": focal_loss}, jit_compile=False)
        model.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=list(callbacks))

    fit(8)
    before = model.count_params()
    model = tfc.remove_channels(model, sparsity=0.25)
    assert model.count_params() < 0.85 * before
    fit(4, tfc.QuantizationAwareTraining())
    test, true, named = squares(64, seed=1)
    result = tfc.convert(model, detections=Detections(anchors, classes=2), allow_float=[OP])
    assert result.points.trained > 0 and result.points.missing == 0
    found = open_model(result.tflite).run({"image": test})
    first = found["boxes"][:, 0]
    low, high = np.maximum(first[:, :2], true[:, 0, :2]), np.minimum(first[:, 2:], true[:, 0, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    covered = np.prod(first[:, 2:] - first[:, :2], axis=1) + np.prod(true[:, 0, 2:] - true[:, 0, :2], axis=1) - shared
    right = (shared / covered > 0.5) & (found["classes"][:, 0] == named[:, 0])
    assert right.mean() > 0.8
