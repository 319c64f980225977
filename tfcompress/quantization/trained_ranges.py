"""The activation ranges a training learned, as a value that travels inside the saved model.

``TrainedRanges`` is written as a small JSON asset into the ``.keras`` archive and carries a hash of the weights it was
learned with, so that ranges of other weights are noticed. Imports neither Keras nor TensorFlow.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelError
from ..system.documents import parse_json
from .targets import TARGETS

__all__ = ["ASSET", "RangeAsset", "TrainedRanges", "hash_weights", "read_archive", "trained_ranges"]

ASSET = "tfcompress_ranges.json"
_FORMAT = 1


@dataclass(frozen=True)
class TrainedRanges:
    """Ranges of a model's points and what they belong to.

    Args:
        ranges: (lowest, highest) by point name, lowest <= 0 <= highest.
        weights_sha256: ``hash_weights`` of the model when the ranges were learned.
        target: name of the target that they were learned for. Default: "cpu-int8".
        rounding: its ``Target.rounding``. Default: that of "cpu-int8".
        weights: largest absolute value by weight ("layer/kernel"), one for each of its scales, where training learned
            them; other weights reach to their own largest value. Default: none.

    Examples:
        >>> stored = TrainedRanges({"input:image": (0.0, 1.0)}, "0" * 64)
        >>> TrainedRanges.from_json(stored.to_json()) == stored
        True
    """

    ranges: Mapping[str, tuple[float, float]]
    weights_sha256: str
    target: str = "cpu-int8"
    rounding: Mapping[str, Any] = field(default_factory=lambda: TARGETS["cpu-int8"].rounding)
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the asset's text."""
        ranges = {name: list(pair) for name, pair in self.ranges.items()}
        record = {"format": _FORMAT, "weights_sha256": self.weights_sha256, "ranges": ranges}
        record |= {"target": self.target, "rounding": dict(self.rounding)}
        if self.weights:
            record["weights"] = {name: list(bounds) for name, bounds in self.weights.items()}
        return json.dumps(record, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> "TrainedRanges":
        """Returns the value that ``to_json`` wrote.

        Raises:
            ModelError: the text is something else.
        """
        try:
            record = parse_json(text)
            if record["format"] != _FORMAT:
                raise ModelError(f"Trained ranges must be of format {_FORMAT}. Received: {record['format']!r}.")
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in record["ranges"].items()}
            sha256 = str(record["weights_sha256"])
            default = TARGETS["cpu-int8"]
            target, rounding = str(record.get("target", default.name)), dict(record.get("rounding", default.rounding))
            weights = {
                str(name): tuple(float(bound) for bound in bounds) for name, bounds in record.get("weights", {}).items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ModelError(f"The asset {ASSET} of the model is damaged: {error}. Save the model again.") from error
        for name, (low, high) in ranges.items():
            if not (np.isfinite(low) and np.isfinite(high) and low <= 0 <= high):
                raise ModelError(
                    f"A trained range must be finite and contain zero. Received: {name} = [{low}, {high}]."
                )
        for name, bounds in weights.items():
            if not bounds or not all(np.isfinite(bound) and bound >= 0 for bound in bounds):
                raise ModelError(f"A trained bound of a weight must be finite and not negative. Received: {name}.")
        return cls(ranges, sha256, target, rounding, weights)

    def clipped(self, name: str, values: np.ndarray, channel_axes: tuple[int, ...]) -> np.ndarray | None:
        """Returns a weight within its trained bounds, None for one that reaches to its own largest value.

        Args:
            name: "layer/kernel".
            values: the weight, float32.
            channel_axes: the axes that have a bound for each index, where there is more than one bound.

        Raises:
            ModelError: the bounds are those of another shape.
        """
        bounds = self.weights.get(name)
        if bounds is None:
            return None
        kept = {axis % values.ndim for axis in channel_axes} if len(bounds) > 1 else set()
        shape = [size if axis in kept else 1 for axis, size in enumerate(values.shape)]
        if int(np.prod(shape)) != len(bounds):
            raise ModelError(
                f"The trained bounds must be those of the weight. Received: {len(bounds)} for {name} of shape "
                f"{values.shape}. Train with QuantizationAwareTraining again."
            )
        limit = np.asarray(bounds, np.float32).reshape(shape)
        return np.clip(values, -limit, limit)

    def __repr__(self) -> str:
        return f"TrainedRanges({len(self.ranges)} points, weights {self.weights_sha256[:8]})"


class RangeAsset:
    """What ``model.save`` calls to write the ranges: the asset's name in a folder that Keras gives."""

    def __init__(self, current: Callable[[], TrainedRanges | None]) -> None:
        self._current = current

    def ranges(self) -> TrainedRanges | None:
        """Returns the ranges as they are now, None before anything was learned."""
        return self._current()

    def __call__(self, folder: str) -> None:
        stored = self._current()
        if stored is not None:
            with open(os.path.join(folder, ASSET), "w", encoding="utf-8") as file:
                file.write(stored.to_json())


def trained_ranges(model: Any) -> TrainedRanges | None:
    """Returns the ranges that a callback learned on ``model`` in this process, None where there are none.

    Args:
        model: a Keras model.
    """
    asset = vars(model).get("save_assets")
    return asset.ranges() if isinstance(asset, RangeAsset) else None


def hash_weights(weights: Iterable[np.ndarray]) -> str:
    """Returns the SHA-256 over shapes, dtypes and values of ``weights`` in their order, as 64 hexadecimal digits.

    Examples:
        >>> hash_weights([np.zeros(3)]) == hash_weights([np.zeros(3)]) != hash_weights([np.ones(3)])
        True
    """
    digest = hashlib.sha256()
    for array in weights:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_archive(path: str | os.PathLike) -> TrainedRanges | None:
    """Returns the ranges inside a ``.keras`` file, None where there are none or the file is no archive.

    Raises:
        ModelError: the asset is there but damaged.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            name = f"assets/{ASSET}"
            text = archive.read(name) if name in archive.namelist() else None
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError) as error:
        raise ModelError(f"The asset {ASSET} of {path} is damaged: {error}. Save the model again.") from error
    return None if text is None else TrainedRanges.from_json(text)
