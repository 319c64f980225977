"""Foreign text steers neither a terminal nor a spreadsheet: what may be shown is listed, and every command goes one way."""

import ast
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tfcompress.cli import main
from tfcompress.measurement.devices.addresses import parse
from tfcompress.measurement.records import Failure, example_measurement
from tfcompress.measurement.tables import csv_text
from tfcompress.system.printable import encodable, printable, printable_lines, spreadsheet_cell, write
from tfcompress.tflite import flatbuffer

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "models/digits/digits_int8.tflite"
NASTY = "\x1b[2J\x1b]0;owned\x07\0\u202egpj.\u2066\u200b\x9b31m\u2028\r\n\ufeffname"


def shown_only(text: str) -> bool:
    """Whether nothing in a text steers or hides, as Unicode's categories have it."""
    return all(sign == "\n" or sign == " " or unicodedata.category(sign)[0] not in "CZ" for sign in text)


def test_every_sign_is_shown_or_written_as_an_escape():
    signs = [chr(code) for code in (*range(0x30000), *range(0xE0000, 0xE0200), 0xF0000, sys.maxunicode)]
    changed = [sign for sign in signs if printable(sign) != sign]
    assert all(printable(sign)[0] == "\\" and printable(sign).isascii() for sign in changed)
    hidden = [sign for sign in signs if unicodedata.category(sign)[0] in "CZ" and sign != " "]
    assert set(hidden) <= set(changed)
    assert {"\ufe0f", "\u034f", "\u3164", "\u115f"} <= set(changed)


@pytest.mark.parametrize("text", ["", "digits_int8.tflite", "数字 ✓ é", "cafe\u0301", "a\\x1b", "C:\\models"])
def test_plain_text_is_left_alone_and_twice_is_once(text):
    assert printable(text) == text
    assert printable(printable(NASTY + text)) == printable(NASTY + text)
    assert printable_lines(f"{text}\n{text}") == f"{text}\n{text}"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", None])
def test_what_an_encoding_lacks_becomes_an_escape(encoding):
    text = encodable(printable("─ 数 \ud800 \udcff é"), encoding)
    assert text.encode(encoding or "utf-8")
    assert "\\ud800 \\xff" in text


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "'=1", "|calc", "\u202e=1"]
)
def test_no_cell_is_a_formula(text):
    records = [
        example_measurement(model=text, label=text),
        dataclasses.replace(example_measurement(), scores={text: 0.5}),
        Failure(text, "local", text),
    ]
    rows = list(csv.reader(io.StringIO(csv_text(records))))
    cells = [cell for row in rows for cell in row]
    assert all(cell[:1].isalnum() or cell[:1] in "'_./\\~([{<#" for cell in cells)
    assert spreadsheet_cell(text) in rows[1]
    assert all(map(shown_only, cells))


def test_numbers_stay_numbers():
    assert [spreadsheet_cell(value) for value in (-1, -0.5, None, True, "")] == [-1, -0.5, None, True, ""]


@pytest.mark.parametrize(
    "name", ["ssh://a\nb", "ssh://a\tb", "ssh://us\rer@host", "ssh://ho\u202est", "adb://a\nb", "local\n"]
)
def test_an_address_is_read_as_written_or_not_at_all(name):
    with pytest.raises(ValueError, match="Received: device="):
        parse(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models whose every name is hostile, a copy under a name that is no text, and data."""
    folder = tmp_path_factory.mktemp("foreign")
    model = flatbuffer.parse(DIGITS.read_bytes())
    for graph in model.subgraphs:
        graph.name = NASTY.encode()
        for number, tensor in enumerate(graph.tensors):
            tensor.name = f"{NASTY}{number}".encode()
    for signature in model.signatureDefs or ():
        signature.signatureKey = NASTY.encode()
        for entry in (*signature.inputs, *signature.outputs):
            entry.name = NASTY.encode()
    model.description = NASTY.encode()
    content = flatbuffer.pack(model)
    (folder / "nasty.tflite").write_bytes(content)
    (folder / os.fsdecode(b"\xff\x1b[31m.tflite")).write_bytes(content)
    floats = model.subgraphs[0]
    floats.tensors, floats.outputs = floats.tensors[:2], np.array([1 - floats.inputs[0]], np.int32)
    for tensor in floats.tensors:
        tensor.type, tensor.quantization, tensor.buffer = 0, None, 0  # FLOAT32
        tensor.shape, tensor.shapeSignature = np.array([1, 8, 8, 1], np.int32), None
    floats.operators = [flatbuffer.new_operator(model, "RELU", [*floats.inputs], [*floats.outputs])]
    model.signatureDefs = model.metadata = None
    (folder / "float.tflite").write_bytes(flatbuffer.pack(model))
    random = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=random.uniform(size=(4, 8, 8, 1)).astype(np.float32), y=np.arange(4))
    return folder


def quiet_and_shown(capsys, code, *arguments):
    assert main([str(argument) for argument in arguments]) == code
    said = capsys.readouterr()
    assert shown_only(said.out), said.out
    assert shown_only(said.err), said.err
    return said


@pytest.mark.parametrize("name", ["nasty.tflite", b"\xff\x1b[31m.tflite"])
def test_inspect_shows_hostile_names_as_escapes(folder, tmp_path, capsys, name):
    model, page = folder / os.fsdecode(name), tmp_path / "page.html"
    said = quiet_and_shown(capsys, 0, "inspect", f"--model={model}", "--norun", f"--report={page}")
    assert "\\x1b" in said.out
    assert shown_only(page.read_text())
    report = tmp_path / "account.txt"
    said = quiet_and_shown(capsys, 0, "inspect", f"--model={model}", "--norun", "--json=-", f"--report={report}")
    assert json.loads(said.out)["name"] == str(model)  # machines read names as they are
    assert shown_only(report.read_text())


def test_compare_measure_and_errors_show_hostile_names_as_escapes(folder, tmp_path, capsys):
    plain, other = folder / "nasty.tflite", folder / os.fsdecode(b"\xff\x1b[31m.tflite")
    quiet_and_shown(capsys, 0, "compare", f"--model={plain},{other}", "--samples=2")
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    asked = ("--runs=2", "--warmup=0", f"--csv={table}", f"--json={tmp_path / 'a.json'}", f"--report={page}")
    said = quiet_and_shown(
        capsys, 0, "measure", f"--model={other}", f"--data={folder / 'data.npz'}", "--metric=top1", *asked
    )
    assert "\\xff\\x1b[31m" in said.out
    assert shown_only(table.read_text())
    assert shown_only(page.read_text())
    for code, arguments in (
        (1, ("inspect", f"--model={NASTY}".replace("\0", ""))),
        (2, (NASTY,)),
        (2, ("inspect", f"--{NASTY}")),
    ):
        said = quiet_and_shown(capsys, code, *arguments)
        assert len(said.err.splitlines()) == 1


@pytest.mark.slow
def test_a_hostile_model_is_converted_in_printable_words(folder, tmp_path, capsys):
    output, page = tmp_path / "out.tflite", tmp_path / "page.html"
    files = (f"--output={output}", f"--report={page}", f"--json={tmp_path / 'a.json'}")
    quiet_and_shown(capsys, 0, "convert", f"--model={folder / 'float.tflite'}", "--target=float32", *files)
    assert shown_only(page.read_text())


def run(*arguments, stdout=subprocess.PIPE, **environment):
    code = "import sys; from tfcompress.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def test_a_terminal_of_ascii_gets_what_can_be_shown():
    done = run("inspect", f"--model={DIGITS}", "--norun", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"-----" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
@pytest.mark.parametrize(
    "arguments", [("--help",), ("inspect", "--help"), ("inspect", f"--model={DIGITS}", "--norun", "--json=-")]
)
def test_a_full_standard_output_is_one_line(arguments):
    with open("/dev/full", "wb") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert b"Standard output must take the result" in done.stderr


def test_commands_write_by_way_of_printable_alone():
    for path in (ROOT / "tfcompress/cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                keywords = {keyword.arg for keyword in node.keywords}
                assert name != "print" or "file" in keywords, f"{path.name}:{node.lineno}"
                assert name not in ("sys.stdout.write", "sys.stderr.write"), f"{path.name}:{node.lineno}"


def test_writing_ends_the_line_and_minds_no_missing_stream():
    stream = io.StringIO()
    write("a\x1b", stream)
    write("b\n", stream)
    assert stream.getvalue() == "a\\x1b\nb\n"
    write("nobody reads it", None)
