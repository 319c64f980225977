"""What are a model's answers compared with? Labelled samples, with classes, values or boxes for labels.

``data`` reads classes; this module adds the other kinds, from the same sources.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .arrays import InputSpec, read_npz
from .elements import LABEL_NAMES
from .loading import load_labelled, load_representative
from .samples import Batch, count_samples
from .scripts import call_function, names_a_function

__all__ = ["Truth", "load_truth"]

BOX_NAMES = ("boxes", "classes")


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """Samples and what a model should answer to them.

    Attributes:
        x: by input name, shape (n, ...), the input's dtype.
        y: classes of shape (n,), values of shape (n, ...), or "boxes" and "classes"; each with n as its first axis.
        sha256: the hash of both.

    Examples:
        >>> load_truth((np.zeros((3, 2)), np.array([0, 2, 1])), [InputSpec("x", (None, 2), np.float32)], "classes").samples
        3
    """

    x: Batch
    y: Any
    sha256: str

    @property
    def samples(self) -> int:
        """How many samples."""
        return count_samples(self.x)

    def first(self, samples: int) -> Any:
        """Returns the truth of the first samples."""
        if isinstance(self.y, Mapping):
            return {name: array[:samples] for name, array in self.y.items()}
        return self.y[:samples]


def load_truth(
    source: Any, inputs: Sequence[InputSpec], kind: str, *, scaling: str | None = None, allow_pickle: bool = False
) -> Truth:
    """Returns samples with their truth, read into memory.

    Args:
        source: for classes whatever ``data.load_labelled`` takes. For values ``(x, y)``, a dictionary or ``.npz`` with x and y
            (y may have any shape), a function that returns one; without y, or as samples alone, the input itself is the
            truth, as for an autoencoder. For boxes a dictionary or ``.npz`` with x, boxes and classes.
        inputs: what the model accepts.
        kind: "classes", "values", "boxes", or "any", which is classes where the source is a folder or its labels are
            classes, and values otherwise.
        scaling: as ``data.load_labelled`` takes it. Default: None.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: the source is missing, malformed, or does not fit the model.

    Examples:
        >>> spec = InputSpec("x", (None, 2), np.float32)
        >>> load_truth(np.ones((3, 2)), [spec], "values").y.shape
        (3, 2)
    """
    is_folder = isinstance(source, str | os.PathLike) and Path(source).is_dir()
    if kind == "classes" or (kind == "any" and is_folder):
        labelled = load_labelled(source, inputs, scaling=scaling, allow_pickle=allow_pickle)
        return Truth(labelled.x, labelled.y, labelled.sha256)
    if isinstance(source, str) and names_a_function(source):
        source = call_function(source)
    if isinstance(source, str | os.PathLike) and Path(source).suffix == ".npz" and Path(source).is_file():
        source = read_npz(Path(source), lambda names: names, allow_pickle=allow_pickle)
    x, y = _parts(source, kind)
    samples = load_representative(x, inputs, scaling=scaling, allow_pickle=allow_pickle)
    batches = list(samples.batches(samples.count or 1))
    batch = {name: np.concatenate([part[name] for part in batches]) for name in batches[0]}
    if y is None:
        if len(batch) != 1 or kind == "boxes":
            raise DataError("Labelled data needs an array y. Received: samples alone. Store x and y in a .npz file.")
        y = next(iter(batch.values()))
    lengths = {len(array) for array in (y.values() if isinstance(y, Mapping) else [y])}
    if lengths != {count_samples(batch)}:
        raise DataError(f"Each sample needs one label. Received: {count_samples(batch)} samples and {lengths} labels.")
    arrays = [y[name] for name in sorted(y)] if isinstance(y, Mapping) else [y]
    content = b"".join([f"{samples.sha256}".encode(), *(np.ascontiguousarray(array).tobytes() for array in arrays)])
    return Truth(batch, y, hashlib.sha256(content).hexdigest())


def _parts(source: Any, kind: str) -> tuple[Any, Any]:
    """Returns samples and truth of a source in memory; None for no truth."""
    if isinstance(source, tuple) and len(source) == 2:
        x, y = source
        return x, {k: np.asarray(v) for k, v in y.items()} if isinstance(y, Mapping) else np.asarray(y)
    if not isinstance(source, Mapping):
        return source, None
    names = BOX_NAMES if kind == "boxes" else LABEL_NAMES
    labels = {name: np.asarray(source[name]) for name in names if name in source}
    rest = {name: array for name, array in source.items() if name not in labels}
    if kind == "boxes":
        return rest, labels or None
    return rest, next(iter(labels.values()), None)
