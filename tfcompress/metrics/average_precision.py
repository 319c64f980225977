"""How well does a detector find objects? COCO's mean average precision, counted by ``pycocotools`` (extra ``[coco]``)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from ..system.quiet import prints_silenced

__all__ = ["coco_map", "coco_map50", "detections"]

IMAGE_SIDE = 1000.0  # boxes are fractions of the picture; COCO counts in pixels
PADDING = -1


def coco_map(outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> float:
    """Returns COCO's mean average precision: over classes and over overlaps from 0.50 to 0.95.

    Reference:
        Lin et al., "Microsoft COCO: Common Objects in Context", 2014; the counting is that of pycocotools' COCOeval.

    Args:
        outputs: of a model that ends in TFLite's detection postprocessing, as ``detections`` takes them.
        labels: "boxes" of shape (n, most, 4) with [top, left, bottom, right] as fractions of the picture, and "classes" of
            shape (n, most), -1 where a picture has fewer.

    Raises:
        DataError: pycocotools is missing, or arrays have other shapes.

    Examples:
        >>> boxes, classes = np.array([[[0.1, 0.1, 0.5, 0.5]]]), np.array([[0]])
        >>> outputs = {"a": boxes, "b": classes * 1.0, "c": np.array([[0.9]]), "d": np.array([1.0])}
        >>> round(coco_map(outputs, {"boxes": boxes, "classes": classes}), 3)
        1.0
    """
    return _counted(outputs, labels)[0]


def coco_map50(outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> float:
    """Returns the mean average precision over classes at an overlap of 0.50, as Pascal VOC asks for.

    Reference:
        Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010; counted by pycocotools, which
        interpolates at 101 places.

    Args:
        outputs: as ``coco_map`` takes them.
        labels: likewise.

    Raises:
        DataError: pycocotools is missing, or arrays have other shapes.

    Examples:
        >>> boxes, classes = np.array([[[0.1, 0.1, 0.5, 0.5]]]), np.array([[0]])
        >>> outputs = {"a": boxes + 0.02, "b": classes * 1.0, "c": np.array([[0.9]]), "d": np.array([1.0])}
        >>> labels = {"boxes": boxes, "classes": classes}
        >>> round(coco_map50(outputs, labels), 3), coco_map(outputs, labels) < 0.9
        (1.0, True)
    """
    return _counted(outputs, labels)[1]


def _counted(outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Returns the mean average precision over overlaps from 0.50 to 0.95, and at 0.50 alone."""
    try:
        from pycocotools import coco as coco_files
        from pycocotools import cocoeval
    except ImportError as error:
        raise DataError("COCO's mAP needs pycocotools. Received: none. Type: pip install pycocotools") from error
    if not isinstance(labels, Mapping) or not {"boxes", "classes"} <= set(labels):
        raise DataError(
            "COCO's mAP needs arrays boxes and classes. Received: other labels. Store both in the .npz file."
        )
    boxes, classes, scores = detections(outputs)
    true_boxes, true_classes = np.asarray(labels["boxes"], np.float64), np.asarray(labels["classes"])
    if len(true_boxes) != len(boxes) or true_boxes.shape[:2] != true_classes.shape or true_boxes.shape[2:] != (4,):
        raise DataError(
            f"Boxes have shape ({len(boxes)}, most, 4). Received: {true_boxes.shape}, {true_classes.shape}."
        )
    known = [
        {"id": number + 1, "area": _area(box), "iscrowd": 0, **_entry(picture, box, kind)}
        for number, (picture, box, kind) in enumerate(_items(true_boxes, true_classes))
    ]
    found = [
        {**_entry(picture, box, kind), "score": float(scores[picture][place])}
        for picture in range(len(boxes))
        for place, (box, kind) in enumerate(zip(boxes[picture], classes[picture], strict=True))
        if kind != PADDING
    ]
    with prints_silenced(coco_files, cocoeval):
        coco = coco_files.COCO()
        kinds = sorted({entry["category_id"] for entry in known})
        coco.dataset = {
            "info": {},
            "images": [{"id": picture} for picture in range(len(boxes))],
            "categories": [{"id": kind} for kind in kinds],
            "annotations": known,
        }
        coco.createIndex()
        if not found or not known:
            return 0.0, 0.0
        evaluation = cocoeval.COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    over_all, at_half = (max(0.0, float(value)) for value in evaluation.stats[:2])  # -1 where nothing could be counted
    return over_all, at_half


def detections(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns boxes (n, k, 4), classes (n, k) with -1 for none, and scores (n, k) from a detector's outputs.

    The outputs of TFLite's detection postprocessing come under names that say nothing, so they are told by their form: boxes
    have four numbers each, counts one per picture; of the other two, classes are whole numbers and come first if both are.

    Args:
        outputs: four arrays by name.

    Raises:
        DataError: they have other forms.
    """
    arrays = [np.asarray(array) for array in outputs.values()]
    boxes = [array for array in arrays if array.ndim == 3 and array.shape[2] == 4]
    rows = [array for array in arrays if array.ndim == 2 and boxes and array.shape == boxes[0].shape[:2]]
    lengths = [(len(boxes[0]),), (len(boxes[0]), 1)] if boxes else []
    rows, ones = rows[:2], [array for array in arrays if array.shape in lengths]
    counts = [array.reshape(-1) for array in ones if not any(array is row for row in rows)]
    if len(boxes) != 1 or len(rows) < 2:
        shapes = ", ".join(f"{name} {np.shape(array)}" for name, array in outputs.items())
        raise DataError(f"A detector has boxes (n, k, 4), classes, scores (n, k) and counts (n,). Received: {shapes}.")
    whole = [bool(np.array_equal(row, np.trunc(row))) for row in rows]
    classes, scores = (rows[1], rows[0]) if whole[1] and not whole[0] else (rows[0], rows[1])
    classes = classes.astype(np.int64)
    if counts:
        number = counts[-1].astype(np.int64)[:, None]
        classes = np.where(np.arange(classes.shape[1]) < number, classes, PADDING)
    return boxes[0], classes, scores


def _items(boxes: np.ndarray, classes: np.ndarray) -> list[tuple[int, np.ndarray, int]]:
    pictures, places = np.nonzero(classes != PADDING)
    return [(int(i), boxes[i, j], int(classes[i, j])) for i, j in zip(pictures, places, strict=True)]


def _entry(picture: int, box: np.ndarray, kind: int) -> dict[str, Any]:
    top, left, bottom, right = (float(side) * IMAGE_SIDE for side in box)
    return {"image_id": picture, "category_id": int(kind), "bbox": [left, top, right - left, bottom - top]}


def _area(box: np.ndarray) -> float:
    top, left, bottom, right = (float(side) * IMAGE_SIDE for side in box)
    return (bottom - top) * (right - left)
