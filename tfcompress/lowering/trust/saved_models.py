"""May this SavedModel be opened? Its graph is read as data, before TensorFlow loads it."""

import re
from pathlib import Path

from ...errors import ModelError
from .keras_configs import HOW_TO_ALLOW

__all__ = ["check_saved_model"]

_REACHING_OPS = frozenset(
    ["PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "DebugIdentityV2"]
)
_LAMBDA_IN_METADATA = re.compile(rb'"class_name"\s*:\s*"(Lambda|__lambda__)"')


def check_saved_model(path: Path) -> None:
    """Refuses a SavedModel folder with a Lambda layer, or whose graph reaches for files or Python.

    Custom layers in it are harmless: a SavedModel is run as a graph, and the classes it came from are never rebuilt.

    Args:
        path: the folder that holds ``saved_model.pb``.

    Raises:
        ModelError: such a layer or op, or a damaged graph.
    """
    for file in (path / "keras_metadata.pb", path / "saved_model.pb"):
        if file.is_file() and _LAMBDA_IN_METADATA.search(file.read_bytes()):
            raise ModelError(
                f"A model file must not bring code along. Received: a Lambda in {path}. Replace it by a layer. "
                f"{HOW_TO_ALLOW}"
            )
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except (DecodeError, OSError) as error:
        raise ModelError(f"The SavedModel is damaged: {path} ({error}). Export it again.") from error
    for meta in saved.meta_graphs:
        functions = [node for function in meta.graph_def.library.function for node in function.node_def]
        for node in (*meta.graph_def.node, *functions):
            if node.op in _REACHING_OPS:
                raise ModelError(
                    f"A model's graph must not reach for files or Python. Received: the op {node.op} ({node.name}) in "
                    f"{path}. Export the model without it. {HOW_TO_ALLOW}"
                )
