"""How is a data set read that need not fit into memory?

In batches of the size that the reader asks for, each value checked, cast and hashed while it passes. Where the blocks
come from is decided by ``readers``.
"""

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .specs import SampleSpec, check_shape, fit

__all__ = ["Batch", "Block", "Blocks", "RememberingSamples", "Samples", "check_label_count", "count_samples"]

_MAPPED_BYTES = 32 << 20  # of a mapped file at most before it is given back
_AT_ONCE = 256  # samples of a stream that are put together before all of them are

Batch = dict[str, np.ndarray]


class Block(NamedTuple):
    """Some samples in order as a source has them, and their labels; both by name, the latter empty where none are read.

    Both have shape (n, ...), or both are of one sample, shape (...).
    """

    inputs: Batch
    labels: Batch


Blocks = Callable[[int], Iterator[Block]]
"""From the batch size that will be asked for to blocks of any size."""


class Samples:
    """The samples of a representative data set, read in batches and checked while they pass.

    Args:
        blocks: makes the blocks, in order; called once for each pass.
        spec: what is read.
        count: number of samples, if it is known. Default: None.
        is_array: whether a pass for the hash alone is cheap. Default: False.
        is_scaled: whether the blocks are scaled already: scaled values cannot be scaled again. Default: False.
        class_names: the names of the classes in order of their index, where the source names them. Default: None.

    Attributes:
        inputs: what the model accepts.
        count: number of samples; None for a stream that has not been read to its end.
        class_names: as above.

    Examples:
        >>> from .specs import InputSpec
        >>> spec = SampleSpec([InputSpec("x", (None, 2), np.float32)])
        >>> samples = Samples(lambda size: iter([Block({"x": np.zeros((3, 2))}, {})]), spec)
        >>> samples
        Samples(count=None, inputs=['x' float32 (any, 2)])
        >>> [batch["x"].shape for batch in samples.batches(2)]
        [(2, 2), (1, 2)]
    """

    def __init__(
        self,
        blocks: Blocks,
        spec: SampleSpec,
        *,
        count: int | None = None,
        is_array: bool = False,
        is_scaled: bool = False,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        if count == 0:
            raise _no_samples()
        self.inputs = tuple(spec.inputs)
        self.count = count
        self.class_names = class_names
        self._blocks = blocks
        self._is_array = is_array
        self._scaling = None if is_scaled else spec.scaling
        self._sha256: str | None = None

    @classmethod
    def of_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        spec: SampleSpec,
        *,
        labels: Mapping[str, np.ndarray] | None = None,
        place: str = "the data",
    ) -> "Samples":
        """Returns the samples of whole arrays, which may be mapped files.

        Args:
            arrays: by input name, shape (n, ...) or one sample (...), any dtype that fits.
            spec: what is read.
            labels: by name, shape (n, ...). Default: none.
            place: where the arrays came from, for messages. Default: "the data".

        Raises:
            DataError: an array does not fit its input, the arrays differ in length, or there is no sample.

        Examples:
            >>> from .specs import InputSpec
            >>> spec = SampleSpec([InputSpec("x", (None, 2), np.float32)])
            >>> Samples.of_arrays({"x": np.zeros((3, 2))}, spec).count
            3
        """
        whole = {each.name: check_shape(arrays[each.name], each, place=place) for each in spec.inputs}
        count = count_samples(whole)
        if count:
            check_label_count(labels or {}, samples=count)

        def blocks(size: int) -> Iterator[Block]:
            held = 0
            for start in range(0, count, size):
                block = {name: array[start : start + size] for name, array in whole.items()}
                held += sum(array.nbytes for array in block.values())
                if held > _MAPPED_BYTES:
                    held = sum(_forget(array) for array in whole.values())
                yield Block(block, {name: array[start : start + size] for name, array in (labels or {}).items()})

        return cls(blocks, spec, count=count, is_array=True)

    @property
    def sha256(self) -> str | None:
        """The hash of all values as the model sees them, whatever the batch size; None until a stream was read once."""
        if self._sha256 is None and self._is_array:
            for _ in self.batches(256):
                pass
        return self._sha256

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields the samples in order, ``size`` at a time; the last batch, or one before the shape changes, is smaller.

        Args:
            size: samples per batch, at least 1.

        Yields:
            By input name, shape (<= size, ...), the input's dtype. May share the source's memory: do not write to it.

        Raises:
            DataError: a sample does not fit its input or is not finite, there is none, or a generator is read twice.
            ValueError: ``size`` is below 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1. Received: size={size}.")
        return self._batches(size)

    def in_memory(self) -> Block:
        """Returns all samples and their labels, each array whole.

        Raises:
            DataError: as ``batches``, or the samples or their labels differ in shape.

        Examples:
            >>> from .specs import InputSpec
            >>> spec = SampleSpec([InputSpec("x", (None, 2), np.float32)], labels="classes")
            >>> Samples.of_arrays({"x": np.zeros((3, 2))}, spec, labels={"y": np.arange(3)}).in_memory().labels
            {'y': array([0, 1, 2])}
        """
        labels: list[Batch] = []
        batches = list(self._batches(self.count or _AT_ONCE, labels.append))
        if len({tuple(array.shape[1:] for array in batch.values()) for batch in batches}) > 1:
            raise DataError(
                "Labelled pictures must have one size. Received: several. Resize them to the size to be tested."
            )
        shapes = {tuple((name, array.shape[1:]) for name, array in part.items()) for part in labels}
        if len(shapes) > 1:
            raise DataError(
                f"Labels must have one shape. Received: {' and '.join(map(str, sorted(shapes)[:2]))}. Pad them."
            )
        return Block(_join(batches), _join(labels))

    def _batches(self, size: int, keep_labels: Callable[[Batch], None] | None = None) -> Iterator[Batch]:
        hashes = [hashlib.sha256(f"{spec.dtype}".encode()) for spec in self.inputs]
        shapes: list[tuple[int, ...] | None] = [None] * len(hashes)
        count = 0
        for batch in _regroup(self._fitted(self._blocks(size), keep_labels), size):
            for i, array in enumerate(batch.values()):
                if shapes[i] != array.shape[1:]:
                    shapes[i] = array.shape[1:]
                    hashes[i].update(f"{array.shape[1:]}".encode())
                hashes[i].update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            count += count_samples(batch)
            yield batch
        if count == 0:
            raise _no_samples()
        self.count = count
        self._sha256 = hashlib.sha256(b"".join(h.digest() for h in hashes)).hexdigest()

    def _fitted(self, blocks: Iterable[Block], keep_labels: Callable[[Batch], None] | None) -> Iterator[Batch]:
        first = 0
        for block in blocks:
            batch = block.inputs
            if not self._is_array:  # whole arrays were checked when they came in
                batch = {
                    each.name: check_shape(batch[each.name], each, place=f"sample {first}") for each in self.inputs
                }
            count = count_samples(batch)
            if keep_labels is not None:
                labels = block.labels
                if block.inputs[self.inputs[0].name].ndim < len(self.inputs[0].shape):  # one sample, and its labels
                    labels = {name: array[None] for name, array in labels.items()}
                check_label_count(labels, samples=count)
                keep_labels(labels)
            yield {each.name: fit(batch[each.name], each, first=first, scaling=self._scaling) for each in self.inputs}
            first += count

    def __repr__(self) -> str:
        return f"Samples(count={self.count}, inputs=[{', '.join(map(str, self.inputs))}])"


class RememberingSamples(Samples):
    """Samples that keep their first few in memory, so that a stream is read once.

    Args:
        samples: where they come from.
        first: how many ``first`` returns when it is not told.
        keep: how many to keep, at least ``first``. Default: no more.

    Examples:
        >>> from .specs import InputSpec
        >>> spec = SampleSpec([InputSpec("x", (None, 2), np.float32)])
        >>> samples = RememberingSamples(Samples.of_arrays({"x": np.zeros((9, 2))}, spec), first=2)
        >>> samples.first()["x"].shape
        (2, 2)
    """

    def __init__(self, samples: Samples, *, first: int, keep: int = 0) -> None:
        self._samples = samples
        self.inputs = samples.inputs
        self.count = samples.count
        self._kept: list[Batch] = []
        self._first = first
        self._wanted = max(keep, first)

    @property
    def sha256(self) -> str | None:
        """The hash of the samples; None until a stream was read to its end."""
        return self._samples.sha256

    def batches(self, size: int) -> Iterator[Batch]:
        """Yields the batches of the samples and keeps the first ones."""
        kept = 0
        self._kept = []
        for batch in self._samples.batches(size):
            if kept < self._wanted:
                self._kept.append({name: np.array(values) for name, values in batch.items()})
                kept += count_samples(batch)
            yield batch

    def read_first(self) -> None:
        """Reads just the samples that are kept."""
        for _ in self.batches(self._wanted):
            break

    def first(self, count: int | None = None) -> Batch:
        """Returns up to ``count`` samples by input name, which are read now where nothing was read before."""
        if not self._kept:
            self.read_first()
        count = self._first if count is None else count
        return {name: np.concatenate([batch[name] for batch in self._kept])[:count] for name in self._kept[0]}


def count_samples(batch: Batch) -> int:
    """Returns the number of samples in a batch.

    Raises:
        DataError: the inputs have different numbers of samples.

    Examples:
        >>> count_samples({"a": np.zeros((3, 2)), "b": np.zeros(3)})
        3
    """
    lengths = {name: len(array) for name, array in batch.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            "All inputs must have the same number of samples. "
            f"Received: {', '.join(f'{name} {n}' for name, n in lengths.items())}. Store them in the same order."
        )
    return next(iter(lengths.values()))


def check_label_count(labels: Mapping[str, np.ndarray], *, samples: int) -> None:
    """Refuses arrays of labels that have not one row for each sample.

    Raises:
        DataError: so it is.

    Examples:
        >>> check_label_count({"y": np.arange(2)}, samples=3)
        Traceback (most recent call last):
        ...
        tfcompress.errors.DataError: Each sample needs one label. Received: 3 samples and 2 labels. ...
    """
    for name, array in labels.items():
        if array.ndim == 0:
            raise DataError(f"Labels must have shape (n,). Received: {name} of shape (). Store one index per sample.")
        if len(array) != samples:
            raise DataError(
                f"Each sample needs one label. Received: {samples} samples and {len(array)} labels. "
                "Store x and y of the same length."
            )


def _regroup(blocks: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Yields the samples of ``blocks`` in batches of ``size``, smaller only before a change of shape and at the end."""
    held: list[Batch] = []
    count = 0
    for block in blocks:
        if held and any(array.shape[1:] != held[0][name].shape[1:] for name, array in block.items()):
            yield _join(held)
            held, count = [], 0
        start, length = 0, count_samples(block)
        while start < length:
            part = {name: array[start : start + size - count] for name, array in block.items()}
            held.append(part)
            start += count_samples(part)
            count += count_samples(part)
            if count == size:
                yield _join(held)
                held, count = [], 0
    if held:
        yield _join(held)


def _join(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _no_samples() -> DataError:
    return DataError("The data must hold at least one sample. Received: none. Check where it comes from.")


def _forget(array: np.ndarray) -> int:
    """Gives back the memory into which a read-only file was mapped, so that a large one never counts whole; returns 0."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and getattr(array, "mode", None) == "r" and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)  # who still reads an earlier block gets it from the file again
    return 0
