"""Is this ZIP archive one file with one reading? Checked before a member of it is unpacked.

A ``.keras`` file is an archive of ``config.json``, ``metadata.json``, ``model.weights.h5`` and assets. Two readers must
find the same members in it: it begins with its first member and ends with its directory, each name is there once, and
no second file hides before, behind or between.
"""

import struct
import zipfile
from typing import IO

from .json_texts import LARGEST_TEXT

__all__ = ["CONFIG", "METADATA", "WEIGHTS", "check_archive", "read_member"]

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
ASSETS = "assets/"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_LIMITS = {CONFIG: LARGEST_TEXT, METADATA: 1 << 20}
_LARGEST_RATIO = 64  # Keras stores its members as they are; weights with many zeros pack about 20 to 1
_SMALL = 1 << 26  # bytes that may unpack from anything
_MOST_MEMBERS = 10_000
_END_BYTES = 22
_FIRST_USER_BLOCK = 512  # the HDF5 library looks for a file at 0, 512, 1024, 2048, ...
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


def check_archive(archive: zipfile.ZipFile, file: IO[bytes], size: int) -> None:
    """Refuses an archive that two readers could read as two things, or that unpacks to far more than it is.

    Args:
        archive: the opened archive.
        file: the same file, readable anywhere.
        size: the file's size in bytes.

    Raises:
        KeyError: an archive of something else, without a configuration.
        ValueError: what is wrong, as a clause.
    """
    if CONFIG not in archive.namelist():
        raise KeyError(f"it has no {CONFIG}")
    file.seek(max(0, size - _END_BYTES))
    end = file.read(_END_BYTES)
    if end[:4] != b"PK\x05\x06" or archive.comment:
        raise ValueError("more bytes follow the end of its ZIP archive")
    length, start = struct.unpack("<II", end[12:20])
    zip64 = start == 0xFFFFFFFF or length == 0xFFFFFFFF
    if not zip64 and start + length + _END_BYTES != size:
        raise ValueError("its ZIP directory does not lie where it says")
    members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"it has {len(members)} members, more than {_MOST_MEMBERS}")
    if not members or min(member.header_offset for member in members) != 0:
        raise ValueError("its first member does not lie at its beginning")
    names: set[str] = set()
    for member in members:
        _check_member(member, names)
    _check_hidden(file, size, {_data_offset(file, member) for member in members if member.filename == WEIGHTS})


def _check_member(member: zipfile.ZipInfo, names: set[str]) -> None:
    name = member.filename
    if name.lower() in names:
        raise ValueError(f"it has the member {name!r} twice, or in capitals too")
    names.add(name.lower())
    parts = name.rstrip("/").split("/")
    if "\\" in name or ":" in name or not all(parts) or {".", ".."} & set(parts) or member.orig_filename != name:
        raise ValueError(f"its member {name!r} would lie outside of its folder")
    own = name in (CONFIG, METADATA, WEIGHTS) or name.startswith(ASSETS)
    if not own:
        raise ValueError(f"it has the unknown member {name!r}")
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        raise ValueError(f"its member {name!r} is encrypted or packed in an unusual way")
    if member.file_size > _LIMITS.get(name, member.file_size):
        raise ValueError(f"its {name} unpacks to {member.file_size} bytes, more than {_LIMITS[name]}")
    if member.file_size > max(_SMALL, _LARGEST_RATIO * member.compress_size):
        raise ValueError(f"its {name} unpacks to {member.file_size} bytes from {member.compress_size}")


def _data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    file.seek(member.header_offset + 26)
    name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    return int(member.header_offset + 30 + name_bytes + extra_bytes)


def _check_hidden(file: IO[bytes], size: int, own: set[int]) -> None:
    """Refuses an HDF5 file where its library would find one behind a user block, unless it is the weights' own member."""
    offset = _FIRST_USER_BLOCK
    while offset < size:
        file.seek(offset)
        if file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE and offset not in own:
            raise ValueError("it is a ZIP archive and an HDF5 file at once")
        offset *= 2


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns the bytes of a member, which are no more than its directory says.

    Args:
        archive: an archive that ``check_archive`` let through.
        name: the member's name.

    Raises:
        KeyError: there is no such member.
        zipfile.BadZipFile: it is damaged.
    """
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        content = stream.read(size + 1)
    if len(content) != size:
        raise zipfile.BadZipFile(f"its {name} does not have the size that it says")
    return content
