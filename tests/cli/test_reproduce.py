"""``tfcompress reproduce`` on the real command: the same bytes, or what differs, and nobody's script is run unasked."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from models import striped_pictures, tiny_cnn
from tfcompress.bundling import bundle
from tfcompress.cli import main
from tfcompress.cli.convert_flags import arguments_of, convert_flags
from tfcompress.cli.parsing import parse
from tfcompress.cli.recipes import inputs_of, recipe_of
from tfcompress.conversion import convert
from tfcompress.security import generate_keys


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny_cnn().save(folder / "model.keras")
    np.save(folder / "x.npy", striped_pictures(32)[0])
    (folder / "load.py").write_text(
        "import numpy as np\nfrom pathlib import Path\n"
        "def samples():\n    here = Path(__file__).parent\n    (here / 'ran').touch()\n    return np.load(here / 'x.npy')\n"
    )
    generate_keys(folder / "k.pem", folder / "k.pub")
    values = convert_flags()
    parse(
        values,
        [
            f"--model={folder}/model.keras",
            f"--representative_data={folder}/load.py:samples",
            "--target=cpu-int8",
            "--observer=percentile",
            f"--bundle={folder}/device",
        ],
        required=(),
    )
    inputs = inputs_of(values, values.bundle)
    result = convert(**arguments_of(values))  # as the command does in its child
    bundle(result, values.bundle, source=values.model, recipe=recipe_of(values, inputs, result.tflite))
    (folder / "ran").unlink()
    assert main(["sign", f"--bundle={folder}/device", f"--key={folder}/k.pem"]) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "made")


def fails(arguments, capsys, code=1):
    assert main(arguments) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("calibrating")]
    return line


def test_the_same_inputs_give_the_same_file(folder, capsys):
    """Also where the model has another name now: its metadata has the recorded one."""
    moved = shutil.move(folder / "model.keras", folder / "other name.keras")
    code = main(
        [
            "reproduce",
            f"--bundle={folder}/device",
            f"--model={moved}",
            f"--representative_data={folder}/load.py:samples",
            f"--require_signature={folder}/k.pub",
            f"--output={folder}/again.tflite",
            "--json=-",
        ]
    )
    outcome = json.loads(capsys.readouterr().out)
    assert code == 0 and outcome["same"] and outcome["other_versions"] == []
    content = (folder / "again.tflite").read_bytes()
    assert content == (folder / "device" / "model.tflite").read_bytes()
    assert outcome["sha256"] == outcome["recorded_sha256"] == hashlib.sha256(content).hexdigest()


def test_another_outcome_says_where_it_parted_and_which_version_differs(folder, capsys):
    place = folder / "device" / "provenance.json"
    stated = json.loads(place.read_text())
    definition = stated["predicate"]["buildDefinition"]
    definition["externalParameters"]["flags"]["observer"] = "min_max"
    for each in definition["resolvedDependencies"]:
        if each["name"] == "numpy":
            each["uri"] = "pkg:pypi/numpy@1.0"
    place.write_text(json.dumps(stated))
    data = f"--representative_data={folder}/load.py:samples"
    line = fails(["reproduce", f"--bundle={folder}/device", data], capsys)
    assert "float model and samples are the same, quantization differs" in line
    assert f"numpy is {np.__version__}, recorded 1.0" in line
    line = fails(["reproduce", f"--bundle={folder}/device", data, f"--require_signature={folder}/k.pub"], capsys)
    assert "changed: provenance.json" in line


def test_nothing_runs_that_the_user_did_not_name(folder, capsys):
    line = fails(["reproduce", f"--bundle={folder}/device"], capsys, code=2)
    assert "is not run unasked" in line and "--representative_data=load.py:samples" in line
    assert not (folder / "ran").exists()


def test_another_input_is_named_before_any_work(folder, capsys):
    with open(folder / "load.py", "a") as file:
        file.write("# changed\n")
    with open(folder / "model.keras", "ab") as file:
        file.write(b"\0")
    data = f"--representative_data={folder}/load.py:samples"
    line = fails(["reproduce", f"--bundle={folder}/device", data], capsys)
    assert "model.keras has SHA-256" in line and "load.py has SHA-256" in line
    assert not (folder / "ran").exists()


def test_verify_shows_the_chain(folder, capsys):
    assert main(["verify", f"--bundle={folder}/device", f"--key={folder}/k.pub", "--json=-"]) == 0
    found = json.loads(capsys.readouterr().out)
    source = hashlib.sha256((folder / "model.keras").read_bytes()).hexdigest()
    assert found["chain"][0] == f"from  model.keras, SHA-256 {source} (--model)"
    assert any("--observer=percentile" in line for line in found["chain"])
    other = folder / "device" / "model.tflite"
    other.write_bytes(other.read_bytes() + b"\0")
    assert main(["sign", f"--bundle={folder}/device", f"--key={folder}/k.pem", "--overwrite"]) == 0
    line = fails(["verify", f"--bundle={folder}/device", f"--key={folder}/k.pub"], capsys)
    assert "provenance.json must be of the file beside it" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle=none"], "A bundle must hold its file and provenance.json"),
        (["--bundle=bare"], "A bundle must hold the recipe of its file"),
    ],
    ids=["no bundle", "no recipe"],
)
def test_a_bundle_without_a_recipe(arguments, message, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bundle(made / "device" / "model.tflite", tmp_path / "bare")
    assert message in fails(["reproduce", *arguments], capsys)


def test_what_is_told_in_a_bundle_needs_one(tmp_path, made, capsys):
    arguments = ["convert", f"--model={made}/model.keras", f"--output={tmp_path}/o.tflite", "--license=MIT"]
    assert "--license is told in a bundle" in fails(arguments, capsys, code=2)
    (tmp_path / "t.json").write_text("[]")
    arguments = [*arguments, f"--bundle={tmp_path}/b", f"--training={tmp_path}/t.json"]
    assert "--training must be a JSON object" in fails(arguments, capsys)
