"""Is every file of this folder what its maker signed? Goes into bundles as it is, and runs without tfcompress.

Reads signatures of OpenSSF Model Signing v1.0 over whole files with SHA-256, which is how ``tfcompress sign`` and ``model_signing``
write them. Needs Python 3.9 and, for the elliptic curves, ``pip install cryptography``. What is kept was read once: its bytes are those
whose digest was signed.

Source: The OpenSSF, "OpenSSF Model Signing (OMS) Specification", version 1.0, 2025, https://github.com/ossf/model-signing-spec.
"""

import base64
import datetime
import hashlib
import json
import os
import stat
from pathlib import Path

__all__ = ["NotAsSigned", "verified"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SIGNATURE = "model.sig"
GIT = (".git", ".gitattributes", ".github", ".gitignore")
LARGEST_SIGNATURE = 1 << 24  # bytes
CHUNK_BYTES = 1 << 20


class NotAsSigned(Exception):
    """The folder is not what its maker signed, or nobody who is trusted signed it.

    Examples:
        >>> issubclass(NotAsSigned, Exception)
        True
    """


def verified(folder, trusted, keep=()):
    """Returns the bytes of the files to keep, by name, once every file of the folder has been found as it was signed.

    Args:
        folder: holds the files and their signature, model.sig.
        trusted: the signer's public key or certificates of trusted roots, a PEM file.
        keep: names of files; what is not there is left out. Default: none.

    Raises:
        NotAsSigned: no signature, another key, an expired certificate, a changed, missing or added file.

    Examples:
        >>> verified("/no/such/bundle", "maker.pub")
        Traceback (most recent call last):
        ...
        tfcompress.bundling.signed_files.NotAsSigned: /no/such/bundle/model.sig must be readable (No such file or directory).
    """
    folder = Path(folder)
    place = folder / SIGNATURE
    bundle = _object(_content(place, LARGEST_SIGNATURE), place)
    try:
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signature,) = (base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"])
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"the payload is {envelope['payloadType']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise NotAsSigned(f"{place} must be a signature of OpenSSF Model Signing: {error}") from error
    _check_signature(_public_key(bundle.get("verificationMaterial"), Path(trusted), place), signature, payload, place)
    wanted, ignored = _listed(_object(payload, place), place)
    kept, found = {}, {}
    for name, path in _files(folder, {*GIT, *ignored, SIGNATURE}):
        if name in keep:
            kept[name] = _content(path)
            found[name] = hashlib.sha256(kept[name]).hexdigest()
        else:
            found[name] = _digest(path)
    kinds = {
        "changed": [name for name in wanted if name in found and found[name] != wanted[name]],
        "missing": [name for name in wanted if name not in found],
        "added": [name for name in found if name not in wanted],
    }
    told = [f"{kind}: {', '.join(sorted(names)[:3])}" for kind, names in kinds.items() if names]
    if told:
        raise NotAsSigned(f"{folder} must be what was signed. Received {'; '.join(told)}. Get it again from its maker.")
    return kept


def _listed(statement, place):
    """Returns the digests that were signed, by name, and what was left out."""
    try:
        if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError(f"it is {statement['predicateType']!r}")
        how = statement["predicate"]["serialization"]
        if (how["method"], how["hash_type"]) != ("files", "sha256") or how.get("allow_symlinks"):
            raise ValueError("files are not listed whole by SHA-256")
        resources = statement["predicate"]["resources"]
        listed = {str(each["name"]): str(each["digest"]) for each in resources}
        if not listed or len(listed) != len(resources) or {each["algorithm"] for each in resources} != {"sha256"}:
            raise ValueError("a file stands twice, or none does")
        return listed, [str(name) for name in how["ignore_paths"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NotAsSigned(f"{place} must list files with digests: {error}") from error


def _files(folder, left_out):
    """Yields the name and path of every regular file; a link or anything else is refused."""
    for here, folders, files in os.walk(folder):
        below = "" if Path(here) == folder else Path(here).relative_to(folder).as_posix() + "/"
        for name in [*folders, *files]:
            path = Path(here, name)
            if below + name in left_out:
                continue
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield below + name, path
            elif not stat.S_ISDIR(mode):
                raise NotAsSigned(f"Only regular files are signed. Received: {path}. Take it away.")
        folders[:] = sorted(name for name in folders if below + name not in left_out)


def _public_key(material, trusted, place):
    """Returns the key that must have signed: the one that is trusted, or that of a certificate which a root vouches for."""
    serialization = _cryptography().hazmat.primitives.serialization
    text = _content(trusted)
    if b"BEGIN CERTIFICATE" in text:
        return _certified(material, text, trusted, place)
    try:
        return serialization.load_pem_public_key(text)
    except ValueError as error:
        raise NotAsSigned(f"A public key must be a PEM file. Received: {trusted}.") from error


def _certified(material, roots, trusted, place):
    x509, verification = _cryptography().x509, _cryptography().x509.verification
    try:
        entries = material["x509CertificateChain"]["certificates"]
        chain = [x509.load_der_x509_certificate(base64.b64decode(entry["rawBytes"])) for entry in entries]
        store = verification.Store(x509.load_pem_x509_certificates(roots))
        leaf = chain[0]
        usages = {type(each.value).__name__: each.value for each in leaf.extensions}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotAsSigned(f"{place} must hold a certificate, and {trusted} roots: {error}") from error
    who, now = leaf.subject.rfc4514_string(), datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - Python 3.9
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        until = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise NotAsSigned(f"The signer's certificate must be valid now. Received: {who}, valid from {until}.")
    policy = verification.ExtensionPolicy
    builder = verification.PolicyBuilder().store(store).time(now)
    builder = builder.extension_policies(ca_policy=policy.webpki_defaults_ca(), ee_policy=policy.permit_all())
    try:
        builder.build_client_verifier().verify(leaf, chain[1:])
    except verification.VerificationError as error:
        raise NotAsSigned(f"The signer's certificate must lead to a trusted one. Received: {who} ({error}).") from error
    usage, extended = usages.get("KeyUsage"), usages.get("ExtendedKeyUsage")
    code_signing = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING
    if not ((usage and usage.digital_signature) or (extended and code_signing in extended)):
        raise NotAsSigned(f"The signer's certificate must be for signatures. Received: {who} without that use.")
    return leaf.public_key()


def _check_signature(public, signature, payload, place):
    primitives = _cryptography().hazmat.primitives
    curve = getattr(getattr(public, "curve", None), "name", "another kind of key")
    digests = {"secp256r1": primitives.hashes.SHA256, "secp384r1": primitives.hashes.SHA384}
    digests["secp521r1"] = primitives.hashes.SHA512
    if curve not in digests:
        raise NotAsSigned(f"A key must lie on P-256, P-384 or P-521. Received: {curve}.")
    kind = PAYLOAD_TYPE.encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    try:
        public.verify(signature, signed, primitives.asymmetric.ec.ECDSA(digests[curve]()))
    except _cryptography().exceptions.InvalidSignature as error:
        raise NotAsSigned(
            f"{place} must be signed by the key that is trusted. Received: the signature of another."
        ) from error


def _cryptography():
    """Returns the package ``cryptography`` with the parts that are used here."""
    try:
        import cryptography.exceptions
        import cryptography.hazmat.primitives.asymmetric.ec
        import cryptography.hazmat.primitives.hashes
        import cryptography.hazmat.primitives.serialization
        import cryptography.x509.oid
        import cryptography.x509.verification
    except ImportError as error:
        raise NotAsSigned("Signatures are checked with cryptography 45 or newer: pip install cryptography") from error
    return cryptography


def _object(text, place):
    def unique(pairs):
        if len(dict(pairs)) != len(pairs):  # two readers could believe different ones
            raise ValueError("a name stands twice")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise NotAsSigned(f"{place} must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise NotAsSigned(f"{place} must be a JSON object.")
    return value


def _content(path, largest=None):
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NotAsSigned(f"{path} must be a regular file.")
        with open(path, "rb") as file:
            content = file.read(-1 if largest is None else largest + 1)
    except OSError as error:
        raise NotAsSigned(f"{path} must be readable ({error.strerror}).") from error
    if largest is not None and len(content) > largest:
        raise NotAsSigned(f"{path} must be a small file.")
    return content


def _digest(path):
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for part in iter(lambda: file.read(CHUNK_BYTES), b""):
                digest.update(part)
    except OSError as error:
        raise NotAsSigned(f"{path} must be readable ({error.strerror}).") from error
    return digest.hexdigest()
