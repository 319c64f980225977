"""Which key signed it, and may it? Elliptic curve keys and X.509 certificates, in PEM files.

The arithmetic and the path validation are those of ``cryptography``; what a signature covers is in ``manifest``.
"""

import datetime
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import OutputError, SignatureError
from ..system.files import check_distinct, check_writable

__all__ = [
    "Curve",
    "fingerprint",
    "generate_keys",
    "load_private_key",
    "load_public_key",
    "verify_chain",
    "write_private",
]

Curve = Literal["P-256", "P-384", "P-521"]
PRIVATE_MODE = 0o600


def generate_keys(
    private: str | os.PathLike,
    public: str | os.PathLike,
    *,
    curve: Curve = "P-256",
    password: str | None = None,
    overwrite: bool = False,
) -> str:
    """Writes a new pair of keys as PEM files and returns the public one's fingerprint.

    Args:
        private: where the private key goes, readable by its owner alone.
        public: where the public key goes.
        curve: "P-256", "P-384" or "P-521". Default: "P-256".
        password: encrypts the private key. Default: none.
        overwrite: whether files that are there are replaced. Default: False.

    Raises:
        OutputError: a file is there already or cannot be written.
        ValueError: an unknown curve.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = generate_keys(Path(folder, "key.pem"), Path(folder, "key.pub"))
        ...     fingerprint(load_public_key(Path(folder, "key.pub"))) == found
        True
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if curve not in get_args(Curve):
        raise ValueError(f"curve must be one of {', '.join(get_args(Curve))}. Received: curve={curve!r}.")
    check_distinct(private=private, public=public)
    paths = [check_writable(path, overwrite=overwrite) for path in (private, public)]
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    key = ec.generate_private_key(curves[curve])
    hidden = serialization.NoEncryption() if not password else serialization.BestAvailableEncryption(password.encode())
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
    write_private(paths[0], content)
    write_private(paths[1], _pem(key.public_key()), mode=0o644)
    return fingerprint(key.public_key())


def load_private_key(path: str | os.PathLike, password: str | None = None) -> Any:
    """Returns an elliptic curve's private key from a PEM file.

    Args:
        path: the file.
        password: what it was encrypted with. Default: none.

    Raises:
        SignatureError: absent, no such key, or another password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(_read(path), None if password is None else password.encode())
    except TypeError as error:
        way = "Give its password." if password is None else "Leave the password out."
        raise SignatureError(f"The password must belong to the key. Received: {path} ({error}). {way}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(
            f"A private key must be a PEM file, and its password the right one. Received: {path}. Make one with keygen."
        ) from error
    _check_curve(key, path)
    return key


def load_public_key(path: str | os.PathLike) -> Any:
    """Returns an elliptic curve's public key from a PEM file.

    Raises:
        SignatureError: absent, or no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(
            f"A public key must be a PEM file. Received: {path}. Give the .pub file that keygen wrote."
        ) from error
    _check_curve(key, path)
    return key


def fingerprint(public_key: Any) -> str:
    """Returns the SHA-256 of a public key's PEM text in hexadecimal digits, by which signatures name it."""
    return hashlib.sha256(_pem(public_key)).hexdigest()


def digest_of(key: Any) -> Any:
    """Returns the hash that belongs to a key's curve: SHA-256, SHA-384 or SHA-512."""
    from cryptography.hazmat.primitives import hashes

    return {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.curve.key_size]


def load_certificates(paths: Sequence[str | os.PathLike]) -> list[Any]:
    """Returns the certificates in PEM files, in order.

    Raises:
        SignatureError: absent, or no certificates.
    """
    from cryptography import x509

    found = []
    for path in paths:
        try:
            found += x509.load_pem_x509_certificates(_read(path))
        except ValueError as error:
            raise SignatureError(f"Certificates must be PEM files. Received: {path} ({error}).") from error
    return found


def verify_chain(chain: Sequence[Any], roots: Sequence[Any], *, at: datetime.datetime | None = None) -> Any:
    """Returns the public key of a chain's first certificate, once a root that is trusted vouches for it.

    Args:
        chain: the signer's certificate, then those between it and a root.
        roots: the certificates that are trusted.
        at: the moment for which it must hold. Default: now.

    Raises:
        SignatureError: expired, not for signatures, or from nobody who is trusted.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

    leaf, moment = chain[0], at or datetime.datetime.now(datetime.UTC)
    if not leaf.not_valid_before_utc <= moment <= leaf.not_valid_after_utc:
        raise SignatureError(
            f"The signer's certificate must be valid now. Received: {leaf.subject.rfc4514_string()}, valid from "
            f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}. Ask for a new signature."
        )
    policies = {"ca_policy": ExtensionPolicy.webpki_defaults_ca(), "ee_policy": ExtensionPolicy.permit_all()}
    verifier = (
        PolicyBuilder().store(Store(list(roots))).time(moment).extension_policies(**policies).build_client_verifier()
    )
    try:
        verifier.verify(leaf, list(chain[1:]))
    except VerificationError as error:
        raise SignatureError(
            f"The signer's certificate must lead to a trusted one. Received: {leaf.subject.rfc4514_string()} ({error})."
        ) from error
    usage = _extension(leaf, x509.KeyUsage)
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if not ((usage and usage.digital_signature) or (extended and ExtendedKeyUsageOID.CODE_SIGNING in extended)):
        raise SignatureError(
            f"The signer's certificate must be for signatures. Received: {leaf.subject.rfc4514_string()} without that use."
        )
    _check_curve(leaf.public_key(), leaf.subject.rfc4514_string())
    return leaf.public_key()


def _extension(certificate: Any, kind: Any) -> Any:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_curve(key: Any, place: object) -> None:
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if curve not in ("secp256r1", "secp384r1", "secp521r1"):
        raise SignatureError(
            f"A key must lie on P-256, P-384 or P-521. Received: {curve} in {place}. Make one with keygen."
        )


def _pem(public_key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read(path: str | os.PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SignatureError(
            f"The key must be readable. Received: {path} ({error.strerror}). Check the path."
        ) from error


def write_private(path: Path, content: bytes, mode: int = PRIVATE_MODE) -> None:
    """Writes a key, whole or not at all, with the rights that it is to have from the first byte on.

    Args:
        path: where to; a file that is there is replaced.
        content: all its bytes.
        mode: its rights. Default: its owner reads and writes it, and nobody else.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"The key must be writable. Received: {path} ({error.strerror}).") from error
