"""Which kind of PyTorch file is it, and can it be opened without running what somebody wrote into it?

``torch.export.load`` unpickles weights, evaluates size expressions and loads compiled libraries that a file asks for;
here the file is read as the zip of JSON and raw tensors that an honest one is, and anything else is named. PyTorch itself
is not needed. Nothing is loaded here.
"""

import ast
import os
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

from ...errors import ModelError
from ..trust.findings import Finding
from ..trust.json_texts import parse_json

__all__ = ["TorchKind", "UnsafeProgram", "check_program", "detect", "members"]

TorchKind = Literal["pt2", "torchscript", "pickle"]
"""A ``torch.export`` program, a ``torch.jit`` archive, or a pickle from ``torch.save`` (a module or its weights)."""

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch/serialization.py, MAGIC_NUMBER, pickled
_OPERATOR = re.compile(r"torch\.ops\.(aten|prim|prims|_c10d_functional|higher_order)\.\w+(\.\w+)?|math\.[a-z]\w*")
_SYMBOLIC = re.compile(r"torch\.(sym_\w+|_sym_\w+)")
_ARITHMETIC = frozenset(
    [
        "add",
        "sub",
        "mul",
        "floordiv",
        "truediv",
        "mod",
        "neg",
        "pow",
        "ge",
        "gt",
        "le",
        "lt",
        "eq",
        "ne",
        "getitem",
        "and_",
        "or_",
        "not_",
        "pos",
        "abs",
    ]
)
_FUNCTIONS = frozenset(
    [
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Max",
        "Min",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "CleanDiv",
        "CeilDiv",
        "CeilToInt",
        "FloorToInt",
        "ModularIndexing",
        "IntTrueDiv",
        "FloatTrueDiv",
        "PowByNatural",
        "TruncToInt",
        "RoundToInt",
        "ToFloat",
        "Where",
        "And",
        "Or",
        "Not",
        "Eq",
        "Ne",
        "Ge",
        "Gt",
        "Le",
        "Lt",
        "Identity",
    ]
)
_NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Call, ast.Name, ast.Constant, ast.keyword),
    *(ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context),
)


_SMALL = 1 << 26  # bytes that may unpack from anything
_LARGEST_RATIO = 64  # PyTorch stores members as they are


class UnsafeProgram(ModelError):
    """A ``.pt2`` file holds more than a graph and raw tensors; ``finding`` says what."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.reason)
        self.finding = finding


def members(path: str | os.PathLike) -> list[str]:
    """Returns the names in a zip file without its top folder, an empty list for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        return []
    tops = {name.partition("/")[0] for name in names}
    return [name.partition("/")[2] for name in names] if len(tops) == 1 else names


def detect(path: str | os.PathLike) -> TorchKind | None:
    """Returns which kind of PyTorch file this is, judged by its bytes; None for any other file.

    Args:
        path: the file; a missing or unreadable one is no PyTorch file.

    Returns:
        "pt2" for ``torch.export.save``, "torchscript" for ``torch.jit.save`` and PyTorch Mobile's ``.ptl``, "pickle" for
        ``torch.save``.

    Examples:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "traced.pt"
        >>> with zipfile.ZipFile(path, "w") as archive:
        ...     archive.writestr("traced/constants.pkl", b"")
        ...     archive.writestr("traced/code/__torch__.py", b"")
        >>> detect(path)
        'torchscript'
        >>> detect("/no/such/file.pt") is None
        True
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
    except OSError:
        return None
    if head == _LEGACY_MAGIC:
        return "pickle"
    if head[:2] != b"PK":
        return None
    names = members(path)
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "pt2"
    if "constants.pkl" in names and any(name.startswith("code/") or name == "bytecode.pkl" for name in names):
        return "torchscript"
    return "pickle" if "data.pkl" in names and "version" in names else None


def check_program(path: str | os.PathLike, *, place: str | None = None) -> None:
    """Refuses a ``.pt2`` file that holds more than a graph of known operators and raw tensors.

    The recorded example inputs are a pickle of tensors; read them with ``torch.load(weights_only=True)`` before the rest.

    Args:
        path: the file; ``detect`` has called it "pt2".
        place: how messages name it. Default: the path.

    Raises:
        UnsafeProgram: pickled objects, compiled libraries, unknown operators or functions in size expressions, or members
            that unpack to far more than they are.
        ModelError: a file that cannot be read as JSON of ordinary size.
    """
    place = place or str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
            if len(set(names)) < len(names) or len({name.partition("/")[0] for name in names}) > 1:
                raise _refusal("two members of one name", place)  # PyTorch's reader could pick the other one
            for full in archive.namelist():
                _check_member(archive, full, full.partition("/")[2], place)
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError, NotImplementedError, EOFError) as error:
        raise ModelError(f"The .pt2 file is damaged: {place} ({error}). Copy or export it again.") from error


def _check_member(archive: zipfile.ZipFile, full: str, name: str, place: str) -> None:
    member = archive.getinfo(full)
    if member.file_size > max(_SMALL, _LARGEST_RATIO * member.compress_size):
        raise _refusal(f"{name}, {member.file_size >> 20} MiB of {member.compress_size} bytes,", place)
    if not name:
        raise _refusal("the format of PyTorch 2.7 and older, which is pickled", place)
    if name.startswith("data/aotinductor/"):
        raise _refusal("a compiled library", place)
    if re.match(r"data/(weights|constants)/[^/]*\.pt$|data/constants/(custom|opaque)_obj", name):
        raise _refusal(f"pickled objects ({name})", place)
    if name.startswith("data/") and name.endswith("_config.json"):
        for entry in _dicts(parse_json(archive.read(full))):
            if entry.get("use_pickle"):
                raise _refusal(f"a pickled tensor ({entry.get('path_name')})", place)
    if name.startswith("models/"):
        _check_graph(parse_json(archive.read(full)), place)


def _check_graph(program: Any, place: str) -> None:
    for entry in _dicts(program):
        target = entry.get("target")
        if isinstance(target, str) and "inputs" in entry and not _is_known(target):
            raise _refusal(f"the operator {target[:80]}", place)
        expression = entry.get("expr_str")
        if expression is not None and not _is_arithmetic(str(expression)):
            raise _refusal(f"the size expression {str(expression)[:80]!r}", place)
        for specification in (entry.get("in_spec"), entry.get("out_spec")):
            if "__enum__" in str(specification):  # PyTorch imports the module that it names
                raise _refusal("an enumeration among its inputs or outputs", place)


def _is_known(target: str) -> bool:
    if target.startswith("_operator."):
        return target.removeprefix("_operator.") in _ARITHMETIC
    return bool(_OPERATOR.fullmatch(target) or _SYMBOLIC.fullmatch(target))


def _is_arithmetic(expression: str) -> bool:
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS):
            return False
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.fullmatch(r"\w{1,80}", node.value):
            return False
    return True


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _refusal(what: str, place: str) -> UnsafeProgram:
    return UnsafeProgram(
        Finding(
            "refused",
            what,
            "",
            f"A model file must not bring code along. Received: {what} in {place}. Export it again with torch.export.save. "
            "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python).",
        )
    )
