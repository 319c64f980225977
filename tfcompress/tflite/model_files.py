"""Is this a ``.tflite`` file at all, and what are its bytes? Told by its first bytes, before any interpreter sees it.

Whether LiteRT takes the file is found by opening it; what is in it is read by ``flatbuffer``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, Union

from ..errors import ModelError
from ..system.files import check_regular

__all__ = ["FileInMemory", "ModelSource", "check_model_bytes", "is_in_memory", "read_file", "read_model"]

FILE_IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TFLite file: schema.fbs, file_identifier
SMALLEST_HEADER = 8
UNNAMED = "the model bytes"


class FileInMemory(Protocol):
    """A finished file that has not been saved yet, such as a ``Conversion``."""

    @property
    def name(self) -> str:
        """What messages, tables and records call it."""

    @property
    def tflite(self) -> bytes:
        """The bytes of the file."""


ModelSource = Union[str, os.PathLike, bytes, FileInMemory]  # boards have Python 3.9
"""A path of a ``.tflite`` file, its bytes, or a value that holds them."""


def read_model(source: ModelSource) -> tuple[str, bytes]:
    """Returns the name and the bytes of a model file whose header is that of TFLite.

    Args:
        source: path of a ``.tflite`` file, its bytes, or a ``Conversion``.

    Raises:
        ModelError: the file is missing, a folder, unreadable, empty or not TFLite.
        TypeError: it is none of these.

    Examples:
        >>> read_model("missing.tflite")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model file must exist. Received: missing.tflite. Check the path.
    """
    if isinstance(source, (str, os.PathLike)):
        return str(Path(source)), read_file(Path(source), None)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, content = UNNAMED, bytes(source)
    elif is_in_memory(source):
        name, content = source.name, source.tflite
    else:
        raise TypeError(
            "A model is the path of a .tflite file, its bytes, or a Conversion. "
            f"Received: {type(source).__name__}. Convert it first."
        )
    check_model_bytes(content, name)
    return name, content


def is_in_memory(source: Any) -> bool:
    """Whether a source is a value that holds the bytes of a file, such as a ``Conversion``.

    Examples:
        >>> is_in_memory("model.tflite")
        False
    """
    return hasattr(source, "tflite") and hasattr(source, "name")


def read_file(path: Path, size: int | None) -> bytes:
    """Returns the first ``size`` bytes of a model file, or all of them for None, once its header has been checked."""
    if path.is_dir():
        raise ModelError(f"The model must be a .tflite file. Received a folder: {path}. Name the file in it.")
    check_regular(path, "The model")
    try:
        with path.open("rb") as file:
            content = file.read(size)
    except FileNotFoundError as error:
        raise ModelError(f"The model file must exist. Received: {path}. Check the path.") from error
    except OSError as error:
        raise ModelError(f"The model file must be readable. Received: {path} ({error.strerror}).") from error
    check_model_bytes(content, str(path))
    return content


def check_model_bytes(content: bytes, name: str = UNNAMED) -> None:
    """Refuses with a ``ModelError`` what cannot be a TFLite file by its first bytes.

    Args:
        content: the whole file.
        name: what to call it in the message. Default: "the model bytes".

    Examples:
        >>> check_model_bytes(b"")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: A TFLite model is not empty. Received: the model bytes, 0 bytes. Convert it again.
    """
    if not content:
        raise ModelError(f"A TFLite model is not empty. Received: {name}, 0 bytes. Convert it again.")
    if content[4:SMALLEST_HEADER] != FILE_IDENTIFIER:
        raise ModelError(f"A TFLite model has 'TFL3' at byte 4. Received: {name} without it. Give a .tflite file.")
