"""Every ready model is what its card says."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.data.digits import load_digits
from tfcompress.tflite.interpreter import open_model

MODELS = Path(__file__).resolve().parents[2] / "models"
CARDS = sorted(MODELS.glob("*/card.json"))


def test_there_is_a_model():
    assert [card.parent.name for card in CARDS] == ["digits"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_files_are_those_of_the_card(card):
    record = json.loads(card.read_text())
    for name, sha256 in record["files"].items():
        assert hashlib.sha256((card.parent / name).read_bytes()).hexdigest() == sha256


def test_digits_answers_as_its_card_says():
    record = json.loads((MODELS / "digits" / "card.json").read_text())
    digits = load_digits(seed=0)
    content = (MODELS / "digits" / "digits_int8.tflite").read_bytes()
    logits = open_model(content).run({"image": digits.x_test})["logits"]
    accuracy = np.mean(logits.argmax(1) == digits.y_test)
    assert accuracy == pytest.approx(record["accuracy"], abs=0.002)  # one picture: other CPUs round floats otherwise
    assert accuracy >= record["float32_accuracy"] - 0.01
    assert len(content) == record["size_bytes"]


def test_digits_keras_converts_from_its_own_ranges_alone():
    result = tfc.convert(MODELS / "digits" / "digits.keras")
    assert result.points.calibrated == 0
    assert result.points.trained > 0
    assert result.float_tensors == ()
