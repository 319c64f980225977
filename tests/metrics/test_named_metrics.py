"""Metrics: against scikit-learn and pycocotools' own examples, by hand, and refused where labels do not fit."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import roc_auc_score, top_k_accuracy_score

from tfcompress.data import InputSpec
from tfcompress.errors import DataError
from tfcompress.metrics.average_precision import coco_map, detections
from tfcompress.metrics.classification import area_under_curve, confusion_matrix, top_k_accuracy
from tfcompress.metrics.named_metrics import METRICS, exact_match, mean_squared_error, resolve_metrics

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 7, 200)
SCORES = GENERATOR.random((200, 7)) + 0.5 * np.eye(7)[LABELS]
SPEC = InputSpec("x", (None, 2), np.float32)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_scikit_learn(k):
    assert top_k_accuracy(SCORES, LABELS, k) == pytest.approx(top_k_accuracy_score(LABELS, SCORES, k=k))


def test_top_k_counts_ties_in_the_order_of_classes():
    tied = np.zeros((7, 7))
    assert top_k_accuracy(tied, np.arange(7), 3) == pytest.approx(3 / 7)


def test_confusion_equals_scikit_learn():
    np.testing.assert_array_equal(confusion_matrix(SCORES, LABELS), reference_confusion(LABELS, SCORES.argmax(1)))


def test_area_equals_scikit_learn():
    binary = (LABELS > 3).astype(int)
    rounded = np.round(SCORES[:, 0], 1)  # with ties
    assert area_under_curve(rounded, binary) == pytest.approx(roc_auc_score(binary, rounded))
    shares = SCORES / SCORES.sum(axis=1, keepdims=True)
    assert area_under_curve(shares, LABELS) == pytest.approx(roc_auc_score(LABELS, shares, multi_class="ovr"))
    with pytest.raises(DataError, match="two classes"):
        area_under_curve(SCORES, np.zeros(200, int))


def test_errors_and_exact_answers():
    assert mean_squared_error(np.zeros((2, 3)), np.full((2, 3), 2.0)) == 4.0
    with pytest.raises(DataError, match="one true value"):
        mean_squared_error(np.zeros((2, 3)), np.zeros((2, 4)))
    answers = np.eye(4)[[[0, 1, 2], [3, 3, 0]]]  # (2, 3, 4)
    assert exact_match(answers, np.array([[0, 1, 2], [3, 2, 0]])) == 0.5
    assert exact_match(answers, np.array([[0, 1, -1], [3, 3, -1]])) == 1.0


def detector(boxes, classes, scores, counts):
    return {"p:1": boxes, "p:3": classes.astype(np.float32), "p:0": counts.astype(np.float32), "p:2": scores}


def test_map_is_one_for_the_labels_and_counts_what_is_missed():
    boxes = GENERATOR.uniform(0, 0.4, (6, 5, 4))
    boxes[..., 2:] = boxes[..., :2] + GENERATOR.uniform(0.1, 0.5, (6, 5, 2))
    classes = GENERATOR.integers(0, 2, (6, 5))
    labels = {"boxes": boxes, "classes": classes}
    scores = np.sort(GENERATOR.random((6, 5)))[:, ::-1]
    assert coco_map(detector(boxes, classes, scores, np.full(6, 5)), labels) == pytest.approx(1.0)
    found = coco_map(detector(boxes, classes, scores, np.full(6, 3)), labels)
    assert 0.4 < found < 0.8  # three of five objects are found, and none is wrong
    assert coco_map(detector(boxes, 1 - classes, scores, np.full(6, 5)), labels) < 0.2
    assert coco_map(detector(boxes, classes, scores, np.zeros(6)), labels) == 0.0


def test_half_overlap_counts_at_the_lowest_threshold_only():
    labels = {"boxes": np.array([[[0.0, 0.0, 1.0, 0.5]]]), "classes": np.array([[0]])}
    shifted = np.array([[[0.0, 0.0, 1.0, 0.29]]])  # overlap 0.58: right at 0.50 and 0.55, two of ten thresholds
    found = coco_map(detector(shifted, np.array([[0]]), np.array([[0.9]]), np.array([1])), labels)
    assert found == pytest.approx(0.2)


def test_outputs_that_are_no_detector():
    with pytest.raises(DataError, match="A detector has boxes"):
        detections({"a": np.zeros((2, 10))})


def test_names_functions_and_mixtures(tmp_path):
    assert [m.name for m in resolve_metrics(["top1", "auc"])] == ["top1", "auc"]
    (tmp_path / "mine.py").write_text("def share(outputs, labels): return (next(iter(outputs.values())) > 0).mean()\n")
    (own,) = resolve_metrics(f"{tmp_path}/mine.py:share")
    assert own.name == "share" and own.function({"y": np.array([[1.0], [-1.0]])}, None, None) == 0.5
    (failing,) = resolve_metrics(lambda outputs, labels: 1 / 0)
    with pytest.raises(DataError, match="ZeroDivisionError"):
        failing.function({}, None, None)
    with pytest.raises(ValueError, match="same kind of labels"):
        resolve_metrics("top1,mse")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_found_by_its_name(name):
    assert resolve_metrics(name) == [METRICS[name]]
