"""What would unpickling call? Read off the pickle's opcodes, without unpickling it.

A pickle names every function and class that it calls. Those that rebuild plain tensors are listed here, as PyTorch's own
``weights_only`` lists them; PyTorch is not needed.
"""

import io
import pickletools
import re
import zipfile

__all__ = ["foreign_globals"]

_PLAIN = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(tensor(_v[23])?|parameter(_with_state)?|sparse_tensor|sparse_csr_tensor|meta_tensor_no_storage"
    r"|nested_tensor|device_tensor_from_numpy|device_tensor_from_cpu_tensor|qtensor)"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\.nn\.parameter\.(Buffer|Parameter)|torch\.(Tensor|Size|device)"
    r"|torch\.serialization\._get_layout|torch\.storage\.(Untyped|Typed)Storage|torch\.[A-Z][A-Za-z0-9]*Storage"
    r"|torch\.(bool|half|double|long|short|(q|qu)?int\d+(x\d+)?|uint\d+|b?float\d+\w*|complex\d+)"
    r"|(builtins|__builtin__)\.(set|bytearray|complex)"
)
_LARGEST = 1 << 26  # bytes of opcodes; the tensors themselves lie beside them
_MOST_PICKLES = 5  # of the format before PyTorch 1.6: magic number, protocol, system, value, keys
_EXTENSIONS = frozenset(["EXT1", "EXT2", "EXT4", "INST"])


def foreign_globals(content: bytes) -> list[str]:
    """Returns the functions and classes that a file of ``torch.save`` would call, beyond those of plain tensors.

    Args:
        content: the file: a ZIP archive with ``data.pkl``, or pickles one after the other.

    Raises:
        ValueError: it is neither, or too large.

    Examples:
        >>> import os, pickle
        >>> foreign_globals(pickle.dumps(os.getcwd, protocol=2)), foreign_globals(pickle.dumps([1.5], protocol=2))
        (['posix.getcwd'], [])
    """
    stream = io.BytesIO(_pickled(content) if content[:2] == b"PK" else content)
    found: dict[str, None] = {}
    for _ in range(_MOST_PICKLES):
        start = stream.tell()
        strings: list[str] = []
        for code, argument, position in pickletools.genops(stream):
            if position is not None and position - start > _LARGEST:
                raise ValueError("its pickle is larger than 64 MB")
            if code.name == "GLOBAL":
                found[str(argument).replace(" ", ".")] = None
            elif code.name == "STACK_GLOBAL":
                found[".".join(strings[-2:]) or "something unnamed"] = None
            elif code.name in _EXTENSIONS:
                found[str(argument).replace(" ", ".")] = None
            elif isinstance(argument, str):
                strings.append(argument)
        if content[:2] == b"PK" or stream.tell() == len(content):
            break
    return [name for name in found if not _PLAIN.fullmatch(name)]


def _pickled(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl of one name")
        with archive.open(names[0]) as member:
            pickled = member.read(_LARGEST + 1)
    if len(pickled) > _LARGEST:
        raise ValueError("its data.pkl unpacks to more than 64 MB")
    return pickled
