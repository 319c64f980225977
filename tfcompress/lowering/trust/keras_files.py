"""May this Keras file be opened, and what is opened then? One answer for whoever opens it and for whoever only asks.

No loader sees the file itself. A child process takes a private copy, decides once what it is, checks it and copies its
numbers; the configuration is checked here; and the loader gets a new file of these checked parts.
"""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...errors import ConversionError, ModelError
from ...system import run_isolated
from ...system.isolated_child import is_inside
from . import archives, weight_files
from .findings import Finding
from .json_texts import LARGEST_TEXT, parse_json
from .keras_configs import HOW_TO_ALLOW, examine_config, uses_tfmot, without_training
from .keras_objects import Loader, registered_objects

__all__ = ["CheckedKeras", "check_keras", "examine_keras", "loaders_of"]

_SECONDS = 20
_BYTES_PER_SECOND = 10_000_000  # a slow network disk
_MEMORY = 3 << 30  # bytes, and four times the file
_ZIP_START = b"PK\x03\x04"
_COPY_BYTES = 1 << 24
_PRIVATE = "received"
_LONGEST_WORD = 40


class CheckedKeras(NamedTuple):
    """A file of checked parts, for the loader to read.

    Attributes:
        path: the new file.
        loaders: which loaders may read it, in the order in which they are tried.
        with_tfmot: whether it holds layers of the TFMOT toolkit.
    """

    path: Path
    loaders: tuple[Loader, ...]
    with_tfmot: bool


class _Parts(NamedTuple):
    kind: Literal[".keras", ".h5"]
    config: bytes
    version: str
    backend: str
    assets: tuple[str, ...]


def examine_keras(path: Path) -> list[Finding]:
    """Returns what keeps a ``.keras`` or ``.h5`` file from being opened; an empty list if nothing does.

    No loader sees the file. Custom objects that this process registered with its loader are known.

    Args:
        path: the file.

    Raises:
        ModelError: damaged, or weights without a model.

    Examples:
        >>> examine_keras(Path("models/digits/digits.keras"))
        []
    """
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        checked = check_keras(path, Path(folder))
    return checked if isinstance(checked, list) else []


def check_keras(path: Path, folder: Path) -> CheckedKeras | list[Finding]:
    """Returns a new file of the checked parts of a ``.keras`` or ``.h5`` file, or what keeps it from being opened.

    Args:
        path: the file, which is read once.
        folder: where the new file is written; empty.

    Raises:
        ModelError: damaged, or weights without a model.
    """
    answer = _read_apart(path, folder)
    if isinstance(answer, str):
        return [_file_finding(path, answer)]
    parts = _Parts(*answer)
    try:
        config = parse_json(parts.config)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise _damaged(path, parts.kind, "its configuration is no JSON") from error
        return [_file_finding(path, f"its configuration is not read: {error}")]
    allowed: list[Loader] = []
    found: list[Finding] = []
    for loader in loaders_of(config, parts.kind, parts.version):
        try:
            found = list(examine_config(config, str(path), registered_objects(loader), loader=loader))
        except ImportError as error:
            raise _missing(path, uses_tfmot(config)) from error
        if not found:
            allowed.append(loader)
    if not allowed:
        return found
    config = without_training(config)
    return CheckedKeras(_written(folder, parts, config), tuple(allowed), uses_tfmot(config))


def loaders_of(config: Any, kind: str, version: str) -> tuple[Loader, ...]:
    """Returns which loaders a file is meant for, in the order in which they are tried.

    Args:
        config: the file's configuration.
        kind: ".keras" or ".h5".
        version: the Keras that wrote it, "" if it does not say.

    Examples:
        >>> loaders_of({}, ".keras", "3.5.0"), loaders_of({}, ".keras", "2.15.0"), loaders_of({}, ".h5", "2.4.0")
        (('keras',), ('tf_keras',), ('keras', 'tf_keras'))
    """
    old = version.startswith("2.")
    if uses_tfmot(config) or (old and kind == ".keras"):
        return ("tf_keras",)
    return ("keras", "tf_keras") if old else ("keras",)


def _file_finding(path: Path, clause: str) -> Finding:
    return Finding(
        "refused",
        clause,
        "",
        f"A Keras file must be one file that reaches for nothing else. Received: {path}: {clause}. Save it again. "
        f"{HOW_TO_ALLOW}",
    )


def _missing(path: Path, with_tfmot: bool) -> ModelError:
    if with_tfmot:
        return ModelError(
            f"TFMOT's layers need the toolkit. Received: {path} with such layers. "
            "Run pip install tensorflow-model-optimization."
        )
    return ModelError(f"Files of Keras 2 need tf_keras. Received: {path}. Run pip install tf_keras.")


def _damaged(path: Path, kind: str, reason: str) -> ModelError:
    return ModelError(f"The {kind} file is damaged: {path} ({reason}). Copy or save it again.")


def _read_apart(path: Path, folder: Path) -> Any:
    seconds = _SECONDS + path.stat().st_size // _BYTES_PER_SECOND
    try:
        return run_isolated(
            "tfcompress.lowering.trust.keras_files:read_parts", (str(path), str(folder)), timeout_seconds=seconds
        )
    except ConversionError as error:
        reason = str(error).partition(". Received: ")[2].partition(".")[0]
        raise ModelError(
            f"The weights must be a sound HDF5 file. Received: {path}, on which the HDF5 library crashed or looped "
            f"({reason}). Copy or save it again."
        ) from error


def _written(folder: Path, parts: _Parts, config: Any) -> Path:
    """Writes the file that a loader gets, and returns where it is."""
    import h5py

    path = folder / f"model{parts.kind}"
    weights = folder / archives.WEIGHTS
    if parts.kind == ".h5":
        with h5py.File(weights, "r+") as file:
            file.attrs["model_config"] = json.dumps(config).encode()
            file.attrs["keras_version"] = parts.version.encode()
            file.attrs["backend"] = parts.backend.encode()
        weights.rename(path)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(archives.METADATA, json.dumps({"keras_version": parts.version}))
        archive.writestr(archives.CONFIG, json.dumps(config))
        archive.write(weights, archives.WEIGHTS)
        for number, name in enumerate(parts.assets):
            archive.write(folder / f"asset{number}", name)
    return path


# The child's side.


def read_parts(request: tuple[str, str], report: Any) -> Any:
    """Copies, checks and takes apart the file ``request[0]`` into the folder ``request[1]``; runs in the child.

    Returns:
        The fields of ``_Parts``, or a clause that says what is refused.
    """
    del report
    if not is_inside():  # a wall has its own limit, for all that the process does
        _limit_memory(Path(request[0]).stat().st_size)
    return take_apart(request[0], Path(request[1]))


def take_apart(path: str, folder: Path) -> Any:
    """Does what ``read_parts`` says, in any process."""
    private = folder / _PRIVATE
    with open(path, "rb") as source, private.open("wb") as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)
    size = private.stat().st_size
    with private.open("rb") as file:
        kind: Literal[".keras", ".h5"] = ".keras" if file.read(4) == _ZIP_START else ".h5"
        try:
            parts = _archive_parts(file, size, folder) if kind == ".keras" else _h5_parts(file, size, folder, path)
        except ModelError:
            raise
        except ValueError as error:
            return _clause(error)
        except Exception as error:  # h5py raises whatever the damage makes it stumble over
            raise _damaged(Path(path), kind, _clause(error)) from error
    private.unlink()
    return tuple(parts._replace(version=_word(parts.version), backend=_word(parts.backend)))


def _word(text: str) -> str:
    """Returns a version or a name, which HDF5 can hold again: without NUL and half characters."""
    return "".join(sign for sign in text[:_LONGEST_WORD] if sign.isascii() and sign.isprintable())


def _clause(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    most = _MEMORY + 4 * size
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _archive_parts(file: Any, size: int, folder: Path) -> _Parts:
    import h5py

    with zipfile.ZipFile(file) as archive:
        archives.check_archive(archive, file, size)
        config = archives.read_member(archive, archives.CONFIG)
        names = archive.namelist()
        metadata = archives.read_member(archive, archives.METADATA) if archives.METADATA in names else b"{}"
        version = _version(metadata)
        assets = tuple(name for name in names if name.startswith(archives.ASSETS) and not name.endswith("/"))
        for number, name in enumerate(assets):
            (folder / f"asset{number}").write_bytes(archives.read_member(archive, name))
        content = archives.read_member(archive, archives.WEIGHTS)
    _copied(h5py, content, folder)
    return _Parts(".keras", config, version, "", assets)


def _version(metadata: bytes) -> str:
    try:
        described = parse_json(metadata)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return ""
    return str(described.get("keras_version", "")) if isinstance(described, dict) else ""


def _copied(h5py: Any, content: bytes, folder: Path) -> None:
    import io

    stream = io.BytesIO(content)
    weight_files.check_ends(stream, len(content))
    with h5py.File(stream, "r") as source, h5py.File(folder / archives.WEIGHTS, "w") as target:
        weight_files.copy_weights(source, target, size=len(content))


def _h5_parts(file: Any, size: int, folder: Path, path: str) -> _Parts:
    import h5py

    weight_files.check_ends(file, size)
    with h5py.File(folder / _PRIVATE, "r") as source:
        config = weight_files.text_attribute(source, "model_config")
        if config is None:
            raise ModelError(
                f"The .h5 file must hold a whole model. Received: {path} with weights only. Use model.save."
            )
        version = weight_files.text_attribute(source, "keras_version") or ""
        backend = weight_files.text_attribute(source, "backend") or "tensorflow"
        with h5py.File(folder / archives.WEIGHTS, "w") as target:
            weight_files.copy_weights(source, target, size=size, only="model_weights")
    if len(config) > LARGEST_TEXT:
        raise ValueError(f"its configuration has {len(config)} bytes, more than {LARGEST_TEXT}")
    return _Parts(".h5", config.encode(), version, backend, ())
