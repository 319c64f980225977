"""How a result reaches the disk: whole or not at all.

Does not decide what is written. Every writer of the package goes through ``write_atomically``.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from ..errors import ModelError, OutputError, TfcompressError

__all__ = ["check_distinct", "check_exists", "check_regular", "check_writable", "write_atomically"]

TEMPORARY, PARTIAL = ".tfcompress.", ".partial"


def check_distinct(**paths: str | os.PathLike | None) -> None:
    """Refuses two names for one file, one of which would be lost; call it before long work starts.

    Args:
        paths: a path by the flag that names it; None and "-" are left out.

    Raises:
        OutputError: two of them lead to the same file.

    Examples:
        >>> check_distinct(output="a.tflite", json="./a.tflite")
        Traceback (most recent call last):
        ...
        tfcompress.errors.OutputError: Each file needs a name of its own. Received: a.tflite for output and for json. Rename one.
    """
    seen: dict[str, str] = {}
    for flag, path in paths.items():
        if path is None or str(path) in ("", "-"):
            continue
        real = os.path.realpath(path)
        if real in seen:
            raise OutputError(
                f"Each file needs a name of its own. Received: {os.path.relpath(real)} for {seen[real]} and for {flag}. "
                "Rename one."
            )
        seen[real] = flag


def check_exists(path: str | os.PathLike) -> None:
    """Refuses a model's path that leads nowhere; call it before anything slow is loaded.

    Raises:
        ModelError: there is nothing of that name.

    Examples:
        >>> check_exists("/no/such/model.keras")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model file must exist. Received: /no/such/model.keras. Check the path.
    """
    if not os.path.exists(path):
        raise ModelError(f"The model file must exist. Received: {path}. Check the path.")


def check_regular(path: str | os.PathLike, what: str, kind: type[TfcompressError] = ModelError) -> None:
    """Refuses what is no plain file: a pipe or a device never ends, or waits for ever. Nothing of that name is left to others.

    Args:
        path: of the file.
        what: how messages begin: "The model".
        kind: of the error. Default: ``ModelError``.

    Raises:
        TfcompressError: of that kind, for a pipe, a device, a socket or a folder.

    Examples:
        >>> check_regular("/dev/zero", "The model")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model must be a plain file. Received: /dev/zero, a device. Name a file.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # not there, or no name at all: opening it says so
        return
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
        received = kinds.get(stat.S_IFMT(mode), "a device")
        raise kind(f"{what} must be a plain file. Received: {path}, {received}. Name a file.")


def check_writable(path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Returns ``path`` as a ``Path`` if a file may be written there; call it before long work starts.

    Args:
        path: where the file is to be.
        overwrite: whether an existing file may be replaced. Default: False.

    Raises:
        OutputError: the folder does not exist or is not writable, the path is a folder, or the file exists.

    Examples:
        >>> check_writable("/no/such/folder/model.tflite")
        Traceback (most recent call last):
        ...
        tfcompress.errors.OutputError: The output folder must exist. Received: /no/such/folder. Create it first.
    """
    path = Path(path)
    folder = path.parent
    try:
        if not folder.is_dir():
            raise OutputError(f"The output folder must exist. Received: {folder}. Create it first.")
        if path.is_dir():
            raise OutputError(f"The output must be a file. Received a folder: {path}. Add a file name.")
        if path.exists() and not path.is_file():
            raise OutputError(f"The output must be a plain file. Received: {path}, a device or a pipe. Name a file.")
        if not os.path.lexists(path):
            _check_name(path)
        if path.exists() and not overwrite:
            raise OutputError(f"The output file exists already: {path}. Choose another name or pass --overwrite.")
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise OutputError(
            f"The output must have a name that can be written. Received: {path} ({error.strerror})."
        ) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"The output folder must be writable. Received: {folder}. Choose another folder.")
    return path


def write_atomically(path: str | os.PathLike, content: bytes | str, *, overwrite: bool = False) -> Path:
    """Writes ``content`` to a temporary name beside ``path`` and renames it: the old file or the new one, never half.

    A file that is replaced hands its mode on; a new one has that of the umask.

    Args:
        path: where the file is to be.
        content: bytes, or text that is written as UTF-8.
        overwrite: whether an existing file may be replaced. Default: False.

    Raises:
        OutputError: as ``check_writable``, or the disk refused the bytes.

    Examples:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", "whole").read_text()
        'whole'
    """
    path = check_writable(path, overwrite=overwrite)
    if path.is_symlink():  # the file that it points to is meant, not the link
        path = path.resolve()
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = None
    try:
        # Not longer by being of a long name: what can be named can be written.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=PARTIAL)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"Could not write {path}: {error.strerror}. Check the folder and its space.") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def _check_name(path: Path) -> None:
    """Raises ``OSError`` for a name that the folder's file system cannot hold, a long one for instance."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)


def _mode(path: Path) -> int:
    """Returns the mode of the file that is there, else that of a new one."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
