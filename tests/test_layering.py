"""Who may import whom: the table of docs/architecture.md, read from the source without importing it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tfcompress"

# A module may import modules of a lower rank, and those that stand before it in its own rank. A folder stands for
# all of its modules, which may import each other. Names of modules that later versions bring do no harm.
RANKS = {
    0: """errors files quiet child shapes schedules masks affine tensors histograms clipping observers overrides
          operators targets precision tables listing metrics differences figures profiles conditions records ranges measured_ranges scalings
          arrays scripts elements images samples data anchors suppression detection scoring truth digits log_mel tokens torch_files""",
    1: "trust backend signatures feeding legacy fake_quantization rules interception layer_choice phases recovery averages call_graph points tracking fused_norm integer_sums rounded_calls training_state costs balance channels importance removal constraints masking pruning channel_pruning clustering penalties waiting distillation detection_losses zoo",
    2: """isolation hdf5 flatbuffer substitutions metadata_tables metadata fingerprints interpreter trial stored roles summaries
          inspection matching pairing detaching losses comparison agreement torch_modules sources constants static_shapes postprocessing
          subgraphs lowered freezing tracing lowering_keras tensorflow_v1 lowering_tensorflow lowering_tflite
          layouts free_batch torch_examples torch_source lowering suspicion tfrecords calibration converter_calibration recipes quantization repair compatibility
          verification account ranging conversion proof qat""",
    3: "devices evaluating sessions fleet measurement",
    4: "shrinking bundle search reporting security",
    5: "__init__ cli demo __main__",
}
ORDER = {name: (rank, i) for rank, names in RANKS.items() for i, name in enumerate(names.split())}

TENSORFLOW = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "jax", "torch"}
INTERPRETER = {"ai_edge_litert"}
BOARD = {*RANKS[0].split(), "interpreter", *RANKS[3].split()}
CONVERTER = {"freezing", "quantization", "converter_calibration"}


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
    """Returns the table's name of one of our modules, None for anything else."""
    parts = target.split(".")
    if parts[0] != "tfcompress" or len(parts) < 2:
        return None
    return parts[1] if parts[1] in ORDER or parts[1] in MODULES else "__init__"


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


each_module = pytest.mark.parametrize("name", MODULES)


@each_module
def test_module_is_in_the_table(name):
    assert top(name) in ORDER, (
        f"{name} has no rank: add it to RANKS in {Path(__file__).name} and to docs/architecture.md"
    )


@each_module
def test_module_imports_what_stands_before_it(name):
    here = ORDER[top(name)]
    for target, line, _ in imports(name, MODULES[name]):
        module = own(target)
        if module is not None and module != top(name):
            assert ORDER.get(module, here) < here, (
                f"tfcompress/{name}.py:{line} imports {module}, which stands after it"
            )


@each_module
def test_low_ranks_load_no_framework(name):
    rank = ORDER[top(name)][0]
    # The command line and the package itself are of rank 5, yet --help must answer before TensorFlow has loaded.
    forbidden = TENSORFLOW | INTERPRETER if rank == 0 or top(name) in ("cli", "__init__") else set()
    for target, line, is_lazy in imports(name, MODULES[name]):
        assert is_lazy or top(target) not in forbidden, f"tfcompress/{name}.py:{line} imports {target} at once"


@each_module
def test_the_board_never_imports_a_framework(name):
    if top(name) in BOARD:
        for target, line, _ in imports(name, MODULES[name]):
            assert top(target) not in TENSORFLOW, f"tfcompress/{name}.py:{line} imports {target}: no TensorFlow there"
            assert own(target) is None or own(target) in BOARD, f"tfcompress/{name}.py:{line} imports {target}"


@each_module
def test_only_freezing_and_quantization_touch_tf_lite(name):
    assert name in CONVERTER or not touches_tf_lite(MODULES[name]), f"tfcompress/{name}.py touches tf.lite"


@each_module
def test_only_one_module_sets_constraints(name):
    lines = assigns_constraint(MODULES[name])
    assert name == "constraints" or not lines, f"tfcompress/{name}.py sets a constraint in lines {lines}"


@each_module
def test_architecture_lists_the_module(name):
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "architecture.md").read_text(), flags=re.DOTALL)
    spans = re.findall(r"`([^`]+)`", text)
    words = {word for span in spans for word in re.findall(r"\w+", span)}
    missing = set(name.split(".")) - words
    assert not missing, f"docs/architecture.md does not list {name}"


def test_the_rules_see_what_they_look_for():
    tree = ast.parse(
        "import tensorflow as tf\n"
        "from . import errors\n"
        "from .data import Samples\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def lazily():\n    import keras\n"
        "    tf.lite.Interpreter\n"
        "variable.constraint = None\n"
        "setattr(variable, 'constraint', None)\n"
        "self.constraint = None\n"
        "from tensorflow.lite.python import convert\n"
    )
    assert imports("masks", tree) == [
        Import("tensorflow", 1, False),
        Import("tfcompress.errors", 2, False),
        Import("tfcompress.data.Samples", 3, False),
        Import("keras", 7, True),
        Import("tensorflow.lite.python.convert", 12, False),
    ]
    assert [own(i.target) for i in imports("masks", tree)] == [None, "errors", "data", None, None]
    assert touches_tf_lite(tree) == [12, 8]
    assert assigns_constraint(tree) == [9, 10]
