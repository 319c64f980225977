"""Ways of damaging a file, each a function of the bytes and a random generator; the fuzz tests draw from them."""

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Random = np.random.Generator
Mutation = Callable[[bytes, Random], bytes]

WORDS = (0, 1, 4, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1.5, 70_000, "", "x", [], {}, [None], {"class_name": 3}, [[[[]]]])


def truncated(content: bytes, random: Random) -> bytes:
    return content[: random.integers(len(content))]


def flipped(content: bytes, random: Random) -> bytes:
    data = bytearray(content)
    for _ in range(random.integers(1, 9)):
        data[random.integers(len(data))] ^= 1 << random.integers(8)
    return bytes(data)


def flipped_near_the_start(content: bytes, random: Random) -> bytes:
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        data[random.integers(min(len(data), 256))] ^= 1 << random.integers(8)
    return bytes(data)


def _range(content: bytes, random: Random) -> tuple[int, int]:
    start = int(random.integers(len(content)))
    return start, min(len(content), start + int(2 ** random.uniform(0, 10)))


def filled(content: bytes, random: Random) -> bytes:
    start, stop = _range(content, random)
    return content[:start] + bytes([random.choice([0, 0xFF])]) * (stop - start) + content[stop:]


def swapped(content: bytes, random: Random) -> bytes:
    (a, b), (c, d) = sorted(_range(content, random) for _ in range(2))
    return content if b > c else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def removed(content: bytes, random: Random) -> bytes:
    start, stop = _range(content, random)
    return content[:start] + content[stop:]


def repeated(content: bytes, random: Random) -> bytes:
    start, stop = _range(content, random)
    return content[:stop] + content[start:stop] + content[stop:]


BYTES: tuple[Mutation, ...] = (truncated, flipped, flipped_near_the_start, filled, swapped, removed, repeated)


def offset_changed(content: bytes, random: Random) -> bytes:
    """Overwrites words that look like offsets or lengths: small, aligned, not 0."""
    data = bytearray(content)
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4")
    likely = np.flatnonzero((words > 0) & (words < len(content)))
    for _ in range(random.integers(1, 4)):
        place = 4 * int(random.choice(likely))
        old = struct.unpack_from("<I", data, place)[0]
        new = random.choice([*WORDS, old + 4, max(old - 4, 0), old * 2, int(random.integers(len(data)))])
        struct.pack_into("<I", data, place, int(new) & 0xFFFFFFFF)
    return bytes(data)


def offset_shared(content: bytes, random: Random) -> bytes:
    """Copies a run of words over another: vectors that name one table over and over."""
    words = np.frombuffer(content[: len(content) // 4 * 4], "<u4").copy()
    start, count = int(random.integers(len(words) - 64)), int(random.integers(2, 64))
    words[start : start + count] = words[start]
    return words.tobytes() + content[len(words) * 4 :]


def field_changed(content: bytes, random: Random) -> bytes:
    """Another number in one to three fields of a flatbuffer that is whole: an index, a size, a type, an op's option."""
    from tfcompress.tflite import flatbuffer

    model = flatbuffer.parse(content)
    fields = list(_number_fields(model))
    for _ in range(random.integers(1, 4)):
        owner, name = fields[random.integers(len(fields))]
        old = getattr(owner, name)
        array = np.array(old, copy=True) if isinstance(old, np.ndarray) else None
        number = int(random.choice([-2, -1, 0, 1, 2, 5, 127, 255, 1 << 15, (1 << 31) - 1, int(random.integers(64))]))
        if array is not None:
            array[random.integers(len(array))] = np.array(number).astype(array.dtype)
        setattr(owner, name, array if array is not None else number)
        try:
            content = flatbuffer.pack(model)
        except Exception:  # noqa: BLE001 - a number that the field's type does not hold
            setattr(owner, name, old)
    return content


def _number_fields(part: Any) -> Iterator[tuple[Any, str]]:
    """Yields (object, name) of each number and short array of numbers in a schema's object; leaves out buffers' bytes."""
    for name, value in vars(part).items():
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            or isinstance(value, np.ndarray)
            and 0 < len(value) < 256
        ):
            yield part, name
        elif isinstance(value, list):
            for each in value:
                if hasattr(each, "__dict__"):
                    yield from _number_fields(each)
        elif type(value).__module__.endswith("schema_py_generated"):
            yield from _number_fields(value)


FLATBUFFER: tuple[Mutation, ...] = (*BYTES, offset_changed, offset_shared, field_changed, field_changed, field_changed)


def npy_header_changed(content: bytes, random: Random) -> bytes:
    """Another header before the same numbers: shape, type, order, or no dictionary at all."""
    start = 10
    length = struct.unpack_from("<H", content, 8)[0]
    header = content[start : start + length].decode("latin1")
    shapes = (
        "(6, 8, 8, 3)",
        "(-1, 8, 8, 3)",
        f"({1 << 40},)",
        "()",
        "(6, 8, 8, 3, 0)",
        "6",
        "(1.5,)",
        "(True, 8)",
        "[" * 90,
    )
    types = (
        "'|O'",
        "'<f8'",
        "'>f4'",
        "'<U9'",
        "[('a', '<f4')]",
        "None",
        "'<c16'",
        "'|V0'",
        "('<f4', (2,))",
        "'M8[ns]'",
    )
    ways = (
        lambda: re.sub(r"'shape': \([^)]*\)", f"'shape': {random.choice(shapes)}", header),
        lambda: re.sub(r"'descr': '[^']*'", f"'descr': {types[random.integers(len(types))]}", header),
        lambda: header.replace("False", str(random.choice(["True", "1", "None"]))),
        lambda: header.replace("{", "{" + str(random.choice(["'x': 1,", "__import__('os'): 1,", "{"]))),
        lambda: " " * length,
    )
    text = ways[random.integers(len(ways))]().encode("latin1")
    return content[:8] + struct.pack("<H", len(text) & 0xFFFF) + text + content[start + length :]


NPY: tuple[Mutation, ...] = (*BYTES, npy_header_changed, npy_header_changed, npy_header_changed)


def png_chunk_changed(content: bytes, random: Random) -> bytes:
    """Another chunk in a PNG file, with the check sum that belongs to it; other pictures have a byte of their head changed."""
    if not content.startswith(b"\x89PNG"):
        return flipped_near_the_start(content, random)
    chunks, place = [], 8
    while place < len(content):
        length = struct.unpack_from(">I", content, place)[0]
        chunks.append([content[place + 4 : place + 8], content[place + 8 : place + 8 + length]])
        place += 12 + length
    chosen = chunks[random.integers(len(chunks))]
    way = random.integers(4)
    if way == 0:
        chunks[0][1] = struct.pack(">II", *(int(random.choice(WORDS)) for _ in range(2))) + chunks[0][1][8:]
    elif way == 1 and chosen[1]:
        chosen[1] = BYTES[random.integers(len(BYTES))](chosen[1], random)
    elif way == 2:
        chosen[0] = [b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fdAT", b"iTXt", b"IEND"][random.integers(7)]
    else:
        chunks.insert(1, [b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20), 9)])
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return content[:8] + b"".join(parts)


PICTURE: tuple[Mutation, ...] = (*BYTES, png_chunk_changed, png_chunk_changed, png_chunk_changed)


def frame_changed(content: bytes, random: Random) -> bytes:
    """Another length, with its check sum, or another record, with its own, in a TFRecord file."""
    from tfcompress.data.readers.tfrecord_frames import crc32c, masked

    records, place = [], 0
    while place < len(content):
        length = struct.unpack_from("<Q", content, place)[0]
        records.append(content[place + 12 : place + 12 + length])
        place += 16 + length
    chosen = int(random.integers(len(records)))
    lengths = [len(record) for record in records]
    if random.random() < 0.4:
        lengths[chosen] = int(random.choice([0, 1, lengths[chosen] + 1, 1 << 20, 1 << 33, 1 << 40, (1 << 63) - 1]))
    elif records[chosen]:
        records[chosen] = BYTES[random.integers(len(BYTES))](records[chosen], random)
        lengths[chosen] = len(records[chosen])
    heads = [struct.pack("<Q", length) for length in lengths]
    return b"".join(
        head + struct.pack("<I", masked(crc32c(head))) + record + struct.pack("<I", masked(crc32c(record)))
        for head, record in zip(heads, records, strict=True)
    )


TFRECORD: tuple[Mutation, ...] = (*BYTES, frame_changed, frame_changed, frame_changed, frame_changed)


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def member_damaged(content: bytes, random: Random) -> bytes:
    """One member damaged inside an archive that is whole, so that the check sums are right."""
    files = members(content)
    name = str(random.choice(sorted(files)))
    if name.endswith(".json") and random.random() < 0.7:
        files[name] = json_changed(files[name], random)
    elif files[name]:
        files[name] = BYTES[random.integers(len(BYTES))](files[name], random)
    return archive_of(files)


def compressed_damaged(content: bytes, random: Random) -> bytes:
    """A compressed archive with damage anywhere: inflate stumbles."""
    return flipped(archive_of(members(content), zipfile.ZIP_DEFLATED), random)


def member_missing_or_renamed(content: bytes, random: Random) -> bytes:
    files = members(content)
    name = str(random.choice(sorted(files)))
    data = files.pop(name)
    if random.random() < 0.5:
        files["../" + name if random.random() < 0.5 else name + "\u00e4" * 50] = data
    return archive_of(files)


def directory_changed(content: bytes, random: Random) -> bytes:
    """Damage in the central directory: flags, methods, sizes, offsets, lengths of names."""
    data = bytearray(content)
    start = content.find(b"PK\1\2")
    for _ in range(random.integers(1, 4)):
        data[random.integers(start, len(data))] = random.integers(256)
    return bytes(data)


ARCHIVE: tuple[Mutation, ...] = (
    *BYTES,
    member_damaged,
    member_damaged,
    member_damaged,
    compressed_damaged,
    member_missing_or_renamed,
    directory_changed,
    directory_changed,
)


def json_changed(text: bytes, random: Random) -> bytes:
    """Replaces or removes values anywhere in a JSON document."""
    document = json.loads(text)
    for _ in range(random.integers(1, 4)):
        places = list(_places(document))
        if not places:
            break
        container, key = places[random.integers(len(places))]
        if random.random() < 0.25:
            del container[key]
        else:
            container[key] = json.loads(json.dumps(VALUES[random.integers(len(VALUES))]))
    return json.dumps(document).encode()


def deeper(text: bytes, random: Random) -> bytes:
    """A document with a value nested thousands deep in one place."""
    deep = int(random.integers(50, 5000))
    place = int(random.integers(len(text)))
    return text[:place] + b"[" * deep + b"]" * int(random.choice([0, deep])) + text[place:]


DOCUMENT: tuple[Mutation, ...] = (*BYTES, json_changed, json_changed, json_changed, json_changed, deeper)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield document, key
            yield from _places(value)


def h5_attribute_changed(content: bytes, random: Random) -> bytes:
    """An attribute of another type, or none, anywhere inside a whole HDF5 file."""
    import h5py

    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        groups = [file]
        file.visititems(lambda _, item: groups.append(item))
        places = [(item, name) for item in groups for name in item.attrs]
        item, name = places[random.integers(len(places))]
        del item.attrs[name]
        value = [None, 1, -1.5, "", b"x" * 9, [1, 2], ["a", "b"], np.zeros((2, 2))][random.integers(8)]
        if value is not None:
            item.attrs[name] = value
    return stream.getvalue()


def h5_config_changed(content: bytes, random: Random) -> bytes:
    """The configuration inside a whole HDF5 file."""
    import h5py

    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = json_changed(text.encode() if isinstance(text, str) else text, random)
    return stream.getvalue()


HDF5: tuple[Mutation, ...] = (*BYTES, *BYTES, h5_config_changed, h5_config_changed, *[h5_attribute_changed] * 4)
