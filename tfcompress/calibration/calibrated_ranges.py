"""The ranges that a calibration measured, as a value and as a file that can be read, compared and used again.

Which model and which data they belong to travels with them. Nothing is measured here.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..system import write_atomically
from ..system.documents import read_document

__all__ = ["Calibration"]

_FORMAT = 1


_SECOND_WORD = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True)
class Calibration:
    """Ranges of a float flatbuffer's tensors on some data.

    Args:
        ranges: (lowest, highest) by tensor name; zero lies inside.
        observer: the observer that made them, as text.
        samples: how many samples were seen.
        data_sha256: hash of the samples.
        model_sha256: ``fingerprints.model_sha256`` of the float flatbuffer. Default: "", unknown.
        observers: the observer of each tensor that has another one, by tensor name. Default: none.
        sampled: how many values of each tensor and sample were counted where it has more, besides its outermost ones; the
            extremes are always those of all values. Default: None, all values.
        indices: the place of each tensor among those of the file, by name: Keras numbers the names anew in each process.
            Default: none.
        calibrator: "tfcompress", or "converter" for TFLiteConverter's own. Default: "tfcompress".

    Examples:
        >>> Calibration({"x": (0.0, 1.0)}, "MinMax()", 100, "0" * 64)
        Calibration(1 tensors, MinMax(), 100 samples)
    """

    ranges: Mapping[str, tuple[float, float]]
    observer: str
    samples: int
    data_sha256: str
    model_sha256: str = ""
    observers: Mapping[str, str] = field(default_factory=dict)
    sampled: int | None = None
    indices: Mapping[str, int] = field(default_factory=dict)
    calibrator: str = "tfcompress"

    def __repr__(self) -> str:
        others = f" and {len(self.observers)} overrides" if self.observers else ""
        by = "" if self.calibrator == "tfcompress" else f", by the {self.calibrator}"
        return f"Calibration({len(self.ranges)} tensors, {self.observer}{others}, {self.samples} samples{by})"

    def observer_of(self, name: str) -> str:
        """Returns the short name of the observer that made a tensor's range.

        Args:
            name: of the tensor.

        Examples:
            >>> Calibration({"x": (0.0, 1.0)}, "MinMax()", 100, "0" * 64).observer_of("x")
            'min_max'
        """
        return _SECOND_WORD.sub("_", self.observers.get(name, self.observer).partition("(")[0]).lower()

    def __str__(self) -> str:
        other = sum(text != self.observer for text in self.observers.values())
        parts = [
            f"by {self.observer} on {self.samples} samples",
            *([f"{other} of {len(self.ranges)} tensors by other observers"] if other else []),
            *(
                [f"{self.sampled} values of each sample counted, its extremes exact"]
                if self.sampled is not None
                else []
            ),
            *(["measured by TFLiteConverter's own calibrator"] if self.calibrator != "tfcompress" else []),
            *([f"data {self.data_sha256[:12]}"] if self.data_sha256 else []),
        ]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns everything, ready for ``json.dump``."""
        return {
            "format": _FORMAT,
            "calibrator": self.calibrator,
            "observer": self.observer,
            "samples": self.samples,
            "sampled": self.sampled,
            "data_sha256": self.data_sha256,
            "model_sha256": self.model_sha256,
            "tensors": {
                name: {
                    "range": list(pair),
                    "observer": self.observers.get(name, self.observer),
                    "index": self.indices.get(name),
                }
                for name, pair in self.ranges.items()
            },
        }

    def save(self, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
        """Writes the ranges as JSON, whole or not at all.

        Args:
            path: where to.
            overwrite: whether an existing file may be replaced. Default: False.

        Raises:
            OutputError: the place does not exist, is not writable, or holds a file already.
        """
        return write_atomically(path, json.dumps(self.to_json(), indent=1) + "\n", overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Calibration":
        """Returns what ``save`` wrote.

        Raises:
            DataError: the file is missing, not JSON, of another format or damaged.

        Examples:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "ranges.json"
            >>> stored = Calibration({"x": (-0.1, 1.0)}, "MinMax()", 100, "0" * 64)
            >>> Calibration.load(stored.save(path)) == stored
            True
        """
        try:
            record = read_document(path)
        except OSError as error:
            raise DataError(
                f"The calibration must be readable. Received: {path} ({error.strerror}). Check the path."
            ) from error
        except ValueError as error:
            raise _damaged(path, str(error).splitlines()[0]) from error
        try:
            if not isinstance(record, dict) or "format" not in record:
                raise _damaged(path, "no key 'format'")
            if record["format"] != _FORMAT:
                raise DataError(
                    f"A calibration must be of format {_FORMAT}. Received: {path} of format {record['format']!r}. "
                    "Calibrate again."
                )
            return cls._from(record)
        except KeyError as error:
            raise _damaged(path, f"no key {error}") from error
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise _damaged(path, str(error).splitlines()[0]) from error

    @classmethod
    def _from(cls, record: Mapping[str, Any]) -> "Calibration":
        observer = str(record["observer"])
        ranges, observers, indices = {}, {}, {}
        for name, entry in record["tensors"].items():
            low, high = (float(end) for end in entry["range"])
            if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
                raise ValueError(f"the range of {name} is [{low}, {high}], which is not finite or lacks zero")
            ranges[name] = (low, high)
            if entry["observer"] != observer:
                observers[name] = str(entry["observer"])
            if entry["index"] is not None:
                indices[name] = int(entry["index"])
        samples, sampled = record["samples"], record["sampled"]
        if not isinstance(samples, int) or not isinstance(sampled, int | None):
            raise TypeError(f"samples and sampled are {samples!r} and {sampled!r}, which are no whole numbers")
        hashes = str(record["data_sha256"]), str(record["model_sha256"])
        return cls(ranges, observer, samples, *hashes, observers, sampled, indices, str(record["calibrator"]))


def _damaged(path: str | os.PathLike, reason: str) -> DataError:
    return DataError(
        f"A calibration must be JSON that --save_calibration wrote. Received: {path} ({reason}). Calibrate again."
    )
