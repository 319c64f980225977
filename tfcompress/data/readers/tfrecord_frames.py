"""Where do the records of a TFRecord file begin and end? Each frame is checked before its record is read.

    length uint64, masked CRC-32C of length uint32, record, masked CRC-32C of record uint32, all little endian

TensorFlow's reader allocates whatever length a frame declares, and ends the process where that is 2^40. Here a record is read as far
as the file goes, and the bytes that were checked are those that are handed on. What a record means is read by ``tfrecords``.

Source: https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details". CRC-32C: Castagnoli et al., "Optimization of
cyclic redundancy-check codes with 24 and 32 parity bits", 1993.
"""

import functools
import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ...errors import DataError

__all__ = ["crc32c", "damaged", "masked", "read_frames"]

MOST_RECORD_BYTES = 1 << 30  # a protocol buffer ends at 2 GB, a sample long before
POLYNOMIAL = 0x82F63B78  # Castagnoli's, reversed
MASK_DELTA = 0xA282EAD8
BLOCK = 1 << 20
ROW = 512  # bytes that are folded side by side with other rows


def read_frames(file: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, unpacked where its name ends in ``.gz``.

    Args:
        file: the file.

    Raises:
        DataError: it cannot be read, ends within a frame, or a check sum is not that of its bytes.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.tfrecord"
        >>> _ = path.write_bytes(struct.pack("<QI", 1 << 40, masked(crc32c(struct.pack("<Q", 1 << 40)))))
        >>> list(read_frames(path))
        Traceback (most recent call last):
        ...
        tfcompress.errors.DataError: A TFRecord file must be whole. Received: ...a.tfrecord (record 0 says it is 1,099,511,627,776 bytes long, more than 1 GiB). Write it again.
    """
    try:
        with file.open("rb") as plain:
            stream: IO[bytes] = gzip.GzipFile(fileobj=plain) if file.suffix == ".gz" else plain  # type: ignore[assignment]
            room = None if stream is not plain else os.fstat(plain.fileno()).st_size
            number = 0
            while (record := _next_record(stream, file, number, room)) is not None:
                yield record
                number += 1
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise damaged(file, str(error) or "it ends too early") from error


def _next_record(stream: IO[bytes], file: Path, number: int, room: int | None) -> bytes | None:
    head = stream.read(12)
    if not head:
        return None
    if len(head) < 12 or masked(crc32c(head[:8])) != struct.unpack("<I", head[8:])[0]:
        raise damaged(file, f"record {number} does not begin with its length")
    length = struct.unpack("<Q", head[:8])[0]
    if length > MOST_RECORD_BYTES:
        raise damaged(file, f"record {number} says it is {length:,} bytes long, more than 1 GiB")
    if room is not None and stream.tell() + length + 4 > room:
        raise damaged(file, f"record {number} says it is {length:,} bytes long, and the file ends before")
    parts, missing = [], length + 4
    while missing:  # block by block: a packed file may end long before what it declares
        part = stream.read(min(missing, BLOCK))
        if not part:
            raise damaged(file, f"record {number} says it is {length:,} bytes long, and the file ends before")
        parts.append(part)
        missing -= len(part)
    content = b"".join(parts)
    record = content[:-4]
    if masked(crc32c(record)) != struct.unpack("<I", content[-4:])[0]:
        raise damaged(file, f"the check sum of record {number} is not that of its bytes")
    return record


def damaged(file: Path, reason: str) -> DataError:
    """Returns the error for a file that is not whole."""
    line = " ".join(reason.split())[:120] or "unreadable"
    return DataError(f"A TFRecord file must be whole. Received: {file} ({line}). Write it again.")


def masked(checksum: int) -> int:
    """Returns a check sum as TFRecord files store it, so that a check sum over check sums is not 0.

    Examples:
        >>> masked(0) == MASK_DELTA
        True
    """
    return (((checksum >> 15) | (checksum << 17)) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """Returns the CRC-32C of some bytes.

    Long ones are cut into rows that are folded side by side; a row's sum is carried over the next by a table for each of its bytes.

    Examples:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    rows = len(content) // ROW
    checksum = 0xFFFFFFFF
    if rows > 1:
        table = _table()
        data = np.frombuffer(content, np.uint8, rows * ROW).reshape(rows, ROW)
        sums = np.zeros(rows, np.uint32)
        sums[0] = checksum
        for column in range(ROW):
            sums = table[(sums ^ data[:, column]) & 0xFF] ^ (sums >> np.uint32(8))
        first, second, third, fourth = _carry()
        checksum = int(sums[0])
        for each in sums[1:].tolist():
            checksum = (
                first[checksum & 0xFF]
                ^ second[checksum >> 8 & 0xFF]
                ^ third[checksum >> 16 & 0xFF]
                ^ fourth[checksum >> 24]
                ^ each
            )
        content = content[rows * ROW :]
    steps = _table().tolist() if len(content) > 64 else _table()
    for byte in content:
        checksum = int(steps[(checksum ^ byte) & 0xFF]) ^ (checksum >> 8)
    return checksum ^ 0xFFFFFFFF


@functools.cache
def _table() -> np.ndarray:
    """Returns what a byte becomes, (256,) uint32."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> np.uint32(1)) ^ np.uint32(POLYNOMIAL), values >> np.uint32(1))
    return values


@functools.cache
def _carry() -> tuple[list[int], ...]:
    """Returns what each byte of a sum becomes after ``ROW`` bytes of zeros: four lists of 256."""
    table = _table()
    values = np.stack([np.arange(256, dtype=np.uint32) << np.uint32(shift) for shift in (0, 8, 16, 24)])
    for _ in range(ROW):
        values = table[values & 0xFF] ^ (values >> np.uint32(8))
    return tuple(row.tolist() for row in values)
