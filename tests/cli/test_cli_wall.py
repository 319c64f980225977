"""The commands that open a file: what a record may choose, what ends in time, and which files are none."""

import json
import os

import flatbuffers
import numpy as np
import pytest

from tfcompress.cli import main
from tfcompress.measurement.records import example_measurement, json_text
from tfcompress.system.sandbox import missing_parts
from tfcompress.tflite import flatbuffer

MODEL = "models/digits/digits_int8.tflite"
CALL = {"model": MODEL, "data": None, "metric": "top1", "reference": None, "scaling": None, "threads": 1, "runs": 2}
CALL |= {"warmup": 0, "batch": 1, "workers": 0, "seed": 0, "cpus": [], "api": "interpreter", "accelerator": "cpu"}
CALL |= {"xnnpack": True, "reset_state": False, "interleave": False, "confusion": False, "profile": False}


def record(**changes):
    """Returns the record of a measurement as JSON values."""
    made = example_measurement(call=CALL, samples=0, accuracy=None, data_sha256=None)
    return json.loads(json_text(made))[0] | changes


def one_line(capsys):
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "unexpected" not in said.err
    return said.err


@pytest.fixture
def script(tmp_path):
    """A script that leaves a mark when it is run."""
    path = tmp_path / "evil.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef run(*arguments): return None\n")
    yield f"{path}:run"
    assert not (tmp_path / "ran").exists()


def test_a_record_does_not_choose_code(tmp_path, capsys, script):
    for call in (CALL | {"data": script}, CALL | {"metric": f"top1,{script}"}):
        (tmp_path / "record.json").write_text(json.dumps([record(call=call)]))
        assert main(["measure", f"--like={tmp_path}/record.json"]) == 1
        said = one_line(capsys)
        assert "may not choose what is run or contacted" in said and script in said


@pytest.mark.parametrize("name", ["ssh://a@localhost:1", "adb://x", "tflm", "nowhere\x1b"], ids=range(4))
def test_a_record_does_not_choose_a_device(tmp_path, capsys, name):
    changed = record()
    changed["device"]["name"] = name
    (tmp_path / "record.json").write_text(json.dumps([changed]))
    assert main(["measure", f"--like={tmp_path}/record.json"]) == 1
    said = one_line(capsys)
    assert "may not choose what is run or contacted" in said and "\x1b" not in said


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 3000,
        "1" * 5000,
        "[1]",
        "[[]]",
        json.dumps([record(call=[1])]),
        json.dumps([record(call="text")]),
        json.dumps([record(call=CALL | {"help": True})]),
        json.dumps([record(call=CALL | {"nothing": 1})]),
        json.dumps([record(call=CALL | {"threads": "1"})]),
        json.dumps([record(call=CALL | {"cpus": [None]})]),
        json.dumps([record(call=CALL | {"model": ["a"]})]),
        json.dumps([record(latency=3)]),
        json.dumps([record(device=None)]),
        json.dumps([record(settings=[])]),
        json.dumps([record(confusion=3)]),
        json.dumps([record(noise="x")]),
        json.dumps([record(profile={"ops": 3})]),
    ],
    ids=range(18),
)
def test_records_of_other_types_are_one_line(tmp_path, capsys, text):
    (tmp_path / "record.json").write_text(text)
    assert main(["measure", f"--like={tmp_path}/record.json"]) in (1, 2)
    one_line(capsys)


@pytest.mark.parametrize("command", ["inspect", "measure", "compare", "convert", "like"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_only_plain_files_are_opened(tmp_path, capsys, command, kind):
    path = "/dev/zero"
    if kind == "pipe":
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
    arguments = {
        "inspect": ["inspect", f"--model={path}"],
        "measure": ["measure", f"--model={path}"],
        "compare": ["compare", f"--model={MODEL},{path}"],
        "convert": ["convert", f"--model={MODEL}", f"--labels={path}", f"--output={tmp_path}/a.tflite"],
        "like": ["measure", f"--like={path}"],
    }[command]
    assert main(arguments) == 1
    assert "must be a plain file" in one_line(capsys)


def test_made_up_samples_are_bounded(tmp_path, capsys):
    with open(MODEL, "rb") as file:
        model = flatbuffer.parse(file.read())
    tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    tensor.shapeSignature = np.array([-1, 40_000, 40_000, 1], np.int32)
    (tmp_path / "large.tflite").write_bytes(flatbuffer.pack(model))
    assert main(["compare", f"--model={tmp_path}/large.tflite,{MODEL}"]) == 1
    assert "Made-up samples must take at most 1 GiB. Received: " in one_line(capsys)


def test_a_file_that_never_ends_is_given_up(tmp_path, capsys):
    """A WHILE whose condition is always true, on this machine as a device."""
    (tmp_path / "endless.tflite").write_bytes(endless())
    assert main(["measure", f"--model={tmp_path}/endless.tflite", "--timeout_seconds=4"]) == 1
    assert "must give a sign of life within 4 s" in one_line(capsys)
    assert main(["inspect", f"--model={tmp_path}/endless.tflite", "--timeout_seconds=4"]) == 0
    assert "Received: no answer" in " ".join(capsys.readouterr().out.split())


def endless():
    """Returns a file that counts for ever."""
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name, kind, buffer=0, shape=(1,)):
        made = schema.TensorT()
        made.name, made.type, made.shape, made.buffer = name, kind, np.array(shape, np.int32), buffer
        return made

    def graph(tensors, inputs, outputs, operators):
        made = schema.SubGraphT()
        made.tensors, made.operators = tensors, operators
        made.inputs, made.outputs = (np.array(each, np.int32) for each in (inputs, outputs))
        return made

    def operator(code, inputs, outputs, options=None, kind=0):
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, np.array(inputs, np.int32), np.array(outputs, np.int32)
        made.builtinOptions, made.builtinOptionsType = options, kind
        return made

    def code(number):
        made = schema.OperatorCodeT()
        made.builtinCode, made.deprecatedBuiltinCode, made.version = number, min(number, 127), 1
        return made

    number, truth = schema.TensorType.FLOAT32, schema.TensorType.BOOL
    loop = schema.WhileOptionsT()
    loop.condSubgraphIndex, loop.bodySubgraphIndex = 1, 2
    empty, zero = schema.BufferT(), schema.BufferT()
    zero.data = np.frombuffer(np.zeros(1, np.float32).tobytes(), np.uint8)
    model = schema.ModelT()
    model.version, model.description, model.buffers = 3, "endless", [empty, zero]
    model.operatorCodes = [code(getattr(schema.BuiltinOperator, name)) for name in ("WHILE", "GREATER_EQUAL", "ABS")]
    model.subgraphs = [
        graph(
            [tensor("x", number), tensor("y", number)],
            [0],
            [1],
            [operator(0, [0], [1], loop, schema.BuiltinOptions.WhileOptions)],
        ),
        graph(
            [tensor("a", number), tensor("zero", number, 1), tensor("go", truth)],
            [0],
            [2],
            [operator(1, [0, 1], [2], schema.GreaterEqualOptionsT(), schema.BuiltinOptions.GreaterEqualOptions)],
        ),
        graph([tensor("b", number), tensor("c", number)], [0], [1], [operator(2, [0], [1])]),
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_help_names_the_wall(capsys):
    for command in ("convert", "inspect", "compare", "measure"):
        assert main([command, "--help"]) == 0
        assert "--sandbox=" in capsys.readouterr().out


@pytest.mark.skipif(bool(missing_parts()), reason=f"the kernel lacks {' and '.join(missing_parts())}")
def test_the_wall_can_be_a_condition(capsys):
    assert main(["inspect", f"--model={MODEL}", "--sandbox=required", "--json=-"]) == 0
    inside = json.loads(capsys.readouterr().out)
    assert main(["inspect", f"--model={MODEL}", "--sandbox=off", "--json=-"]) == 0
    assert inside == json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_parts()), reason=f"the kernel lacks {' and '.join(missing_parts())}")
def test_the_same_file_comes_out_with_the_wall_and_without(tmp_path):
    for sandbox in ("required", "off"):
        output = f"--output={tmp_path}/{sandbox}.tflite"
        assert main(["convert", "--model=models/digits/digits.keras", output, f"--sandbox={sandbox}"]) == 0
    assert (tmp_path / "required.tflite").read_bytes() == (tmp_path / "off.tflite").read_bytes()
