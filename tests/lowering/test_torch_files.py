"""PyTorch files judged by their bytes, hostile ones among them; only the last test needs PyTorch."""

import json
import subprocess
import sys
import zipfile

import pytest

from tfcompress.errors import ConversionError, ModelError
from tfcompress.lowering.pytorch import export, files, modules

SYMBOL = "Symbol('s77', positive=True, integer=True)"


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"model/{name}", content if isinstance(content, str | bytes) else json.dumps(content))
    return path


def program(path, *, target="torch.ops.aten.relu.default", expression=SYMBOL, in_spec="[]", **members):
    node = {"target": target, "inputs": [], "outputs": [], "metadata": {}}
    sizes = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}
    graph = {"graph_module": {"graph": {"nodes": [node], "sizes": [sizes]}, "signature": {"in_spec": in_spec}}}
    return archive(path, **{"archive_format": "pt2", "models/model.json": graph, **members})


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"archive_format": "pt2", "models/model.json": "{}"}, "pt2"),
        ({"constants.pkl": "", "code/__torch__.py": "", "data.pkl": "", "version": "3"}, "torchscript"),
        ({"bytecode.pkl": "", "constants.pkl": "", "version": "3"}, "torchscript"),
        ({"data.pkl": "", "version": "3", "data/0": ""}, "pickle"),
        ({"config.json": "{}", "metadata.json": "{}", "model.weights.h5": ""}, None),
    ],
)
def test_members_tell_the_kind(tmp_path, members, kind):
    assert files.detect(archive(tmp_path / "model.bin", **members)) == kind


def test_old_and_foreign_files(tmp_path):
    (tmp_path / "old.pth").write_bytes(bytes.fromhex("80028a0a6cfc9c46f9206aa85019") + b".rest")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and then nothing")
    (tmp_path / "empty.pt").write_bytes(b"")
    kinds = [files.detect(tmp_path / name) for name in ("old.pth", "cut.pt", "empty.pt", "absent.pt")]
    assert kinds == ["pickle", None, None, None]


@pytest.mark.parametrize(
    "expression", [SYMBOL, f"2*{SYMBOL} + 1", f"Max(1, {SYMBOL}//2)", f"FloorDiv({SYMBOL}, 4)", "8", "s0 - 3"]
)
def test_size_arithmetic_passes(tmp_path, expression):
    files.check_program(program(tmp_path / "model.pt2", expression=expression))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"expression": "__import__('os').system('true')"}, "size expression"),
        ({"expression": "lambdify(x, 'print(1)')"}, "size expression"),
        ({"expression": "Symbol('print(1)')"}, "size expression"),
        ({"expression": "s0.__class__"}, "size expression"),
        ({"expression": "(lambda: 0)()"}, "size expression"),
        ({"target": "torch.load"}, "operator torch.load"),
        ({"target": "torch.ops.load_library"}, "operator torch.ops.load_library"),
        ({"target": "_operator.methodcaller"}, "operator _operator.methodcaller"),
        ({"target": "#anything"}, "operator #anything"),
        ({"in_spec": '{"__enum__": true, "fqn": "os:name"}'}, "enumeration"),
        ({"data/aotinductor/model/a.so": b"\x7fELF"}, "compiled library"),
        ({"data/constants/opaque_obj_0": b""}, "pickled objects"),
        ({"data/weights/model.pt": b""}, "pickled objects"),
        (
            {"data/weights/model_weights_config.json": {"config": {"w": {"use_pickle": True, "path_name": "w"}}}},
            "pickled",
        ),
        ({"MODELS/model.json": "{}"}, "two members"),
    ],
)
def test_what_brings_code_along_is_refused(tmp_path, changes, named):
    path = program(tmp_path / "model.pt2", **changes)
    with pytest.raises(ModelError, match="must not bring code along") as caught:
        files.check_program(path)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "--allow_unsafe" in str(caught.value)


def test_a_damaged_program_is_called_damaged(tmp_path):
    path = program(tmp_path / "model.pt2", **{"models/other.json": "{not json"})
    with pytest.raises(ModelError, match=r"damaged: .*model\.pt2"):
        files.check_program(path)


def test_without_pytorch_the_message_says_what_to_install(tmp_path):
    path = archive(tmp_path / "model.pt", **{"data.pkl": "", "version": "3"})
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from tfcompress import errors; from tfcompress.lowering import pytorch\n"
        f"assert pytorch.is_torch({str(path)!r})\n"
        "try:\n"
        f"    pytorch.lower_torch({str(path)!r})\n"
        "except errors.ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install -c constraints.txt -e '.[torch]'" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "is_control_flow"),
    [
        ("Lowering not found: cond\n\nWhile executing %cond", True),
        ("Lowering not found: while_loop", True),
        ("Could not guard on data-dependent expression Eq(u0, 1)", True),
        ("TS2EPConverter failed for node prim::Loop", True),
        ("Lowering not found: aten.conv3d.default", False),
        ("Lowering not found: aten.second.default", False),
    ],
)
def test_only_branches_and_loops_are_told_to_be_rewritten(message, is_control_flow):
    """The messages are those of PyTorch 2.13 and litert-torch 0.10; the next test provokes two of them."""
    assert ("torch.where" in modules.rewrite_advice(RuntimeError(message))) is is_control_flow


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_scripted_file_with_a_branch_says_how_to_write_it(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")
    pytest.importorskip("litert_torch", reason="the extra [torch] is not installed")

    class Deciding(torch.nn.Module):
        def forward(self, x):
            if bool(x.sum() > 0):  # noqa: SIM108 - the branch is what the test is about
                y = torch.relu(x)
            else:
                y = torch.tanh(x)
            return y

    torch.jit.script(Deciding()).save(tmp_path / "deciding.pt")
    for model in (tmp_path / "deciding.pt", Deciding()):
        with pytest.raises(ConversionError, match=r"eciding.*torch\.where"):
            export.lower_torch(model, input_shapes={"x": (1, 4)}, allow_unsafe=True)
