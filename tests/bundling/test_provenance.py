"""A bundle says where its file comes from, in statements that others read, and that hold for the file beside them."""

import dataclasses
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from environments import python_with

from tfcompress.bundling import Input, Origin, Recipe, bundle, provenance
from tfcompress.cli.convert_flags import convert_flags
from tfcompress.cli.recipes import CONSENTS, INPUTS, RUN_ONLY, SETTINGS, arguments_for
from tfcompress.errors import DataError, SignatureError
from tfcompress.measurement.records import example_measurement

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models" / "digits" / "digits_int8.tflite"
SHA256 = hashlib.sha256(DIGITS.read_bytes()).hexdigest()
RECIPE = Recipe(
    {"target": "cpu-int8", "observe": ["*logits*=min_max"], "strict": False},
    (Input("model", "digits.keras", "1" * 64), Input("representative_data", "load.py", "2" * 64, "samples")),
)


def origin(tmp_path, **changes):
    (tmp_path / "teacher.keras").write_bytes(b"teacher")
    record = dataclasses.replace(example_measurement(), model_sha256=SHA256, data_sha256="3" * 64)
    stated = {
        "license": "Apache-2.0",
        "parent": tmp_path / "teacher.keras",
        "training": {"callbacks": "MagnitudePruning(0.75)", "epochs": 20},
        "measurement": record,
    }
    return Origin(**{**stated, **changes})


@pytest.fixture
def folder(tmp_path):
    bundle(DIGITS, tmp_path / "b", source="digits.keras", recipe=RECIPE, origin=origin(tmp_path))
    return tmp_path / "b"


def test_the_statement_is_read_as_it_was_written(folder):
    content = (folder / "provenance.json").read_bytes()
    found = provenance.read_statement(content)
    assert found.recipe == RECIPE and found.sha256 == SHA256 and found.source == "digits.keras"
    assert found.versions == provenance.tool_versions() and {"tfcompress", "tensorflow"} <= set(found.versions)
    stated = json.loads(content)
    assert stated["_type"] == "https://in-toto.io/Statement/v1"
    assert stated["predicateType"] == "https://slsa.dev/provenance/v1"
    assert stated["subject"] == [{"name": "model.tflite", "digest": {"sha256": SHA256}}]
    assert set(stated["predicate"]) == {"buildDefinition", "runDetails"}
    lines = list(provenance.chain(found, DIGITS.read_bytes()))
    assert lines[0].startswith("from  digits.keras, SHA-256 1111") and lines[-1].endswith("the file that is here")
    assert "load.py:samples" in lines[1]


def test_a_statement_of_another_file_is_refused(folder):
    found = provenance.read_statement((folder / "provenance.json").read_bytes())
    with pytest.raises(SignatureError, match="must be of the file beside it"):
        list(provenance.chain(found, DIGITS.read_bytes() + b"\0"))


def test_damaged_statements_are_one_clear_line(folder):
    stated = json.loads((folder / "provenance.json").read_text())

    def places(value, path=()):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from places(inner, (*path, key))

    refused = 0
    for path in list(places(stated))[1:]:
        for other in (None, 3, [], {}, "x"):
            changed = json.loads(json.dumps(stated))
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = other
            try:
                provenance.read_statement(json.dumps(changed).encode())
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 50
    for content in (b"", b"[" * 100_000, b"[]", b"\xff", b'{"_type": 1}'):
        with pytest.raises(DataError, match="must be a statement of SLSA provenance"):
            provenance.read_statement(content)


def test_the_bill_says_what_was_given_and_what_was_measured(folder):
    bill = json.loads((folder / "bom.cdx.json").read_text())
    model = bill["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": SHA256}]
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    metrics = {each["type"]: each for each in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    record = example_measurement()
    assert float(metrics["top1"]["value"]) == record.accuracy and "3" * 64 in metrics["top1"]["slice"]
    assert float(metrics["median latency (ms)"]["value"]) == record.latency.median_ms
    source, data, *packages = bill["components"]
    assert source["pedigree"]["ancestors"][0]["name"] == "teacher.keras"
    assert source["pedigree"]["ancestors"][0]["hashes"][0]["content"] == hashlib.sha256(b"teacher").hexdigest()
    assert {"name": "tfcompress:training:epochs", "value": "20"} in source["properties"]
    assert data["hashes"][0]["content"] == "2" * 64 and data["type"] == "file"  # a script is no data set
    assert {each["purl"].partition("@")[0] for each in packages} >= {"pkg:pypi/tensorflow", "pkg:pypi/numpy"}
    text = (folder / "bom.cdx.json").read_text() + (folder / "provenance.json").read_text()
    assert str(folder.parent) not in text and not re.search(r"\d\d:\d\d:\d\d", text)  # no path of a machine, no time


def test_a_record_of_another_file_is_refused(tmp_path):
    for changes in ({"measurement": example_measurement()}, {"measurement": tmp_path / "none.json"}):
        with pytest.raises(DataError, match="The record must be"):
            bundle(DIGITS, tmp_path / "b", origin=origin(tmp_path, **changes))
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="license must say something"):
        Origin(license=" ")


def test_a_finished_file_has_a_statement_that_claims_nothing(tmp_path):
    bundle(DIGITS, tmp_path / "b")
    found = provenance.read_statement((tmp_path / "b" / "provenance.json").read_bytes())
    assert (found.recipe, found.versions, found.settings, found.byproducts) == (None, {}, {}, {})
    assert "whose hash nobody recorded" in next(provenance.chain(found, DIGITS.read_bytes()))


@pytest.mark.slow
def test_the_bills_validate_strictly(folder, tmp_path):
    python = python_with("cyclonedx", Path(__file__).with_name("cyclonedx.txt"))
    bundle(DIGITS, tmp_path / "bare")
    bundle(DIGITS, tmp_path / "named", origin=Origin(license="Somebody's own terms, 2026", parent="a model on the net"))
    code = (
        "import sys\n"
        "from cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "judge = JsonStrictValidator(SchemaVersion.V1_6)\n"
        "for name in sys.argv[1:]:\n"
        "    print(judge.validate_str(open(name).read()) is None)\n"
    )
    bills = [place / "bom.cdx.json" for place in (folder, tmp_path / "bare", tmp_path / "named")]
    wrong = tmp_path / "wrong.json"
    wrong.write_text(bills[0].read_text().replace('"SHA-256"', '"SHA-257"'))
    done = subprocess.run([python, "-c", code, *bills, wrong], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"] * 3 + ["False"], done.stdout + done.stderr


# Recipes.


def test_every_flag_of_convert_is_of_one_kind():
    """A new flag steers the bytes, or it does not: whoever adds one says so."""
    kinds = [*INPUTS, *SETTINGS, *CONSENTS, *RUN_ONLY]
    assert len(kinds) == len(set(kinds))
    unclassified = {name for name in convert_flags() if not name.startswith("?")} - set(kinds)
    assert not unclassified, "name them in cli/recipes.py, and in SETTINGS if the file depends on them"


def test_a_recipe_becomes_the_flags_again(tmp_path):
    (tmp_path / "load.py").write_text("def samples(): return [1]\n")
    (tmp_path / "digits.keras").write_bytes(b"k")
    given = {"representative_data": f"{tmp_path / 'load.py'}:samples"}
    arguments, differing = arguments_for(RECIPE, tmp_path / "bundle", given, allow_unsafe=False)
    assert arguments == [
        "--target=cpu-int8",
        "--observe=*logits*=min_max",
        "--nostrict",
        f"--model={tmp_path / 'digits.keras'}",
        f"--representative_data={tmp_path / 'load.py'}:samples",
    ]
    assert [line.partition("=")[0] for line in differing] == ["--model", "--representative_data"]


def recipe(*inputs, **flags):
    return Recipe(flags, (Input("model", "m.keras", "0" * 64), *inputs))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (recipe(output="/tmp/x"), "steers numbers alone"),
        (recipe(sandbox="off"), "steers numbers alone"),
        (recipe(debug=True), "steers numbers alone"),
        (recipe(target=3), "values are those of flags"),
        (recipe(observe=[{}]), "values are those of flags"),
        (recipe(allow_unsafe=True), "The recipe needs --allow_unsafe"),
        (recipe(Input("output", "x", "")), "reads what convert reads"),
        (recipe(Input("representative_data", "evil.py", "", "go")), "is not run unasked"),
        (recipe(Input("representative_data", "evil.py:go", "")), "is not run unasked"),
        (recipe(Input("rules", "../outside", "")), "must be there"),
        (recipe(Input("rules", "/etc/hostname", "")), "must be there"),
        (recipe(Input("rules", "none.json", "")), r"Name it: --rules=none\.json"),
    ],
    ids=[
        "an output",
        "the sandbox",
        "debug",
        "a number",
        "an object",
        "consent",
        "another input",
        "a script",
        "a script as a path",
        "a path upwards",
        "an absolute path",
        "absent",
    ],
)
def test_what_a_recipe_may_not_ask_for(made, message, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    (place / "m.keras").write_bytes(b"k")
    (place / "evil.py").write_text("raise SystemExit(7)\n")
    (place / "evil.py:go").write_text("x")
    (tmp_path / "outside").write_text("[]")
    with pytest.raises(Exception, match=message):
        arguments_for(made, place / "bundle", {}, allow_unsafe=False)


def test_the_hash_of_a_folder_is_that_of_sha256sum(tmp_path):
    for name in ("b/two", "a", "b/one"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(name)
    command = "find . -type f -printf '%P\\0' | xargs -0 sha256sum | LC_ALL=C sort | sha256sum"
    done = subprocess.run(command, shell=True, cwd=tmp_path / "d", capture_output=True, text=True, check=True)
    assert provenance.digest_of(tmp_path / "d") == done.stdout.split()[0]
    with pytest.raises(DataError, match="must be a regular file"):
        provenance.digest_of("/dev/null")
