"""Which of a detector's many answers does it mean? Non-maximum suppression, as TFLite's detection postprocessing does it.

``Detections`` says how; ``postprocessing`` writes it into a ``.tflite`` file, and ``detect`` is the same in NumPy.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from .anchors import SCALES, decode, overlaps

__all__ = ["Detections", "detect", "suppress"]


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """How boxes are chosen at the end of a detector.

    Attributes:
        anchors: (n, 4) float32, [y, x, height, width] as fractions of the picture.
        classes: how many there are; none of them is the background.
        most: how many boxes are answered at most. Default: 50.
        least_score: what a box must have at least, in [0, 1]. Default: 0.05.
        overlap: of two boxes of a class that overlap by more than this, the one with the lower score goes. Default: 0.5.
        scales: of the codes, as in ``anchors.encode``. Default: (10, 10, 5, 5).

    Raises:
        ValueError: anchors have another shape, or a number lies outside of its range.

    Examples:
        >>> Detections(np.array([[0.5, 0.5, 1.0, 1.0]]), classes=3)
        Detections(1 anchors, classes=3, most=50, least_score=0.05, overlap=0.5)
    """

    anchors: np.ndarray
    classes: int
    most: int = 50
    least_score: float = 0.05
    overlap: float = 0.5
    scales: Sequence[float] = SCALES

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchors", np.asarray(self.anchors, np.float32))
        if self.anchors.ndim != 2 or self.anchors.shape[1] != 4 or not np.isfinite(self.anchors).all():
            raise ValueError(f"anchors must be finite and of shape (n, 4). Received: shape {self.anchors.shape}.")
        if self.classes < 1 or self.most < 1:
            raise ValueError(f"classes and most must be at least 1. Received: {self.classes} and {self.most}.")
        if not 0 <= self.least_score <= 1 or not 0 < self.overlap <= 1:
            raise ValueError(
                f"least_score must be in [0, 1] and overlap in (0, 1]. Received: {self.least_score} and {self.overlap}."
            )
        if len(self.scales) != 4 or min(self.scales) <= 0:
            raise ValueError(f"scales must be four numbers above 0. Received: {self.scales}.")

    def __repr__(self) -> str:
        return (
            f"Detections({len(self.anchors)} anchors, classes={self.classes}, most={self.most}, "
            f"least_score={self.least_score}, overlap={self.overlap})"
        )


def suppress(boxes: np.ndarray, scores: np.ndarray, *, overlap: float = 0.5, most: int | None = None) -> np.ndarray:
    """Returns the indices of the boxes that stay, the highest score first, shape (k,), int64.

    The highest box stays and takes those with it that it overlaps by more than ``overlap``; then the highest of the rest.

    Source: Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", 2014,
    https://arxiv.org/abs/1311.2524.

    Args:
        boxes: (n, 4), [top, left, bottom, right].
        scores: (n,); equal ones go by their place.
        overlap: in (0, 1]. Default: 0.5.
        most: how many stay at most. Default: all.

    Examples:
        >>> boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [0.0, 2.0, 1.0, 3.0]])
        >>> suppress(boxes, np.array([0.8, 0.9, 0.1]))
        array([1, 2])
    """
    kept: list[int] = []
    for index in np.argsort(-np.asarray(scores), kind="stable"):
        if most is not None and len(kept) == most:
            break
        if not kept or overlaps(boxes[[index]], boxes[kept]).max() <= overlap:
            kept.append(int(index))
    return np.asarray(kept, np.int64)


def detect(codes: np.ndarray, scores: np.ndarray, settings: Detections) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the boxes (k, 4), classes (k,) int64 and scores (k,) that a detector means in one picture, the highest first.

    Each class is suppressed on its own.

    Args:
        codes: (n, 4), as the box head answers.
        scores: (n, classes), in [0, 1]: the sigmoid of what the class head answers.
        settings: how.

    Examples:
        >>> settings = Detections(np.array([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.39]]), classes=1)
        >>> boxes, classes, scores = detect(np.zeros((2, 4)), np.array([[0.9], [0.8]]), settings)
        >>> boxes.round(3), classes, scores
        (array([[0.3, 0.3, 0.7, 0.7]]), array([0]), array([0.9]))
    """
    boxes = decode(codes, settings.anchors.astype(np.float64), settings.scales)
    found: list[tuple[float, int, int]] = []
    for kind in range(settings.classes):
        places = np.flatnonzero(scores[:, kind] >= settings.least_score)
        kept = places[suppress(boxes[places], scores[places, kind], overlap=settings.overlap, most=settings.most)]
        found += [(float(scores[place, kind]), kind, int(place)) for place in kept]
    found.sort(key=lambda each: -each[0])
    found = found[: settings.most]
    return (
        boxes[[place for _, _, place in found]],
        np.asarray([kind for _, kind, _ in found], np.int64),
        np.asarray([score for score, _, _ in found]),
    )
