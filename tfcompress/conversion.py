"""From a model to a finished ``.tflite`` file that says what was done to it: the whole conversion in one call.

Lowering, calibration, quantization and verification each have a module; this one puts them in order and decides where
each range comes from. It does not train and does not measure.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import calibration as calibrating
from . import data, lowering, quantization, sources, verification
from .errors import ConversionError, StrictError
from .files import write_atomically
from .observers import Observer
from .samples import Samples
from .targets import TARGETS, Target
from .targets import resolve as resolve_target

__all__ = ["Conversion", "PointCounts", "convert"]

Ranges = Literal["trained", "calibrated"]


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
    """

    tflite: bytes = field(repr=False)
    source: str
    target: Target
    points: PointCounts
    contents: verification.Contents
    parity: verification.Parity | None = None
    calibration: calibrating.Calibration | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

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
            "target": dataclasses.asdict(self.target),
            "points": dataclasses.asdict(self.points),
            "ops": dict(self.contents.ops),
            "float_tensors": list(self.contents.float_tensors),
            "size_bytes": self.contents.size_bytes,
            "gzip_bytes": self.contents.gzip_bytes,
            "weight_sparsity": dict(self.contents.sparsity),
            "parity": dataclasses.asdict(self.parity) if self.parity else None,
            "calibration": {
                "observer": self.calibration.observer,
                "samples": self.calibration.samples,
                "data_sha256": self.calibration.data_sha256,
            }
            if self.calibration
            else None,
            "skipped": dict(self.skipped),
        }

    def __str__(self) -> str:
        ops = ", ".join(f"{count} {name}" for name, count in self.contents.ops.items())
        lines = [
            f"{self.source} -> {self.target.name}",
            f"size     {self.contents.size_bytes:,} bytes, {self.contents.gzip_bytes:,} gzipped",
            f"ops      {ops}",
        ]
        if self.target.integer:
            lines.append(f"points   {self.points}")
            lines.append(f"floats   {len(self.contents.float_tensors)} float tensors")
        if self.contents.sparsity:
            zeros = np.mean(list(self.contents.sparsity.values()))
            lines.append(f"zeros    {zeros:.1%} of the weights, mean over {len(self.contents.sparsity)} tensors")
        lines.append(f"parity   {self.parity or 'not checked: no representative data'}")
        for name, reason in self.skipped.items():
            lines.append(f"skipped  {name}: {reason}")
        return "\n".join(lines)


def convert(
    model: Any,
    *,
    target: str | Target | None = None,
    representative_data: Any = None,
    ranges: Ranges | None = None,
    observer: str | Observer = "min_max",
    scaling: str | None = None,
    strict: bool | None = None,
    allow_unsafe: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
    debug: bool = False,
) -> Conversion:
    """Returns the ``.tflite`` file of a model for a target, with an account of what was done.

    Args:
        model: a Keras 3 model, or a path to a ``.keras``, ``.h5`` or float ``.tflite`` file or a SavedModel folder.
        target: a name from ``tfcompress.TARGETS`` or a ``Target``. Default: "cpu-int8" when there are trained ranges or
            representative data, else "dynamic".
        representative_data: what the model will see: ``.npy``, ``.npz``, a folder of images, arrays, or a
            ``tf.data.Dataset``; labels of (x, y) pairs are dropped. About 100 samples. Default: None.
        ranges: "trained" uses the ranges that training stored even if the weights changed since, "calibrated" ignores
            them. Default: the stored ones, refused when they belong to other weights.
        observer: how calibrated ranges are measured: "min_max", "moving_average" or an ``Observer``. Default: "min_max".
        scaling: how pixels of images become inputs: "zero_one", "minus_one_one", "raw". Default: see
            ``tfcompress.data.load_representative``.
        strict: whether a float tensor left in an integer file is an error. Default: the target's own rule, which is True
            for every integer target.
        allow_unsafe: whether a file may bring code or pickles along. Default: False.
        on_progress: called with (samples calibrated, total or None) now and then. Default: nothing.
        debug: whether TensorFlow's log lines are shown. Default: False.

    Raises:
        ModelError: the model cannot be opened.
        DataError: the representative data does not fit.
        ConversionError: no ranges for an integer target, ranges of other weights, or an op that TFLite does not have.
        StrictError: float tensors were left in an integer file.
        ValueError: an unknown target, observer or scaling.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> result = convert(model, target="cpu-int8", representative_data=np.random.rand(64, 4).astype("float32"))
        >>> result.ops, len(result.float_tensors), str(result.points)
        ({'FULLY_CONNECTED': 1}, 0, '0 trained, 2 calibrated, 0 missing')

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, https://arxiv.org/abs/1712.05877.
    """
    if ranges not in (None, "trained", "calibrated"):
        raise ValueError(f"ranges must be 'trained' or 'calibrated'. Received: ranges={ranges!r}.")
    chosen_observer = calibrating.resolve_observer(observer)
    chosen = resolve_target(target) if target is not None else None
    source = sources.open_source(model, allow_unsafe=allow_unsafe, debug=debug)
    if chosen is None:
        has_ranges = source.stored is not None and ranges != "calibrated"
        chosen = TARGETS["cpu-int8" if has_ranges or representative_data is not None else "dynamic"]
    stored = _usable_ranges(source, ranges) if chosen.integer else None
    if chosen.integer and stored is None and representative_data is None:
        raise ConversionError(_no_ranges(chosen, source.name))

    lowered = _lower(source, stored, chosen, debug)
    samples = None
    if representative_data is not None:
        samples = _Remembering(
            data.load_representative(representative_data, lowered.inputs, scaling=scaling, allow_pickle=allow_unsafe)
        )
    measured = None
    points = PointCounts()
    tflite = lowered.content
    if chosen.integer:
        found, measured, points = _find_ranges(
            lowered, samples, chosen, source.name, chosen_observer, on_progress, debug
        )
        tflite = quantization.quantize(lowered.content, found, chosen, debug=debug)
    contents = verification.walk(tflite)
    forbidden = verification.forbidden_floats(tflite, chosen)
    if forbidden and (chosen.strict if strict is None else strict):
        raise StrictError(
            f"A {chosen.name} file must not hold float tensors. Received {len(forbidden)}: {', '.join(forbidden[:5])}"
            f"{', ...' if len(forbidden) > 5 else ''}. Replace the layer, or pass strict=False (--nostrict) to keep them."
        )
    parity = None
    if samples is not None:
        parity = verification.parity(tflite, lowered.outputs, lowered.reference, samples.first(), debug=debug)
    return Conversion(
        tflite, source.name, chosen, points, contents, parity, measured, lowered.skipped if chosen.integer else {}
    )


def _usable_ranges(source: sources.Source, ranges: Ranges | None) -> Mapping[str, tuple[float, float]] | None:
    if ranges == "calibrated":
        return None
    if source.stored is None:
        if ranges == "trained":
            raise ConversionError(
                f"There must be trained ranges to use. Received: {source.name} without any. Train it with "
                "QuantizationAwareTraining, or pass representative data."
            )
        return None
    if not source.same_weights and ranges is None:
        raise ConversionError(
            f"The trained ranges must belong to the model's weights. Received: {source.name}, whose weights changed after "
            "quantization-aware training. Pass --ranges=calibrated with representative data to measure new ones, or "
            "--ranges=trained to use them all the same."
        )
    return source.stored.ranges


def _no_ranges(target: Target, name: str) -> str:
    return (
        f"{target.name} needs a range for each tensor. Received: {name} with neither trained ranges nor representative "
        "data. Pass --representative_data=FOLDER_OR_NPZ (representative_data=images), about 100 samples."
    )


def _lower(source: sources.Source, stored: Any, target: Target, debug: bool) -> lowering.Lowered:
    weights = "float32" if target.integer else target.weights
    return lowering.lower(source, ranges=stored, weights=weights, debug=debug)


def _find_ranges(
    lowered: lowering.Lowered,
    samples: "_Remembering | None",
    target: Target,
    name: str,
    observer: Observer,
    on_progress: Callable[[int, int | None], None] | None,
    debug: bool,
) -> tuple[dict[str, tuple[float, float]], calibrating.Calibration | None, PointCounts]:
    """Returns the range of every tensor, the calibration behind those that were measured, and the counts."""
    trained = quantization.complete_ranges(lowered.content, lowered.trained) if lowered.trained else {}
    needed = quantization.needed_ranges(lowered.content)
    missing = [tensor for tensor in needed if tensor not in trained]
    learned = len(needed) - len(missing)
    if not missing and trained:
        if samples is not None:
            samples.read_first()
        return trained, None, PointCounts(trained=learned)
    if samples is None:
        raise ConversionError(
            f"Every tensor of a {target.name} file needs a range. Received: {name} with {learned} trained and "
            f"{len(missing)} missing ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}). "
            "Pass --representative_data=FOLDER_OR_NPZ (representative_data=images) for those."
        )
    done = 0

    def on_batch(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, samples.count)

    measured = calibrating.calibrate(
        lowered.content,
        samples,  # type: ignore[arg-type]
        observer=observer,
        tensors=set(missing) if trained else None,
        on_batch=on_batch,
        debug=debug,
    )
    found = {**measured.ranges, **trained}
    return (
        quantization.complete_ranges(lowered.content, found),
        measured,
        PointCounts(trained=learned, calibrated=len(missing)),
    )


class _Remembering:
    """Samples that keep their first few for the parity check, so that a stream is read once."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._kept: list[dict[str, np.ndarray]] = []
        self.count = samples.count

    @property
    def sha256(self) -> str | None:
        """Hash of the samples; None until a stream was read to its end."""
        return self._samples.sha256

    def batches(self, size: int) -> Any:
        """Yields the batches of the samples and keeps the first ones."""
        kept = 0
        self._kept = []
        for batch in self._samples.batches(size):
            if kept < verification.PARITY_SAMPLES:
                self._kept.append({name: np.array(values) for name, values in batch.items()})
                kept += len(next(iter(batch.values())))
            yield batch

    def read_first(self) -> None:
        """Reads just the samples that parity needs."""
        for _ in self.batches(verification.PARITY_SAMPLES):
            break

    def first(self) -> dict[str, np.ndarray]:
        """Returns up to ``PARITY_SAMPLES`` samples by input name."""
        if not self._kept:
            self.read_first()
        return {
            name: np.concatenate([batch[name] for batch in self._kept])[: verification.PARITY_SAMPLES]
            for name in self._kept[0]
        }
