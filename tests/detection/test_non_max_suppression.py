"""Which boxes stay: none overlaps a higher one too much, and each that went did."""

import numpy as np
import pytest
from boxes import GRID, random_boxes

from tfcompress.detection.anchors import encode, overlaps
from tfcompress.detection.non_max_suppression import Detections, detect, suppress


@pytest.mark.parametrize("seed", range(5))
def test_what_stays_is_apart_and_what_goes_had_a_reason(seed):
    boxes, scores = random_boxes(60, seed), np.random.default_rng(seed).random(60)
    kept = suppress(boxes, scores, overlap=0.3)
    shared = overlaps(boxes, boxes)
    among = shared[np.ix_(kept, kept)] - np.eye(len(kept))
    assert among.max() <= 0.3 and (np.diff(scores[kept]) <= 0).all()
    for gone in set(range(60)) - set(kept.tolist()):
        assert any(shared[gone, stays] > 0.3 and scores[stays] >= scores[gone] for stays in kept)
    np.testing.assert_array_equal(suppress(boxes[kept], scores[kept], overlap=0.3), np.arange(len(kept)))
    np.testing.assert_array_equal(suppress(boxes, scores, overlap=0.3, most=3), kept[:3])


def test_classes_do_not_suppress_each_other():
    settings = Detections(GRID, classes=2, most=5)
    scores = np.zeros((len(GRID), 2))
    scores[7] = [0.6, 0.7]
    boxes, classes, found = detect(np.zeros((len(GRID), 4)), scores, settings)
    assert classes.tolist() == [1, 0] and found.tolist() == [0.7, 0.6]
    np.testing.assert_array_equal(boxes[0], boxes[1])


def test_low_scores_and_too_many_boxes_are_left_out():
    codes = encode(random_boxes(len(GRID), 3), GRID)
    scores = np.random.default_rng(3).random((len(GRID), 1))
    settings = Detections(GRID, classes=1, most=4, least_score=0.9)
    *_, found = detect(codes, scores, settings)
    assert 0 < len(found) <= 4 and found.min() >= 0.9
    none = detect(codes, scores * 0, settings)
    assert [len(each) for each in none] == [0, 0, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {"anchors": np.zeros((3, 3))},
        {"anchors": np.full((1, 4), np.nan)},
        {"classes": 0},
        {"most": 0},
        {"least_score": 1.5},
        {"overlap": 0.0},
        {"scales": (1.0, 1.0, 1.0)},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="Received"):
        Detections(**{"anchors": GRID, "classes": 2, **settings})
