"""Where a detector's boxes start, and what it is to answer there: codes are inverses, and every box finds an anchor."""

import numpy as np
import pytest
from boxes import GRID, random_boxes

from tfcompress.detection.anchors import (
    BACKGROUND,
    UNDECIDED,
    anchor_grid,
    corners,
    decode,
    encode,
    match,
    overlaps,
    targets,
)


def test_the_grid_goes_by_level_row_column_and_size():
    assert GRID.shape == (6 * 8 * 2 + 3 * 4 * 3, 4) and GRID.dtype == np.float32
    # row 1, column 2 of the first level, its second size
    np.testing.assert_allclose(GRID[(1 * 8 + 2) * 2 + 1], [1.5 / 6, 2.5 / 8, 0.2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(GRID[96 + (2 * 4 + 3) * 3 + 2], [2.5 / 3, 3.5 / 4, 0.6, 0.3], rtol=1e-6)


@pytest.mark.parametrize(("shapes", "sizes"), [([(1, 1)], []), ([], []), ([(1, 1)], [[]]), ([(1, 1)], [[(0.1, 0.0)]])])
def test_a_grid_without_sizes_is_refused(shapes, sizes):
    with pytest.raises(ValueError, match="Received"):
        anchor_grid(shapes, sizes)


@pytest.mark.parametrize("seed", range(3))
def test_codes_mean_the_boxes_they_came_from(seed):
    boxes = random_boxes(len(GRID), seed)
    codes = encode(boxes, GRID.astype(np.float64))
    np.testing.assert_allclose(decode(codes, GRID.astype(np.float64)), boxes, atol=1e-12)
    np.testing.assert_allclose(decode(np.zeros_like(codes), GRID), corners(GRID), atol=1e-6)  # float32 anchors
    scales = (1.0, 2.0, 3.0, 4.0)
    np.testing.assert_allclose(encode(boxes, GRID, scales) / scales, codes / (10, 10, 5, 5), rtol=1e-6)


def test_a_code_by_hand():
    anchor, box = np.array([[0.5, 0.5, 0.2, 0.4]]), np.array([[0.42, 0.3, 0.62, 0.5]])
    # center (0.52, 0.4): 10 * 0.02 / 0.2 and 10 * -0.1 / 0.4; size (0.2, 0.2): 5 * log 1 and 5 * log 0.5
    np.testing.assert_allclose(encode(box, anchor), [[1.0, -2.5, 0.0, 5 * np.log(0.5)]], atol=1e-12)


def test_overlaps_are_those_of_counted_pixels():
    side, boxes = 40, np.random.default_rng(5).integers(0, 40, (12, 4))
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    covered = np.zeros((len(boxes), side, side), bool)
    for cover, (top, left, bottom, right) in zip(covered, boxes, strict=True):
        cover[top:bottom, left:right] = True
    shared = (covered[:, None] & covered[None]).sum((2, 3))
    together = (covered[:, None] | covered[None]).sum((2, 3))
    expected = np.where(together > 0, shared / np.maximum(together, 1), 0)
    np.testing.assert_allclose(overlaps(boxes / side, boxes / side), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_matching_keeps_to_its_thresholds_and_leaves_no_box_alone(seed):
    boxes = random_boxes(7, seed)
    owner = match(boxes, GRID, positive=0.5, negative=0.4)
    shared = overlaps(corners(GRID.astype(np.float64)), boxes)
    assert set(range(len(boxes))) <= set(owner.tolist())
    assert (shared.max(axis=1)[owner == BACKGROUND] < 0.4).all()
    undecided = shared.max(axis=1)[owner == UNDECIDED]
    assert ((undecided >= 0.4) & (undecided < 0.5)).all()
    forced = (owner >= 0) & (shared.max(axis=1) < 0.5)
    assert forced.sum() <= len(boxes)
    certain = shared.max(axis=1) >= 0.5
    assert (owner[certain] >= 0).all()


def test_boxes_that_want_the_same_anchor_get_two():
    anchors = anchor_grid([(1, 2)], [[(1.0, 0.5)]])
    boxes = np.array([[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.49]])
    np.testing.assert_array_equal(match(boxes, anchors), [0, 1])


def test_a_picture_without_boxes_is_background():
    assert (match(np.zeros((0, 4)), GRID) == BACKGROUND).all()
    found = targets(np.full((3, 4), -1.0), np.full(3, -1), GRID, classes=2)
    assert not found.boxes.any() and not found.scores.any()


@pytest.mark.parametrize(("positive", "negative"), [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1)])
def test_thresholds_in_the_wrong_order_are_refused(positive, negative):
    with pytest.raises(ValueError, match="negative <= positive"):
        match(np.zeros((0, 4)), GRID, positive=positive, negative=negative)


def test_targets_say_class_and_code_of_each_anchors_box():
    boxes, kinds = random_boxes(5, 1), np.array([0, 2, 1, 2, 0])
    padded = targets(np.concatenate([boxes, -np.ones((2, 4))]), np.append(kinds, [-1, -1]), GRID, classes=3)
    owner = match(boxes, GRID)
    own = owner >= 0
    np.testing.assert_array_equal(padded.boxes[:, 4], own)
    np.testing.assert_array_equal(padded.scores[own].argmax(axis=1), kinds[owner[own]])
    np.testing.assert_array_equal(padded.scores[own].sum(axis=1), 1)
    assert (padded.scores[owner == UNDECIDED] == -1).all() and not padded.scores[owner == BACKGROUND].any()
    np.testing.assert_allclose(decode(padded.boxes[own, :4], GRID[own]), boxes[owner[own]], atol=1e-6)
