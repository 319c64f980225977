"""What a ``.tflite`` file says about itself: name, version, what its inputs were normalized with, its labels.

Written as TFLite metadata, which MediaPipe Tasks, Android Studio and the Task Library read: a buffer TFLITE_METADATA
inside the file and ``labels.txt`` in an uncompressed zip archive behind it. This is the last step of a conversion; no
tensor, op or signature changes.

Source: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata.
"""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ModelError
from ..system import repr_without_defaults
from . import flatbuffer, metadata_flatbuffer

__all__ = [
    "LABELS_FILE",
    "Metadata",
    "Normalisation",
    "StoredMetadata",
    "attach",
    "check_labels",
    "read",
    "stated_runtime",
]

ENTRY = "TFLITE_METADATA"
RUNTIME_ENTRY = "min_runtime_version"
RUNTIME_BYTES = 16  # TFLiteConverter pads the version with zeros to this length
PARSER_VERSION = "1.0.0"  # metadata_schema.fbs: all fields that are written here are of its first version
LABELS_FILE = "labels.txt"
AXIS_LABELS, VALUE_LABELS = 2, 3  # AssociatedFileType.TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS
COLOR_SPACES = {3: 1, 1: 2}  # channels -> ColorSpaceType RGB, GRAYSCALE
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip archive; the same file every time
LONGEST_LABELS = 1 << 26


@dataclass(frozen=True)
class Normalisation:
    """How pixels become an input: (pixel - mean) / std, with pixels 0 to 255.

    Args:
        mean: one number, or one for each channel.
        std: likewise, above 0.

    Raises:
        ValueError: an empty or not finite value, or a std that is not above 0.

    Examples:
        >>> Normalisation((127.5,), (127.5,))
        Normalisation(mean=(127.5,), std=(127.5,))
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            values = tuple(float(value) for value in np.atleast_1d(values))
            wrong = not values or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0)
            if wrong:
                rule = "finite numbers above 0" if name == "std" else "finite numbers"
                raise ValueError(f"{name} must be {rule}. Received: {name}={values}. Give one for each channel.")
            object.__setattr__(self, name, values)
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must be of one length. Received: {len(self.mean)} and {len(self.std)}.")


@dataclass(frozen=True, repr=False)
class Metadata:
    """What a file is to say about itself.

    Args:
        name: the model's name. Default: None, a Keras model's own, otherwise that of the function or file.
        version: its version, free text. Default: "1".
        labels: names of the classes in order of their index, packed into the file. Default: None.

    Raises:
        ValueError: a label that is no line of text.
        TypeError: one text instead of a list of labels.

    Examples:
        >>> Metadata("digits", labels=["zero", "one"])
        Metadata(name='digits', labels=('zero', 'one'))
    """

    name: str | None = None
    version: str = "1"
    labels: Sequence[str] | None = None

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        if isinstance(self.labels, str):
            raise TypeError(f"labels must be a list of names. Received: {self.labels!r}. Write [{self.labels!r}, ...].")
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(check_labels(list(self.labels))))


@dataclass(frozen=True)
class StoredMetadata:
    """What a file says about itself.

    Args:
        name: the model's name.
        version: its version, free text.
        description: what it does. Default: "".
        inputs: names of the inputs in the file's order. Default: none.
        outputs: names of the outputs, likewise. Default: none.
        normalisation: by input name, for the inputs that have one. Default: none.
        labels: names of the classes in order of their index, None without. Default: None.
        min_runtime_version: oldest TFLite runtime with all the file's ops, None where the file does not say. Default:
            None.
    """

    name: str
    version: str
    description: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    normalisation: Mapping[str, Normalisation] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    min_runtime_version: str | None = None


def attach(
    content: bytes,
    *,
    name: str,
    version: str,
    description: str = "",
    normalisation: Mapping[str, Normalisation] | None = None,
    labels: Sequence[str] | None = None,
    labelled: str | None = None,
    min_runtime_version: str | None = None,
) -> bytes:
    """Returns the file with TFLite metadata; metadata and packed files that were there are replaced.

    The same arguments give the same bytes. An input with a normalisation and shape (batch, height, width, 1 or 3) is
    described as a picture, any other as a feature. Labels go to the first output whose last axis is as long as they are
    many. Constants come to lie at multiples of 16 bytes, as the schema of TFLite asks.

    Args:
        content: the bytes of a finished ``.tflite`` file.
        name: the model's name.
        version: its version, free text.
        description: what it does. Default: "".
        normalisation: by input name, how pixels become that input. Default: None, not stated.
        labels: names of the classes in order of their index. Default: None.
        labelled: the output whose values are numbers of classes, as a detector's "classes". Default: None, the labels are
            those of an axis.
        min_runtime_version: oldest TFLite runtime that has all the ops. Default: None, what the converter wrote.

    Raises:
        ModelError: damaged.
        ValueError: an unknown input name, a number of channels or labels that fits no tensor, or a label that is no
            line of text.

    Examples:
        >>> import keras
        >>> from tfcompress.lowering import lower_keras
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> finished = attach(lower_keras(model).content, name="two", version="1", labels=["no", "yes"])
        >>> read(finished).labels
        ('no', 'yes')
    """
    normalisation = dict(normalisation or {})
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    inputs, outputs = _names(model, "inputs"), _names(model, "outputs")
    unknown = set(normalisation) - set(inputs)
    if unknown:
        raise ValueError(f"normalisation must name inputs. Received: {sorted(unknown)}. The file has {inputs}.")
    tensors = [graph.tensors[int(index)] for index in graph.inputs]
    record: dict[str, Any] = {
        "name": name,
        "version": version,
        "description": description or None,
        "min_parser_version": PARSER_VERSION,
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [
                    _describe_input(input_name, tensor, normalisation.get(input_name))
                    for input_name, tensor in zip(inputs, tensors, strict=True)
                ],
                "output_tensor_metadata": [{"name": output_name} for output_name in outputs],
            }
        ],
    }
    if labels is not None:
        check_labels(labels)
        if labelled is not None and labelled not in outputs:
            raise ValueError(f"labelled must name an output. Received: {labelled!r}. The file has {outputs}.")
        position = outputs.index(labelled) if labelled is not None else _labelled_output(graph, labels)
        entry = record["subgraph_metadata"][0]["output_tensor_metadata"][position]
        entry["content"] = {"content_properties": ("FeatureProperties", {})}
        kind = AXIS_LABELS if labelled is None else VALUE_LABELS
        entry["associated_files"] = [{"name": LABELS_FILE, "description": "Names of the classes.", "type": kind}]
    _set_entry(model, ENTRY, metadata_flatbuffer.encode(record))
    if min_runtime_version is not None:
        _set_entry(model, RUNTIME_ENTRY, min_runtime_version.encode().ljust(RUNTIME_BYTES, b"\0"))
    finished = flatbuffer.pack(model, aligned=True)
    return finished if labels is None else _with_file(finished, LABELS_FILE, "".join(f"{label}\n" for label in labels))


def read(content: bytes) -> StoredMetadata | None:
    """Returns what a ``.tflite`` file says about itself, None where it has no metadata.

    Args:
        content: the bytes of the file, ours or anybody's.

    Raises:
        ModelError: the file or its metadata is damaged.

    Examples:
        >>> import pathlib
        >>> read(pathlib.Path("models/digits/digits_int8.tflite").read_bytes()) is None
        True
    """
    model = flatbuffer.parse(content)
    stored = _entry(model, ENTRY)
    if stored is None:
        return None
    record = metadata_flatbuffer.decode(stored)
    graphs = record.get("subgraph_metadata") or [{}]
    inputs = graphs[0].get("input_tensor_metadata", [])
    outputs = graphs[0].get("output_tensor_metadata", [])
    normalisation = {}
    for entry in inputs:
        for unit in entry.get("process_units", []):
            kind, options = unit.get("options", (None, {}))
            if kind == "NormalizationOptions":
                normalisation[entry.get("name", "")] = _normalisation(options)
    return StoredMetadata(
        name=record.get("name", ""),
        version=record.get("version", ""),
        description=record.get("description", ""),
        inputs=tuple(entry.get("name", "") for entry in inputs),
        outputs=tuple(entry.get("name", "") for entry in outputs),
        normalisation=normalisation,
        labels=_read_labels(content, outputs),
        min_runtime_version=_runtime(model),
    )


def stated_runtime(content: bytes) -> str | None:
    """Returns the oldest runtime that a file names, also one without other metadata; None where it names none.

    Raises:
        ModelError: damaged.
    """
    return _runtime(flatbuffer.parse(content))


def _runtime(model: Any) -> str | None:
    entry = _entry(model, RUNTIME_ENTRY)
    return None if entry is None else entry.rstrip(b"\0").decode(errors="replace")


def _names(model: Any, direction: str) -> list[str]:
    """Returns the names of the main graph's inputs or outputs: the signature's where it has one, the tensors' else."""
    graph = model.subgraphs[0]
    indices = [int(index) for index in getattr(graph, direction)]
    for signature in model.signatureDefs or []:
        entries = getattr(signature, direction) or []
        names = {int(entry.tensorIndex): flatbuffer.tensor_name(entry) for entry in entries}
        if signature.subgraphIndex == 0 and set(indices) <= set(names):
            return [names[index] for index in indices]
    return [flatbuffer.tensor_name(graph.tensors[index]) for index in indices]


def _describe_input(name: str, tensor: Any, normalisation: Normalisation | None) -> dict[str, Any]:
    if normalisation is None:
        return {"name": name, "content": {"content_properties": ("FeatureProperties", {})}}
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    channels = shape[-1] if shape else 1
    if len(normalisation.mean) not in (1, channels):
        raise ValueError(
            f"normalisation must have one value or one for each channel. Received: {len(normalisation.mean)} values for "
            f"input {name!r} of shape {shape}."
        )
    is_picture = len(shape) == 4 and channels in COLOR_SPACES
    properties = {"color_space": COLOR_SPACES[channels]} if is_picture else {}
    kind = "ImageProperties" if is_picture else "FeatureProperties"
    options = {"mean": list(normalisation.mean), "std": list(normalisation.std)}
    return {
        "name": name,
        "content": {"content_properties": (kind, properties)},
        "process_units": [{"options": ("NormalizationOptions", options)}],
    }


def check_labels(labels: Sequence[str]) -> Sequence[str]:
    """Returns ``labels`` if each is one line of text, or refuses them with a ``ValueError``.

    Examples:
        >>> check_labels(["no", "yes"])
        ['no', 'yes']
    """
    for position, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip() or label.splitlines() != [label] or "\0" in label:
            raise ValueError(
                f"A label must be one line of text. Received: {label!r} for class {position}. Remove line breaks."
            )
    return labels


def _labelled_output(graph: Any, labels: Sequence[str]) -> int:
    """Returns the position of the first output whose last axis has one place for each label."""
    shapes = [graph.tensors[int(index)].shape for index in graph.outputs]
    sizes = [1 if shape is None or not len(shape) else int(shape[-1]) for shape in shapes]
    if not labels or len(labels) not in sizes:
        raise ValueError(
            f"labels must be as many as an output's last axis is long. Received: {len(labels)} labels for outputs of "
            f"{sizes}. Give one label for each class, in order."
        )
    return sizes.index(len(labels))


def _entry(model: Any, name: str) -> bytes | None:
    for entry in model.metadata or []:
        if flatbuffer.tensor_name(entry) == name and 0 <= entry.buffer < len(model.buffers):
            data = model.buffers[entry.buffer].data
            return b"" if data is None else np.asarray(data, np.uint8).tobytes()
    return None


def _set_entry(model: Any, name: str, value: bytes) -> None:
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(value, np.uint8)
    for entry in model.metadata or []:
        if flatbuffer.tensor_name(entry) == name and 0 < entry.buffer < len(model.buffers):
            model.buffers[entry.buffer] = buffer
            return
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]


def _with_file(content: bytes, name: str, text: str) -> bytes:
    """Returns the file with an uncompressed zip archive behind it, the only kind that MediaPipe reads."""
    stream = io.BytesIO(content)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        info = zipfile.ZipInfo(name, EPOCH)
        info.create_system, info.external_attr = 3, 0o644 << 16  # Unix, whatever the system
        archive.writestr(info, text)
    return stream.getvalue()


def _read_labels(content: bytes, outputs: list[dict[str, Any]]) -> tuple[str, ...] | None:
    kinds = (AXIS_LABELS, VALUE_LABELS)
    files = [file for entry in outputs for file in entry.get("associated_files", []) if file.get("type") in kinds]
    if not files:
        return None
    name = files[0].get("name", "")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(name).file_size > LONGEST_LABELS:
                raise ModelError(f"The labels must be below 64 MB. Received: {name}, larger than that.")
            return tuple(archive.read(name).decode(errors="replace").removesuffix("\n").split("\n"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"The file's {name!r} cannot be read ({error}). Attach the labels again.") from error


def _normalisation(options: Mapping[str, Any]) -> Normalisation:
    try:
        return Normalisation(options.get("mean", ()), options.get("std", ()))
    except ValueError as error:
        raise ModelError(f"The file's normalisation is damaged: {error}") from error
