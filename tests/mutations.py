"""Ways of damaging a file, each a function of the bytes and a random generator; the fuzz tests draw from them."""

import io
import json
import struct
import zipfile
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


FLATBUFFER: tuple[Mutation, ...] = (*BYTES, offset_changed, offset_changed, offset_shared)


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


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield document, key
            yield from _places(value)


def h5_config_changed(content: bytes, random: Random) -> bytes:
    """The configuration inside a whole HDF5 file."""
    import h5py

    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = json_changed(text.encode() if isinstance(text, str) else text, random)
    return stream.getvalue()


HDF5: tuple[Mutation, ...] = (*BYTES, *BYTES, h5_config_changed, h5_config_changed, h5_config_changed)
