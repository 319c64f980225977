"""``tfcompress keygen``, ``sign``, ``verify``, ``encrypt`` and ``decrypt``: who made a model, and who may read its file?"""

import contextlib
import getpass
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from ..system import check_distinct, check_exists, check_writable, write_atomically
from .parsing import UsageError, help_text, new_flags, parse, show

__all__ = [
    "DECRYPT",
    "ENCRYPT",
    "KEYGEN",
    "SCAN",
    "SIGN",
    "VERIFY",
    "Command",
    "define_require_signature",
    "signed_copy",
    "signed_model",
]

FOUND = 4  # the exit code of ``scan`` for a file that ``convert`` would refuse; 1 and 2 are those of every command
PASSWORD_VARIABLE = "TFCOMPRESS_KEY_PASSWORD"
_PASSWORD_HELP = f"the private key has a password: taken from ${PASSWORD_VARIABLE}, or asked for"


class Command(NamedTuple):
    """One command of a module that has several, as ``cli`` calls it."""

    SUMMARY: str
    run: Callable[..., int]


def keygen(arguments: Sequence[str], *, program: str) -> int:
    """Runs ``keygen``; returns its exit code."""
    values = new_flags()
    flags.DEFINE_string("private", None, "where the private key goes; keep it secret", flag_values=values)
    flags.DEFINE_string(
        "encryption", None, "instead: where one key goes that encrypts and decrypts model files", flag_values=values
    )
    flags.DEFINE_string("public", None, "where the public key goes; without it beside it, .pub", flag_values=values)
    flags.DEFINE_enum("curve", "P-256", ["P-256", "P-384", "P-521"], "the elliptic curve", flag_values=values)
    flags.DEFINE_bool("password", False, _PASSWORD_HELP, flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing keys", flag_values=values)
    if parse(values, arguments, required=()):
        show(help_text(values, program=program, summary=KEYGEN.SUMMARY, example=f"{program} --private=maker.pem"))
        return 0
    if bool(values.private) == bool(values.encryption):
        raise UsageError("--private or --encryption must be given, and not both. --help lists the flags.")
    from ..security import generate_encryption_key, generate_keys

    if values.encryption:
        generate_encryption_key(values.encryption, overwrite=values.overwrite)
        show(f"{values.encryption}: a key of 32 bytes (keep it secret; without it no file opens that it encrypted)")
        return 0
    public = values.public or f"{os.path.splitext(values.private)[0]}.pub"
    found = generate_keys(
        values.private,
        public,
        curve=values.curve,
        password=_password(values.password, twice=True),
        overwrite=values.overwrite,
    )
    show(f"{values.private} (keep it secret) and {public}: {values.curve}, fingerprint {found}")
    return 0


def sign_model(arguments: Sequence[str], *, program: str) -> int:
    """Runs ``sign``; returns its exit code."""
    values = _signed_flags("what is signed")
    flags.DEFINE_string("key", None, "the private key, PEM", flag_values=values)
    flags.DEFINE_string("certificate", None, "the signer's certificate of that key, PEM", flag_values=values)
    flags.DEFINE_list("chain", None, "certificates between it and a root, PEM", flag_values=values)
    flags.DEFINE_bool("password", False, _PASSWORD_HELP, flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace an existing signature", flag_values=values)
    if parse(values, arguments, required=("key",)):
        show(help_text(values, program=program, summary=SIGN.SUMMARY, example=f"{program} --bundle=d/ --key=maker.pem"))
        return 0
    from ..security import sign

    written = sign(
        _subject(values),
        key=values.key,
        signature=values.signature,
        certificate=values.certificate,
        chain=values.chain or (),
        password=_password(values.password),
        overwrite=values.overwrite,
    )
    show(f"{written}: signed {_subject(values)}")
    return 0


def verify_model(arguments: Sequence[str], *, program: str) -> int:
    """Runs ``verify``; returns its exit code: 0 only for the very bytes that a trusted signer signed."""
    values = _signed_flags("what is verified")
    flags.DEFINE_string("key", None, "the signer's public key, PEM", flag_values=values)
    flags.DEFINE_list("roots", None, "certificates that are trusted instead of a key, PEM", flag_values=values)
    flags.DEFINE_string("json", None, "also write what was verified as JSON; - is stdout", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    if parse(values, arguments, required=()):
        show(
            help_text(values, program=program, summary=VERIFY.SUMMARY, example=f"{program} --bundle=d/ --key=maker.pub")
        )
        return 0
    if bool(values.key) == bool(values.roots):
        raise UsageError("--key or --roots must be given, and not both. --help lists the flags.")
    if values.json and values.json != "-":
        check_writable(values.json, overwrite=values.overwrite)
    from ..security import verify

    found = verify(_subject(values), key=values.key, roots=values.roots or (), signature=values.signature)
    links = _chain(Path(values.bundle), found) if values.bundle else []
    record = json.dumps({**found.to_json(), **({"chain": links} if links else {})}, indent=2) + "\n"
    if values.json == "-":
        show(record)
        return 0
    show("\n".join([str(found), *links]))
    if values.json:
        write_atomically(values.json, record, overwrite=values.overwrite)
    return 0


def encrypt_model(arguments: Sequence[str], *, program: str) -> int:
    """Runs ``encrypt``; returns its exit code."""
    return _transform(arguments, program, ENCRYPT, "model.tflite", "model.tflite.enc")


def decrypt_model(arguments: Sequence[str], *, program: str) -> int:
    """Runs ``decrypt``; returns its exit code."""
    return _transform(arguments, program, DECRYPT, "model.tflite.enc", "model.tflite")


def _transform(arguments: Sequence[str], program: str, command: Command, read: str, written: str) -> int:
    values = new_flags()
    flags.DEFINE_string("model", None, f"the file, such as {read}", flag_values=values)
    flags.DEFINE_string(
        "key", None, "32 bytes or 64 hexadecimal digits, as keygen --encryption writes", flag_values=values
    )
    flags.DEFINE_string("output", None, f"where the other one goes, such as {written}", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace an existing output file", flag_values=values)
    if parse(values, arguments, required=("model", "key", "output")):
        example = f"{program} --model={read} --key=model.key --output={written}"
        show(help_text(values, program=program, summary=command.SUMMARY, example=example))
        return 0
    check_distinct(model=values.model, key=values.key, output=values.output)
    check_exists(values.model)
    check_writable(values.output, overwrite=values.overwrite)
    from ..security import decrypt, encrypt, load_encryption_key

    key, content = load_encryption_key(values.key), Path(values.model).read_bytes()
    made = encrypt(content, key) if command is ENCRYPT else decrypt(content, key, name=values.model)
    write_atomically(values.output, made, overwrite=values.overwrite)
    show(f"{values.output}: {len(made):,} bytes")
    return 0


def scan_model(arguments: Sequence[str], *, program: str) -> int:
    """Runs ``scan``; returns its exit code: 0 for a clean file, 4 for one that is refused."""
    values = new_flags()
    flags.DEFINE_string(
        "model",
        None,
        "a .keras, .h5, .tflite, .pt2, .pt, .pth or .ptl file, or a SavedModel folder",
        flag_values=values,
    )
    flags.DEFINE_string("json", None, "also write the findings as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("sarif", None, "also write them as SARIF 2.1.0; - is stdout", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    if parse(values, arguments, required=("model",)):
        show(help_text(values, program=program, summary=SCAN.SUMMARY, example=f"{program} --model=model.keras"))
        return 0
    outputs = {"json": values.json, "sarif": values.sarif}
    check_distinct(**outputs)
    for path in outputs.values():
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)
    from ..security import scan

    found = scan(values.model)
    records = {"json": found.to_json(), "sarif": found.to_sarif()}
    if "-" not in outputs.values():
        show(str(found))
    for name, path in outputs.items():
        text = json.dumps(records[name], indent=2, allow_nan=False) + "\n"
        if path == "-":
            show(text)
        elif path:
            write_atomically(path, text, overwrite=values.overwrite)
    return FOUND if found.refused else 0


KEYGEN = Command("make keys to sign models, or to encrypt their files with", keygen)
SIGN = Command("sign a model or a bundle, so that every changed byte is found", sign_model)
ENCRYPT = Command("hide a model's file on a disk; not in memory, where it runs", encrypt_model)
DECRYPT = Command("write the model that encrypt hid", decrypt_model)
VERIFY = Command("check that a model or a bundle is what its maker signed", verify_model)


def _chain(folder: Path, found: Any) -> list[str]:
    """Returns the chain from the float model to the file, as the bundle's provenance has it; none in a folder without one."""
    from ..bundling.provenance import PROVENANCE, chain, read_statement

    if PROVENANCE not in found.files:
        return []
    content, model = ((folder / name).read_bytes() for name in (PROVENANCE, "model.tflite"))
    found.check(PROVENANCE, content)
    found.check("model.tflite", model)
    return list(chain(read_statement(content, str(folder / PROVENANCE)), model))


def define_require_signature(values: flags.FlagValues) -> None:
    """Defines the flag by which a command refuses models that nobody signed."""
    flags.DEFINE_string(
        "require_signature",
        None,
        "refuse a model that is not what the owner of this public key, or of a certificate from these roots, signed; PEM",
        flag_values=values,
    )


def signed_model(path: str, key: str | None) -> Any:
    """Returns the path of a model file, or the bytes that were verified where a signature is required."""
    if not key:
        return path
    from ..security import read_signed

    return read_signed(path, key)


def signed_copy(stack: contextlib.ExitStack, path: str, key: str | None) -> str:
    """Returns the path of a model, or that of a verified copy for the time of the stack where a signature is required."""
    if not key:
        return path
    from ..security import copy_signed

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfcompress-"))
    return os.fspath(copy_signed(path, key, folder))


def _signed_flags(what: str) -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string("bundle", None, f"{what}: a folder", flag_values=values)
    flags.DEFINE_string("model", None, f"{what}: a single file", flag_values=values)
    flags.DEFINE_string(
        "signature",
        None,
        "the signature's file; without it model.sig in the folder, NAME.sig beside a file",
        flag_values=values,
    )
    return values


def _subject(values: flags.FlagValues) -> str:
    if bool(values.bundle) == bool(values.model):
        raise UsageError("--bundle or --model must be given, and not both. --help lists the flags.")
    return values.bundle or values.model


def _password(wanted: bool, *, twice: bool = False) -> str | None:
    """Returns the key's password, which is no flag: other users of the machine can read those."""
    if not wanted:
        return None
    stored = os.environ.get(PASSWORD_VARIABLE)
    if stored is not None:
        return stored
    if not sys.stdin.isatty():
        raise UsageError(f"--password needs a terminal to ask on, or ${PASSWORD_VARIABLE}. Received: neither.")
    given = getpass.getpass("Password of the private key: ")
    if twice and getpass.getpass("Once more: ") != given:
        raise UsageError("The password must be the same twice. Received: two different ones.")
    return given


SCAN = Command("say what a model file would run, without opening it; exit code 4 if it is refused", scan_model)
