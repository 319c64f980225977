"""How does a model's file lie on a disk without being readable there? AES-256 in Galois/Counter mode, with a key of the caller's.

It hides the file on disk, and a changed byte is found. It does not hide the model from whoever runs it: the key is where the model is opened,
and the model is in memory then. Who made a file is said by a signature, not by this.

A file is: the magic bytes, a random nonce of 12 bytes, the encrypted bytes, a tag of 16 bytes; magic bytes and nonce are authenticated too.

Source: Dworkin, "Recommendation for Block Cipher Modes of Operation: Galois/Counter Mode (GCM) and GMAC", NIST SP 800-38D, 2007,
https://doi.org/10.6028/NIST.SP.800-38D.
"""

import os
import secrets

from ..errors import ModelError
from ..system.files import check_writable
from .keys import write_private

__all__ = ["decrypt", "encrypt", "generate_encryption_key", "load_encryption_key"]

MAGIC = b"TFC-AES256-GCM-1"
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
LARGEST = (1 << 31) - 1 - TAG_BYTES  # what one call of OpenSSL takes; NIST allows 2**36 - 32 under one nonce
HEX_DIGITS = 2 * KEY_BYTES


def generate_encryption_key(path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Writes a random key of 32 bytes as 64 hexadecimal digits, readable by its owner alone.

    Args:
        path: where the key goes.
        overwrite: whether a file that is there is replaced, with which everything that it opens is lost. Default: False.

    Raises:
        OutputError: the file is there already or cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate_encryption_key(Path(folder, "model.key"))
        ...     len(load_encryption_key(Path(folder, "model.key")))
        32
    """
    write_private(check_writable(path, overwrite=overwrite), secrets.token_hex(KEY_BYTES).encode() + b"\n")


def load_encryption_key(path: str | os.PathLike) -> bytes:
    """Returns a key of 32 bytes from a file that holds them as they are or as 64 hexadecimal digits.

    Raises:
        ModelError: absent, or of another length.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(4 * KEY_BYTES)
    except OSError as error:
        raise ModelError(f"The key must be readable. Received: {path} ({error.strerror}). Check the path.") from error
    if len(content) == KEY_BYTES:
        return content
    try:
        text = content.decode("ascii").strip()
        key = bytes.fromhex(text)
    except ValueError:
        text, key = "", b""
    if len(key) != KEY_BYTES or len(text) != HEX_DIGITS:
        raise ModelError(f"A key must be 32 bytes or 64 hexadecimal digits. Received: {path}. Make one with keygen.")
    return key


def encrypt(content: bytes, key: bytes) -> bytes:
    """Returns a file's bytes encrypted; another result each time, as the nonce is random.

    Args:
        content: the file's bytes, less than 2 GiB.
        key: 32 bytes, for at most 2**32 files.

    Raises:
        ValueError: a key of another length, or more bytes than one nonce takes here.

    Examples:
        >>> key = bytes(32)
        >>> decrypt(encrypt(b"....TFL3", key), key)
        b'....TFL3'
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    _check_key(key)
    if len(content) > LARGEST:
        raise ValueError(f"A file must have at most {LARGEST:,} bytes to be encrypted. Received: {len(content):,}.")
    header = MAGIC + secrets.token_bytes(NONCE_BYTES)
    return header + AESGCM(key).encrypt(header[len(MAGIC) :], content, header)


def decrypt(content: bytes, key: bytes, *, name: str = "the file") -> bytes:
    """Returns the bytes that were encrypted; give them to ``Interpreter(model_content=...)``, and nothing is written.

    Args:
        content: what ``encrypt`` returned.
        key: the same 32 bytes.
        name: what messages call it. Default: "the file".

    Raises:
        ModelError: not encrypted by ``encrypt``, by another key, or a byte was changed or lost.
        ValueError: a key of another length.

    Examples:
        >>> decrypt(b"....TFL3", bytes(32))
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: An encrypted model begins with TFC-AES256-GCM-1. Received: the file without it.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    _check_key(key)
    start = len(MAGIC) + NONCE_BYTES
    if not content.startswith(MAGIC):
        raise ModelError(f"An encrypted model begins with {MAGIC.decode()}. Received: {name} without it.")
    if not TAG_BYTES <= len(content) - start <= LARGEST + TAG_BYTES:
        raise ModelError(f"An encrypted model has a nonce and a tag. Received: {name}, cut off or too long.")
    try:
        return AESGCM(key).decrypt(content[len(MAGIC) : start], content[start:], content[:start])
    except InvalidTag as error:
        raise ModelError(
            f"An encrypted model opens with its own key. Received: {name} and another key, or a byte was changed."
        ) from error


def _check_key(key: bytes) -> None:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        received = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        raise ValueError(f"A key must be 32 bytes. Received: {received}. Read one with load_encryption_key.")
