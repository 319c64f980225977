"""What a conversion returns: the finished file and an honest account of what was done to it.

Values only; how they come about is in ``conversion``.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import Calibration
from ..comparison import LayerReport, layer_reports
from ..quantization import Target
from ..system import write_atomically
from ..system.text_tables import fields
from . import verification
from .repair import Step

__all__ = ["Conversion", "PointCounts"]

LABEL = 9  # columns of the words before the facts
_ENDING = re.compile(r"\.(keras|h5|hdf5|tflite|pt2|pt)$")
_LAYER_SAMPLES = 4  # more change the losses by less than they differ between samples


@dataclass(frozen=True)
class PointCounts:
    """Where the ranges of a file's integer tensors came from.

    Args:
        trained: learned by ``QuantizationAwareTraining``.
        calibrated: measured on representative data.
        missing: without a range; 0 in every finished integer file.
    """

    trained: int = 0
    calibrated: int = 0
    missing: int = 0

    def __str__(self) -> str:
        return f"{self.trained} trained, {self.calibrated} calibrated, {self.missing} missing"


@dataclass(frozen=True)
class Conversion:
    """A finished ``.tflite`` file and what was done to it.

    Args:
        tflite: the bytes of the file.
        source: the model it came from.
        target: what it is for.
        points: where the ranges came from; all 0 for a float target.
        contents: ops, float tensors, sizes and sparsity of the finished file.
        parity: agreement with the source model on the representative samples, None without samples.
        calibration: the measured ranges, None when none were needed.
        skipped: layers with tensors that training could not see, with the reason.
        backend: which quantizer made the file, None for a float target.
        repairs: what was tried for the accuracy, and whether it was kept.
        notes: what lowering had to decide, one line each.
        warnings: what the representative data looks like and should not, one line each.
        hub: the float file that it was quantized from, for ``layers``.
        samples: a few representative samples by input name, for ``layers``; None without data.
        origins: where the range of each of the hub's tensors came from: "trained", "calibrated", "prescribed" or
            "follows".
    """

    tflite: bytes = field(repr=False)
    source: str
    target: Target
    points: PointCounts
    contents: verification.Contents
    parity: verification.Parity | None = None
    calibration: Calibration | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    backend: str | None = None
    repairs: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hub: bytes = field(default=b"", repr=False)
    samples: Mapping[str, np.ndarray] | None = field(default=None, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What tables, messages and records call the file: the model's name and the target's."""
        model = self.source.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return f"{_ENDING.sub('', model)} {self.target.name}"

    @property
    def ops(self) -> Mapping[str, int]:
        """Number of each op in the file."""
        return self.contents.ops

    @property
    def float_tensors(self) -> tuple[str, ...]:
        """Names of the float tensors in the file."""
        return self.contents.float_tensors

    @property
    def size_bytes(self) -> int:
        """Size of the file in bytes."""
        return self.contents.size_bytes

    def layers(self, *, debug: bool = False) -> tuple[LayerReport, ...]:
        """Returns a row for each operator: precision, range and its origin, and what it loses against the float file.

        Runs both files on the representative samples; without samples the losses are left out.

        Args:
            debug: whether the interpreter's log lines are shown. Default: False.
        """
        samples = self.samples
        if samples is not None:
            samples = {name: values[:_LAYER_SAMPLES] for name, values in samples.items()}
        measured = self.calibration
        observers = {
            name: measured.observer_of(name)
            for name, origin in self.origins.items()
            if measured is not None and origin == "calibrated"
        }
        return layer_reports(
            self.hub or self.tflite, self.tflite, samples, self.origins, observers=observers, debug=debug
        )

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes the file under a temporary name and renames it.

        Args:
            path: where to.
            overwrite: whether an existing file may be replaced. Default: False.

        Raises:
            OutputError: the place does not exist, is not writable, or holds a file already.
        """
        return write_atomically(path, self.tflite, overwrite=overwrite)

    def to_json(self) -> dict[str, Any]:
        """Returns everything but the bytes, ready for ``json.dump``."""
        return {
            "source": self.source,
            "target": self.target.to_json(),
            "backend": self.backend,
            "points": dataclasses.asdict(self.points),
            "ops": dict(self.contents.ops),
            "float_tensors": list(self.contents.float_tensors),
            "size_bytes": self.contents.size_bytes,
            "gzip_bytes": self.contents.gzip_bytes,
            "weight_sparsity": dict(self.contents.sparsity),
            "parity": dataclasses.asdict(self.parity) if self.parity else None,
            "calibration": {
                "observer": self.calibration.observer,
                "overrides": dict(self.calibration.observers),
                "calibrator": self.calibration.calibrator,
                "samples": self.calibration.samples,
                "sampled": self.calibration.sampled,
                "data_sha256": self.calibration.data_sha256,
            }
            if self.calibration
            else None,
            "skipped": dict(self.skipped),
            "repairs": [dataclasses.asdict(step) for step in self.repairs],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The account as (word for it, text), in order; a word may come more than once."""
        found = [
            ("size", f"{self.contents.size_bytes:,} bytes, {self.contents.gzip_bytes:,} gzipped"),
            ("ops", ", ".join(f"{count} {name}" for name, count in self.contents.ops.items())),
        ]
        if self.target.integer:
            found.append(("points", str(self.points)))
            if self.calibration is not None:
                found.append(("ranges", str(self.calibration)))
            if self.backend != "tensorflow":
                found.append(("backend", str(self.backend)))
            found.append(("floats", f"{len(self.contents.float_tensors)} float tensors"))
        if self.contents.sparsity:
            zeros = np.mean(list(self.contents.sparsity.values()))
            found.append(("zeros", f"{zeros:.1%} of the weights, mean over {len(self.contents.sparsity)} tensors"))
        found.append(("parity", str(self.parity or "not checked: no representative data")))
        found += [("skipped", f"{name}: {reason}") for name, reason in self.skipped.items()]
        if self.target.by_rule:
            found.append(
                ("checked", f"by {self.target.name}'s documented rules; its compiler or driver was not run here")
            )
        found += [("repair", str(step)) for step in self.repairs]
        found += [("note", text) for text in self.notes]
        found += [("warning", text) for text in self.warnings]
        return tuple(found)

    def __str__(self) -> str:
        return "\n".join([f"{self.source} -> {self.target.name}", *fields(self.facts, label_width=LABEL)])
