"""What is run only if it is signed: by ``--require_signature`` and by the runner of a bundle, which needs no tfcompress."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_signing import authority, keys_of

from tfcompress.bundling import bundle
from tfcompress.bundling.signed_files import NotAsSigned, verified
from tfcompress.cli import main
from tfcompress.errors import SignatureError
from tfcompress.security import copy_signed, read_signed, sign, verify

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keys_of(tmp_path_factory.mktemp("keys"), "P-256")


@pytest.fixture(scope="module")
def signed_bundle(tmp_path_factory, keys):
    folder = tmp_path_factory.mktemp("signed") / "digits"
    bundle(DIGITS, folder, target="cpu-int8")
    sign(folder, key=keys[0])
    return folder


@pytest.fixture
def folder(signed_bundle, tmp_path):
    return shutil.copytree(signed_bundle, tmp_path / "digits")


def change_a_byte(folder):
    content = bytearray((folder / "model.tflite").read_bytes())
    content[-200] ^= 1
    (folder / "model.tflite").write_bytes(content)


def swap(folder):
    """Signed by the same key, for another folder."""
    (folder / "model.tflite").write_bytes((folder / "model.tflite").read_bytes() + b"\0" * 16)


TAMPERED = {
    "a changed byte": (change_a_byte, "changed: model.tflite"),
    "bytes behind the end": (swap, "changed: model.tflite"),
    "a missing file": (lambda folder: (folder / "model.h").unlink(), "missing: model.h"),
    "an added file": (lambda folder: (folder / "numpy.py").write_text("open('ran', 'w')"), "added: numpy.py"),
    "an added file below": (
        lambda folder: ((folder / "a").mkdir(), (folder / "a" / "b").write_text("x")),
        "added: a/b",
    ),
    "a link": (lambda folder: (folder / "link").symlink_to("model.h"), "link"),
    "no signature": (lambda folder: (folder / "model.sig").unlink(), "model.sig"),
    "damage to the signature": (lambda folder: (folder / "model.sig").write_text("[" * 100_000), "model.sig"),
    "another signed kind": (lambda folder: (folder / "model.sig").write_text("{}"), "model.sig"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_both_readers_refuse_it_with_the_reason(folder, keys, name):
    change, message = TAMPERED[name]
    change(folder)
    with pytest.raises(SignatureError, match=message):
        verify(folder, key=keys[1])
    with pytest.raises(NotAsSigned, match=message):
        verified(folder, keys[1])
    if name != "no signature":
        with pytest.raises(SignatureError, match=message):
            read_signed(folder / "model.tflite", keys[1])


def test_every_changed_byte_is_found_by_the_readers_of_a_bundle(folder, keys):
    """200 positions, in turns over all files."""
    files = sorted(path for path in folder.iterdir() if path.name != "model.sig")
    for place in range(200):
        path = files[place % len(files)]
        original = path.read_bytes()
        changed = bytearray(original)
        changed[place * 7919 % len(original)] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(NotAsSigned, match=f"changed: {path.name}"):
            verified(folder, keys[1])
        path.write_bytes(original)
    assert set(verified(folder, keys[1], keep=("model.tflite", "absent"))) == {"model.tflite"}


def test_another_key_and_expired_certificates_are_refused(folder, keys, tmp_path):
    for curve in ("P-384", "P-521"):
        private, public = keys_of(tmp_path, curve)
        with pytest.raises(NotAsSigned, match="the signature of another"):
            verified(folder, public)
        with pytest.raises(SignatureError, match="another key"):
            read_signed(folder / "model.tflite", public)
        sign(folder, key=private, overwrite=True)
        assert verified(folder, public, keep=("model.h",))["model.h"] == (folder / "model.h").read_bytes()
    for options, message in (
        ({"days": (-30, -1)}, "must be valid now"),
        ({"usage": False}, "must be for signatures"),
        ({"name": "stranger"}, "must lead to a trusted one"),
    ):
        paths = authority(tmp_path, **options)
        sign(folder, key=paths["key"], certificate=paths["leaf"], overwrite=True)
        root = authority(tmp_path)["root"] if "name" in options else paths["root"]
        with pytest.raises(NotAsSigned, match=message):
            verified(folder, root)
        with pytest.raises(SignatureError, match=message):
            read_signed(folder / "model.tflite", root)
    paths = authority(tmp_path)
    sign(folder, key=paths["key"], certificate=paths["leaf"], overwrite=True)
    assert verified(folder, paths["root"]) == {}
    assert read_signed(folder / "model.tflite", paths["root"]).signer == "CN=maker"


def test_the_bytes_that_were_verified_are_those_that_are_given(folder, keys, tmp_path, monkeypatch):
    """A file that is exchanged between the check and the reading is found; afterwards it does not matter."""
    from tfcompress.security import required

    content = (folder / "model.tflite").read_bytes()
    found = read_signed(folder / "model.tflite", keys[1])
    (tmp_path / "copies").mkdir()
    copy = copy_signed(folder, keys[1], tmp_path / "copies")
    checked = verify(folder, key=keys[1])
    change_a_byte(folder)
    assert found.tflite == content == (copy / "model.tflite").read_bytes()
    with pytest.raises(SignatureError, match="Received other bytes"):
        checked.check("model.tflite", (folder / "model.tflite").read_bytes())
    monkeypatch.setattr(required, "verify", lambda *_, **__: checked)  # the exchange came after it
    for use in (
        lambda: read_signed(folder / "model.tflite", keys[1]),
        lambda: copy_signed(folder, keys[1], tmp_path),
    ):
        with pytest.raises(SignatureError, match="Received other bytes"):
            use()


def test_a_lone_file_is_signed_beside_itself(keys, tmp_path):
    model = Path(shutil.copy(DIGITS, tmp_path / "m.tflite"))
    with pytest.raises(SignatureError, match="A signature must lie with the model"):
        read_signed(model, keys[1])
    sign(model, key=keys[0])
    renamed = shutil.copy(model, tmp_path / "other.tflite")
    shutil.copy(tmp_path / "m.tflite.sig", tmp_path / "other.tflite.sig")
    assert read_signed(renamed, keys[1]).tflite == DIGITS.read_bytes()
    with pytest.raises(SignatureError, match="The key that is trusted must be readable"):
        read_signed(model, tmp_path / "none.pub")


@pytest.mark.parametrize(
    "command",
    [
        ["measure", "--model={}", "--runs=1", "--warmup=0"],
        ["measure", "--model={lone}", "--reference={}", "--runs=1"],
        ["inspect", "--model={}", "--norun"],
        ["compare", "--model={0},{0}"],
        ["convert", "--model={}", "--output={out}"],
    ],
    ids=["measure", "measure a reference", "inspect", "compare", "convert"],
)
def test_the_commands_refuse_what_is_not_signed(command, folder, keys, tmp_path, capsys):
    lone = Path(shutil.copy(DIGITS, tmp_path / "lone.tflite"))
    sign(lone, key=keys[0])
    arguments = [part.format(folder / "model.tflite", out=tmp_path / "out.tflite", lone=lone) for part in command]
    change_a_byte(folder)
    assert main([*arguments, f"--require_signature={keys[1]}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "changed: model.tflite" in line and not (tmp_path / "out.tflite").exists()


def test_the_commands_run_what_is_signed(folder, keys, capsys):
    model = folder / "model.tflite"
    assert main(["measure", f"--model={model}", "--runs=2", "--warmup=0", f"--require_signature={keys[1]}"]) == 0
    assert "model.tflite" in capsys.readouterr().out
    assert main(["inspect", f"--model={model}", "--norun", f"--require_signature={keys[1]}"]) == 0
    assert main(["compare", f"--model={model},{model}", "--samples=2", f"--require_signature={keys[1]}"]) == 0
    assert "exact" in capsys.readouterr().out


def runner(folder, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, folder / "run_model.py", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder.parent, env=environment)


def test_the_runner_of_a_bundle_requires_a_signature(folder, keys):
    before = sorted(path.name for path in folder.iterdir())
    done = runner(folder, f"--require_signature={keys[1]}")
    assert done.returncode == 0 and "float32" in done.stdout, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before  # no compiled file was added
    (folder / "numpy.py").write_text("open('ran', 'w').write('x')\n")
    done = runner(folder, f"--require_signature={keys[1]}")
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "added: numpy.py" in line and not (folder.parent / "ran").exists()
    assert runner(folder, "--require_signatur=x").returncode == 1
