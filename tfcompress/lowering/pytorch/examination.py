"""May this PyTorch file be opened? One answer for whoever opens it and for whoever only asks. PyTorch is not needed.

A pickle names every function and class that it calls: they are read off its opcodes, without unpickling it, and those that rebuild
plain tensors are listed, as PyTorch's own ``weights_only`` lists them.
"""

import io
import os
import pickletools
import re
import zipfile
import zlib
from pathlib import Path

from ...errors import ModelError
from ..trust.findings import Finding
from . import files

__all__ = ["HOW_TO_EXPORT", "examine_torch", "foreign_globals"]

HOW_TO_EXPORT = (
    "Export the module that it was made from: torch.export.save(torch.export.export(module.eval(), "
    "(torch.zeros(1, 3, 224, 224),)), 'model.pt2')"
)
_ALLOW = "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python)."
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
_RULE = "A model file must not bring code along."


def examine_torch(path: str | os.PathLike, *, place: str | None = None) -> list[Finding]:
    """Returns what keeps a PyTorch file from being opened; an empty list if nothing does.

    Args:
        path: a ``.pt2``, ``.pt``, ``.pth`` or ``.ptl`` file.
        place: how messages name it. Default: the path.

    Raises:
        ModelError: damaged.
    """
    place, kind = place or str(path), files.detect(path)
    if kind == "torchscript":
        return [_finding("a TorchScript archive, which is a program", "", place)]
    if kind == "pickle":
        return [_finding(f"a pickle of {name}", "data.pkl", place) for name in _globals(Path(path).read_bytes())]
    if kind != "pt2":
        return []
    try:
        files.check_program(path, place=place)
    except files.UnsafeProgram as error:
        return [error.finding]
    return [
        _finding(f"example inputs that are more than tensors ({name})", member, place)
        for member, content in _examples(path, place)
        for name in _globals(content)
    ]


def _globals(content: bytes) -> list[str]:
    try:
        return foreign_globals(content)
    except (
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        RuntimeError,
        NotImplementedError,
        EOFError,
        IndexError,
    ):
        return []  # PyTorch calls it damaged; nothing of it is run


def _examples(path: str | os.PathLike, place: str) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.partition("/")[2].startswith("data/sample_inputs/")]
            return [(name, archive.read(name)) for name in names]
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise ModelError(f"The .pt2 file is damaged: {place} ({error}). Copy or export it again.") from error


def _finding(what: str, where: str, place: str) -> Finding:
    return Finding("refused", what, where, f"{_RULE} Received: {place}, {what}. {HOW_TO_EXPORT}. {_ALLOW}")


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
