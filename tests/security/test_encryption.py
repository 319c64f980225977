"""Encryption at rest: what comes out went in, a changed byte and another key are refused, and another reader agrees."""

import secrets
from pathlib import Path

import pytest

from tfcompress.cli import main
from tfcompress.errors import ModelError, OutputError
from tfcompress.security import decrypt, encrypt, encryption, generate_encryption_key, load_encryption_key

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits" / "digits_int8.tflite"
KEY = bytes(range(32))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
def test_what_comes_out_went_in(size):
    content = secrets.token_bytes(size)
    hidden = encrypt(content, KEY)
    assert len(hidden) == size + 16 + 12 + 16 and decrypt(hidden, KEY) == content
    assert hidden != encrypt(content, KEY)  # another nonce
    assert size < 15 or content not in hidden


def test_every_changed_or_lost_byte_is_found():
    hidden = encrypt(b"....TFL3" * 8, KEY)
    for place in range(len(hidden)):
        changed = bytearray(hidden)
        changed[place] ^= 1 << place % 8
        for damaged in (bytes(changed), hidden[:place], hidden[place + 1 :]):
            with pytest.raises(ModelError):
                decrypt(damaged, KEY)
    with pytest.raises(ModelError):
        decrypt(hidden + b"\0", KEY)
    with pytest.raises(ModelError, match="another key"):
        decrypt(hidden, bytes(32))


def test_the_library_itself_opens_it():
    """The format is what the module says, and no more: magic bytes, nonce, AES-256-GCM with both authenticated."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    hidden = encrypt(b"....TFL3", KEY)
    header, body, tag = hidden[:28], hidden[28:-16], hidden[-16:]
    reader = Cipher(algorithms.AES256(KEY), modes.GCM(header[16:], tag)).decryptor()
    reader.authenticate_additional_data(header)
    assert reader.update(body) + reader.finalize() == b"....TFL3" and header[:16] == encryption.MAGIC


def test_keys(tmp_path):
    generate_encryption_key(tmp_path / "a.key")
    generate_encryption_key(tmp_path / "b.key")
    assert load_encryption_key(tmp_path / "a.key") != load_encryption_key(tmp_path / "b.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OutputError, match="exists already"):
        generate_encryption_key(tmp_path / "a.key")
    (tmp_path / "raw.key").write_bytes(KEY)
    assert load_encryption_key(tmp_path / "raw.key") == KEY
    for content in (b"", KEY[:-1], KEY + b"\0", b"0" * 63, b"0" * 65, b"g" * 64, b"\xff" * 64):
        (tmp_path / "bad.key").write_bytes(content)
        with pytest.raises(ModelError, match="32 bytes or 64 hexadecimal digits"):
            load_encryption_key(tmp_path / "bad.key")
    for key in (b"", KEY[:-1], "0" * 32):
        with pytest.raises(ValueError, match="A key must be 32 bytes"):
            encrypt(b"", key)


def test_the_commands(tmp_path, capsys):
    key, hidden, again = (tmp_path / name for name in ("m.key", "m.enc", "again.tflite"))
    assert main(["keygen", f"--encryption={key}"]) == 0
    assert main(["encrypt", f"--model={DIGITS}", f"--key={key}", f"--output={hidden}"]) == 0
    assert main(["decrypt", f"--model={hidden}", f"--key={key}", f"--output={again}"]) == 0
    assert again.read_bytes() == DIGITS.read_bytes()
    capsys.readouterr()
    for arguments, code, message in (
        (["decrypt", f"--model={DIGITS}", f"--key={key}", f"--output={tmp_path}/x"], 1, "begins with TFC-AES256-GCM-1"),
        (["encrypt", f"--model={DIGITS}", f"--key={DIGITS}", f"--output={tmp_path}/x"], 1, "name of its own"),
        (["encrypt", f"--model={tmp_path}/no", f"--key={key}", f"--output={tmp_path}/x"], 1, "must exist"),
        (["decrypt", f"--model={hidden}", f"--key={key}", f"--output={again}"], 1, "exists already"),
        (["keygen"], 2, "--private or --encryption must be given"),
        (["keygen", f"--private={tmp_path}/p", f"--encryption={tmp_path}/e"], 2, "and not both"),
    ):
        assert main(arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line and not (tmp_path / "x").exists()
