"""What a robustness check found, as values, JSON and text."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...metrics import wilson_interval
from ...system.arguments import repr_without_defaults
from ...system.text_tables import MISSING, columns, fields
from .class_disagreement import Disagreement
from .pixel_range import PixelRange

__all__ = ["AttackOptions", "FileRobustness", "NoiseAnswers", "Robustness", "Share"]


@dataclasses.dataclass(frozen=True)
class AttackOptions:
    """How models are attacked.

    Args:
        eps: largest change of a value, as a share of the range from black to white, in [0, 1]. Default: 8 / 255.
        steps: of PGD from each start. Default: 20.
        restarts: starts of PGD. Default: 2.
        queries: answers that Square asks of each sample at most. Default: 500.
        samples: how many are attacked and corrupted, drawn at random where there are more. Default: 500.
        seed: of the draw, of starts, of squares and of noise. Default: 0.

    Raises:
        ValueError: a number out of range.

    Examples:
        >>> AttackOptions(eps=0.1)
        AttackOptions(eps=0.1)
        >>> AttackOptions(eps=8)
        Traceback (most recent call last):
        ...
        ValueError: eps must be in [0, 1], a share of the range from black to white. Received: eps=8. Write 8 / 255 for 8 of 255.
    """

    eps: float = 8 / 255
    steps: int = 20
    restarts: int = 2
    queries: int = 500
    samples: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise ValueError(
                f"eps must be in [0, 1], a share of the range from black to white. Received: eps={self.eps}. "
                "Write 8 / 255 for 8 of 255."
            )
        for name in ("steps", "restarts", "queries", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative. Received: seed={self.seed}.")

    __repr__ = repr_without_defaults


@dataclasses.dataclass(frozen=True)
class Share:
    """How many of the samples are answered rightly.

    Args:
        right: how many.
        samples: of how many, at least one.

    Examples:
        >>> print(Share(8, 10))
        80.0% (49-94)
    """

    right: int
    samples: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.right / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its 95 % interval (Wilson)."""
        return wilson_interval(self.right, self.samples)

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values, with share and interval."""
        return {**vars(self), "value": self.value, "interval": list(self.interval)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Share":
        """Returns what ``to_json`` wrote."""
        return cls(fields["right"], fields["samples"])

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({100 * low:.0f}-{100 * high:.0f})"


@dataclasses.dataclass(frozen=True)
class NoiseAnswers:
    """What a model answers to pictures of uniform noise, on which it should be unsure.

    Args:
        confidence: mean probability of the answer.
        most_common: the class that is answered most.
        share: how often.
        samples: how many pictures.
    """

    confidence: float
    most_common: int
    share: float
    samples: int


@dataclasses.dataclass(frozen=True)
class FileRobustness:
    """How one file answers under attack and under bad conditions.

    Args:
        name: of the file.
        sha256: of its bytes.
        clean: on all samples.
        attacked: by attack, on those that are attacked: "none", "FGSM", "PGD", "Square".
        corrupted: by corruption, at strengths 1 to 5.
        calibration_error: expected calibration error on all samples, in [0, 1].
        confidence: mean probability of the answer on all samples.
        noise: what it answers to noise.
        disagreement: with the first file; None for the first.
    """

    name: str
    sha256: str
    clean: Share
    attacked: Mapping[str, Share]
    corrupted: Mapping[str, tuple[Share, ...]]
    calibration_error: float
    confidence: float
    noise: NoiseAnswers
    disagreement: Disagreement | None = None

    def mean_corrupted(self, name: str) -> Share:
        """Returns the accuracy under one corruption over all strengths; its interval is too narrow, as samples recur."""
        shares = self.corrupted[name]
        return Share(sum(share.right for share in shares), sum(share.samples for share in shares))

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            **vars(self),
            "clean": self.clean.to_json(),
            "attacked": {name: share.to_json() for name, share in self.attacked.items()},
            "corrupted": {name: [each.to_json() for each in shares] for name, shares in self.corrupted.items()},
            "noise": vars(self.noise),
            "disagreement": None if self.disagreement is None else self.disagreement.to_json(),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "FileRobustness":
        """Returns what ``to_json`` wrote."""
        other = fields["disagreement"]
        return cls(
            **{
                **fields,
                "clean": Share.from_json(fields["clean"]),
                "attacked": {name: Share.from_json(each) for name, each in fields["attacked"].items()},
                "corrupted": {n: tuple(Share.from_json(s) for s in each) for n, each in fields["corrupted"].items()},
                "noise": NoiseAnswers(**fields["noise"]),
                "disagreement": None if other is None else Disagreement.from_json(other),
            }
        )


@dataclasses.dataclass(frozen=True)
class Robustness:
    """How files answer under attack and under bad conditions, side by side.

    Args:
        files: the first is the reference that others may disagree with.
        white_box: accuracy of the Keras model whose gradients were used, by attack; None without one.
        pixels: what the inputs' black and white are.
        options: how the models were attacked.
        data_sha256: of samples and labels.
        skipped: what was left out, with the reason.
    """

    files: tuple[FileRobustness, ...]
    white_box: Mapping[str, Share] | None
    pixels: PixelRange
    options: AttackOptions
    data_sha256: str
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values."""
        white = self.white_box
        return {
            "files": [file.to_json() for file in self.files],
            "white_box": None if white is None else {name: share.to_json() for name, share in white.items()},
            "pixels": {"low": list(self.pixels.low), "high": list(self.pixels.high)},
            "options": vars(self.options),
            "data_sha256": self.data_sha256,
            "skipped": dict(self.skipped),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Robustness":
        """Returns what ``to_json`` wrote.

        Examples:
            >>> one = FileRobustness("a", "0", Share(1, 2), {}, {}, 0.0, 0.5, NoiseAnswers(0.5, 0, 1.0, 8))
            >>> found = Robustness((one,), None, PixelRange((0,), (1,)), AttackOptions(), "1")
            >>> Robustness.from_json(found.to_json()) == found
            True
        """
        white, pixels = fields["white_box"], fields["pixels"]
        return cls(
            tuple(FileRobustness.from_json(each) for each in fields["files"]),
            None if white is None else {name: Share.from_json(share) for name, share in white.items()},
            PixelRange(tuple(pixels["low"]), tuple(pixels["high"])),
            AttackOptions(**fields["options"]),
            fields["data_sha256"],
            fields["skipped"],
        )

    @property
    def suspicions(self) -> tuple[str, ...]:
        """One sentence for each class in which a file disagrees with the first far more than elsewhere."""
        return tuple(
            f"{file.name}, {each}"
            for file in self.files
            if file.disagreement is not None
            for each in file.disagreement.suspicious
        )

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """How it was found, as pairs of a word and a text."""
        first, options = self.files[0], self.options
        attacked = next(iter(first.attacked.values())).samples if first.attacked else 0
        how = [f"eps {options.eps:.4g} of the range {self.pixels}, largest change of any value", f"seed {options.seed}"]
        if self.white_box is not None:
            how.insert(1, f"PGD {options.restarts} starts of {options.steps} steps")
        how.insert(-1, f"Square {options.queries} queries")
        pairs = [
            ("data", f"{first.clean.samples} samples, {attacked} of them attacked and corrupted"),
            ("attacks", ", ".join(how)),
        ]
        if self.white_box is not None:
            found = ", ".join(f"{name} {share}" for name, share in self.white_box.items() if name != "none")
            pairs.append(("keras", f"the Keras model, whose gradients made FGSM and PGD: {found}"))
        pairs += [("left out", f"{name}: {reason}") for name, reason in self.skipped.items()]
        pairs += [("suspect", text) for text in self.suspicions]
        return tuple(pairs)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """What a table shows: a name and one text for each file. Under corruption the mean of all strengths."""
        first = self.files[0]
        attacks = [name for name in first.attacked if name != "none"]
        return [
            ("clean", *(str(file.clean) for file in self.files)),
            *((name, *(str(file.attacked[name]) for file in self.files)) for name in attacks),
            *((name, *(f"{file.mean_corrupted(name).value:.1%}" for file in self.files)) for name in first.corrupted),
            ("calibration error", *(f"{file.calibration_error:.3f}" for file in self.files)),
            ("sure of noise", *(f"{file.noise.confidence:.1%}" for file in self.files)),
            ("one class of noise", *(f"{file.noise.share:.1%}" for file in self.files)),
            (
                "disagreement",
                *(MISSING if f.disagreement is None else f"{f.disagreement.share:.1%}" for f in self.files),
            ),
        ]

    @property
    def headings(self) -> tuple[str, ...]:
        """Above the columns of ``rows``: the files' names, numbered where two are the same."""
        names = [Path(file.name).stem for file in self.files]
        return ("accuracy under", *(f"{n} {i}" if names.count(n) > 1 else n for i, n in enumerate(names, start=1)))

    def __str__(self) -> str:
        return "\n".join([*columns(self.headings, self.rows, gap=2), "", *fields(self.facts)])
