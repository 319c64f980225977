"""How does a command run a model only if it is signed? The bytes that were verified are the bytes that are run.

A single file is signed beside itself (``NAME.sig``) or as part of its folder (``model.sig`` in it), a folder as a whole. Each file is read
once into memory or into a copy of our own, and those bytes are compared with the signed digest; what happens to the original meanwhile
does not matter.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SignatureError
from .signing import Verified, default_signature, verify

__all__ = ["SignedFile", "copy_signed", "read_signed"]

CERTIFICATE = b"BEGIN CERTIFICATE"


@dataclass(frozen=True)
class SignedFile:
    """A model file in memory whose bytes somebody signed; ``measure``, ``inspect`` and ``compare`` take it as a model.

    Args:
        name: its path.
        tflite: its bytes.
        signer: the fingerprint of the key, or the subject of the certificate.

    Examples:
        >>> SignedFile("m.tflite", b"....TFL3", "CN=maker")
        SignedFile(name='m.tflite', signer='CN=maker')
    """

    name: str
    tflite: bytes = field(repr=False)
    signer: str = ""


def read_signed(path: str | os.PathLike, trusted: str | os.PathLike) -> SignedFile:
    """Returns a model file's bytes if they are what was signed.

    Args:
        path: the file; its signature lies beside it, or it is part of a signed folder, which must be whole then.
        trusted: the signer's public key, or certificates of trusted roots, a PEM file.

    Raises:
        SignatureError: no signature, another key, an expired certificate, a changed, missing or added file.

    Examples:
        >>> read_signed("/no/such/model.tflite", "maker.pub")
        Traceback (most recent call last):
        ...
        tfcompress.errors.SignatureError: The model must exist. Received: /no/such/model.tflite. Check the path.
    """
    path = Path(path)
    beside = default_signature(path)
    if path.is_dir():
        raise SignatureError(f"A signed model file must be a file. Received a folder: {path}. Name the file in it.")
    if beside.exists() or not (path.parent / "model.sig").exists() or not path.exists():
        found = _verified(path, trusted)
        name = found.files[0].partition(":")[0] if found.serialization.shard_size else found.files[0]
    else:
        found, name = _verified(path.parent, trusted), path.name
    content = _read(path)
    found.check(name, content)
    return SignedFile(str(path), content, found.signer)


def copy_signed(path: str | os.PathLike, trusted: str | os.PathLike, into: str | os.PathLike) -> Path:
    """Copies a model, a file or a folder such as a SavedModel, if it is what was signed, and returns the copy's path.

    Args:
        path: the model.
        trusted: as ``read_signed`` takes it.
        into: an existing folder that nobody else writes to; the copy has the model's own name in it.

    Raises:
        SignatureError: as ``read_signed``.

    Examples:
        >>> copy_signed("/no/such/model.keras", "maker.pub", "/tmp")
        Traceback (most recent call last):
        ...
        tfcompress.errors.SignatureError: The model must exist. Received: /no/such/model.keras. Check the path.
    """
    path = Path(path)
    copy = Path(into) / path.resolve().name
    if not path.is_dir():
        copy.write_bytes(read_signed(path, trusted).tflite)
        return copy
    found = _verified(path, trusted)
    names = found.files if not found.serialization.shard_size else {name.rsplit(":", 2)[0] for name in found.files}
    for name in sorted(names):
        content = _read(path / name)
        found.check(name, content)
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    return copy


def _verified(model: Path, trusted: str | os.PathLike) -> Verified:
    if not model.exists():
        raise SignatureError(f"The model must exist. Received: {model}. Check the path.")
    is_root = CERTIFICATE in _read(Path(trusted), "The key that is trusted")
    return verify(model, roots=[trusted]) if is_root else verify(model, key=trusted)


def _read(path: Path, what: str = "A signed file") -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignatureError(
            f"{what} must be readable. Received: {path} ({error.strerror}). Check the path."
        ) from error
