"""Which range each tensor of the float flatbuffer needs, measured on representative data.

Every intermediate tensor becomes an output of the flatbuffer, which then runs on XNNPACK in batches on all cores, one
single-threaded interpreter per core; observers turn the values into ranges. Nothing is quantized here.
"""

import os
import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import flatbuffer
from .errors import ConversionError, DataError
from .observers import OBSERVERS, MinMax, Observer
from .quiet import native_stderr_silenced
from .samples import Samples, count_samples

__all__ = ["Calibration", "calibrate", "resolve_observer"]

# A batch whose tensors fit the second-level caches loses no time to memory; small models need more samples a batch.
_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 32


@dataclass(frozen=True)
class Calibration:
    """Ranges of a float flatbuffer's tensors on some data.

    Args:
        ranges: (lowest, highest) by tensor name; zero lies inside.
        observer: the observer that made them, as text.
        samples: how many samples were seen.
        data_sha256: hash of the samples.
    """

    ranges: Mapping[str, tuple[float, float]]
    observer: str
    samples: int
    data_sha256: str

    def __repr__(self) -> str:
        return f"Calibration({len(self.ranges)} tensors, {self.observer}, {self.samples} samples)"


def resolve_observer(observer: str | Observer) -> Observer:
    """Returns the observer of that name, or the value itself.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> resolve_observer("min_max")
        MinMax()
    """
    if not isinstance(observer, str):
        return observer
    if observer not in OBSERVERS:
        raise ValueError(f"Unknown observer {observer!r}. Known: {', '.join(OBSERVERS)}.")
    return OBSERVERS[observer]


def calibrate(
    content: bytes,
    samples: Samples,
    *,
    observer: Observer | None = None,
    tensors: set[str] | None = None,
    workers: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    debug: bool = False,
) -> Calibration:
    """Returns the range of every computed float tensor of a flatbuffer over the samples.

    Args:
        content: bytes of a float ``.tflite`` file with unique tensor names and a signature.
        samples: the representative data.
        observer: what turns values into a range. Default: ``MinMax()``.
        tensors: names of the tensors that need a range. Default: all.
        workers: interpreters that run at the same time. Default: the cores this process may use.
        on_batch: called with the number of samples after each batch. Default: nothing.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        DataError: the samples do not fit.
        ConversionError: a tensor is not finite on this data.
    """
    observer = observer or MinMax()
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    wanted = {
        index: flatbuffer.tensor_name(graph.tensors[index])
        for index in flatbuffer.activation_tensors(model)
        if tensors is None or flatbuffer.tensor_name(graph.tensors[index]) in tensors
    }
    signature = model.signatureDefs[0]
    inputs = {_text(entry.name): int(entry.tensorIndex) for entry in signature.inputs}
    exposed = flatbuffer.expose(model, wanted)
    size = _batch_size(model, inputs)
    workers = workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with native_stderr_silenced(debug=debug):
        pool: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(workers):
            pool.put(_Worker(exposed, inputs, wanted, observer))
        states = {index: observer.init() for index in wanted}
        seen = 0
        for count, batch_states in _in_order(pool, samples.batches(size), workers):
            for index, state in batch_states.items():
                states[index] = observer.merge(states[index], state)
            seen += count
            if on_batch is not None:
                on_batch(count)
    if not seen:
        raise DataError("Representative data must have at least one sample. Received: none.")
    ranges = {}
    for index, name in wanted.items():
        low, high = observer.range(states[index])
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ConversionError(
                f"Every tensor must stay finite on the representative data. Received: [{low}, {high}] in {name}. "
                "Check the data's scaling and the model's weights."
            )
        ranges[name] = (low, high)
    return Calibration(ranges, repr(observer), seen, samples.sha256 or "")


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _batch_size(model: Any, inputs: Mapping[str, int]) -> int:
    graph = model.subgraphs[0]
    for index in inputs.values():
        signature = graph.tensors[index].shapeSignature
        if signature is None or not len(signature) or signature[0] != -1:
            shape = graph.tensors[index].shape
            return int(shape[0]) if shape is not None and len(shape) else 1
    floats = sum(
        int(np.prod(np.abs(graph.tensors[index].shape)))
        for index in flatbuffer.activation_tensors(model)
        if graph.tensors[index].shape is not None
    )
    return int(np.clip(_BATCH_BYTES // max(4 * floats, 1), 1, _LARGEST_BATCH))


class _Worker:
    """One interpreter with every wanted tensor as an output."""

    def __init__(self, exposed: bytes, inputs: Mapping[str, int], wanted: Mapping[int, str], observer: Observer):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=exposed, num_threads=1)
        self._inputs = inputs
        self._wanted = wanted
        self._observer = observer
        self._shapes: dict[int, tuple[int, ...]] = {}

    def observe(self, batch: Mapping[str, np.ndarray]) -> tuple[int, dict[int, Any]]:
        """Returns the number of samples of ``batch`` and each tensor's state over them alone."""
        count = count_samples(dict(batch))
        shapes = {index: batch[name].shape for name, index in self._inputs.items()}
        if shapes != self._shapes:
            for index, shape in shapes.items():
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, batch[name])
        self._interpreter.invoke()
        states = {}
        for index in self._wanted:
            values = self._interpreter.tensor(index)()
            values = values.reshape(count, -1) if values.size and values.size % count == 0 else values.reshape(1, -1)
            states[index] = self._observer.update(self._observer.init(), values)
            del values  # the interpreter refuses to run while a view of a tensor lives
        return count, states


def _in_order(
    pool: queue.SimpleQueue, batches: Iterator[Mapping[str, np.ndarray]], workers: int
) -> Iterator[tuple[int, dict[int, Any]]]:
    """Yields each batch's states in the order of the data, with a bounded number of batches in flight."""

    def observe(batch: Mapping[str, np.ndarray]) -> tuple[int, dict[int, Any]]:
        worker = pool.get()
        try:
            return worker.observe(batch)
        finally:
            pool.put(worker)

    with ThreadPoolExecutor(workers) as executor:
        flying: queue.SimpleQueue[Future] = queue.SimpleQueue()
        for batch in batches:
            flying.put(executor.submit(observe, batch))
            if flying.qsize() > workers:
                yield flying.get().result()
        while not flying.empty():
            yield flying.get().result()
