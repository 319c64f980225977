"""Is this the model that its maker signed, to the last byte? OpenSSF Model Signing v1.0, offline.

A signature is a Sigstore bundle around a DSSE envelope around an in-toto statement that lists every file: nothing of our own,
so that ``model_signing verify`` reads what ``sign`` writes and the other way round. ``manifest`` lists the files, ``keys`` knows keys and
certificates. Nothing is loaded or run here.

Sources: The OpenSSF, "OpenSSF Model Signing (OMS) Specification", version 1.0, 2025,
https://github.com/ossf/model-signing-spec; "DSSE: Dead Simple Signing Envelope", version 1.0,
https://github.com/secure-systems-lab/dsse.
"""

import base64
import binascii
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SignatureError
from ..system.documents import parse_json
from ..system.files import check_writable, write_atomically
from . import keys
from .manifest import Manifest, Resource, Serialization, digests_of, manifest_of

__all__ = ["Verified", "default_signature", "sign", "verify"]

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SIGNATURE_FILE = "model.sig"
LARGEST_SIGNATURE = 1 << 24  # bytes; a manifest of a hundred thousand files
FEW = 3


@dataclass(frozen=True)
class Verified:
    """What a signature vouches for, once it has been checked.

    Args:
        name: the model's name as it was signed.
        files: names of the files that it covers, in order.
        digests: theirs, in hexadecimal digits.
        root_sha256: one digest over all of them.
        signer: the fingerprint of the key, or the subject of the certificate.
        serialization: how files were listed and hashed. Default: SHA-256 of whole files.
    """

    name: str
    files: tuple[str, ...]
    digests: tuple[str, ...]
    root_sha256: str
    signer: str
    serialization: Serialization = field(default_factory=Serialization)

    def check(self, name: str, content: bytes) -> None:
        """Refuses bytes that are not those of a signed file: what was read may have changed since it was verified.

        Args:
            name: the file's, as it was signed.
            content: all its bytes.

        Raises:
            SignatureError: other bytes, or no such file.
        """
        found = {
            (resource.name, resource.digest) for resource in digests_of(name, io.BytesIO(content), self.serialization)
        }
        shard = re.compile(re.escape(name) + r":\d+:\d+")
        whole = self.serialization.shard_size is None
        signed = {
            (each, digest)
            for each, digest in zip(self.files, self.digests, strict=True)
            if (each == name if whole else shard.fullmatch(each))
        }
        if found != signed:
            raise SignatureError(f"{name} must be what was signed. Received other bytes. Get it again from its maker.")

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            "name": self.name,
            "signer": self.signer,
            "root_sha256": self.root_sha256,
            "files": dict(zip(self.files, self.digests, strict=True)),
        }

    def __str__(self) -> str:
        count = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"{self.name}: {count} as signed by {self.signer} (root SHA-256 {self.root_sha256})"


def default_signature(model: str | os.PathLike) -> Path:
    """Returns where the signature of a model lies: in its folder, or beside its file.

    Examples:
        >>> default_signature("/no/model.tflite").as_posix()
        '/no/model.tflite.sig'
    """
    path = Path(model)
    return path / SIGNATURE_FILE if path.is_dir() else path.with_name(f"{path.name}.sig")


def sign(
    model: str | os.PathLike,
    *,
    key: str | os.PathLike,
    signature: str | os.PathLike | None = None,
    certificate: str | os.PathLike | None = None,
    chain: Sequence[str | os.PathLike] = (),
    password: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Signs a file or every file of a folder and returns where the signature lies.

    Args:
        model: a ``.tflite`` file, or a folder such as a bundle.
        key: the private key, a PEM file on P-256, P-384 or P-521.
        signature: where it goes. Default: ``model.sig`` in the folder, ``NAME.sig`` beside a file.
        certificate: the signer's certificate of that key, PEM; it is verified against roots instead of a key. Default: none.
        chain: certificates between it and a root, PEM. Default: none.
        password: of the private key. Default: none.
        overwrite: whether a signature that is there is replaced. Default: False.

    Raises:
        SignatureError: nothing to sign, or a key that cannot sign it.
        OutputError: the signature cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     private, public = Path(folder, "key.pem"), Path(folder, "key.pub")
        ...     _ = keys.generate_keys(private, public)
        ...     model = Path(folder, "model.tflite")
        ...     _ = model.write_bytes(b"....TFL3")
        ...     print(sign(model, key=private).name, verify(model, key=public).files)
        model.tflite.sig ('model.tflite',)
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    private = keys.load_private_key(key, password)
    path = Path(model)
    target = check_writable(default_signature(path) if signature is None else signature, overwrite=overwrite)
    material: dict[str, Any] = {"publicKey": {"hint": keys.fingerprint(private.public_key())}, "tlogEntries": []}
    if certificate is not None:
        material = _certificates(certificate, chain, private)
    manifest = manifest_of(path, Serialization(ignore_paths=_own_name(path, target)))
    payload = _statement(manifest)
    signed = private.sign(_pre_authentication_encoding(payload), ec.ECDSA(keys.digest_of(private)))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signed).decode(), "keyid": ""}],
        },
    }
    write_atomically(target, json.dumps(bundle, indent=2).encode() + b"\n", overwrite=overwrite)
    return target


def verify(
    model: str | os.PathLike,
    *,
    key: str | os.PathLike | None = None,
    roots: Sequence[str | os.PathLike] = (),
    signature: str | os.PathLike | None = None,
) -> Verified:
    """Returns what a signature vouches for, and refuses a model that is not what was signed.

    Every file must be there with its very bytes, and no other file. The signature is checked before anything that it says
    is believed.

    Args:
        model: the file or folder.
        key: the public key that must have signed it, a PEM file. Default: none, then ``roots``.
        roots: certificates that are trusted, PEM files, for a model that was signed with a certificate. Default: none.
        signature: where it lies. Default: as ``sign`` puts it.

    Raises:
        SignatureError: no signature, another key, an expired certificate, a changed, missing or added file.
        ValueError: neither a key nor roots, or both.

    Examples:
        >>> verify("/no/such/model.tflite", key="/no/key.pub")
        Traceback (most recent call last):
        ...
        tfcompress.errors.SignatureError: The model must exist. Received: /no/such/model.tflite. Check the path.
    """
    if (key is None) == (not roots):
        raise ValueError("verify needs a public key or trusted roots. Received: both or neither. Give one of them.")
    path = Path(model)
    if not path.exists():
        raise SignatureError(f"The model must exist. Received: {path}. Check the path.")
    place = default_signature(path) if signature is None else Path(signature)
    bundle = _read_bundle(place)
    public, signer = _signer(bundle["verificationMaterial"], key, roots, place)
    payload = _checked_payload(bundle["dsseEnvelope"], public, place)
    signed = _manifest(payload, place)
    own = _own_name(path, place)
    wanted = signed.serialization
    found = manifest_of(path, wanted._replace(ignore_paths=tuple({*wanted.ignore_paths, *own})))
    _compare(signed, found, path)
    names, digests = zip(*signed.resources, strict=True)
    return Verified(signed.name, names, digests, signed.root_sha256, signer, wanted)


def _compare(signed: Manifest, found: Manifest, path: Path) -> None:
    wanted, present = dict(signed.resources), dict(found.resources)
    if not path.is_dir() and len(wanted) == len(present) == 1:
        present = dict(zip(wanted, present.values(), strict=True))  # a single file may have been renamed
    kinds = {
        "changed": [name for name in wanted if name in present and present[name] != wanted[name]],
        "missing": [name for name in wanted if name not in present],
        "added": [name for name in present if name not in wanted],
    }
    told = [f"{kind}: {', '.join(names[:FEW])}{', ...' * (len(names) > FEW)}" for kind, names in kinds.items() if names]
    if told:
        raise SignatureError(
            f"{path} must be what was signed. Received {'; '.join(told)}. Get it again from its maker."
        )


def _certificates(certificate: str | os.PathLike, chain: Sequence[str | os.PathLike], private: Any) -> dict[str, Any]:
    from cryptography.hazmat.primitives import serialization

    found = keys.load_certificates([certificate, *chain])
    if keys.fingerprint(found[0].public_key()) != keys.fingerprint(private.public_key()):
        raise SignatureError(f"The certificate must be that of the key. Received: {certificate} for another key.")
    encoded = [base64.b64encode(each.public_bytes(serialization.Encoding.DER)).decode() for each in found]
    return {"x509CertificateChain": {"certificates": [{"rawBytes": each} for each in encoded]}, "tlogEntries": []}


def _statement(manifest: Manifest) -> bytes:
    """Returns the in-toto statement that is signed (section 6.6)."""
    algorithm = manifest.serialization.hash_type
    resources = [{"name": r.name, "algorithm": algorithm, "digest": r.digest} for r in manifest.resources]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": manifest.name, "digest": {"sha256": manifest.root_sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": manifest.serialization.to_json(), "resources": resources},
    }
    return json.dumps(statement, indent=1).encode()


def _pre_authentication_encoding(payload: bytes) -> bytes:
    """Returns DSSE's PAE: the bytes that a signature is over."""
    return b" ".join([b"DSSEv1", b"%d" % len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), b"%d" % len(payload), payload])


def _own_name(path: Path, signature: Path) -> tuple[str, ...]:
    """Returns the signature's own path below a model's folder: the one file that it cannot cover."""
    if not path.is_dir() or not signature.resolve().is_relative_to(path.resolve()):
        return ()
    return (signature.resolve().relative_to(path.resolve()).as_posix(),)


def _read_bundle(place: Path) -> dict[str, Any]:
    try:
        if place.stat().st_size > LARGEST_SIGNATURE or not place.is_file():
            raise SignatureError(f"A signature must be a small regular file. Received: {place}.")
        text = place.read_bytes()
    except OSError as error:
        raise SignatureError(
            f"A signature must lie with the model. Received: {place} ({error.strerror}). Sign it, or name the file."
        ) from error
    bundle = _json(text, place)
    envelope = bundle.get("dsseEnvelope")
    shaped = (
        bundle.get("mediaType") == MEDIA_TYPE
        and isinstance(bundle.get("verificationMaterial"), dict)
        and isinstance(envelope, dict)
        and isinstance(envelope.get("signatures"), list)
        and len(envelope["signatures"]) == 1
        and isinstance(envelope["signatures"][0], dict)
        and envelope.get("payloadType") == PAYLOAD_TYPE
    )
    if not shaped:
        raise SignatureError(
            f"A signature must be a Sigstore bundle of a DSSE envelope. Received: {place}. Sign it again."
        )
    return bundle


def _json(text: bytes, place: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):  # two readers could believe different ones
            raise ValueError("a name stands twice")
        return dict(pairs)

    try:
        value = parse_json(text, object_pairs_hook=unique)
    except ValueError as error:
        raise SignatureError(f"A signature must be JSON. Received: {place} ({error}). Sign it again.") from error
    if not isinstance(value, dict):
        raise SignatureError(f"A signature must be a JSON object. Received: {place}. Sign it again.")
    return value


def _signer(
    material: dict[str, Any], key: str | os.PathLike | None, roots: Sequence[str | os.PathLike], place: Path
) -> tuple[Any, str]:
    """Returns the public key that must have signed, and what it is called."""
    if key is not None:
        public = keys.load_public_key(key)
        named = material.get("publicKey")
        hint = named.get("hint") if isinstance(named, dict) else None
        if hint is not None and hint != keys.fingerprint(public):
            raise SignatureError(f"{place} must be signed by {key}. Received: a signature of another key, {hint}.")
        return public, keys.fingerprint(public)
    from cryptography import x509

    stated = material.get("x509CertificateChain")
    entries = stated.get("certificates") if isinstance(stated, dict) else None
    try:
        chain = [x509.load_der_x509_certificate(_decoded(entry["rawBytes"], place)) for entry in entries or ()]
    except (ValueError, KeyError, TypeError) as error:
        raise SignatureError(f"A signature's certificates must be X.509. Received: {place} ({error}).") from error
    if not chain:
        raise SignatureError(f"{place} must hold a certificate. Received: a signature of a bare key. Give the key.")
    return keys.verify_chain(chain, keys.load_certificates(roots)), chain[0].subject.rfc4514_string()


def _checked_payload(envelope: dict[str, Any], public: Any, place: Path) -> bytes:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    payload = _decoded(envelope.get("payload"), place)
    signature = _decoded(envelope["signatures"][0].get("sig"), place)
    try:
        public.verify(signature, _pre_authentication_encoding(payload), ec.ECDSA(keys.digest_of(public)))
    except InvalidSignature as error:
        raise SignatureError(
            f"The signature must be that of this key over this list of files. Received: {place}, which is not. "
            "The key is another one, or the signature was changed."
        ) from error
    return payload


def _decoded(text: Any, place: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise SignatureError(f"A signature must be in base 64. Received: {place} ({error}). Sign it again.") from error


def _manifest(payload: bytes, place: Path) -> Manifest:
    """Returns what was signed; a payload of another kind vouches for nothing (section 8.3)."""
    statement = _json(payload, place)
    predicate, subject = statement.get("predicate"), statement.get("subject")
    if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") != PREDICATE_TYPE:
        raise SignatureError(f"{place} must be a signature of a model. Received: {statement.get('predicateType')!r}.")
    try:
        if not isinstance(predicate, dict):
            raise TypeError("no predicate")
        how = Serialization.from_json(predicate["serialization"])
        resources = tuple(Resource(str(each["name"]), str(each["digest"])) for each in predicate["resources"])
        algorithms = {each.get("algorithm", how.hash_type) for each in predicate["resources"]}
        ((name, root),) = [(str(each["name"]), each["digest"]["sha256"]) for each in subject or ()]
        manifest = Manifest(name, resources, how)
        if len(dict(resources)) != len(resources) or not resources or algorithms != {how.hash_type}:
            raise ValueError("a file stands twice, none does, or hashes differ in kind")
        if manifest.root_sha256 != root:
            raise ValueError("its digests do not make up its root digest")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SignatureError(f"{place} must list files with digests. Received: {error}. Sign it again.") from error
    return manifest
