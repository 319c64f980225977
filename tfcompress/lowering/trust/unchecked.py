"""What does a Keras file say of itself? Read for files that the caller trusts, by ``allow_unsafe``: nothing is checked here."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from ...errors import ModelError

__all__ = ["keras_version", "read_config"]

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
