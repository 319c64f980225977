"""Signatures: every changed byte is found, other tools agree with ours both ways, and bad input is one clear line."""

import base64
import contextlib
import datetime
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from environments import python_with

from tfcompress.errors import OutputError, SignatureError
from tfcompress.security import generate_keys, keys, sign, signing, verify
from tfcompress.security.manifest import Serialization, manifest_of

CURVES = ["P-256", "P-384", "P-521"]
FILES = {
    "model.tflite": b"\x1c\0\0\0TFL3" + bytes(range(256)) * 3,
    "labels.txt": b"zero\none\n",
    "deep/run.py": b"pass\n",
}


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def pair(tmp_path):
    return keys_of(tmp_path, "P-256")


def keys_of(folder, curve, **options):
    private, public = folder / f"{curve}.pem", folder / f"{curve}.pub"
    generate_keys(private, public, curve=curve, **options)
    return private, public


def authority(folder, *, days=(-1, 30), usage=True, name="maker"):
    """A root and a certificate that it issued, with its key, as PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject, key, issuer, issuer_key, *, is_ca, valid):
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=valid[0]))
            .not_valid_after(now + datetime.timedelta(days=valid[1]))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        signs = is_ca or usage
        made = made.add_extension(
            x509.KeyUsage(signs, False, not signs, False, False, is_ca, is_ca, False, False), critical=True
        )
        if not is_ca and usage:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        return made.sign(issuer_key, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = certificate(named("root"), root_key, named("root"), root_key, is_ca=True, valid=(-400, 400))
    leaf = certificate(named(name), key, named("root"), root_key, is_ca=False, valid=days)
    pem = serialization.Encoding.PEM
    paths = {each: folder / f"{name}-{each}.pem" for each in ("root", "leaf", "key")}
    paths["root"].write_bytes(root.public_bytes(pem))
    paths["leaf"].write_bytes(leaf.public_bytes(pem))
    hidden = serialization.NoEncryption()
    paths["key"].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, hidden))
    return paths


@pytest.mark.parametrize("curve", CURVES)
def test_what_was_signed_is_verified(bundle, tmp_path, curve):
    private, public = keys_of(tmp_path, curve)
    assert sign(bundle, key=private) == bundle / "model.sig"
    found = verify(bundle, key=public)
    assert found.files == tuple(sorted(FILES)) and found.name == "bundle"
    assert found.signer == keys.fingerprint(keys.load_public_key(public))


def test_a_single_file_is_signed_beside_itself_and_may_be_renamed(tmp_path, pair):
    model = tmp_path / "m.tflite"
    model.write_bytes(FILES["model.tflite"])
    assert sign(model, key=pair[0]).name == "m.tflite.sig"
    assert verify(model, key=pair[1]).files == ("m.tflite",)
    other = tmp_path / "other.tflite"
    shutil.copy(model, other)
    assert verify(other, key=pair[1], signature=tmp_path / "m.tflite.sig").name == "m.tflite"
    other.write_bytes(other.read_bytes()[:-1])
    with pytest.raises(SignatureError, match=r"must be what was signed\. Received changed: m\.tflite"):
        verify(other, key=pair[1], signature=tmp_path / "m.tflite.sig")


@pytest.mark.parametrize("name", [*FILES, "model.sig"])
def test_every_changed_byte_is_found(bundle, pair, name):
    sign(bundle, key=pair[0])
    original = (bundle / name).read_bytes()
    places = range(0, len(original), max(1, len(original) // 200))
    unharmed = []
    for place in places:
        for bit in (0x01, 0x80):
            changed = bytearray(original)
            changed[place] ^= bit
            (bundle / name).write_bytes(changed)
            with contextlib.suppress(SignatureError):
                unharmed.append((place, bit, verify(bundle, key=pair[1])))
    (bundle / name).write_bytes(original)
    # In the signature's own text only white space, a key's hint and what nothing reads may differ; what is vouched for, never.
    reference = verify(bundle, key=pair[1])
    assert all(found == reference for _, _, found in unharmed)
    assert name == "model.sig" or not unharmed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "labels.txt").unlink(), "missing: labels.txt"),
        (lambda folder: (folder / "extra.py").write_text("x"), "added: extra.py"),
        (lambda folder: (folder / "deep" / ".git").write_text("x"), r"added: deep/\.git"),
        (lambda folder: (folder / "labels.txt").rename(folder / "label.txt"), "missing: labels.txt; added: label.txt"),
        (lambda folder: (folder / "model.sig").unlink(), "A signature must lie with the model"),
        (lambda folder: (folder / "link").symlink_to("labels.txt"), "Links are not signed"),
        (lambda folder: (folder / "model.sig").write_text("[" * 100_000), "A signature must be JSON"),
        (lambda folder: (folder / "model.sig").write_text("{}"), "A signature must be a Sigstore bundle"),
    ],
)
def test_what_is_not_what_was_signed_is_refused(bundle, pair, change, message):
    sign(bundle, key=pair[0])
    change(bundle)
    with pytest.raises(SignatureError, match=message):
        verify(bundle, key=pair[1])


def test_another_key_is_refused_with_and_without_its_hint(bundle, tmp_path, pair):
    sign(bundle, key=pair[0])
    _, other = keys_of(tmp_path, "P-384")
    with pytest.raises(SignatureError, match="a signature of another key"):
        verify(bundle, key=other)
    stored = json.loads((bundle / "model.sig").read_text())
    stored["verificationMaterial"] = {"publicKey": {"rawBytes": "AAAA"}}  # as tools before 1.1 wrote it
    (bundle / "model.sig").write_text(json.dumps(stored))
    assert verify(bundle, key=pair[1]).files
    with pytest.raises(SignatureError, match="The key is another one"):
        verify(bundle, key=other)


def test_nothing_that_was_not_signed_as_a_model_vouches_for_one(bundle, pair):
    """A key may have signed other statements; their payloads must not pass."""
    from cryptography.hazmat.primitives.asymmetric import ec

    sign(bundle, key=pair[0])
    stored = json.loads((bundle / "model.sig").read_text())
    private = keys.load_private_key(pair[0])
    statement = json.loads(base64.b64decode(stored["dsseEnvelope"]["payload"]))

    def signed(payload):
        raw = json.dumps(payload).encode()
        made = private.sign(signing._pre_authentication_encoding(raw), ec.ECDSA(keys.digest_of(private)))
        stored["dsseEnvelope"]["payload"] = base64.b64encode(raw).decode()
        stored["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(made).decode()}]
        (bundle / "model.sig").write_text(json.dumps(stored))

    signed(statement)
    assert verify(bundle, key=pair[1]).files
    predicate = statement["predicate"]
    for changed in (
        {**statement, "predicateType": "https://slsa.dev/provenance/v1"},
        {**statement, "subject": []},
        {**statement, "subject": [{"name": "x", "digest": {"sha256": "00"}}]},
        {**statement, "predicate": {**predicate, "resources": []}},
        {**statement, "predicate": {**predicate, "resources": predicate["resources"] + predicate["resources"][:1]}},
        {**statement, "predicate": {**predicate, "serialization": {"method": "none"}}},
        {**statement, "predicate": {**predicate, "resources": [{"name": 1}]}},
        [],
    ):
        signed(changed)
        with pytest.raises(SignatureError):
            verify(bundle, key=pair[1])


def test_a_certificate_is_verified_against_its_root(bundle, tmp_path):
    paths = authority(tmp_path)
    sign(bundle, key=paths["key"], certificate=paths["leaf"])
    assert verify(bundle, roots=[paths["root"]]).signer == "CN=maker"
    with pytest.raises(SignatureError, match="must lead to a trusted one"):
        verify(bundle, roots=[authority(tmp_path, name="stranger")["root"]])
    with pytest.raises(SignatureError, match="The certificate must be that of the key"):
        sign(bundle, key=keys_of(tmp_path, "P-256")[0], certificate=paths["leaf"], overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": (-30, -1)}, "The signer's certificate must be valid now"),
        ({"days": (1, 30)}, "The signer's certificate must be valid now"),
        ({"usage": False}, "The signer's certificate must be for signatures"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused(bundle, tmp_path, options, message):
    paths = authority(tmp_path, **options)
    sign(bundle, key=paths["key"], certificate=paths["leaf"])
    with pytest.raises(SignatureError, match=message):
        verify(bundle, roots=[paths["root"]])


def test_wrong_use(bundle, tmp_path, pair):
    with pytest.raises(OutputError, match="exists already"):
        generate_keys(*pair)
    with pytest.raises(ValueError, match="curve must be one of P-256, P-384, P-521"):
        generate_keys(tmp_path / "a", tmp_path / "b", curve="P-192")
    with pytest.raises(ValueError, match="a public key or trusted roots"):
        verify(bundle)
    with pytest.raises(SignatureError, match="A public key must be a PEM file"):
        verify_signed(bundle, pair[0], pair[0])
    with pytest.raises(SignatureError, match="A private key must be a PEM file"):
        sign(bundle, key=pair[1], overwrite=True)
    with pytest.raises(SignatureError, match="The key must be readable"):
        sign(bundle, key=tmp_path / "none.pem", overwrite=True)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SignatureError, match="A signature needs at least one file"):
        sign(tmp_path / "nothing", key=pair[0])
    locked = tmp_path / "locked"
    locked.mkdir()
    private, _ = keys_of(locked, "P-256", password="a secret")
    assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SignatureError, match="Give its password"):
        sign(bundle, key=private, overwrite=True)
    with pytest.raises(SignatureError, match="its password the right one"):
        sign(bundle, key=private, password="another", overwrite=True)
    sign(bundle, key=private, password="a secret", overwrite=True)


def verify_signed(bundle, private, public):
    sign(bundle, key=private)
    return verify(bundle, key=public)


@pytest.mark.parametrize("curve", CURVES)
def test_openssl_verifies_the_signature(bundle, tmp_path, curve):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    private, public = keys_of(tmp_path, curve)
    envelope = json.loads(sign(bundle, key=private).read_text())["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    (tmp_path / "pae").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    digest = {"P-256": "-sha256", "P-384": "-sha384", "P-521": "-sha512"}[curve]
    command = ["openssl", "dgst", digest, "-verify", public, "-signature", tmp_path / "sig", tmp_path / "pae"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == "Verified OK\n", done.stderr


@pytest.fixture(scope="session")
def stock():
    """Runs the reference implementation, pip's model-signing, which asks for other versions than ours."""
    python = python_with("model_signing", Path(__file__).with_name("model_signing.txt"))

    def run(*arguments):
        command = [python, "-P", "-m", "model_signing", *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES)
def test_the_stock_tool_agrees_both_ways(stock, bundle, tmp_path, curve):
    private, public = keys_of(tmp_path, curve)
    signature = sign(bundle, key=private)
    done = stock("verify", "key", bundle, "--signature", signature, "--public_key", public)
    assert done.returncode == 0 and "Verification succeeded" in done.stdout, done.stderr
    (bundle / "labels.txt").write_text("one\nzero\n")
    assert stock("verify", "key", bundle, "--signature", signature, "--public_key", public).returncode
    done = stock("sign", "key", bundle, "--signature", signature, "--private_key", private)
    assert done.returncode == 0, done.stderr
    assert verify(bundle, key=public).files == tuple(sorted(FILES))


@pytest.mark.slow
def test_the_stock_tool_agrees_on_certificates(stock, bundle, tmp_path):
    paths = authority(tmp_path)
    signature = sign(bundle, key=paths["key"], certificate=paths["leaf"])
    done = stock("verify", "certificate", bundle, "--signature", signature, "--certificate_chain", paths["root"])
    assert done.returncode == 0, done.stderr
    arguments = ["--private_key", paths["key"], "--signing_certificate", paths["leaf"]]
    done = stock(
        "sign", "certificate", bundle, "--signature", signature, *arguments, "--certificate_chain", paths["root"]
    )
    assert done.returncode == 0, done.stderr
    assert verify(bundle, roots=[paths["root"]]).signer == "CN=maker"


def test_shards_are_hashed_piece_by_piece(bundle):
    sharded = manifest_of(bundle, Serialization(shard_size=100))
    names = [resource.name for resource in sharded.resources if resource.name.startswith("model.tflite")]
    assert names == sorted(f"model.tflite:{i}:{min(i + 100, 776)}" for i in range(0, 776, 100))
    whole = manifest_of(bundle)
    assert [resource.name for resource in whole.resources] == sorted(FILES)
    assert manifest_of(bundle, Serialization("blake2b")).resources[0].digest != whole.resources[0].digest


def test_gits_own_files_are_left_out(bundle, pair):
    sign(bundle, key=pair[0])
    (bundle / ".git").mkdir()
    (bundle / ".git" / "config").write_text("x")
    assert verify(bundle, key=pair[1]).files == tuple(sorted(FILES))


def test_a_special_file_is_refused(tmp_path, pair):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SignatureError, match="Only regular files"):
        sign(Path(tmp_path, "fifo"), key=pair[0])
