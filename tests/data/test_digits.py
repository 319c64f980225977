"""The digits are split once and for all, and the calibration set comes from the training part."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from tfcompress.data import InputSpec, load_representative
from tfcompress.data.digits import Digits, load_digits

ROOT = Path(__file__).resolve().parents[2]
INPUT = InputSpec("digits", (None, 8, 8, 1), np.float32)


def test_parts_are_disjoint_and_complete():
    from sklearn.datasets import load_digits as load_bundled

    digits = load_digits()
    x = np.concatenate([digits.x_train, digits.x_test])
    bundled = load_bundled().images
    assert sorted(map(bytes, (x[..., 0] * 16).astype(np.uint8))) == sorted(map(bytes, bundled.astype(np.uint8)))
    assert len(digits.y_test) == 540 and x.dtype == np.float32 and digits.y_train.dtype == np.int64


def test_classes_have_the_same_share_in_both_parts():
    digits = load_digits()
    train, test = np.bincount(digits.y_train) / len(digits.y_train), np.bincount(digits.y_test) / len(digits.y_test)
    np.testing.assert_allclose(train, test, atol=1 / len(digits.y_test))  # one picture of the smaller part


def test_the_seed_decides_the_split():
    first, again, other = load_digits(0), load_digits(0), load_digits(1)
    np.testing.assert_array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)


def test_pictures_without_labels_are_refused():
    x, y = np.zeros((2, 8, 8, 1)), np.zeros(2)
    with pytest.raises(ValueError, match="2 pictures and 1 labels for test"):
        Digits(x, y, x, y[:1])


def test_calibration_data_is_what_its_script_makes():
    samples = load_representative(ROOT / "calibration_data" / "digits", [INPUT])
    made = runpy.run_path(str(ROOT / "tools" / "make_calibration_data.py"))["digits_samples"]()
    assert samples.count == 100
    assert samples.sha256 == load_representative(made, [INPUT]).sha256


def test_calibration_data_holds_no_test_picture():
    digits = load_digits()
    (batch,) = load_representative(ROOT / "calibration_data" / "digits", [INPUT]).batches(100)
    train, test = ({bytes(x) for x in part} for part in (digits.x_train, digits.x_test))
    chosen = {bytes(x) for x in batch["digits"]}
    assert chosen <= train and not chosen & test
