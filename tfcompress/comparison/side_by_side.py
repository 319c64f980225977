"""Two files run side by side on the same samples, with every inner tensor readable: block by block, in real numbers.

Feeds both, whatever their batch sizes and input types, and hands out raw values with their scale. Decides nothing.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..errors import DataError, DeviceError, ModelError
from ..metrics import Difference
from ..tflite import Model, constant_tensors, flatbuffer, open_model, to_raw
from ..tflite.model_files import UNNAMED
from ..tflite.tensors import check_shape
from ..tflite.trial import first_reason

__all__ = ["File", "Values", "difference", "fed", "run_blocks"]

Values = tuple[np.ndarray, tuple[float, int] | None]
"""What a tensor holds, and its scale and zero point where these are quantized integers."""


class File:
    """A file opened for reading its inner tensors.

    Args:
        content: the bytes of a ``.tflite`` file.
        name: how messages name it.
        threads: threads for one inference. Default: 1.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ModelError: the file is damaged, or LiteRT refuses it.

    Attributes:
        name: as given.
        schema: the schema's object of the file.
        model: the opened interpreter.
    """

    def __init__(self, content: bytes, name: str, *, threads: int = 1, debug: bool = False) -> None:
        self.name = name
        self.schema = flatbuffer.parse(content, place=name)
        try:
            self.model: Model = open_model(content, threads=threads, keep_all=True, debug=debug)
        except ModelError as error:
            raise ModelError(first_reason(str(error).replace(UNNAMED, name))) from error
        self._scales: dict[int, tuple[float, int] | None] = {}

    @property
    def own_batch(self) -> int | None:
        """The batch size that is built into the inputs; None where it is free."""
        return next((info.shape[0] for info in self.model.inputs if info.shape and info.shape[0] is not None), None)

    def values(self, index: int) -> Values | None:
        """Returns what the tensor of this number holds after a run, None without values or for text.

        Args:
            index: in the main graph.
        """
        values = self.model.tensor(index)
        if values is None or values.dtype.kind not in "iufb":
            return None
        return values, self.scale(index)

    def scale(self, index: int) -> tuple[float, int] | None:
        """Returns scale and zero point of a tensor of quantized integers, None for others."""
        if index not in self._scales:
            tensor = self.schema.subgraphs[0].tensors[index]
            found = constant_tensors.scales(tensor)
            is_one = found is not None and len(found[0]) == 1 and flatbuffer.type_name(tensor)[:3] in ("INT", "UIN")
            self._scales[index] = (float(found[0][0]), int(found[1][0])) if found is not None and is_one else None
        return self._scales[index]

    def run(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Runs one block of real numbers by input name."""
        self.model.feed({info.name: to_raw(arrays[info.name], info) for info in self.model.inputs})
        self.model.invoke()


def run_blocks(files: Sequence[File], samples: Mapping[str, np.ndarray], *, batch: int) -> Iterator[int]:
    """Runs all files on the same samples and yields the number of samples after each block, for reading tensors.

    The samples of a block that a fixed batch size does not fill are left out, unless there is only that block.

    Args:
        files: the first one's input names are those of ``samples``; others are fed by name or else by place.
        samples: real numbers (n, ...) by input name.
        batch: samples per block where the files leave it free.

    Raises:
        DataError: the files take different inputs, or the samples do not fit.
        DeviceError: an op failed.
    """
    feeds = [fed(file, files[0], samples) for file in files]
    count = len(next(iter(samples.values())))
    built_in = {file.own_batch for file in files} - {None}
    if len(built_in) > 1:
        raise DataError(f"Files with one batch size are compared. Received: {', '.join(map(str, built_in))}.")
    size = built_in.pop() or 1 if built_in else min(batch, count)
    is_free = all(file.own_batch is None for file in files)
    start = 0
    while start < count and (is_free or not start or start + size <= count):
        block = [{name: _block(array, start, size, is_free) for name, array in feed.items()} for feed in feeds]
        try:
            for file, arrays in zip(files, block, strict=True):
                file.run(arrays)
        except DeviceError:
            if size == 1 or start or not is_free:
                raise
            size = 1  # a free batch axis in front of a graph with one built in
            continue
        yield len(next(iter(block[0].values())))
        start += size


def _block(array: np.ndarray, start: int, size: int, is_free: bool) -> np.ndarray:
    block = array[start : start + size]
    missing = 0 if is_free else size - len(block)
    return np.concatenate([block, np.repeat(block[-1:], missing, axis=0)]) if missing else block


def fed(file: File, first: File, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the samples by the input names of ``file``: by name, else by place among the inputs of ``first``.

    Args:
        file: what is to be fed.
        first: whose input names those of ``samples`` are.
        samples: arrays (n, ...) of real numbers.

    Raises:
        DataError: another number of inputs, or a shape that does not fit.
    """
    names = [info.name for info in file.model.inputs]
    if set(names) == set(samples):
        feed = dict(samples)
    elif len(names) == len(samples):
        feed = {name: samples[info.name] for name, info in zip(names, first.model.inputs, strict=True)}
    else:
        raise DataError(
            f"Files with the same inputs are compared. Received: {', '.join(samples)} and {', '.join(names)} "
            f"({file.name})."
        )
    for info in file.model.inputs:
        check_shape(feed[info.name], info, file.name)
    return feed


def difference(mine: Values | None, other: Values | None) -> Difference | None:
    """Returns how far two tensors are apart in real numbers, None without values or where their sizes differ."""
    if mine is None or other is None or mine[0].size != other[0].size:
        return None
    return Difference.of(mine[0], other[0], first_scale=mine[1], second_scale=other[1])
