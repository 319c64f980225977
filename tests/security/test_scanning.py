"""``scan``: what it says of hostile and honest files, that ``open_source`` agrees with it, and its forms of output."""

import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest
from hostile_saved_models import HONEST, HOSTILE

import tfcompress as tfc
from tfcompress.cli import main
from tfcompress.errors import ModelError
from tfcompress.lowering import open_source
from tfcompress.tflite import flatbuffer

DIGITS = "models/digits/digits_int8.tflite"


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


def torch_archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"model/{name}", content)


def program(path, target="torch.ops.aten.relu.default", **members):
    node = {"target": target, "inputs": [], "outputs": [], "metadata": {}}
    graph = {"graph_module": {"graph": {"nodes": [node]}}}
    torch_archive(path, **{"archive_format": "pt2", "models/model.json": json.dumps(graph), **members})


def edited_tflite(path, edit):
    model = flatbuffer.parse(Path(DIGITS).read_bytes())
    edit(model)
    path.write_bytes(flatbuffer.pack(model))


def custom_op(model, name):
    code = flatbuffer.schema().OperatorCodeT()
    code.customCode, code.builtinCode, code.deprecatedBuiltinCode = name, 32, 32
    model.operatorCodes.append(code)
    model.subgraphs[0].operators[0].opcodeIndex = len(model.operatorCodes) - 1


def missing_subgraph(model):
    schema = flatbuffer.schema()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    model.operatorCodes.append(code)
    operator = model.subgraphs[0].operators[0]
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.WhileOptions, schema.WhileOptionsT()
    operator.builtinOptions.condSubgraphIndex, operator.builtinOptions.bodySubgraphIndex = 0, 7


def with_lambda(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)


def with_archive(path, **members):
    content = Path(DIGITS).read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "/"), text)
    path.write_bytes(content + path.read_bytes())


REFUSED = {
    "lambda.keras": (with_lambda, "a Lambda"),
    "lambda.h5": (with_lambda, "a Lambda"),
    "script.pt": (lambda path: torch_archive(path, **{"constants.pkl": "", "code/__torch__.py": ""}), "TorchScript"),
    "pickle.pth": (
        lambda path: torch_archive(path, **{"data.pkl": pickle.dumps(Trap(), protocol=2), "version": "3"}),
        "a pickle of .*exec",
    ),
    "pickle4.pth": (
        lambda path: torch_archive(path, **{"data.pkl": pickle.dumps(Trap(), protocol=4), "version": "3"}),
        "a pickle of .*exec",
    ),
    "operator.pt2": (lambda path: program(path, target="torch.load"), "the operator torch.load"),
    "example.pt2": (
        lambda path: program(path, **{"data/sample_inputs/model.pt": pickle.dumps(Trap(), protocol=2)}),
        "example inputs that are more than tensors",
    ),
    "bomb.pt2": (lambda path: program(path, **{"data/weights/w": bytes(65 << 20)}), "65 MiB of"),
    "deep.pt2": (lambda path: program(path, **{"models/other.json": "[" * 3000 + "]" * 3000}), "damage"),
    "many.pt2": (lambda path: program(path, **{"models/other.json": "[" + "[]," * 3_000_000 + "[]]"}), "damage"),
    "flex.tflite": (lambda path: edited_tflite(path, lambda m: custom_op(m, "FlexWriteFile")), "the op FlexWriteFile"),
    "while.tflite": (lambda path: edited_tflite(path, missing_subgraph), "damage"),
    "cut.tflite": (lambda path: path.write_bytes(Path(DIGITS).read_bytes()[:3000]), "damage"),
    "bomb.tflite": (lambda path: with_archive(path, labels=bytes(65 << 20)), "65 MiB from"),
    "outside.tflite": (lambda path: with_archive(path, **{".._.._labels": "x"}), "outside of its folder"),
}
CLEAN = {
    "plain.keras": lambda path: keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(path),
    "plain.h5": lambda path: keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(path),
    "plain.pt2": program,
    "plain.tflite": lambda path: path.write_bytes(Path(DIGITS).read_bytes()),
    "custom.tflite": lambda path: edited_tflite(path, lambda m: custom_op(m, "MyOp")),
    "flex.tflite": lambda path: edited_tflite(path, lambda m: custom_op(m, "FlexErf")),
}


def is_refused(path):
    try:
        open_source(path)
    except ModelError:
        return True
    return False


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_run_is_found_and_not_opened(name, tmp_path):
    make, words = REFUSED[name]
    make(tmp_path / name)
    found = tfc.scan(tmp_path / name)
    assert found.verdict == "refused"
    assert any(re.search(words, finding.what) for finding in found.refused), found
    assert is_refused(tmp_path / name)


@pytest.mark.parametrize("name", CLEAN)
def test_clean_files_are_opened(name, tmp_path):
    CLEAN[name](tmp_path / name)
    assert tfc.scan(tmp_path / name).refused == ()
    assert not is_refused(tmp_path / name)


@pytest.mark.parametrize("name", ["writes events while it is loaded", "reads a checkpoint", "weights that are a link"])
def test_saved_models_are_scanned_by_the_same_rules(name, tmp_path):
    HOSTILE[name][0](tmp_path / "saved", tmp_path / "marker")
    found = tfc.scan(tmp_path / "saved")
    assert found.kind == "SavedModel"
    assert any(HOSTILE[name][1] in finding.reason for finding in found.refused)
    HONEST["module"](tmp_path / "honest")
    assert tfc.scan(tmp_path / "honest").findings == ()


def test_notes_say_what_a_file_needs_and_are_no_refusal(tmp_path):
    CLEAN["custom.tflite"](tmp_path / "m.tflite")
    notes = [finding.what for finding in tfc.scan(tmp_path / "m.tflite").findings]
    assert any("the custom op MyOp is code of the program that runs the file" in note for note in notes)
    assert main(["scan", f"--model={tmp_path / 'm.tflite'}"]) == 0


def test_the_command_says_it_in_three_forms(tmp_path, capsys):
    with_lambda(tmp_path / "m.keras")
    outputs = [f"--json={tmp_path / 'm.json'}", f"--sarif={tmp_path / 'm.sarif'}"]
    assert main(["scan", f"--model={tmp_path / 'm.keras'}", *outputs]) == 4
    assert "Keras model (.keras), refused" in capsys.readouterr().out
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["verdict"] == "refused" and record["findings"][0]["severity"] == "refused"
    check_sarif(json.loads((tmp_path / "m.sarif").read_text()), results=len(record["findings"]))
    assert main(["scan", f"--model={tmp_path / 'm.keras'}", "--sarif=-"]) == 4
    check_sarif(json.loads(capsys.readouterr().out), results=len(record["findings"]))
    assert main(["scan", "--model=/no/such/file"]) == 1


def check_sarif(log, *, results):
    """What the schema of SARIF 2.1.0 requires of a log, and what GitHub asks for besides."""
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (found,) = log["runs"]
    assert found.keys() <= {"tool", "results", "artifacts"}
    driver = found["tool"]["driver"]
    assert driver["name"] and driver["version"]
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(set(rules)) == len(rules) and all(rule["shortDescription"]["text"] for rule in driver["rules"])
    assert len(found["results"]) == results
    for each in found["results"]:
        assert each.keys() == {"ruleId", "ruleIndex", "level", "message", "locations"}
        assert each["level"] in ("none", "note", "warning", "error")
        assert rules[each["ruleIndex"]] == each["ruleId"]
        assert each["message"]["text"]
        for location in each["locations"]:
            assert re.fullmatch("[!-~]+", location["physicalLocation"]["artifactLocation"]["uri"])


def test_scanning_a_file_that_is_no_saved_model_loads_no_framework():
    code = (
        "import sys, tfcompress as tfc\n"
        f"tfc.scan({DIGITS!r})\n"
        "print([name for name in ('tensorflow', 'keras', 'torch', 'tf_keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
