"""What does a Keras file say of itself? Read for files that the caller trusts, by ``allow_unsafe``: no content is checked here.

Only whether its HDF5 can be read to the end is asked, in a child process, before anything in this one opens the file: the HDF5
library loops for ever on some damaged files and may crash on others, and both hold Python's lock, so that no thread could
stop them.
"""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ...errors import ConversionError, ModelError
from ...system import run_isolated

__all__ = ["check_hdf5", "keras_version", "read_all", "read_config"]

WEIGHTS = "model.weights.h5"
SECONDS = 20
CHUNK_BYTES = 1 << 24
BYTES_PER_SECOND = 10_000_000  # a slow network disk
LARGEST_RATIO = 1100  # deflate packs at best 1032 to 1
_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_LARGEST_CONFIG = 1 << 28  # bytes


def read_config(path: Path) -> Any:
    """Returns the configuration in a ``.keras`` or ``.h5`` file, which is told by its first bytes.

    Args:
        path: a file that begins as a zip archive or as HDF5.

    Raises:
        ModelError: damaged, or weights without a model.
    """
    if _is_archive(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                    raise ValueError("its config.json unpacks to more than 256 MB")
                return json.loads(archive.read("config.json"))
        except _ARCHIVE_ERRORS as error:
            raise ModelError(f"The .keras file is damaged: {path} ({error}). Copy or save it again.") from error
    text = _h5_attribute(path, "model_config")
    if text is None:
        raise ModelError(f"The .h5 file must hold a whole model. Received: {path} with weights only. Use model.save.")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelError(f"The .h5 file is damaged: {path} (its configuration is no JSON). Save it again.") from error


def keras_version(path: Path) -> str:
    """Returns the version of Keras that wrote a ``.keras`` or ``.h5`` file, "" if it does not say.

    Args:
        path: a file that ``read_config`` can read.
    """
    if _is_archive(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        except (*_ARCHIVE_ERRORS, AttributeError):
            return ""
    version = _h5_attribute(path, "keras_version")
    return version.decode(errors="replace") if isinstance(version, bytes) else str(version or "")


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _h5_attribute(path: Path, name: str) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get(name)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"The .h5 file is damaged: {path} ({error}). Copy or save it again.") from error


def check_hdf5(path: Path) -> str | None:
    """Returns the model configuration of an ``.h5`` file that is sound, None where there is none.

    Args:
        path: an ``.h5`` file, or a ``.keras`` archive that holds one.

    Raises:
        ModelError: HDF5 refuses a part of it, crashes on it or does not come to an end.

    Examples:
        >>> check_hdf5(Path("models/digits/digits.keras")) is None
        True
    """
    seconds = SECONDS + path.stat().st_size // BYTES_PER_SECOND
    try:
        return run_isolated("tfcompress.lowering.trust.unchecked:read_all", str(path), timeout_seconds=seconds)
    except ConversionError as error:
        reason = str(error).partition(". Received: ")[2].partition(".")[0]
        raise ModelError(
            f"The weights must be a sound HDF5 file. Received: {path}, on which the HDF5 library crashed or looped "
            f"({reason}). Copy or save it again."
        ) from error


def read_all(path: str, report: Any) -> str | None:
    """Reads every attribute and every value; runs in the child, as ``check_hdf5`` says."""
    import h5py

    with open(path, "rb") as start:
        kind = ".keras" if start.read(2) == b"PK" else ".h5"
    try:
        source, size = _open(path, kind)
        if source is None:
            return None
        with h5py.File(source, "r") as file:
            text = file.attrs.get("model_config")
            _read(file, size)
            file.visititems(lambda _, item: _read(item, size))
            return text.decode() if isinstance(text, bytes) else None if text is None else str(text)
    except ModelError:
        raise
    except Exception as error:  # h5py raises whatever the damage makes it stumble over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"The {kind} file is damaged: {path} ({reason}). Copy or save it again.") from error


def _open(path: str, kind: str) -> tuple[Any, int]:
    """Returns what h5py opens, and its size in bytes; None for an archive without weights."""
    if kind == ".h5":
        return path, Path(path).stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            if WEIGHTS not in archive.namelist():
                return None, 0
            if archive.getinfo(WEIGHTS).file_size > LARGEST_RATIO * Path(path).stat().st_size:
                raise zipfile.BadZipFile("impossible size")
            content = archive.read(WEIGHTS)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"The .keras file is damaged: {path} ({error}). Copy or save it again.") from error
    return io.BytesIO(content), len(content)


def _read(item: Any, size: int) -> None:
    import h5py

    for name in item.attrs:
        item.attrs[name]
    if not isinstance(item, h5py.Dataset):
        return
    if item.nbytes > LARGEST_RATIO * size:
        raise ValueError(f"{item.name} would be {item.nbytes} bytes large")
    if not item.shape:
        item[()]
        return
    rows = max(1, CHUNK_BYTES // max(1, item.nbytes // max(1, len(item))))
    for start in range(0, len(item), rows):
        item[start : start + rows]
