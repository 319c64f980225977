"""Who may import whom: the table of docs/architecture.md, one row a package, read from the source without importing it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tfcompress"


class Row(NamedTuple):
    """What a package may import.

    Args:
        floor: packages of lower floors may be imported, and those that stand before it on its own.
        loads: frameworks that its modules may load at once; anything is allowed inside functions.
    """

    floor: int
    loads: str = "none"


NUMPY, KERAS, LITERT = "none", "keras", "litert"
TABLE = {
    "errors": Row(0),
    "system": Row(0),
    "data": Row(1),
    "metrics": Row(1),
    "tflite": Row(1, LITERT),
    "quantization": Row(2, LITERT),
    "layers": Row(2, KERAS),
    "detection": Row(2, LITERT),
    "zoo": Row(2, KERAS),
    "calibration": Row(3, LITERT),
    "comparison": Row(3, LITERT),
    "lowering": Row(3, LITERT),
    "conversion": Row(4, LITERT),
    "measurement": Row(4),
    "pruning": Row(5, KERAS),
    "qat": Row(5, KERAS),
    "distillation": Row(5, KERAS),
    "security": Row(5, KERAS),
    "bundling": Row(6, LITERT),
    "reporting": Row(6),
    "cli": Row(7),
    "__init__": Row(7),
    "demo": Row(7, KERAS),
}
ORDER = {name: (row.floor, i) for i, (name, row) in enumerate(TABLE.items())}

TENSORFLOW = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "jax", "torch"}
INTERPRETER = {"ai_edge_litert"}
FORBIDDEN = {NUMPY: TENSORFLOW | INTERPRETER, KERAS: {"torch", "tf_keras", "jax"}, LITERT: {"torch", "tf_keras", "jax"}}
# What runs on a board, where NumPy and LiteRT are all there is.
ON_DEVICE = {
    "errors",
    "system.files",
    "system.quiet",
    "tflite.affine",
    "tflite.tensors",
    "tflite.model_files",
    "tflite.interpreter",
    "measurement.latency",
    "measurement.op_times",
    "measurement.conditions",
    "measurement.devices.on_device",
}
CONVERTER = {"lowering.freezing", "quantization.quantizers", "calibration.converter_calibrator"}
SETS_CONSTRAINTS = "layers.constraints"


class Import(NamedTuple):
    target: str
    line: int
    is_lazy: bool


def modules() -> dict[str, ast.Module]:
    """Returns the syntax trees of the package's modules by dotted name below the package."""
    trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        trees[name] = ast.parse(path.read_text(), path)
    return trees


MODULES = modules()
PACKAGES = {name for name in MODULES if (PACKAGE / name.replace(".", "/")).is_dir()}


def top(name: str) -> str:
    return name.partition(".")[0]


def is_on_device(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in ON_DEVICE)


def walk(node: ast.AST, is_lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yields all nodes and whether they run at a call; leaves out what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        inside = is_lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield child, inside
        yield from walk(child, inside)


def imports(name: str, tree: ast.AST) -> list[Import]:
    """Returns everything that a module imports, our own modules as ``tfcompress.<name>``."""
    parents = ["tfcompress", *([] if name == "__init__" else name.split("."))]
    folder = parents if name in PACKAGES or name == "__init__" else parents[:-1]
    found = []
    for node, is_lazy in walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            targets = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(target, node.lineno, is_lazy) for target in targets]
    return found


def own(target: str) -> str | None:
    """Returns the dotted name of one of our modules below the package, None for anything else."""
    parts = target.split(".")
    if parts[0] != "tfcompress":
        return None
    for end in range(len(parts), 1, -1):
        if ".".join(parts[1:end]) in MODULES:
            return ".".join(parts[1:end])
    return "__init__"


def touches_tf_lite(tree: ast.AST) -> list[int]:
    """Returns the lines that reach for ``tf.lite``, ``tensorflow.lite`` or anything below them."""
    lines = [i.line for i in imports("x", tree) if i.target.startswith("tensorflow.lite")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("tf.lite", "tensorflow.lite"):
            lines.append(node.lineno)
    return lines


def assigns_constraint(tree: ast.AST) -> list[int]:
    """Returns the lines that assign to the ``constraint`` of an object other than ``self``, or use ``setattr`` for it."""
    lines = []
    for node in ast.walk(tree):
        is_target = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "constraint"
        if is_target and ast.unparse(node.value) != "self":
            lines.append(node.lineno)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr" and len(node.args) > 1:
            lines += [node.lineno] if ast.unparse(node.args[1]) == "'constraint'" else []
    return lines


def exported(tree: ast.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Returns public names with their modules: those that a type checker reads, and those that ``lazy_exports`` finds."""
    read, found = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in ast.walk(node):
                if isinstance(each, ast.ImportFrom):
                    read |= {alias.asname or alias.name: each.module or "" for alias in each.names}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy_exports":
            found = {name: module for module, names in ast.literal_eval(node.args[1]).items() for name in names}
            for keyword in node.keywords:
                for path in ast.literal_eval(keyword.value):
                    found[path.rpartition(".")[2]] = path.rpartition(".")[0]
    return read, found


each_module = pytest.mark.parametrize("name", MODULES)


@each_module
def test_module_is_in_the_table(name):
    assert top(name) in TABLE, f"{name}: add its package to TABLE in {Path(__file__).name} and to docs/architecture.md"


@each_module
def test_module_imports_what_stands_before_its_package(name):
    here = ORDER[top(name)]
    for target, line, _ in imports(name, MODULES[name]):
        module = own(target)
        if module is not None and top(module) != top(name):
            assert ORDER[top(module)] < here, f"tfcompress/{name}.py:{line} imports {module}, which stands after it"


@each_module
def test_a_package_loads_only_its_frameworks(name):
    # The command line and the package itself load none, though all else is below them: --help must answer before.
    for target, line, is_lazy in imports(name, MODULES[name]):
        allowed = is_lazy or top(target) not in FORBIDDEN[TABLE[top(name)].loads]
        assert allowed or is_on_device(name), f"tfcompress/{name}.py:{line} imports {target} at once"


@each_module
def test_the_device_never_imports_a_framework(name):
    if is_on_device(name):
        for target, line, _ in imports(name, MODULES[name]):
            assert top(target) not in TENSORFLOW, f"tfcompress/{name}.py:{line} imports {target}: no TensorFlow there"
            module = own(target)
            assert module is None or is_on_device(module), f"tfcompress/{name}.py:{line} imports {module}"


@each_module
def test_only_the_converter_modules_touch_tf_lite(name):
    assert name in CONVERTER or not touches_tf_lite(MODULES[name]), f"tfcompress/{name}.py touches tf.lite"


@each_module
def test_only_one_module_sets_constraints(name):
    lines = assigns_constraint(MODULES[name])
    assert name == SETS_CONSTRAINTS or not lines, f"tfcompress/{name}.py sets a constraint in lines {lines}"


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_says_its_question_and_exports_what_a_type_checker_reads(name):
    first = (ast.get_docstring(MODULES[name]) or "").split("\n")[0]
    assert first.endswith(("?", ".")), f"tfcompress/{name}/__init__.py says no question"
    read, found = exported(MODULES[name])
    if found:
        assert read == found
        # A type checker that saw __getattr__ would take any name for a public one.
        (choice,) = [node for node in MODULES[name].body if isinstance(node, ast.If)]
        assert ast.unparse(choice.test) == "TYPE_CHECKING" and "lazy_exports" in ast.unparse(choice.orelse)


@pytest.mark.parametrize("name", [name for name in TABLE if name not in ("errors", "demo", "__init__")])
def test_architecture_has_a_row_for_the_package(name):
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert re.search(rf"^\| {TABLE[name].floor} \|.*`{name}/`", text, re.MULTILINE), f"docs/architecture.md: no {name}/"


def test_the_rules_see_what_they_look_for():
    tree = ast.parse(
        "import tensorflow as tf\n"
        "from .. import errors\n"
        "from ..data import Samples\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def lazily():\n    import keras\n"
        "    tf.lite.Interpreter\n"
        "variable.constraint = None\n"
        "setattr(variable, 'constraint', None)\n"
        "self.constraint = None\n"
        "from tensorflow.lite.python import convert\n"
        "from .masks import magnitude\n"
    )
    assert imports("pruning.schedules", tree) == [
        Import("tensorflow", 1, False),
        Import("tfcompress.errors", 2, False),
        Import("tfcompress.data.Samples", 3, False),
        Import("keras", 7, True),
        Import("tensorflow.lite.python.convert", 12, False),
        Import("tfcompress.pruning.masks.magnitude", 13, False),
    ]
    found = [own(i.target) for i in imports("pruning.schedules", tree)]
    assert found == [None, "errors", "data", None, None, "pruning.masks"]
    assert touches_tf_lite(tree) == [12, 8]
    assert assigns_constraint(tree) == [9, 10]
