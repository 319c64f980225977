"""Samples from TFRecord files of ``tf.train.Example`` records.

A feature map says which feature holds which input and which label, and how. ``tfrecord_frames`` finds the records, TensorFlow's
``Example`` reads each; encoded pictures go through ``images`` as those in a folder do.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, reason
from ...system.documents import is_yaml_name, read_document
from ..images import ImageReader
from ..samples import Block, Samples
from ..specs import InputSpec, SampleSpec, check_shape
from .names import LABEL_NAMES, choose_labels
from .tfrecord_frames import damaged, read_frames

__all__ = ["SUFFIXES", "Feature", "TFRecords", "read", "read_feature_map"]

SUFFIXES = (".tfrecord", ".tfrecords")
_KINDS = ("values", "image", "bytes")
_KEYS = {"feature", "kind", "dtype", "shape"}


@dataclass(frozen=True)
class Feature:
    """Where one input lies in a record.

    Args:
        feature: the feature's name.
        kind: "values" for a float or integer list, "image" for an encoded picture, "bytes" for the raw bytes of an
            array. Default: "values".
        dtype: element type of raw bytes, little endian. Default: the input's.
        shape: shape of one sample. Default: the input's.

    Raises:
        ValueError: an unknown kind.

    Examples:
        >>> Feature("image/encoded", "image").kind
        'image'
    """

    feature: str
    kind: str = "values"
    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        given = [f"{key}={getattr(self, key)!r}" for key in ("dtype", "shape") if getattr(self, key) is not None]
        kind = [] if self.kind == "values" else [f"{self.kind!r}"]
        return f"Feature({', '.join([f'{self.feature!r}', *kind, *given])})"

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}. Received: kind={self.kind!r}.")
        if self.dtype is not None and np.dtype(self.dtype).kind not in "biuf":
            raise ValueError(f"dtype must be of numbers. Received: dtype={self.dtype!r}.")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))


def read_feature_map(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, Feature]:
    """Returns the feature of each input, from a dictionary or a JSON or YAML file of one.

    ``{"image": {"feature": "image/encoded", "kind": "image"}, "age": "age"}``: a text alone is the name of a list of
    values.

    Args:
        source: by input name a ``Feature``, a feature's name, or a dictionary of a ``Feature``'s fields.

    Raises:
        DataError: the file is missing, not JSON or YAML, or says something else.

    Examples:
        >>> read_feature_map({"x": "values", "image": {"feature": "png", "kind": "image"}})["x"]
        Feature('values')
    """
    place = "the feature map"
    if isinstance(source, str | os.PathLike):
        place = str(source)
        source = _loaded(Path(source))
    if not isinstance(source, Mapping) or not source:
        raise DataError(
            f"A feature map must name the feature of each input. Received: {place} without any. "
            'Write {"INPUT": {"feature": "NAME", "kind": "image"}}.'
        )
    return {str(name): _feature(name, entry, place) for name, entry in source.items()}


def _loaded(path: Path) -> Any:
    try:
        return read_document(path)
    except OSError as error:
        raise DataError(f"The feature map must be readable. Received: {path} ({error.strerror}).") from error
    except ValueError as error:
        form = "YAML" if is_yaml_name(path) else "JSON"
        hint = "" if is_yaml_name(path) else " Name it .yaml if it is."
        raise DataError(f"A feature map must be {form}. Received: {path} ({reason(error)}).{hint}") from error


def _feature(name: str, entry: Any, place: str) -> Feature:
    if isinstance(entry, Feature):
        return entry
    try:
        fields = {"feature": entry} if isinstance(entry, str) else dict(entry)
        if "feature" not in fields or set(fields) - _KEYS:
            raise ValueError(f"its keys are {', '.join(map(str, fields)) or 'none'}")
        return Feature(**fields)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Each input's entry must be a feature's name or an object with feature, kind, dtype and shape. "
            f"Received: {name!r} in {place} ({reason(error)})."
        ) from error


@dataclass(frozen=True)
class TFRecords:
    """TFRecord files of ``tf.train.Example`` as a source of samples, read in the order of the files.

    Args:
        paths: a file, a folder of ``.tfrecord`` and ``.tfrecords`` files, or several of them. Files that end in ``.gz``
            are unpacked while they are read.
        features: which feature feeds which input, by input name, or the path of a JSON or YAML file that says so; see
            ``read_feature_map``. Labels have an entry "y" (of boxes: "boxes" and "classes") and are no array of pictures.

    Raises:
        DataError: the feature map is missing or malformed.

    Examples:
        >>> TFRecords("people.tfrecord", {"age": "person/age"})
        TFRecords(paths=('people.tfrecord',), features={'age': Feature('person/age')})
    """

    paths: tuple[str, ...]
    features: Mapping[str, Feature]

    def __init__(
        self,
        paths: str | os.PathLike | Sequence[str | os.PathLike],
        features: str | os.PathLike | Mapping[str, Any],
    ) -> None:
        several = [paths] if isinstance(paths, str | os.PathLike) else paths
        object.__setattr__(self, "paths", tuple(os.fspath(path) for path in several))
        object.__setattr__(self, "features", read_feature_map(features))


def read(source: TFRecords, spec: SampleSpec) -> Samples:
    """Returns the samples of TFRecord files, read in the order of the files.

    Args:
        source: the files and the feature of each input.
        spec: what is read.

    Raises:
        DataError: the map has not each input, or a file is missing; when it is read: a file is damaged, a record lacks a
            feature, or it does not fit.
    """
    features = source.features
    inputs = {each.name: each for each in spec.inputs}
    labels = choose_labels(features, spec)
    if not set(inputs) <= set(features) or not set(features) - set(inputs) <= set(LABEL_NAMES):
        raise DataError(
            f"A feature map must name each input once: {', '.join(inputs)}. Received: {', '.join(features)}. "
            "Rename its keys."
        )
    if any(features[name].kind == "image" for name in labels.values()):
        raise DataError(
            f"Labels are values or bytes. Received: an image for {', '.join(labels.values())}. Correct kind in the map."
        )
    files = _files(source.paths)
    images = {name: ImageReader(inputs[name], spec.scaling) for name in inputs if features[name].kind == "image"}

    def blocks(size: int) -> Iterator[Block]:
        number = 0
        for file in files:
            for record in _records(file):
                place = f"record {number} of {file}"
                found = {
                    name: check_shape(_read(record, features[name], each, images.get(name), place), each, place=place)
                    for name, each in inputs.items()
                }
                yield Block(found, {key: _label(record, features[name], name, place) for key, name in labels.items()})
                number += 1

    return Samples(blocks, spec, is_scaled=bool(images))


def _files(paths: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
    missing = [path for path in files if not path.is_file()]
    if missing or not files:
        raise DataError(f"TFRecord files must exist. Received: {missing[0] if missing else 'none'}. Check the path.")
    return files


def _records(file: Path) -> Iterator[Any]:
    import tensorflow as tf

    for content in read_frames(file):
        try:
            record = tf.train.Example.FromString(content).features.feature
        except Exception as error:
            if type(error).__name__ != "DecodeError":  # google.protobuf's, which is no dependency of this package
                raise
            raise damaged(file, "a record is no tf.train.Example") from error
        yield record


def _read(record: Any, feature: Feature, spec: InputSpec, images: ImageReader | None, place: str) -> np.ndarray:
    """Returns one sample, (1, ...) for a picture, else (...)."""
    entry = _entry(record, feature, f"input {spec.name!r}", place)
    if images is not None:
        return images.read(io.BytesIO(_only_bytes(entry, place)), place=place)
    array = _values(entry, np.dtype(feature.dtype or spec.dtype), place)
    return _shaped(array, feature, tuple(-1 if size is None else size for size in spec.shape[1:]), place)


def _label(record: Any, feature: Feature, name: str, place: str) -> np.ndarray:
    """Returns one label with a batch axis: a number where it is one value and the map says no shape."""
    array = _values(_entry(record, feature, f"label {name!r}", place), np.dtype(feature.dtype or np.uint8), place)
    return _shaped(array, feature, () if array.size == 1 else (-1,), place)[None]


def _entry(record: Any, feature: Feature, what: str, place: str) -> Any:
    if feature.feature not in record:
        raise DataError(
            f"Each record must have the feature {feature.feature!r} of {what}. Received: {place} with "
            f"{', '.join(sorted(record)) or 'none'}. Correct the feature map."
        )
    entry = record[feature.feature]
    form = entry.WhichOneof("kind") or "no"
    if (form == "bytes_list") != (feature.kind != "values"):
        raise DataError(
            f"The feature {feature.feature!r} must hold {feature.kind}. Received: {place} with a {form}. "
            f"Correct kind in the feature map ({', '.join(_KINDS)})."
        )
    return entry


def _only_bytes(entry: Any, place: str) -> bytes:
    if len(entry.bytes_list.value) != 1:
        raise DataError(
            f"A feature of bytes must hold one entry. Received: {place} with {len(entry.bytes_list.value)}."
        )
    return entry.bytes_list.value[0]


def _values(entry: Any, dtype: np.dtype, place: str) -> np.ndarray:
    """Returns the numbers of a record's feature in one row; ``dtype`` is that of raw bytes."""
    form = entry.WhichOneof("kind")
    if form != "bytes_list":
        return np.array(getattr(entry, form).value if form else [], np.int64 if form == "int64_list" else np.float32)
    content = _only_bytes(entry, place)
    dtype = dtype.newbyteorder("<")
    if len(content) % dtype.itemsize:
        raise DataError(f"Bytes must be whole values of {dtype}. Received: {place} with {len(content)} bytes.")
    return np.frombuffer(content, dtype)


def _shaped(array: np.ndarray, feature: Feature, shape: tuple[int, ...], place: str) -> np.ndarray:
    shape = feature.shape or shape
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise DataError(
            f"The feature {feature.feature!r} must hold a sample of shape {shape}. Received: {place} with {array.size} "
            "values. Give shape in the feature map."
        ) from error
