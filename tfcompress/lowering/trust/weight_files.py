"""What does an HDF5 file of weights hold? Its numbers are copied into a new file, and nothing else is.

HDF5 can point outside of itself: to other files by links, external storage and virtual datasets, to code by filters. Each
part is looked at before a value of it is read.
"""

import math
import struct
from typing import IO, Any

__all__ = ["check_ends", "copy_weights", "text_attribute"]

_STANDARD_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}
_NUMBERS = "biufc"
_TEXTS = "SU"
_SMALL = 1 << 28  # bytes of values that any file may have
_LARGEST_RATIO = 64
_LARGEST_CHUNK = 1 << 26
_LARGEST_ATTRIBUTE = 1 << 26
_MOST_OBJECTS = 200_000
_DEEPEST = 100


def check_ends(source: IO[bytes], size: int) -> None:
    """Refuses an HDF5 file that something lies before or behind.

    Args:
        source: the file.
        size: its size in bytes.

    Raises:
        ValueError: what is wrong, as a clause.
        OSError: it is damaged.
        EOFError: it is truncated.
    """
    source.seek(0)
    head = source.read(100)
    version = head[8] if len(head) > 8 else -1
    if version in (0, 1):
        at, width = 24 + 4 * version, head[13]  # base, free space, end
    elif version in (2, 3):
        at, width = 12, head[9]  # base, extension, end
    else:
        raise OSError("its HDF5 version is unknown")
    if width != struct.calcsize("<Q") or len(head) < at + 24:
        raise OSError("its HDF5 addresses do not have 8 bytes")
    base, _, end = struct.unpack_from("<3Q", head, at)
    if base:
        raise ValueError("its HDF5 file begins behind other bytes")
    if end > size:
        raise EOFError(f"it ends at byte {size} of {end}")
    if end < size:
        raise ValueError(f"its HDF5 file ends at byte {end} of {size}, something else follows")


def copy_weights(source: Any, target: Any, *, size: int, only: str | None = None) -> None:
    """Copies groups, numbers and texts from one HDF5 file to another.

    Args:
        source: the opened file to read.
        target: the opened file to write.
        size: the source's size in bytes.
        only: the group at the root that is copied; the others are looked at, not copied. Default: all.

    Raises:
        ValueError: a part that reaches out of the file, or holds what weights do not need; a clause that names it.
    """
    _Copy(size).group(source, target, depth=0, only=only)


class _Copy:
    """A walk through one file: which objects were met, and how many bytes they declared."""

    def __init__(self, size: int) -> None:
        self.met: set[int] = set()
        self.most = max(_SMALL, _LARGEST_RATIO * size)
        self.size = size
        self.declared = 0

    def group(self, source: Any, target: Any, *, depth: int, only: str | None = None) -> None:
        import h5py

        self.meet(source, depth)
        for name in source.keys():  # noqa: SIM118 - the names alone: values would follow links
            link = source.get(name, getlink=True)
            place = f"{source.name.rstrip('/')}/{name}"
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{place} is a link to {getattr(link, 'filename', 'another name')}")  # noqa: TRY004
            item = source[name]
            if isinstance(item, h5py.Group):
                chosen = target is not None and only in (None, name)
                inner = target.create_group(name) if chosen else None
                self.group(item, inner, depth=depth + 1)
                if inner is not None:
                    self.attributes(item, inner)
            elif isinstance(item, h5py.Dataset):
                self.dataset(item, target if only is None else None, name)
            else:
                raise ValueError(f"{place} is neither a group nor numbers")  # noqa: TRY004

    def meet(self, item: Any, depth: int = 0) -> None:
        import h5py

        address = h5py.h5o.get_info(item.id).addr
        if address in self.met:
            raise ValueError(f"{item.name} is there under two names")
        self.met.add(address)
        if len(self.met) > _MOST_OBJECTS or depth > _DEEPEST:
            raise ValueError("it has too many parts, or they are nested too deeply")

    def dataset(self, source: Any, target: Any, name: str) -> None:
        self.meet(source)
        _check_storage(source)
        dtype = source.dtype
        if dtype.kind not in _NUMBERS + _TEXTS and not _is_bfloat16(source):
            raise ValueError(f"{source.name} holds no numbers but {dtype}")
        if source.shape is None:
            raise ValueError(f"{source.name} holds no values")
        if source.nbytes > self.most:
            raise ValueError(f"{source.name} would be {source.nbytes} bytes large")
        self.declared += source.nbytes
        if self.declared > self.most:
            raise ValueError(f"it would be {self.declared} bytes large, from {self.size}")
        if target is None:
            return
        values = source.astype("float32")[()] if _is_bfloat16(source) else source[()]
        copied = target.create_dataset(name, data=values)
        self.attributes(source, copied)

    def attributes(self, source: Any, target: Any) -> None:
        for name in source.attrs:
            _check_attribute(source, name)
            identity = source.attrs.get_id(name)
            target.attrs.create(name, source.attrs[name], dtype=identity.dtype)


def _is_bfloat16(source: Any) -> bool:
    return "dtype" in source.attrs and text_attribute(source, "dtype") == "bfloat16"


def _check_storage(source: Any) -> None:
    creation = source.id.get_create_plist()
    if creation.get_external_count():
        raise ValueError(f"{source.name} lies in another file ({_external_name(creation)})")
    if source.is_virtual:
        raise ValueError(f"{source.name} is put together from other files")
    for index in range(creation.get_nfilters()):
        code = creation.get_filter(index)[0]
        if code not in _STANDARD_FILTERS:
            raise ValueError(f"{source.name} needs the filter {code}")
    if source.chunks is not None:
        chunk = source.dtype.itemsize * math.prod(source.chunks)
        if chunk > max(_LARGEST_CHUNK, source.nbytes):
            raise ValueError(f"{source.name} has chunks of {chunk} bytes")


def _external_name(creation: Any) -> str:
    name = creation.get_external(0)[0]
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _check_attribute(source: Any, name: str) -> None:
    import h5py

    identity = source.attrs.get_id(name)
    texts = h5py.check_string_dtype(identity.dtype) is not None
    if not texts and identity.dtype.kind not in _NUMBERS + _TEXTS:
        raise ValueError(f"{source.name} has an attribute {name} of the kind {identity.dtype}")
    size = identity.dtype.itemsize * math.prod(identity.shape or ())
    if size > _LARGEST_ATTRIBUTE:
        raise ValueError(f"{source.name} has an attribute {name} of {size} bytes")


def text_attribute(source: Any, name: str) -> str | None:
    """Returns a text at a group or dataset, None where there is none.

    Args:
        source: an h5py object.
        name: the attribute's name.

    Raises:
        ValueError: it is there but not one text.
    """
    if name not in source.attrs:
        return None
    _check_attribute(source, name)
    value = source.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if not isinstance(value, str):
        raise ValueError(f"its {name} is no text")  # noqa: TRY004 - the file's fault
    return value
