"""What a model argument is, and how a file of it is opened without running code that the file brings along.

A ``.keras``, ``.h5`` or SavedModel file with a Lambda layer or an unknown custom object is refused from its
configuration alone, before any loader sees it. Does not lower or convert.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import hdf5
from .errors import ModelError
from .lowering import converter_silenced
from .ranges import TrainedRanges, hash_weights, read_archive

__all__ = ["Source", "open_source"]

_LARGEST_CONFIG = 1 << 28
_HOW_TO_ALLOW = "If you trust the file, pass --allow_unsafe (allow_unsafe=True in Python)."


@dataclass(frozen=True)
class Source:
    """A model that is ready to be lowered.

    Args:
        kind: "keras", "saved_model" or "tflite".
        name: how messages name it.
        value: the Keras model, the folder's path or the file's bytes.
        stored: trained ranges that came with a Keras model. Default: None.
        same_weights: whether the stored ranges belong to the weights as they are. Default: True.
    """

    kind: Literal["keras", "saved_model", "tflite"]
    name: str
    value: Any
    stored: TrainedRanges | None = None
    same_weights: bool = True


def open_source(model: Any, *, allow_unsafe: bool = False, debug: bool = False) -> Source:
    """Returns the source for a Keras 3 model or a path to a ``.keras``, ``.h5``, ``.tflite`` file or SavedModel folder.

    Args:
        model: the model, or a path.
        allow_unsafe: whether a file may bring code along (Lambda layers, unknown custom objects). Default: False.
        debug: whether loaders' log lines are shown. Default: False.

    Raises:
        ModelError: a path without a model, a damaged file, or one that brings code along.
        TypeError: neither a Keras 3 model nor a path.

    Example:
        >>> open_source("/no/such/model.keras")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model file must exist. Received: /no/such/model.keras. Check the path.
    """
    if isinstance(model, str | os.PathLike):
        return _from_path(Path(model), allow_unsafe, debug)
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model must be a Keras 3 model or a path. Received: {type(model).__module__}.{type(model).__name__}."
        )
    from .qat import trained_ranges

    return _keras_source(model, model.name, trained_ranges(model))


def _keras_source(model: Any, name: str, stored: TrainedRanges | None) -> Source:
    same = stored is None or stored.weights_sha256 == hash_weights(model.get_weights())
    return Source("keras", name, model, stored, same)


def _from_path(path: Path, allow_unsafe: bool, debug: bool) -> Source:
    if not path.exists():
        raise ModelError(f"The model file must exist. Received: {path}. Check the path.")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ModelError(f"A model folder must be a SavedModel. Received: {path} without saved_model.pb.")
        _check_saved_model(path, allow_unsafe)
        return Source("saved_model", str(path), str(path))
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"The model file must be readable. Received: {path} ({error.strerror}).") from error
    if head[4:8] == b"TFL3":
        return Source("tflite", str(path), path.read_bytes())
    if head[:4] == b"PK\x03\x04":
        config = _archive_config(path)
        hdf5.check(path)
    elif head[:8] == b"\x89HDF\r\n\x1a\n":
        config = _h5_config(path)
    else:
        raise ModelError(
            f"The model must be a .keras, .h5 or .tflite file or a SavedModel folder. Received: {path}, "
            f"{path.stat().st_size} bytes of something else."
        )
    if not allow_unsafe:
        _check_config(config, path)
    return _keras_source(_load(path, allow_unsafe, debug), str(path), read_archive(path))


def _load(path: Path, allow_unsafe: bool, debug: bool) -> Any:
    import keras

    with converter_silenced(debug=debug):
        try:
            return keras.models.load_model(path, compile=False, safe_mode=not allow_unsafe)
        except Exception as error:  # Keras raises whatever the file makes it stumble over
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                f"Keras cannot load {path}: {reason[:300]} Save it again with this Keras ({keras.__version__}), or "
                "register its custom objects first."
            ) from error


def _archive_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_CONFIG:
                raise ValueError("its config.json unpacks to more than 256 MB")
            return json.loads(archive.read("config.json"))
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ModelError(f"The .keras file is damaged: {path} ({error}). Copy or save it again.") from error


def _h5_config(path: Path) -> Any:
    text = hdf5.check(path)
    if text is None:
        raise ModelError(f"The .h5 file must hold a whole model. Received: {path} with weights only. Use model.save.")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelError(f"The .h5 file is damaged: {path} (its configuration is no JSON). Save it again.") from error


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)


def _check_config(config: Any, path: Path) -> None:
    import keras

    for entry in _objects(config):
        class_name = entry["class_name"]
        if class_name in ("Lambda", "__lambda__", "function") and (class_name != "function" or _is_foreign(entry)):
            layer = (entry.get("config") or {}).get("name") if isinstance(entry.get("config"), dict) else None
            raise ModelError(
                f"A model file must not bring code along. Received: a {class_name} ({layer or 'unnamed'}) in {path}. "
                f"Replace it by a layer. {_HOW_TO_ALLOW}"
            )
        if _is_foreign(entry):
            registered = entry.get("registered_name") or class_name
            known = keras.saving.get_custom_objects()
            if registered not in known and class_name not in known:
                raise ModelError(
                    f"A model file must not bring code along. Received: the unknown custom object {registered!r} in "
                    f"{path}. Register it with keras.saving.register_keras_serializable. {_HOW_TO_ALLOW}"
                )


def _is_foreign(entry: dict[str, Any]) -> bool:
    module = entry.get("module")
    if module is None:
        return "registered_name" in entry and ">" in str(entry["registered_name"])
    return str(module).split(".")[0] not in ("keras", "builtins", "tensorflow", "numpy")


def _check_saved_model(path: Path, allow_unsafe: bool) -> None:
    metadata = path / "keras_metadata.pb"
    for file in (metadata, path / "saved_model.pb"):
        if file.is_file() and not allow_unsafe and b'"class_name": "Lambda"' in file.read_bytes():
            raise ModelError(
                f"A model file must not bring code along. Received: a Lambda in {path}. Replace it by a layer. "
                f"{_HOW_TO_ALLOW}"
            )
