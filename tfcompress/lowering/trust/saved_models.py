"""May this SavedModel be opened? Its graph is read as data, before TensorFlow loads it.

Ops are allowed by a list (``graph_ops.txt``): those that compute, and of those that keep state the ones that touch nothing but
the memory of the graph. Ops of checkpoints and vocabularies reach files, and every honest SavedModel has them: they are allowed
where they read the model's own files. What is checked is a private copy, and that copy is what TensorFlow loads.
"""

import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import ModelError
from .findings import Finding
from .graphs import Graph, Node, Origin, listed_ops, node_of
from .keras_configs import HOW_TO_ALLOW

__all__ = ["check_saved_model", "copy_saved_model", "examine_saved_model"]

GRAPH_FILE = "saved_model.pb"
LARGEST_EXPANSION = 1 << 31  # bytes of constants that the file says in one number: 2 GiB, as much as a graph may weigh
_METADATA_FILE = "keras_metadata.pb"  # tf_keras writes it; read here only
_FILES = re.compile(r"variables\.(index|data-\d{5}-of-\d{5})")
_INITIALIZER = "__saved_model_init_op"
_LAMBDA_IN_METADATA = re.compile(rb'"class_name"\s*:\s*"(Lambda|__lambda__)"')
_OF_SESSIONS = ("Variable", "VariableV2")
_VOCABULARIES = "vocabularies"


def copy_saved_model(path: Path) -> Path:
    """Returns a new temporary folder with the files of a SavedModel that loaders read, and no others.

    Args:
        path: the folder that holds ``saved_model.pb``; nobody who writes into it later changes the copy.

    Raises:
        ModelError: a link, a pipe or a device among them, or a file that cannot be read.
    """
    copy = Path(tempfile.mkdtemp(prefix="tfcompress-saved-model-"))
    try:
        for name in (GRAPH_FILE, _METADATA_FILE):
            if os.path.lexists(path / name):
                _copy(path / name, copy / name)
        if os.path.lexists(path / "variables"):
            _copy_folder(path / "variables", copy / "variables", _FILES)
        if os.path.lexists(path / "assets"):
            _copy_folder(path / "assets", copy / "assets", None)
    except BaseException as error:
        shutil.rmtree(copy, ignore_errors=True)
        if isinstance(error, OSError):
            raise ModelError(f"The SavedModel must be readable. Received: {path} ({error.strerror}).") from error
        raise
    return copy


def _copy_folder(source: Path, target: Path, names: re.Pattern[str] | None) -> None:
    if not stat.S_ISDIR(source.lstat().st_mode):
        raise _outside(source)
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if names is None and stat.S_ISDIR(entry.lstat().st_mode):
            _copy_folder(entry, target / entry.name, None)
        elif names is None or names.fullmatch(entry.name):
            _copy(entry, target / entry.name)


def _copy(source: Path, target: Path) -> None:
    if not stat.S_ISREG(source.lstat().st_mode):
        raise _outside(source)
    with (
        open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file,
        open(target, "xb") as written,
    ):
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it may have been exchanged since
            raise _outside(source)
        shutil.copyfileobj(file, written, 1 << 20)


def _outside(path: Path) -> ModelError:
    return ModelError(
        f"A SavedModel must hold its files itself. Received: {path}, a link, a pipe or a device. Copy the folder with "
        f"cp -rL if it is yours. {HOW_TO_ALLOW}"
    )


def check_saved_model(path: Path, *, place: str | None = None) -> None:
    """Refuses a SavedModel folder with a Lambda layer, or whose graph reaches for files, the network or Python.

    Custom layers in it are harmless: a SavedModel is run as a graph, and the classes it came from are never rebuilt.

    Args:
        path: the folder that holds ``saved_model.pb``; to be loaded afterwards, it must be a copy of one's own.
        place: how messages name it. Default: the path.

    Raises:
        ModelError: such a layer or op, or a damaged graph.
    """
    for finding in examine_saved_model(path, place=place):
        raise ModelError(finding.reason)


def examine_saved_model(path: Path, *, place: str | None = None) -> list[Finding]:
    """Returns what keeps a SavedModel folder from being opened, each op once; an empty list if nothing does.

    Args:
        path: the folder that holds ``saved_model.pb``.
        place: how messages name it. Default: the path.

    Raises:
        ModelError: a damaged graph.
    """
    place, found = place or str(path), []
    for file in (path / _METADATA_FILE, path / GRAPH_FILE):
        if file.is_file() and _LAMBDA_IN_METADATA.search(file.read_bytes()):
            rule = "A model file must not bring code along."
            found.append(_finding(rule, "a Lambda", file.name, place, way_out="Replace it by a layer."))
    for meta in _parsed(path, place).meta_graphs:
        try:
            graph = Graph(meta)
        except ValueError as error:
            raise _damaged(place, error) from error
        for what, where in (*_ops(graph), *_names(graph, meta), *_placed(graph, meta), *_assets(meta)):
            rule = "A model's graph must not reach for files or Python."
            found.append(_finding(rule, what, where, place, way_out="Export the model without it."))
        if (size := _expanded(graph)) > LARGEST_EXPANSION:
            rule = f"A model's graph must not unpack to more than {LARGEST_EXPANSION >> 20} MiB."
            what = f"constants of {size >> 20} MiB that the file says in a few numbers"
            found.append(_finding(rule, what, "", place, way_out="Export the model without them."))
    return found


def _finding(rule: str, what: str, where: str, place: str, *, way_out: str) -> Finding:
    found = f"{what} ({where})" if where else what
    return Finding("refused", what, where, f"{rule} Received: {found} in {place}. {way_out} {HOW_TO_ALLOW}")


def _parsed(path: Path, place: str) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString((path / GRAPH_FILE).read_bytes())
    except (DecodeError, OSError) as error:
        raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> ModelError:
    return ModelError(f"The SavedModel is damaged: {place} ({error}). Export it again.")


def _ops(graph: Graph) -> Iterator[tuple[str, str]]:
    """Every node must be an op of the list, or call a function of the graph's own library."""
    known, seen = listed_ops(), set()
    for node in graph.nodes:
        op = node.definition.op
        if op not in known and op not in graph.functions and op not in seen:
            seen.add(op)
            yield f"the op {op}", _place(node)


def _names(graph: Graph, meta: Any) -> Iterator[tuple[str, str]]:
    """A function that is called must be in the library: TensorFlow could take an op of that name instead."""
    called = {name: _place(node) for node in graph.nodes for name in node.functions}
    for each in meta.graph_def.library.gradient:
        called |= dict.fromkeys((each.function_name, each.gradient_func), "a gradient")
    for name in sorted(set(called) - set(graph.functions)):
        yield f"the function {name!r} from outside of the graph", called[name]


def _placed(graph: Graph, meta: Any) -> Iterator[tuple[str, str]]:
    """Ops of checkpoints and vocabularies may read what the loader names, and must not run otherwise.

    A TensorFlow 2 model has them in ``traced_save`` and ``traced_restore``, which nobody calls who loads or runs it; one of
    TensorFlow 1 has them beside its layers, where the name of the checkpoint is a placeholder that the loader fills.
    """
    groups = listed_ops()

    def placed(nodes: list[Node]) -> dict[tuple[str, str], Node]:
        placed_groups = ("checkpoints", _VOCABULARIES)
        return {(n.scope, n.definition.name): n for n in nodes if groups.get(n.definition.op) in placed_groups}

    saver, assets = meta.saver_def, {node_of(each.tensor_info.name) for each in meta.asset_file_def}
    answers = placed(graph.run_by(_answers(meta, initializers=False)))
    starts = placed(graph.run_by(_answers(meta, initializers=True), graph.concrete))
    restored = placed(graph.run_by([saver.restore_op_name]))
    own_checkpoint = {Origin("node", node_of(saver.filename_tensor_name))}
    own_vocabulary = {*(Origin("node", name) for name in assets), Origin("bound", "asset")}
    # The loader of TensorFlow 2 takes functions and saved objects alone, unless there are variables of TensorFlow 1.
    is_main_run = not meta.object_graph_def.nodes or any(n.definition.op in _OF_SESSIONS for n in graph.nodes)
    for key, node in sorted({**answers, **starts, **restored}.items(), key=lambda each: each[0]):
        op = node.definition.op
        if groups[op] == _VOCABULARIES:
            names = {each for each in graph.origins(node, 1) if is_main_run or each.kind != "node"}
            allowed = key not in answers and names <= own_vocabulary
        else:
            only_restored = key not in answers and key not in starts
            allowed = only_restored and op == "RestoreV2" and graph.origins(node, 0) <= own_checkpoint
        if not allowed:
            yield f"the op {op} on a file that is not the model's own", _place(node)


def _answers(meta: Any, *, initializers: bool) -> list[str]:
    """Returns the tensors that are computed when a signature is called, or when the model is loaded."""
    tensors = []
    for key, signature in meta.signature_def.items():
        if (key == _INITIALIZER) == initializers:
            for info in signature.outputs.values():
                parts = [info, *info.composite_tensor.components]
                tensors += [each.name for each in parts]
                sparse = info.coo_sparse
                tensors += [sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    if initializers:
        tensors += [name for collection in meta.collection_def.values() for name in _collected(collection)]
    return [name for name in tensors if name]


def _collected(collection: Any) -> Iterator[str]:
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import variable_pb2

    yield from collection.node_list.value
    for content in collection.bytes_list.value:
        try:
            variable = variable_pb2.VariableDef.FromString(content)
        except DecodeError:
            continue
        yield from (variable.initial_value_name, variable.initializer_name, variable.snapshot_name)
        yield variable.variable_name


def _assets(meta: Any) -> Iterator[tuple[str, str]]:
    for asset in meta.asset_file_def:
        name = PurePosixPath(asset.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in asset.filename or "\0" in asset.filename:
            yield f"the asset {asset.filename!r} outside of the folder assets", GRAPH_FILE


def _expanded(graph: Graph) -> int:
    """Returns the bytes of constants of which the file says less than it asks memory for: one number may fill any shape."""
    from tensorflow.core.framework import types_pb2

    wide = (types_pb2.DT_COMPLEX128, types_pb2.DT_STRING)
    total = 0
    for node in graph.nodes:
        for value in node.definition.attr.values():
            for tensor in (value.tensor, *value.list.tensor):
                sizes = [each.size for each in tensor.tensor_shape.dim]
                size = math.prod(sizes) * (16 if tensor.dtype in wide else 8) if min(sizes, default=0) >= 0 else 0
                total += size if size > 8 * tensor.ByteSize() else 0
    return total


def _place(node: Node) -> str:
    name = node.definition.name
    return f"{name} in the function {node.scope}" if node.scope else name
