"""What a model argument is, and how a file of it is opened without running code that the file brings along.

Files are checked by ``trust`` before any loader sees them. Files of Keras 2 that Keras 3 does not read are loaded by
tf_keras. Does not lower or convert.
"""

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelError
from ..quantization import TrainedRanges, hash_weights, read_archive
from ..quantization.trained_ranges import trained_ranges
from ..system import checked_arguments, converter_silenced, option_or_default
from ..system.forks import check_not_forked
from . import keras2, trust
from .options import SourceOptions
from .pytorch import files, modules
from .pytorch.examination import examine_torch
from .tflite_examination import examine_tflite

__all__ = ["Kind", "Source", "open_source"]

Kind = Literal["keras", "tf_keras", "saved_model", "function", "tflite", "torch"]


@dataclass(frozen=True)
class Source:
    """A model that is ready to be lowered.

    Args:
        kind: "keras" (Keras 3), "tf_keras", "saved_model", "function" (of TensorFlow), "tflite" or
            "torch".
        name: how messages name it.
        value: the model, the function, the folder's path or the file's bytes.
        stored: trained ranges that came with a Keras model. Default: None.
        same_weights: whether the stored ranges belong to the weights as they are. Default: True.
        fake_quantized: whether the model itself holds ranges, as fake quantization by TFMOT; lowering returns them as
            ``Lowered.trained``. Default: False.
        options: fixed shapes, the signature, and how a PyTorch model is exported. Default: ``SourceOptions()``.

    Raises:
        ValueError: a signature for a Keras or PyTorch model, or PyTorch's options for another one.
    """

    kind: Kind
    name: str
    value: Any = field(repr=False)
    stored: TrainedRanges | None = field(default=None, repr=False)
    same_weights: bool = True
    fake_quantized: bool = False
    options: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        options = self.options
        if options.signature is not None and self.kind in ("keras", "tf_keras", "torch"):
            framework = "PyTorch" if self.kind == "torch" else "Keras"
            raise ValueError(
                f"signature chooses among a file's functions. Received: {options.signature!r} for the {framework} model "
                f"{self.name}. Leave it out."
            )
        if self.kind != "torch" and (options.nhwc or options.sample_inputs is not None):
            option = "nhwc" if options.nhwc else "sample_inputs"
            raise ValueError(f"{option} is for PyTorch models. Received: it for {self.name}. Leave it out.")


@checked_arguments
def open_source(model: Any, *, options: SourceOptions | None = None, debug: bool = False) -> Source:
    """Returns the source for a model in memory, or for a path to one.

    Args:
        model: a Keras 3 or tf_keras model, a TensorFlow function or module, a PyTorch module or exported program, or a
            path to a ``.keras``, ``.h5``, ``.tflite``, ``.pt2`` or ``.pt`` file or a SavedModel folder.
        options: fixed shapes, the signature, how a PyTorch model is exported, and whether a file may bring code along.
            Default: ``SourceOptions()``.
        debug: whether loaders' log lines are shown. Default: False.

    Raises:
        ConversionError: this process was forked after TensorFlow had run.
        ModelError: a path without a model, a damaged file, or one that brings code along.
        TypeError: neither a model nor a path, or other options.
        ValueError: a signature for a Keras or PyTorch model, or PyTorch's options for another one.

    Examples:
        >>> open_source("/no/such/model.keras")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model file must exist. Received: /no/such/model.keras. Check the path.
    """
    check_not_forked()
    options = option_or_default("options", options, SourceOptions)
    if isinstance(model, str | os.PathLike):
        return _from_path(Path(model), options, debug)
    if modules.is_torch(model):
        return Source("torch", type(model).__name__, model, options=options)
    if keras2.is_legacy_model(model):
        return _legacy_source(model, model.name, options)
    import keras

    if isinstance(model, keras.Model):
        return _keras_source(model, model.name, trained_ranges(model), options)
    if _is_function(model):
        name = getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
        return Source("function", name.decode() if isinstance(name, bytes) else str(name), model, options=options)
    raise TypeError(
        "model must be a Keras 3, tf_keras or PyTorch model, a TensorFlow function or module, or a path. Received: "
        f"{type(model).__module__}.{type(model).__name__}."
    )


def _is_function(model: Any) -> bool:
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return False
    experimental = tf.types.experimental
    return isinstance(model, experimental.ConcreteFunction | experimental.PolymorphicFunction | tf.Module)


def _keras_source(model: Any, name: str, stored: TrainedRanges | None, options: SourceOptions) -> Source:
    same = stored is None or stored.weights_sha256 == hash_weights(model.get_weights())
    return Source("keras", name, model, stored, same, options=options)


def _legacy_source(model: Any, name: str, options: SourceOptions) -> Source:
    return Source("tf_keras", name, model, fake_quantized=keras2.has_fake_quantization(model), options=options)


def _from_path(path: Path, options: SourceOptions, debug: bool) -> Source:
    if not path.exists():
        raise ModelError(f"The model file must exist. Received: {path}. Check the path.")
    if path.is_dir():
        return _from_folder(path, options)
    if not path.is_file():
        raise ModelError(f"The model must be a plain file or a folder. Received: {path}, a pipe or a device.")
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"The model file must be readable. Received: {path} ({error.strerror}).") from error
    if head[4:8] == b"TFL3":
        content = path.read_bytes()
        if not options.allow_unsafe:
            _refuse(examine_tflite(content, place=str(path)))
        return Source("tflite", str(path), content, options=options)
    if files.detect(path) is not None:
        if not options.allow_unsafe:
            _refuse(examine_torch(path))
        return Source("torch", str(path), str(path), options=options)
    is_archive = head[:4] == b"PK\x03\x04"
    if not is_archive and head[:8] != b"\x89HDF\r\n\x1a\n":
        raise ModelError(
            f"The model must be a .keras, .h5, .tflite, .pt2 or .pt file or a SavedModel folder. Received: {path}, "
            f"{path.stat().st_size} bytes of something else."
        )
    if options.allow_unsafe:
        trust.check_hdf5(path)
        config = trust.read_config(path)
        loaders = trust.loaders_of(config, ".keras" if is_archive else ".h5", trust.keras_version(path))
        return _from_keras(trust.CheckedKeras(path, loaders, trust.uses_tfmot(config)), path, options, debug)
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
        checked = trust.check_keras(path, Path(folder))
        if not isinstance(checked, trust.CheckedKeras):
            raise ModelError(checked[0].reason)
        return _from_keras(checked, path, options, debug)


def _from_keras(file: trust.CheckedKeras, path: Path, options: SourceOptions, debug: bool) -> Source:
    """Loads a file by the first of its loaders that can; ``path`` is how messages name it."""
    first: ModelError | None = None
    for loader in file.loaders:
        try:
            if loader == "keras":
                model = _load(file.path, path, options.allow_unsafe, debug)
                return _keras_source(model, str(path), read_archive(file.path), options)
            model = _load_legacy(file, path, options.allow_unsafe, debug)
            return _legacy_source(model, str(path), options)
        except ModelError as error:
            if first is not None:
                raise error from first
            if loader == file.loaders[-1]:
                raise
            first = error
    raise ModelError(f"Keras cannot load {path}: no loader is known for it.")


def _refuse(findings: Sequence[trust.Finding]) -> None:
    for finding in findings:
        if finding.severity == "refused":
            raise ModelError(finding.reason)


def _from_folder(path: Path, options: SourceOptions) -> Source:
    file = path / "saved_model.pb"
    if not file.is_file():
        raise ModelError(f"A model folder must be a SavedModel. Received: {path} without saved_model.pb.")
    if options.allow_unsafe:
        return _saved_model_source(path, path, options)
    copy = trust.copy_saved_model(path)  # what is checked is what is loaded, whoever writes into the folder meanwhile
    try:
        trust.check_saved_model(copy, place=str(path))
        source = _saved_model_source(copy, path, options)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    weakref.finalize(source, shutil.rmtree, copy, ignore_errors=True)
    return source


def _saved_model_source(folder: Path, path: Path, options: SourceOptions) -> Source:
    fake_quantized = b"FakeQuantWithMinMax" in (folder / "saved_model.pb").read_bytes()
    return Source("saved_model", str(path), str(folder), fake_quantized=fake_quantized, options=options)


def _load(file: Path, path: Path, allow_unsafe: bool, debug: bool) -> Any:
    import keras

    with converter_silenced(debug=debug):
        try:
            return keras.models.load_model(file, compile=False, safe_mode=not allow_unsafe)
        except Exception as error:  # Keras raises whatever the file makes it stumble over
            raise ModelError(
                f"Keras cannot load {path}: {_first_line(error)} Save it again with this Keras ({keras.__version__}), or "
                "register its custom objects first."
            ) from error


def _load_legacy(file: trust.CheckedKeras, path: Path, allow_unsafe: bool, debug: bool) -> Any:
    with converter_silenced(debug=debug):
        try:
            return keras2.load(file.path, with_tfmot=file.with_tfmot, allow_unsafe=allow_unsafe)
        except ModelError:
            raise
        except Exception as error:  # as above
            if file.with_tfmot and file.path.suffix == ".keras":
                raise ModelError(
                    f"TFMOT does not read its own .keras files of quantization-aware models. Received: {path}. Load the "
                    "weights into the model and save it as .h5 or as a SavedModel."
                ) from error
            raise ModelError(
                f"tf_keras cannot load {path}: {_first_line(error)} Save it again, or register its custom objects first."
            ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
