"""How the flatbuffer inside TFLite metadata is laid out: from nested dictionaries to its bytes and back.

The layout is a table of fields, copied from ``metadata_schema.fbs`` of TensorFlow Lite Support (identifier "M001",
https://github.com/tensorflow/tflite-support, also in MediaPipe at ``mediapipe/tasks/metadata``); the package of that
name has no wheel for Python 3.11, and the flatbuffers runtime needs no generated code. What the fields mean is decided
in ``metadata``.
"""

import struct
from typing import Any

from ..errors import ModelError

__all__ = ["IDENTIFIER", "decode", "encode"]

IDENTIFIER = b"M001"
ROOT = "ModelMetadata"
TABLE_BYTES = 64
MOST_BYTES = 1 << 24  # a damaged file could lead to one table or text over and over

# Fields in the order of the schema, which is the order of their slots. A union takes two: its kind, then its table.
SCHEMA = {
    "ModelMetadata": "name:string description:string version:string subgraph_metadata:[SubGraphMetadata] author:string "
    "license:string associated_files:[AssociatedFile] min_parser_version:string",
    "SubGraphMetadata": "name:string description:string input_tensor_metadata:[TensorMetadata] "
    "output_tensor_metadata:[TensorMetadata] associated_files:[AssociatedFile]",
    "TensorMetadata": "name:string description:string dimension_names:[string] content:Content "
    "process_units:[ProcessUnit] stats:Stats associated_files:[AssociatedFile]",
    "Content": "content_properties:ContentProperties range:ValueRange",
    "ValueRange": "min:int max:int",
    "FeatureProperties": "",
    "ImageProperties": "color_space:byte default_size:ImageSize",
    "ImageSize": "width:uint height:uint",
    "ProcessUnit": "options:ProcessUnitOptions",
    "NormalizationOptions": "mean:[float] std:[float]",
    "Stats": "max:[float] min:[float]",
    "AssociatedFile": "name:string description:string type:byte locale:string version:string",
}
# The members that we read and write, by their number in the schema; others are passed over.
UNIONS = {
    "ContentProperties": {1: "FeatureProperties", 2: "ImageProperties"},
    "ProcessUnitOptions": {1: "NormalizationOptions"},
}
NUMBERS = {"byte": ("Int8", 1), "int": ("Int32", 4), "uint": ("Uint32", 4), "float": ("Float32", 4)}


def encode(root: dict[str, Any]) -> bytes:
    """Returns the flatbuffer of a ``ModelMetadata``.

    Args:
        root: values by field name: text, numbers, lists, dictionaries for tables and (table name, dictionary) for
            unions. Absent and None fields are left out.

    Examples:
        >>> decode(encode({"name": "digits", "subgraph_metadata": [{"name": "main"}]}))
        {'name': 'digits', 'subgraph_metadata': [{'name': 'main'}]}
    """
    import flatbuffers

    builder = flatbuffers.Builder(256)
    builder.Finish(_write_table(builder, ROOT, root), IDENTIFIER)
    return bytes(builder.Output())


def decode(content: bytes) -> dict[str, Any]:
    """Returns the values of a ``ModelMetadata`` as ``encode`` takes them; fields that are not there are left out.

    Raises:
        ModelError: no flatbuffer of that kind, or a damaged one.
    """
    import flatbuffers

    if content[4:8] != IDENTIFIER:
        raise ModelError(
            f"TFLite metadata must have the mark M001. Received: {len(content)} bytes without it. Convert it again."
        )
    try:
        start = struct.unpack_from("<I", content)[0]
        return _Reader(content).table(flatbuffers.table.Table(bytearray(content), start), ROOT)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ModelError(f"The file's metadata is damaged ({type(error).__name__}). Convert it again.") from error


def _fields(table: str) -> list[tuple[str, str, int]]:
    """Returns (name, kind, slot) of each field."""
    found, slot = [], 0
    for field in SCHEMA[table].split():
        name, _, kind = field.partition(":")
        slot += kind in UNIONS
        found.append((name, kind, slot))
        slot += 1
    return found


def _slots(table: str) -> int:
    return max((slot for _, _, slot in _fields(table)), default=-1) + 1


def _write_table(builder: Any, table: str, values: dict[str, Any]) -> int:
    offsets = {}
    for name, kind, _ in _fields(table):
        value = values.get(name)
        if value is not None and kind not in NUMBERS:
            offsets[name] = _write_value(builder, kind, value)
    builder.StartObject(_slots(table))
    for name, kind, slot in _fields(table):
        value = values.get(name)
        if value is None:
            continue
        if kind in NUMBERS:
            getattr(builder, f"Prepend{NUMBERS[kind][0]}Slot")(slot, value, 0)
            continue
        if kind in UNIONS:
            builder.PrependUint8Slot(slot - 1, _member(kind, value[0]), 0)
        builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
    return builder.EndObject()


def _member(union: str, table: str) -> int:
    return next(number for number, name in UNIONS[union].items() if name == table)


def _write_value(builder: Any, kind: str, value: Any) -> int:
    if kind == "string":
        return builder.CreateString(value)
    if kind in UNIONS:
        return _write_table(builder, *value)
    if not kind.startswith("["):
        return _write_table(builder, kind, value)
    element = kind[1:-1]
    if element in NUMBERS:
        prepend, size = NUMBERS[element]
        builder.StartVector(size, len(value), size)
        for number in reversed(value):
            getattr(builder, f"Prepend{prepend}")(number)
    else:
        offsets = [_write_value(builder, element, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


class _Reader:
    """Reads tables, and counts what it reads against ``MOST_BYTES``."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.count = 0

    def spend(self, size: int) -> None:
        self.count += size
        if self.count > MOST_BYTES:
            raise ValueError("more than such a file can hold")

    def table(self, place: Any, table: str) -> dict[str, Any]:
        self.spend(TABLE_BYTES)
        values = {}
        for name, kind, slot in _fields(table):
            offset = place.Offset(4 + 2 * slot)
            if not offset:
                continue
            if kind in UNIONS:
                value = self.union(place, kind, slot, place.Pos + offset)
            else:
                value = self.value(place, kind, place.Pos + offset)
            if value is not None:
                values[name] = value
        return values

    def union(self, place: Any, kind: str, slot: int, position: int) -> tuple[str, dict[str, Any]] | None:
        number = place.Offset(4 + 2 * (slot - 1))
        member = UNIONS[kind].get(self.content[place.Pos + number]) if number else None
        return None if member is None else (member, self.table(self.follow(place, position), member))

    def follow(self, place: Any, position: int) -> Any:
        """Returns the table that the offset stored at ``position`` leads to."""
        return type(place)(place.Bytes, position + struct.unpack_from("<I", self.content, position)[0])

    def value(self, place: Any, kind: str, position: int) -> Any:
        if kind in NUMBERS:
            code = {"byte": "<b", "int": "<i", "uint": "<I", "float": "<f"}[kind]
            return struct.unpack_from(code, self.content, position)[0]
        target = self.follow(place, position)
        if kind == "string":
            length = struct.unpack_from("<I", self.content, target.Pos)[0]
            self.spend(length)
            return struct.unpack_from(f"<{length}s", self.content, target.Pos + 4)[0].decode(errors="replace")
        if not kind.startswith("["):
            return self.table(target, kind)
        element = kind[1:-1]
        count = struct.unpack_from("<I", self.content, target.Pos)[0]
        self.spend(4 * count)
        return [self.value(place, element, target.Pos + 4 + 4 * i) for i in range(count)]
