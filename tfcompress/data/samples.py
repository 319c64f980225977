"""How is a data set read that need not fit into memory?

In batches of the size that the reader asks for, each value checked, cast and hashed while it passes. Where the blocks
come from is decided by ``data``.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..errors import DataError
from .arrays import InputSpec, fit
from .scalings import Scaling

__all__ = ["Batch", "Blocks", "Samples", "count_samples"]

Batch = dict[str, np.ndarray]
Blocks = Callable[[int], Iterator[Batch]]
"""From the batch size that will be asked for to blocks of any size, each array with a batch axis."""


class Samples:
    """The samples of a representative data set, read in batches and checked while they pass.

    Args:
        blocks: makes the blocks, in order; called once for each pass.
        inputs: what the model accepts.
        count: number of samples, if it is known. Default: None.
        is_array: whether a pass for the hash alone is cheap. Default: False.
        scaling: as in ``arrays.fit``. Default: None.

    Attributes:
        inputs: what the model accepts.
        count: number of samples; None for a stream that has not been read to its end.

    Examples:
        >>> spec = InputSpec("x", (None, 2), np.float32)
        >>> samples = Samples(lambda size: iter([{"x": np.zeros((3, 2))}]), [spec])
        >>> samples
        Samples(count=None, inputs=['x' float32 (any, 2)])
        >>> [batch["x"].shape for batch in samples.batches(2)]
        [(2, 2), (1, 2)]
    """

    def __init__(
        self,
        blocks: Blocks,
        inputs: Sequence[InputSpec],
        *,
        count: int | None = None,
        is_array: bool = False,
        scaling: str | Scaling | None = None,
    ):
        if count == 0:
            raise _no_samples()
        self.inputs = tuple(inputs)
        self.count = count
        self._blocks = blocks
        self._is_array = is_array
        self._scaling = scaling
        self._sha256: str | None = None

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

    def _batches(self, size: int) -> Iterator[Batch]:
        hashes = [hashlib.sha256(f"{spec.dtype}".encode()) for spec in self.inputs]
        shapes: list[tuple[int, ...] | None] = [None] * len(hashes)
        count = 0
        for batch in _regroup(self._fitted(self._blocks(size)), size):
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

    def _fitted(self, blocks: Iterable[Batch]) -> Iterator[Batch]:
        first = 0
        for block in blocks:
            yield {spec.name: fit(block[spec.name], spec, first=first, scaling=self._scaling) for spec in self.inputs}
            first += count_samples(block)

    def __repr__(self) -> str:
        return f"Samples(count={self.count}, inputs=[{', '.join(map(str, self.inputs))}])"


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
