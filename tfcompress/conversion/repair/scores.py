"""How near are an integer file's answers to those of the float file?

Signal to noise, cosine and same arg-max on the same samples, before a final softmax or sigmoid: probabilities near 0
and 1 hide most errors, and a few uncertain samples would decide. Also decides when one score is better than another,
which is what ``--repair=auto`` keeps a repair by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...metrics import argmax_agreement
from ...tflite import flatbuffer
from .activations import capture

__all__ = ["Score", "answers", "score"]

LEAST_GAIN_DB = 0.1  # below this a difference on some hundred samples is noise
_SILENCE = 1e-30
_CEILING_DB = 200.0
_MONOTONE = frozenset(("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE"))


@dataclass(frozen=True)
class Score:
    """How near a file's answers are to a reference.

    Args:
        sqnr_db: 10 log10(signal power / error power) in decibels, the mean over the outputs, at most 200.
        cosine: of the angle between all answers and the reference, the mean over the outputs.
        agreement: how often the arg-max is the same, in [0, 1]; 1 for outputs of one value.
        samples: number of samples.

    Examples:
        >>> print(Score(30.0, 0.9995, 0.985, 200))
        30.0 dB, cosine 0.99950, same arg-max 98.5% of 200
    """

    sqnr_db: float
    cosine: float
    agreement: float
    samples: int

    def is_better_than(self, other: "Score") -> bool:
        """Returns whether the signal to noise ratio is at least 0.1 dB higher.

        Examples:
            >>> Score(30.05, 1.0, 1.0, 100).is_better_than(Score(30.0, 1.0, 1.0, 100))
            False
        """
        return self.sqnr_db >= other.sqnr_db + LEAST_GAIN_DB

    def __str__(self) -> str:
        return f"{self.sqnr_db:.1f} dB, cosine {self.cosine:.5f}, same arg-max {self.agreement:.1%} of {self.samples}"


def answers(content: bytes, samples: Mapping[str, np.ndarray], *, debug: bool = False) -> list[np.ndarray]:
    """Returns a file's outputs in real numbers, in the file's order: (n, ...) float32 each, logits where it has any.

    Args:
        content: bytes of a float or integer file with a signature.
        samples: by input name, (n, ...), real numbers.
        debug: whether the interpreter's log lines are shown. Default: False.
    """
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    producer = {int(index): operator for operator in graph.operators for index in operator.outputs}
    judged = []
    for output in graph.outputs:
        index = int(output)
        while index in producer and flatbuffer.op_name(model, producer[index]) in _MONOTONE:
            index = int(producer[index].inputs[0])
        judged.append(index)
    values = capture(model, samples, judged, debug=debug)
    return [values[index] for index in judged]


def score(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> Score:
    """Returns how near outputs are to the wanted ones.

    Args:
        got: the outputs, (n, ...) float each.
        wanted: the reference, same order and shapes.

    Examples:
        >>> wanted = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> print(score([0.9 * wanted], [wanted]))
        20.0 dB, cosine 1.00000, same arg-max 100.0% of 2
    """
    ratios, cosines, agreements = [], [], []
    for reference, given in zip(wanted, got, strict=True):
        signal, answer = reference.astype(np.float64), given.astype(np.float64)
        power, noise = float((signal**2).sum()), float(((answer - signal) ** 2).sum())
        ratio = 10 * np.log10(max(power, _SILENCE) / max(noise, _SILENCE))
        ratios.append(float(np.clip(ratio, -_CEILING_DB, _CEILING_DB)))
        lengths = np.sqrt(power * float((answer**2).sum()))
        cosines.append(float((signal * answer).sum() / lengths) if lengths > 0 else float(noise == 0))
        if signal.ndim > 1 and signal.shape[-1] > 1:
            classes = signal.shape[-1]
            agreements.append(argmax_agreement(answer.reshape(-1, classes), signal.reshape(-1, classes)))
    samples = len(wanted[0])
    agreement = float(np.mean(agreements)) if agreements else 1.0
    return Score(float(np.mean(ratios)), float(np.mean(cosines)), agreement, samples)
