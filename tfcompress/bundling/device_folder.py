"""How does a file become a folder that a colleague can run on a device?

A bundle holds the file, its labels, a model card with what was measured, a C array for microcontrollers, and a Python
and a Kotlin snippet with this model's own names, shapes, scales and zero points. Nothing is measured here: the card
repeats the facts that it is given and counts what is in the bytes.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import LogMel, Tokenizer
from ..errors import OutputError
from ..system import checked_arguments, option_or_default
from ..tflite import Model, ModelSource, flatbuffer, metadata, open_model, read_model
from ..tflite.model_files import is_in_memory
from .bill_of_materials import BILL, Origin, bill_of
from .provenance import FLOAT_MODEL, PROVENANCE, Recipe, statement_of
from .snippets import (
    ARRAY_FILES,
    FRONT_END_FILES,
    SIGNED_FILES,
    TOKENIZER_FILES,
    array_files,
    describe,
    front_end_files,
    plain,
    render,
    signed_files_text,
    tokenizer_files,
)

__all__ = ["FILES", "Bundle", "bundle", "check_folder"]

MODEL = "model.tflite"
SAMPLES = "samples.npz"
FILES = (
    MODEL,
    metadata.LABELS_FILE,
    "MODEL_CARD.md",
    *ARRAY_FILES,
    "run_model.py",
    SIGNED_FILES,
    "ModelArithmetic.kt",
    "ModelHash.kt",
    "ModelRunner.kt",
    SAMPLES,
    PROVENANCE,
    BILL,
    *TOKENIZER_FILES,
    *FRONT_END_FILES,
)
"""Names of the files that a bundle may hold, and of no others."""

KEPT_SAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A folder with a model and what a device needs to run it.

    Args:
        folder: where it is.
        files: names of the files in it.

    Examples:
        >>> print(Bundle(Path("device"), ("model.tflite", "MODEL_CARD.md")))
        device: model.tflite, MODEL_CARD.md
    """

    folder: Path
    files: tuple[str, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of the files."""
        return tuple(self.folder / name for name in self.files)

    def to_json(self) -> dict[str, Any]:
        """Returns folder and files as plain JSON values."""
        return {"folder": str(self.folder), "files": list(self.files)}

    def __str__(self) -> str:
        return f"{self.folder}: {', '.join(self.files)}"


@checked_arguments
def bundle(
    model: ModelSource,
    folder: str | os.PathLike,
    *,
    source: str | None = None,
    target: str | None = None,
    facts: Mapping[str, object] | None = None,
    labels: Sequence[str] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
    tokenizer: Tokenizer | None = None,
    front_end: LogMel | None = None,
    recipe: Recipe | None = None,
    origin: Origin | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Writes a folder with a file and what a device needs to run it; whole or not at all.

    Args:
        model: a ``Conversion``, the path of a finished ``.tflite`` file, or its bytes.
        folder: where the bundle is to be; its parent exists.
        source: the model it came from; of a path the card keeps the last part. Default: as the conversion says, or the
            file's own name.
        target: what the file is for. Default: as the conversion says; for a file nothing is said.
        facts: what was measured, by the words for it, in the order of the card. Default: the conversion's account; for a
            file the card says that nothing was measured.
        labels: names of the classes in order of their index. Default: None, those in the file's metadata, if any.
        samples: by input name real numbers (n, ...) as the model sees them; up to 8 go into samples.npz with the
            answers that the interpreter gives here, so that a port can be compared. ``{}`` for no samples.npz. Default: those that
            the conversion kept; for a file none.
        tokenizer: how text becomes the ids that the model takes: its vocabulary and the same rule in Python and in
            Kotlin go along. Default: None.
        front_end: how sound becomes the features that the model takes: the same rule with these settings in Python, in
            Kotlin and in C goes along. Default: None.
        recipe: how ``tfcompress convert`` made it, for its provenance and for ``tfcompress reproduce``. Default: None, which is
            said there.
        origin: its licence, its parent, how its source was trained, what was measured of it. Default: nothing is said.
        overwrite: whether an existing bundle may be replaced; a folder with other files never is. Default: False.

    Raises:
        ModelError: the file cannot be opened.
        ValueError: a label is no line of text.
        DataError: the samples do not fit the inputs, or the origin's record is of another file.
        OutputError: the folder exists, holds other files, or cannot be written.

    Examples:
        >>> folder = Path(tempfile.mkdtemp()) / "digits"
        >>> written = bundle("models/digits/digits_int8.tflite", folder, target="cpu-int8")
        >>> written.files[:3], written.folder.name
        (('model.tflite', 'MODEL_CARD.md', 'model.h'), 'digits')
    """
    folder = Path(folder)
    check_folder(folder, overwrite=overwrite)
    if labels is not None:
        metadata.check_labels(labels)
    name, tflite = read_model(model)
    said = _said_by(model)
    samples = said.get("samples") if samples is None else samples
    opened = open_model(tflite)
    stored = metadata.read(tflite)
    if labels is None and stored is not None:
        labels = stored.labels
    origin_name = _last_part(source or said.get("source") or name)
    target = target or said.get("target")
    values: dict[str, Any] = {
        "source": origin_name,
        "origin": f"{origin_name} for {plain(target)}" if target else origin_name,
        "sha256": hashlib.sha256(tflite).hexdigest(),
        "size": len(tflite),
        "inputs": [describe(info) for info in opened.inputs],
        "outputs": [describe(info) for info in opened.outputs],
        "labels": list(labels) if labels is not None else None,
        "is_stateful": opened.is_stateful,
        "has_samples": bool(samples),
        "has_tokenizer": tokenizer is not None,
        "has_front_end": front_end is not None,
    }
    files: dict[str, bytes | str] = {MODEL: tflite}
    if labels is not None:
        files[metadata.LABELS_FILE] = "".join(f"{label}\n" for label in labels)
    files["MODEL_CARD.md"] = _card(tflite, stored, said.get("facts") if facts is None else facts, values)
    files |= array_files(tflite, values["sha256"])
    files |= {
        name: render(f"{name}.jinja", **values)
        for name in ("run_model.py", "ModelArithmetic.kt", "ModelHash.kt", "ModelRunner.kt")
    }
    files[SIGNED_FILES] = signed_files_text()
    statement = statement_of(values["sha256"], source=origin_name, recipe=recipe, said=said)
    files[PROVENANCE] = json.dumps(statement, indent=2) + "\n"
    bill = bill_of(
        stored.name if stored is not None and stored.name else origin_name,
        values["sha256"],
        version=stored.version if stored is not None else "",
        source=origin_name,
        inputs=values["inputs"],
        outputs=values["outputs"],
        recipe=recipe,
        origin=option_or_default("origin", origin, Origin),
        statement=statement,
    )
    files[BILL] = json.dumps(bill, indent=2) + "\n"
    if tokenizer is not None:
        files |= tokenizer_files(tokenizer, origin_name)
    if front_end is not None:
        files |= front_end_files(front_end, origin_name)
    kept = _answered(opened, samples) if samples else None
    _write_folder(folder, files, kept)
    return Bundle(folder, (*files, *([SAMPLES] if kept else [])))


def _said_by(model: Any) -> dict[str, Any]:
    """Returns what a conversion says of its file; nothing for a file."""
    if not is_in_memory(model):
        return {}
    from ..conversion import Conversion

    if not isinstance(model, Conversion):
        return {}
    facts: dict[str, str] = {}
    for word, text in model.facts:  # a card has one row for each word
        facts[word] = f"{facts[word]}; {text}" if word in facts else text
    settings = {
        "target": model.target.name,
        "backend": model.backend,
        "observer": None if model.calibration is None else model.calibration.observer,
    }
    byproducts = {FLOAT_MODEL: hashlib.sha256(model.hub).hexdigest()} if model.hub else {}
    if model.calibration is not None and model.calibration.data_sha256:
        byproducts["samples"] = model.calibration.data_sha256
    return {
        "source": model.source,
        "target": model.target.name,
        "facts": facts,
        "samples": model.samples,
        "settings": {name: value for name, value in settings.items() if value is not None},
        "byproducts": byproducts,
    }


def _last_part(source: str) -> str:
    return plain(source.replace("\\", "/").rstrip("/").rpartition("/")[2] or source)


def _card(tflite: bytes, stored: Any, facts: Mapping[str, object] | None, values: Mapping[str, Any]) -> str:
    return render(
        "MODEL_CARD.md.jinja",
        **values,
        gzip_size=len(gzip.compress(tflite, mtime=0)),
        ops=flatbuffer.op_counts(flatbuffer.parse(tflite)),
        facts={plain(str(key)): plain(str(value)) for key, value in (facts or {}).items()},
        metadata=stored,
    )


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuses with an ``OutputError`` a place where no bundle may be written; call it before long work starts.

    Examples:
        >>> check_folder(Path("/no/such/parent/bundle"), overwrite=False)
        Traceback (most recent call last):
        ...
        tfcompress.errors.OutputError: The bundle's parent folder must exist. Received: /no/such/parent. Create it first.
    """
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"The bundle's parent folder must exist. Received: {parent}. Create it first.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"The bundle's parent folder must be writable. Received: {parent}. Choose another place.")
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(
            f"The bundle must have a name that can be written. Received: {folder} ({error.strerror}). Choose a shorter one."
        ) from error
    if not folder.is_dir() or folder.is_symlink():
        raise OutputError(f"A bundle is a folder. Received something else: {folder}. Choose another name.")
    present = sorted(path.name for path in folder.iterdir())
    others = [name for name in present if name not in FILES]
    if others:
        raise OutputError(f"A bundle replaces nothing but a bundle. Received: {folder} with {others[0]}. Move it away.")
    if present and not overwrite:
        raise OutputError(f"The bundle exists already: {folder}. Choose another name or pass --overwrite.")


def _answered(model: Model, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the first samples, "input:NAME", and what the interpreter answers to each alone, "output:NAME"."""
    kept = {name: np.asarray(values)[:KEPT_SAMPLES] for name, values in samples.items()}
    answers = model.run(kept, batch=1)
    return {f"input:{name}": values for name, values in kept.items()} | {
        f"output:{name}": values for name, values in answers.items()
    }


def _write_folder(folder: Path, files: Mapping[str, bytes | str], arrays: Mapping[str, np.ndarray] | None) -> None:
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=".tfcompress.", suffix=".partial"))
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content.encode() if isinstance(content, str) else content)
        if arrays is not None:
            np.savez(new / SAMPLES, **arrays)  # type: ignore[arg-type]
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except BaseException:
            if old.exists() and not folder.exists():
                os.rename(old, folder)
            raise
    except OSError as error:
        raise OutputError(f"Could not write {folder}: {error.strerror}. Free space or choose another place.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
