"""What would a ``.tflite`` file run, and does it name anything that is not in it? Read as data, before any interpreter.

The file brings no code: built-in ops are the interpreter's own, and custom ops the program's that runs it. Ops of TensorFlow
inside it (Flex) are judged by the list that SavedModels are judged by. Damage is ``flatbuffer.parse``'s to find.
"""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from ..system.printable import printable
from ..tflite import flatbuffer
from .trust.findings import Finding
from .trust.graphs import listed_ops
from .trust.keras_configs import HOW_TO_ALLOW

__all__ = ["examine_tflite"]

_FLEX = "Flex"
_PURE = frozenset(listed_ops()) - {"SaveV2", "MergeV2Checkpoints", "RestoreV2"}
_SMALL = 1 << 26  # bytes that may unpack from anything
_LARGEST_RATIO = 64
_LONGEST_NAMES = 5


def examine_tflite(content: bytes, *, place: str) -> list[Finding]:
    """Returns what keeps a ``.tflite`` file from being opened, and what a reader should know; each op once.

    Args:
        content: the bytes of the file.
        place: how messages name it.

    Raises:
        ModelError: damaged; buffers that lie outside of the file among it.

    Examples:
        >>> from pathlib import Path
        >>> found = examine_tflite(Path("models/digits/digits_int8.tflite").read_bytes(), place="digits")
        >>> {finding.severity for finding in found}
        {'note'}
    """
    model = flatbuffer.parse(content, place=place)
    found = [
        Finding("refused", what, where, f"{rule} Received: {what} ({where}) in {place}. {way_out} {HOW_TO_ALLOW}")
        for rule, what, where, way_out in (*_reaching_ops(model), *_archive(content))
    ]
    return [*found, *(Finding("note", what, where, f"{place}: {what} ({where}).") for what, where in _notes(model))]


def _operators(model: Any) -> Iterator[tuple[str, str, bool]]:
    """Yields each op once: name, where it is first used, whether it is none of the built-in ones."""
    seen = set()
    for number, graph in enumerate(model.subgraphs):
        for position, operator in enumerate(graph.operators):
            name = flatbuffer.op_name(model, operator)
            if name not in seen:
                seen.add(name)
                is_custom = bool(model.operatorCodes[operator.opcodeIndex].customCode)
                yield name, f"op {position} of subgraph {number}", is_custom


def _reaching_ops(model: Any) -> Iterator[tuple[str, str, str, str]]:
    for name, where, is_custom in _operators(model):
        if is_custom and name.startswith(_FLEX) and name.removeprefix(_FLEX) not in _PURE:
            rule = "A model's graph must not reach for files or Python."
            yield rule, f"the op {printable(name)} of TensorFlow", where, "Convert the model without it."


def _archive(content: bytes) -> Iterator[tuple[str, str, str, str]]:
    """Yields what is wrong with the archive of labels behind the flatbuffer, if there is one."""
    rule, way_out = "The archive in a file must hold small files, each under its own name.", "Attach the labels again."
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return
    if len({member.filename.lower() for member in members}) < len(members):
        yield rule, "two members of one name", "the archive behind the flatbuffer", way_out
    for member in members:
        if member.file_size > max(_SMALL, _LARGEST_RATIO * member.compress_size):
            what = f"{member.file_size >> 20} MiB from {member.compress_size} bytes"
            yield rule, what, printable(member.filename), way_out
        parts = member.filename.replace("\\", "/").split("/")
        if member.filename.startswith("/") or ".." in parts:
            yield rule, "a member that would lie outside of its folder", printable(member.filename), way_out


def _notes(model: Any) -> Iterator[tuple[str, str]]:
    for name, where, is_custom in _operators(model):
        if is_custom and name.startswith(_FLEX):
            yield f"the op {printable(name)} needs TensorFlow beside the interpreter", where
        elif is_custom:
            yield f"the custom op {printable(name)} is code of the program that runs the file", where
    strings = [
        flatbuffer.tensor_name(tensor)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if flatbuffer.type_name(tensor) == "STRING"
    ]
    if strings:
        yield f"{len(strings)} tensors of text", ", ".join(map(printable, strings[:_LONGEST_NAMES]))
    names = [flatbuffer.tensor_name(tensor) for graph in model.subgraphs for tensor in graph.tensors]
    steering = [name for name in names if printable(name) != name]
    if steering:
        yield f"{len(steering)} names that would steer a terminal", printable(steering[0])[:80]
    for entry in model.metadata or []:
        yield "metadata", printable(flatbuffer.tensor_name(entry))
