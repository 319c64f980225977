"""What goes to a device besides the file: the folder that a colleague needs to run the model.

A bundle holds the file, its labels, a model card with what was measured, a C array for microcontrollers, and a Python
and a Kotlin snippet with this model's own names, shapes, scales and zero points. Nothing is measured here: the card
repeats the facts that it is given and counts what is in the bytes.
"""

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import LogMel, Tokenizer
from ..errors import OutputError
from ..tflite import Model, flatbuffer, metadata, open_model
from .c_array import array_files
from .front_end import FILES as FRONT_END_FILES
from .front_end import front_end_files
from .snippets import describe, plain, render

__all__ = ["FILES", "write"]

MODEL = "model.tflite"
FILES = (
    MODEL,
    metadata.LABELS_FILE,
    "MODEL_CARD.md",
    "model.h",
    "model.cc",
    "run_model.py",
    "ModelArithmetic.kt",
    "ModelRunner.kt",
    "samples.npz",
    "vocabulary.txt",
    "tokenizer.py",
    "Tokenizer.kt",
    *FRONT_END_FILES,
)
"""Names of the files that a bundle may hold, and of no others."""

TOKENIZER_FILES = ("vocabulary.txt", "tokenizer.py", "Tokenizer.kt")

KEPT_SAMPLES = 8


def write(
    tflite: bytes,
    folder: str | os.PathLike,
    *,
    source: str,
    target: str,
    facts: Mapping[str, object] | None = None,
    labels: Sequence[str] | None = None,
    samples: Mapping[str, np.ndarray] | None = None,
    tokenizer: Tokenizer | None = None,
    front_end: LogMel | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Writes the folder under a temporary name and renames it: whole or not at all.

    Args:
        tflite: the bytes of the finished file.
        folder: where the bundle is to be; its parent exists.
        source: the model it came from; of a path the card keeps the last part.
        target: what the file is for.
        facts: what was measured, by the words for it, in the order of the card. Default: None, the card says so.
        labels: names of the classes in order of their index. Default: None, those in the file's metadata, if any.
        samples: by input name real numbers (n, ...) as the model sees them; up to 8 go into samples.npz with the
            answers that the interpreter gives here, so that a port can be compared. Default: None, no samples.npz.
        tokenizer: how text becomes the ids that the model takes: its vocabulary and the same rule in Python and in
            Kotlin go along. Default: None.
        front_end: how sound becomes the features that the model takes: the same rule with these settings in Python, in
            Kotlin and in C goes along. Default: None.
        overwrite: whether an existing bundle may be replaced; a folder with other files never is. Default: False.

    Returns:
        The paths of the files.

    Raises:
        ModelError: the file cannot be opened.
        ValueError: a label is no line of text.
        DataError: the samples do not fit the inputs.
        OutputError: the folder exists, holds other files, or cannot be written.

    Examples:
        >>> content = Path("models/digits/digits_int8.tflite").read_bytes()
        >>> folder = Path(tempfile.mkdtemp()) / "digits"
        >>> [path.name for path in write(content, folder, source="digits.keras", target="cpu-int8")][:3]
        ['model.tflite', 'MODEL_CARD.md', 'model.h']
    """
    folder = Path(folder)
    check_folder(folder, overwrite=overwrite)
    if labels is not None:
        metadata.check_labels(labels)
    model = open_model(tflite)
    stored = metadata.read(tflite)
    if labels is None and stored is not None:
        labels = stored.labels
    files: dict[str, bytes | str] = {MODEL: tflite}
    if labels is not None:
        files[metadata.LABELS_FILE] = "".join(f"{label}\n" for label in labels)
    sha256 = hashlib.sha256(tflite).hexdigest()
    facts_of_model: dict[str, Any] = {
        "source": plain(source.replace("\\", "/").rstrip("/").rpartition("/")[2] or source),
        "target": plain(target),
        "sha256": sha256,
        "size": len(tflite),
        "inputs": [describe(info) for info in model.inputs],
        "outputs": [describe(info) for info in model.outputs],
        "labels": list(labels) if labels is not None else None,
        "is_stateful": model.is_stateful,
        "has_samples": samples is not None,
        "has_tokenizer": tokenizer is not None,
        "has_front_end": front_end is not None,
    }
    files["MODEL_CARD.md"] = render(
        "MODEL_CARD.md.jinja",
        **facts_of_model,
        gzip_size=len(gzip.compress(tflite, mtime=0)),
        ops=flatbuffer.op_counts(flatbuffer.parse(tflite)),
        facts={plain(str(key)): plain(str(value)) for key, value in (facts or {}).items()},
        metadata=stored,
    )
    files |= array_files(tflite, sha256)
    for name in ("run_model.py", "ModelArithmetic.kt", "ModelRunner.kt"):
        files[name] = render(f"{name}.jinja", **facts_of_model)
    if tokenizer is not None:
        rule = {"source": facts_of_model["source"], "length": tokenizer.length, "unit": tokenizer.unit}
        texts = [tokenizer.vocabulary_text(), *(render(f"{name}.jinja", **rule) for name in TOKENIZER_FILES[1:])]
        files |= dict(zip(TOKENIZER_FILES, texts, strict=True))
    if front_end is not None:
        files |= front_end_files(front_end, facts_of_model["source"])
    kept = _answered(model, samples) if samples is not None else None
    _write_folder(folder, files, kept)
    return [folder / name for name in (*files, *(["samples.npz"] if kept else []))]


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
    if not os.path.lexists(folder):
        return
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
        temporary = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}.", suffix=".partial"))
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content.encode() if isinstance(content, str) else content)
        if arrays is not None:
            np.savez(new / "samples.npz", **arrays)  # type: ignore[arg-type]
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
