"""Are there classes in which two files disagree far more than elsewhere?

Rounding turns a few answers in every class. A file that quantization was meant to change turns those of one class, or turns
answers into one class. Only what the samples show is seen: a trigger that is in none of them is not found.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ...errors import DataError

__all__ = ["ClassDisagreement", "Disagreement", "disagreement"]

SIGNIFICANCE = 0.01
FAR_MORE = 3.0


@dataclasses.dataclass(frozen=True)
class ClassDisagreement:
    """A class in which two files disagree far more than elsewhere.

    Args:
        number: of the class.
        side: "from": of the samples that the first file puts into it; "into": of those that the second file does.
        disagreements: how many are answered otherwise by the other file.
        samples: of how many.
        elsewhere: the share in all other classes.
        p_value: how likely so many are by chance, after Bonferroni's correction.

    Examples:
        >>> print(ClassDisagreement(7, "from", 20, 50, 0.01, 1e-9))
        class 7: 20 of 50 samples that the first file puts into it are answered otherwise, elsewhere 1.0% (p = 1e-09)
    """

    number: int
    side: Literal["from", "into"]
    disagreements: int
    samples: int
    elsewhere: float
    p_value: float

    def __str__(self) -> str:
        whose = {"from": "first file puts into it are answered", "into": "second file puts into it were answered"}
        return (
            f"class {self.number}: {self.disagreements} of {self.samples} samples that the {whose[self.side]} otherwise, "
            f"elsewhere {self.elsewhere:.1%} (p = {self.p_value:.1g})"
        )


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """How often two files give different answers to the same samples.

    Args:
        disagreements: how many answers differ.
        samples: of how many.
        suspicious: the classes in which they differ far more than elsewhere.

    Examples:
        >>> Disagreement(3, 300, ()).share
        0.01
    """

    disagreements: int
    samples: int
    suspicious: tuple[ClassDisagreement, ...]

    @property
    def share(self) -> float:
        """The share of answers that differ."""
        return self.disagreements / self.samples

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Disagreement":
        """Returns what ``to_json`` wrote."""
        found = tuple(ClassDisagreement(**each) for each in fields["suspicious"])
        return cls(fields["disagreements"], fields["samples"], found)


def disagreement(first: np.ndarray, second: np.ndarray, *, classes: int) -> Disagreement:
    """Returns how often answers differ, and the classes in which they do far more than elsewhere.

    For each class Fisher's exact test, one-sided, of the disagreements in it against those in all others, once for the classes of
    the first file's answers and once for those of the second's; p-values are multiplied by the number of tests (Bonferroni).
    A class is named where p is below 0.01 and the share at least three times that elsewhere.

    Reference: Hong et al., "Qu-ANTI-zation: Exploiting Quantization Artifacts for Achieving Adversarial Outcomes", 2021,
    https://arxiv.org/abs/2110.13541 (such attacks, against which they know no such test).

    Args:
        first: the reference's classes, shape (n,), integers.
        second: the other file's, likewise.
        classes: how many there are.

    Raises:
        DataError: other numbers of answers, or none.

    Examples:
        >>> first = np.repeat(np.arange(10), 50)
        >>> second = np.where((first == 7) & (np.arange(500) % 2 == 0), 3, first)
        >>> [(each.number, each.side, each.disagreements) for each in disagreement(first, second, classes=10).suspicious]
        [(3, 'into', 25), (7, 'from', 25)]
    """
    from scipy.stats import hypergeom

    if len(first) != len(second) or not len(first):
        raise DataError(f"Two files answer the same samples. Received: {len(first)} and {len(second)} answers.")
    differ = first != second
    total, samples = int(differ.sum()), len(first)
    sides: tuple[tuple[Literal["from", "into"], np.ndarray], ...] = (("from", first), ("into", second))
    found = []
    for number in range(classes):
        for side, answers in sides:
            inside = answers == number
            count, turned = int(inside.sum()), int(differ[inside].sum())
            if not turned or count == samples:
                continue
            chance = float(hypergeom.sf(turned - 1, samples, total, count)) * classes * len(sides)
            elsewhere = (total - turned) / (samples - count)
            if chance < SIGNIFICANCE and turned / count >= FAR_MORE * elsewhere:
                found.append(ClassDisagreement(number, side, turned, count, elsewhere, chance))
    return Disagreement(total, samples, tuple(found))
