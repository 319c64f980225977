"""Laws of the scores: bounds, permutation, perfect and opposite answers, then numbers by hand."""

import numpy as np
import pytest

from tfcompress.errors import DataError
from tfcompress.metrics.classification import class_scores, predicted_classes, top1_accuracy
from tfcompress.metrics.differences import argmax_agreement, step_difference

GENERATOR = np.random.default_rng(0)
SCORES = GENERATOR.random((50, 7))
LABELS = GENERATOR.integers(0, 7, 50)


def test_perfect_and_hopeless_answers():
    assert top1_accuracy(np.eye(7)[LABELS], LABELS) == 1.0
    assert top1_accuracy(np.eye(7)[(LABELS + 1) % 7], LABELS) == 0.0


def test_order_of_samples_does_not_matter():
    order = GENERATOR.permutation(50)
    assert top1_accuracy(SCORES[order], LABELS[order]) == top1_accuracy(SCORES, LABELS)


def test_growing_functions_do_not_matter():
    assert top1_accuracy(np.exp(3 * SCORES), LABELS) == top1_accuracy(SCORES, LABELS)


@pytest.mark.parametrize("shape", [(50, 1, 1, 7), (50, 1, 7), (50, 7, 1)])
def test_axes_of_length_one_do_not_matter(shape):
    assert top1_accuracy(SCORES.reshape(shape), LABELS) == top1_accuracy(SCORES, LABELS)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_labels_of_any_whole_dtype(dtype, shape):
    assert top1_accuracy(SCORES, LABELS.astype(dtype).reshape(shape)) == top1_accuracy(SCORES, LABELS)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_binary_probabilities_and_logits(shape):
    labels = np.array([0, 1, 1, 0])
    probabilities = np.array([0.1, 0.6, 0.4, 0.2])
    assert top1_accuracy(probabilities.reshape(shape), labels) == 0.75
    logits = np.log(probabilities / (1 - probabilities))
    assert top1_accuracy(logits.reshape(shape), labels) == 0.75
    assert predicted_classes(probabilities, threshold=0.0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0, 7]), r"\[0, 6\] for a model with 7 outputs. Received: a label 7"),
        (np.array([0, -1]), "Received: a label -1"),
        (np.array([0, 1, 2]), r"Expected shape: \(2,\). Received shape: \(3,\)"),
        (np.eye(7)[:2], "one-hot"),
        (np.array([0.5, 1.0]), "whole numbers"),
        (np.array(["a", "b"]), "whole numbers"),
    ],
)
def test_labels_that_do_not_match(labels, message):
    with pytest.raises(DataError, match=message):
        top1_accuracy(SCORES[:2], labels)


def test_binary_label_two_is_refused():
    with pytest.raises(DataError, match=r"\[0, 1\] for a model with 1 output"):
        top1_accuracy(np.zeros((1, 1)), np.array([2]))


def test_segmentation_has_no_top1():
    with pytest.raises(DataError, match="one row of class scores"):
        class_scores(np.zeros((2, 8, 8, 3)))
    assert argmax_agreement(np.ones((2, 8, 8, 3)), np.ones((2, 8, 8, 3))) == 1.0


def test_agreement_is_symmetric_and_bounded():
    other = GENERATOR.random((50, 7))
    assert argmax_agreement(SCORES, SCORES) == 1.0
    assert argmax_agreement(SCORES, other) == argmax_agreement(other, SCORES)
    assert 0 <= argmax_agreement(SCORES, other) <= 1


def test_step_difference_counts_steps():
    largest, mean = step_difference(np.array([[0.0, 0.5]]), np.array([[0.25, 0.0]]), scale=0.125)
    assert (largest, mean) == (4.0, 3.0)
    assert step_difference(SCORES, SCORES, scale=0.1) == (0.0, 0.0)


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="same samples"):
        argmax_agreement(SCORES, SCORES[:3])
    with pytest.raises(ValueError, match="scale must be above 0"):
        step_difference(SCORES, SCORES, scale=0.0)
