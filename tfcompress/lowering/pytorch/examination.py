"""May this PyTorch file be opened? One answer for whoever opens it and for whoever only asks. PyTorch is not needed."""

import os
import zipfile
import zlib
from pathlib import Path

from ...errors import ModelError
from ..trust.findings import Finding
from . import files
from .pickles import foreign_globals

__all__ = ["HOW_TO_EXPORT", "examine_torch"]

HOW_TO_EXPORT = (
    "Export the module that it was made from: torch.export.save(torch.export.export(module.eval(), "
    "(torch.zeros(1, 3, 224, 224),)), 'model.pt2')"
)
_ALLOW = "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python)."
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
