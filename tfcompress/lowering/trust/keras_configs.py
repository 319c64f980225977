"""May this model file be opened? Whether it would bring code along is read off its configuration, before any loader.

A Lambda layer, an unknown custom object or a graph op that reaches for files or Python is refused, however deep it is
nested. This module loads no model.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ...errors import ModelError

__all__ = ["check_config", "keras_version", "read_config", "uses_tfmot"]

HOW_TO_ALLOW = "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python)."
TFMOT_CLASSES = frozenset(
    [
        "PruneLowMagnitude",
        "ClusterWeights",
        "QuantizeAnnotate",
        "QuantizeLayer",
        "QuantizeWrapper",
        "QuantizeWrapperV2",
        "OutputOnlyWrapper",
    ]
)
"""Layers of the TensorFlow Model Optimization toolkit (TFMOT), as they are named in files."""

_ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    ValueError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_LARGEST_CONFIG = 1 << 28  # bytes
_OWN_MODULES = ("keras", "tf_keras", "builtins", "tensorflow", "numpy", "tensorflow_model_optimization")
_LAMBDAS = ("Lambda", "__lambda__")
_SYMBOL_LAYERS = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")
_REACHING_SYMBOLS = re.compile(
    r"(^|\.)(io|raw_ops|saved_model|compat|py_function|numpy_function|load_op_library)(\.|$)"
)


def read_config(path: Path) -> Any:
    """Returns the configuration in a ``.keras`` or ``.h5`` file, which is told by its first bytes.

    Args:
        path: a file that begins as a zip archive or as HDF5.

    Raises:
        ModelError: damaged, or weights without a model.
    """
    if _is_archive(path):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                    raise ValueError("its config.json unpacks to more than 256 MB")
                return json.loads(archive.read("config.json"))
        except _ARCHIVE_ERRORS as error:
            raise ModelError(f"The .keras file is damaged: {path} ({error}). Copy or save it again.") from error
    text = _h5_attribute(path, "model_config")
    if text is None:
        raise ModelError(f"The .h5 file must hold a whole model. Received: {path} with weights only. Use model.save.")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelError(f"The .h5 file is damaged: {path} (its configuration is no JSON). Save it again.") from error


def keras_version(path: Path) -> str:
    """Returns the version of Keras that wrote a ``.keras`` or ``.h5`` file, "" if it does not say.

    Args:
        path: a file that ``read_config`` can read.
    """
    if _is_archive(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        except (*_ARCHIVE_ERRORS, AttributeError):
            return ""
    version = _h5_attribute(path, "keras_version")
    return version.decode(errors="replace") if isinstance(version, bytes) else str(version or "")


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _h5_attribute(path: Path, name: str) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get(name)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"The .h5 file is damaged: {path} ({error}). Copy or save it again.") from error


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    remaining = [config]  # no recursion: a file may nest deeper than Python's stack
    while remaining:
        node = remaining.pop()
        if isinstance(node, dict):
            if "class_name" in node:
                yield node
            remaining.extend(reversed(list(node.values())))
        elif isinstance(node, list):
            remaining.extend(reversed(node))


def uses_tfmot(config: Any) -> bool:
    """Returns whether a configuration holds layers of the TFMOT toolkit.

    Args:
        config: what ``read_config`` returned.

    Examples:
        >>> uses_tfmot({"class_name": "Sequential", "config": {"layers": [{"class_name": "PruneLowMagnitude"}]}})
        True
    """
    return any(_plain(entry["class_name"]) in TFMOT_CLASSES for entry in _objects(config))


def _plain(class_name: Any) -> str:
    return str(class_name).rpartition(">")[2]


def check_config(config: Any, place: str, known: Collection[str]) -> None:
    """Refuses a configuration that brings code along, in any layer, wrapper or nested model.

    Args:
        config: what ``read_config`` returned.
        place: how messages name the file.
        known: registered names of custom objects that the caller defined in this process.

    Raises:
        ModelError: a Lambda, a function of the author's, a call that reaches for files, or an unknown custom object.

    Examples:
        >>> check_config({"class_name": "Bidirectional", "config": {"layer": {"class_name": "Lambda"}}}, "m.h5", ())
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: A model file must not bring code along. Received: a Lambda (unnamed) in m.h5. ...
    """
    for entry in _objects(config):
        class_name = _plain(entry["class_name"])
        settings = entry.get("config") if isinstance(entry.get("config"), dict) else {}
        layer = f"{class_name} ({(settings or {}).get('name') or 'unnamed'})"
        foreign = _is_foreign(entry)
        if class_name in _LAMBDAS or (class_name == "function" and foreign):
            raise ModelError(
                f"A model file must not bring code along. Received: a {layer} in {place}. Replace it by a layer. "
                f"{HOW_TO_ALLOW}"
            )
        if class_name in _SYMBOL_LAYERS and _REACHING_SYMBOLS.search(str((settings or {}).get("function", ""))):
            raise ModelError(
                f"A model file must not reach for files or Python. Received: a {layer} that calls "
                f"{(settings or {})['function']} in {place}. Replace it by a layer. {HOW_TO_ALLOW}"
            )
        if foreign:
            registered = entry.get("registered_name") or str(entry["class_name"])
            if registered not in known and class_name not in known:
                raise ModelError(
                    f"A model file must not bring code along. Received: the unknown custom object {registered!r} in "
                    f"{place}. Register it with keras.saving.register_keras_serializable. {HOW_TO_ALLOW}"
                )


def _is_foreign(entry: dict[str, Any]) -> bool:
    if _plain(entry["class_name"]) in TFMOT_CLASSES:
        return False
    module = entry.get("module")
    if module is None:
        registered = str(entry.get("registered_name") or entry["class_name"])
        return ">" in registered and not registered.startswith("TFMOT>")
    return str(module).split(".")[0] not in _OWN_MODULES
