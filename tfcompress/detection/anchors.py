"""Which boxes does a detector start from, and what is it to answer at each of them? Anchors, codes, matching.

A box has corners [top, left, bottom, right]; an anchor has a center and a size [y, x, height, width], as TFLite's detection
postprocessing wants it. All are fractions of the picture. Pure NumPy; choosing among answers is the business of ``non_max_suppression``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["BACKGROUND", "SCALES", "UNDECIDED", "Targets", "anchor_grid", "corners", "decode", "encode", "map_shapes"]
__all__ += ["match", "overlaps", "targets"]

BACKGROUND, UNDECIDED = -1, -2
SCALES = (10.0, 10.0, 5.0, 5.0)  # of the codes, in the order y, x, height, width: they come near unit variance


def map_shapes(height: int, width: int, levels: int, *, first_stride: int = 8) -> list[tuple[int, int]]:
    """Returns (rows, columns) of a detector's maps, each half as fine as the one before, padded as TensorFlow's "same" does.

    Args:
        height: of the picture, pixels.
        width: likewise.
        levels: how many maps.
        first_stride: pixels from anchor to anchor on the first. Default: 8.

    Examples:
        >>> map_shapes(144, 192, 3)
        [(18, 24), (9, 12), (5, 6)]
    """
    strides = [first_stride * 2**level for level in range(levels)]
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in strides]


def anchor_grid(shapes: Sequence[tuple[int, int]], sizes: Sequence[Sequence[tuple[float, float]]]) -> np.ndarray:
    """Returns anchors of shape (n, 4), float32, in the order in which the heads of ``zoo.ssdlite`` answer.

    The order is: level, row, column, size. A center lies in the middle of its cell: ((row + 0.5) / rows, (column + 0.5) / columns).

    Source: Liu et al., "SSD: Single Shot MultiBox Detector", 2016, https://arxiv.org/abs/1512.02325.

    Args:
        shapes: (rows, columns) of each level's map of features.
        sizes: (height, width) of each level's anchors, fractions of the picture; as many lists as levels.

    Raises:
        ValueError: the lists differ in length, or a size is not above 0.

    Examples:
        >>> anchor_grid([(1, 2)], [[(0.5, 0.25)]])
        array([[0.5 , 0.25, 0.5 , 0.25],
               [0.5 , 0.75, 0.5 , 0.25]], dtype=float32)
    """
    if len(shapes) != len(sizes) or not shapes:
        raise ValueError(f"Each level needs a list of sizes. Received: {len(shapes)} levels and {len(sizes)} lists.")
    if any(not level or min(min(size) for size in level) <= 0 for level in sizes):
        raise ValueError(f"Each level needs sizes (height, width) above 0. Received: {sizes}.")
    levels = []
    for (rows, columns), level in zip(shapes, sizes, strict=True):
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        grid = np.empty((rows, columns, len(level), 4))
        grid[..., 0], grid[..., 1], grid[..., 2:] = y[..., None], x[..., None], np.asarray(level)
        levels.append(grid.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def corners(anchors: np.ndarray) -> np.ndarray:
    """Returns anchors (..., 4) as boxes [top, left, bottom, right].

    Examples:
        >>> corners(np.array([[0.5, 0.5, 0.5, 1.0]]))
        array([[0.25, 0.  , 0.75, 1.  ]])
    """
    center, half = anchors[..., :2], anchors[..., 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def encode(boxes: np.ndarray, anchors: np.ndarray, scales: Sequence[float] = SCALES) -> np.ndarray:
    """Returns what a detector has to answer at ``anchors`` to mean ``boxes``: codes of shape (n, 4).

    With a box of center (y, x) and size (h, w) and an anchor (ya, xa, ha, wa): [sy (y - ya) / ha, sx (x - xa) / wa,
    sh log(h / ha), sw log(w / wa)].

    Source: Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", 2015,
    https://arxiv.org/abs/1506.01497; the scales are those of TFLite's detection postprocessing.

    Args:
        boxes: (n, 4) with height and width above 0.
        anchors: (n, 4).
        scales: (sy, sx, sh, sw). Default: (10, 10, 5, 5).

    Examples:
        >>> encode(np.array([[0.0, 0.0, 1.0, 0.5]]), np.array([[0.5, 0.5, 1.0, 0.5]]))
        array([[ 0., -5.,  0.,  0.]])
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    offset = ((boxes[..., :2] + boxes[..., 2:]) / 2 - anchors[..., :2]) / anchors[..., 2:]
    return np.concatenate([offset, np.log(sides / anchors[..., 2:])], axis=-1) * np.asarray(scales)


def decode(codes: np.ndarray, anchors: np.ndarray, scales: Sequence[float] = SCALES) -> np.ndarray:
    """Returns the boxes that ``codes`` mean: the inverse of ``encode``.

    Args:
        codes: (..., n, 4).
        anchors: (n, 4).
        scales: as in ``encode``. Default: (10, 10, 5, 5).

    Examples:
        >>> decode(np.array([[0.0, -5.0, 0.0, 0.0]]), np.array([[0.5, 0.5, 1.0, 0.5]]))
        array([[0. , 0. , 1. , 0.5]])
    """
    plain = codes / np.asarray(scales)
    center = plain[..., :2] * anchors[..., 2:] + anchors[..., :2]
    return corners(np.concatenate([center, np.exp(plain[..., 2:]) * anchors[..., 2:]], axis=-1))


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns for each pair of boxes the area they share over the area they cover, shape (n, m), in [0, 1].

    Args:
        first: boxes (n, 4).
        second: boxes (m, 4).

    Examples:
        >>> overlaps(np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.5]])).round(3)
        array([[0.5  , 0.333]])
    """
    # Sides one by one: an axis of two numbers would cost most of the time.
    height, width = (
        np.minimum(first[:, None, high], second[None, :, high]) - np.maximum(first[:, None, low], second[None, :, low])
        for low, high in ((0, 2), (1, 3))
    )
    shared = np.where((height > 0) & (width > 0), height * width, 0.0)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1) for boxes in (first, second)]
    covered = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, covered, out=np.zeros_like(shared), where=covered > 0)


def match(boxes: np.ndarray, anchors: np.ndarray, *, positive: float = 0.5, negative: float = 0.4) -> np.ndarray:
    """Returns for each anchor the index of the box that it answers for, shape (n,), int64.

    An anchor belongs to the box it overlaps most if that is ``positive`` or more; below ``negative`` it is BACKGROUND (-1),
    between them UNDECIDED (-2). Each box keeps the anchor that overlaps it most, however little: the boxes choose in the order
    of that overlap, so no two boxes lose it to each other while there are anchors.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, https://arxiv.org/abs/1708.02002.

    Args:
        boxes: (m, 4); m may be 0.
        anchors: (n, 4).
        positive: least overlap with an own box. Default: 0.5.
        negative: overlap below which an anchor is background. Default: 0.4.

    Raises:
        ValueError: not 0 <= negative <= positive <= 1.

    Examples:
        >>> anchors = np.array([[0.5, 0.25, 1.0, 0.5], [0.5, 0.75, 1.0, 0.5]])
        >>> match(np.array([[0.0, 0.0, 1.0, 0.5]]), anchors)
        array([ 0, -1])
    """
    if not 0 <= negative <= positive <= 1:
        raise ValueError(
            f"0 <= negative <= positive <= 1 must hold. Received: negative={negative}, positive={positive}."
        )
    if not len(boxes):
        return np.full(len(anchors), BACKGROUND)
    shared = overlaps(corners(anchors), np.asarray(boxes, np.float64))
    nearest = shared.argmax(axis=1)
    best = shared[np.arange(len(shared)), nearest]
    found = np.where(best >= positive, nearest, np.where(best < negative, BACKGROUND, UNDECIDED))
    by_box = np.ascontiguousarray(shared.T)
    for _ in range(min(len(boxes), len(anchors))):
        box, anchor = np.unravel_index(by_box.argmax(), by_box.shape)
        found[anchor] = box
        by_box[box], by_box[:, anchor] = -1, -1
    return found


class Targets(NamedTuple):
    """What a detector has to answer for one picture.

    Attributes:
        boxes: (n, 5) float32: the code of each anchor's box, and 1 where there is one, else 0.
        scores: (n, classes) float32: 1 for the class of each anchor's box, 0 for others, -1 everywhere where it is undecided.
    """

    boxes: np.ndarray
    scores: np.ndarray


def targets(
    boxes: np.ndarray,
    kinds: np.ndarray,
    anchors: np.ndarray,
    *,
    classes: int,
    positive: float = 0.5,
    negative: float = 0.4,
) -> Targets:
    """Returns what a detector has to answer for a picture with ``boxes`` of ``kinds``.

    Args:
        boxes: (m, 4).
        kinds: (m,) integers, the class of each box; rows of -1 are padding and not looked at.
        anchors: (n, 4).
        classes: how many there are.
        positive: as in ``match``. Default: 0.5.
        negative: as in ``match``. Default: 0.4.

    Examples:
        >>> anchors = np.array([[0.5, 0.25, 1.0, 0.5], [0.5, 0.75, 1.0, 0.5]])
        >>> found = targets(np.array([[0.0, 0.0, 1.0, 0.5]]), np.array([1]), anchors, classes=2)
        >>> found.boxes[:, 4], found.scores[0]
        (array([1., 0.], dtype=float32), array([0., 1.], dtype=float32))
    """
    real = np.asarray(kinds) >= 0
    boxes, kinds = np.asarray(boxes)[real], np.asarray(kinds)[real]
    owner = match(boxes, anchors, positive=positive, negative=negative)
    own = owner >= 0
    codes, scores = np.zeros((len(anchors), 5), np.float32), np.zeros((len(anchors), classes), np.float32)
    codes[own, :4], codes[own, 4] = encode(boxes[owner[own]], anchors[own]), 1
    scores[own, kinds[owner[own]]] = 1
    scores[owner == UNDECIDED] = -1
    return Targets(codes, scores)
