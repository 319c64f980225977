"""Which range each tensor of the float flatbuffer needs, measured on representative data.

The tensors that need one become outputs of the flatbuffer, which then runs on XNNPACK in batches on all cores, one
single-threaded interpreter per core, so that values are observed while others are computed; observers turn the values
into ranges. Nothing is quantized here. Memory grows with the batch and the workers, not with the number of samples.
"""

import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..data import Samples, count_samples
from ..errors import ConversionError, DataError
from ..system import native_stderr_silenced
from ..tflite import flatbuffer, model_sha256
from .calibrated_ranges import Calibration
from .observer_choice import Overrides, resolve_observer, resolve_overrides
from .observers import Highest, MinMax, Observer, not_negative

__all__ = ["Calibration", "calibrate", "resolve_observer", "resolve_overrides", "usable"]

# A batch whose tensors fit the second-level caches loses no time to memory; small models need more samples a batch.
_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 32
_RECTIFIERS = {1: np.inf, 3: 6.0}  # schema.fbs, ActivationFunctionType: RELU, RELU6, and the highest that they let pass
_RECTIFYING = {"RELU": np.inf, "RELU6": 6.0}


def usable(calibration: Calibration, content: bytes) -> Calibration:
    """Returns the calibration with the names that the tensors have in this file, once it is sure to be of this very model.

    Args:
        calibration: made now or loaded from a file.
        content: bytes of the float ``.tflite`` file that it is to quantize.

    Raises:
        ConversionError: another model, other weights, or tensors that are not in it.
    """
    model = flatbuffer.parse(content)
    here = model_sha256(model)
    if calibration.model_sha256 != here:
        raise ConversionError(
            f"A calibration must be of the model it is used for. Received: one of the model {calibration.model_sha256[:12]} "
            f"for the model {here[:12]}: its graph or its weights differ. Calibrate again."
        )
    tensors = [flatbuffer.tensor_name(tensor) for tensor in model.subgraphs[0].tensors]
    # The converter's calibrator adds scratch tensors behind the file's own; ``converter_calibrator`` puts them back.
    added = calibration.calibrator != "tfcompress"
    names = {
        name: tensors[index] if 0 <= index < len(tensors) else name
        for name, index in calibration.indices.items()
        if added or 0 <= index < len(tensors)
    }
    strange = [name for name in calibration.ranges if name not in names and name not in tensors]
    if strange:
        raise ConversionError(
            f"A calibration must name the model's tensors. Received: {len(strange)} unknown names ({strange[0]}, ...). "
            "Calibrate again."
        )
    return dataclasses.replace(
        calibration,
        ranges={names.get(name, name): pair for name, pair in calibration.ranges.items()},
        observers={names.get(name, name): text for name, text in calibration.observers.items()},
        indices={names.get(name, name): index for name, index in calibration.indices.items()},
    )


def calibrate(
    content: bytes,
    samples: Samples,
    *,
    observer: Observer | None = None,
    overrides: Overrides = (),
    tensors: set[str] | None = None,
    workers: int | None = None,
    batch: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_inputs: Callable[[Mapping[str, np.ndarray]], None] | None = None,
    debug: bool = False,
) -> Calibration:
    """Returns the range of every computed float tensor of a flatbuffer over the samples.

    Args:
        content: bytes of a float ``.tflite`` file with unique tensor names and a signature.
        samples: the representative data.
        observer: what turns values into a range. Default: ``MinMax()``.
        overrides: (pattern of tensor names, observer) for tensors that have another one; the last match wins.
            Default: none.
        tensors: names of the tensors that need a range. Default: all.
        workers: interpreters that run at the same time. Default: the cores this process may use.
        batch: samples of one inference at most: fewer where their tensors would take more than 8 MB, for a larger batch is
            slower then; a model with a fixed batch keeps its own. Default: as many as fit 8 MB, 1 to 32.
        on_batch: called with the number of samples after each batch. Default: nothing.
        on_inputs: called with each batch, in order, before it runs; must not write to it. Default: nothing.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        DataError: the samples do not fit.
        ConversionError: a tensor is not finite on this data, or the interpreter refuses the model.
        ValueError: an override matches no tensor; workers or batch below 1.
    """
    for name, number in (("workers", workers), ("batch", batch)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={number}.")
    model = flatbuffer.parse(content)
    graph = model.subgraphs[0]
    names = {index: flatbuffer.tensor_name(graph.tensors[index]) for index in flatbuffer.activation_tensors(model)}
    default = observer or MinMax()
    special = resolve_overrides(overrides, names.values())
    wanted = {index: name for index, name in names.items() if tensors is None or name in tensors}
    observers = {index: special.get(name, default) for index, name in wanted.items()}
    signature = model.signatureDefs[0]
    inputs = {_text(entry.name): int(entry.tensorIndex) for entry in signature.inputs}
    exposed = flatbuffer.expose(model, wanted)
    rectified = _rectified(model)
    # Where nothing is negative the lowest value is zero by rule: half the looking, the same range.
    used: dict[int, Observer] = {
        index: not_negative(each, rectified[index]) if index in rectified else each for index, each in observers.items()
    }
    size = _batch_size(model, inputs, batch)
    workers = workers or _cores()
    seen = 0
    states = {index: each.init() for index, each in used.items()}
    with native_stderr_silenced(debug=debug):
        try:
            fixed = _fixed_batch(model, inputs)
            looking = threading.Lock()
            pool = [_Worker(exposed, inputs, used, fixed, looking) for _ in range(workers)]
            for count, fresh in _in_order(pool, _watched(samples.batches(size), on_inputs)):
                for index, state in fresh.items():
                    states[index] = used[index].merge(states[index], state)
                seen += count
                if on_batch is not None:
                    on_batch(count)
            for worker in pool:
                for index, state in worker.totals.items():
                    states[index] = used[index].merge(states[index], state)
        except (RuntimeError, MemoryError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConversionError(
                f"The float model must run to be calibrated. Received: {reason}. Run with --debug for LiteRT's own log."
            ) from error
    if not seen:
        raise DataError("Representative data must have at least one sample. Received: none.")
    ranges = {name: _finite(name, used[index].range(states[index])) for index, name in wanted.items()}
    return Calibration(
        ranges,
        repr(default),
        seen,
        samples.sha256 or "",
        model_sha256(model),
        {wanted[index]: repr(each) for index, each in observers.items() if each != default},
        min((limit for limit in map(_limit, observers.values()) if limit is not None), default=None),
        {name: index for index, name in wanted.items()},
    )


def _rectified(model: Any) -> dict[int, float]:
    """Returns the tensors that cannot be negative, as a ReLU is the last thing that made them, and their highest value."""
    found = {}
    for operator in model.subgraphs[0].operators or []:
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        limit = _RECTIFIERS.get(fused, _RECTIFYING.get(flatbuffer.op_name(model, operator)))
        if limit is not None:
            found.update(dict.fromkeys(map(int, operator.outputs), limit))
    return found


def _finite(name: str, pair: tuple[float, float]) -> tuple[float, float]:
    if not np.isfinite(pair).all():
        raise ConversionError(
            f"Every tensor must stay finite on the representative data. Received: [{pair[0]}, {pair[1]}] in {name}. "
            "Check the data's scaling and the model's weights."
        )
    return pair


def _limit(observer: Observer) -> int | None:
    return getattr(observer, "values_per_sample", None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _fixed_batch(model: Any, inputs: Mapping[str, int]) -> int | None:
    """Returns the batch that the file has built in, None where it is free."""
    graph = model.subgraphs[0]
    for index in inputs.values():
        signature = graph.tensors[index].shapeSignature
        if signature is None or not len(signature) or signature[0] != -1:
            shape = graph.tensors[index].shape
            return int(shape[0]) if shape is not None and len(shape) else 1
    return None


def _batch_size(model: Any, inputs: Mapping[str, int], wanted: int | None) -> int:
    fixed = _fixed_batch(model, inputs)
    if fixed is not None:
        return fixed
    graph = model.subgraphs[0]
    floats = sum(
        int(np.prod(np.abs(graph.tensors[index].shape)))
        for index in flatbuffer.activation_tensors(model)
        if graph.tensors[index].shape is not None
    )
    return min(wanted or _LARGEST_BATCH, int(np.clip(_BATCH_BYTES // max(4 * floats, 1), 1, _LARGEST_BATCH)))


class _Worker:
    """One interpreter with every wanted tensor as an output."""

    def __init__(
        self,
        exposed: bytes,
        inputs: Mapping[str, int],
        observers: Mapping[int, Observer],
        fixed: int | None,
        looking: threading.Lock,
    ):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=exposed, num_threads=1)
        self._inputs = inputs
        self._observers = observers
        self._fixed = fixed
        self._looking = looking
        # What does not depend on the order of the data is added up here, without a state for each batch.
        self.totals = {i: each.init() for i, each in observers.items() if not getattr(each, "ordered", True)}
        self._shapes: dict[int, tuple[int, ...]] = {}

    def observe(self, batch: Mapping[str, np.ndarray]) -> tuple[int, dict[int, Any]]:
        """Returns the number of samples of ``batch``, and the states over them alone where the order matters."""
        seen = count = count_samples(dict(batch))
        if self._fixed is not None and count < self._fixed:  # the last sample fills the batch up: it adds no new value
            missing = self._fixed - count
            batch = {name: np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) for name, a in batch.items()}
            count = self._fixed
        shapes = {index: batch[name].shape for name, index in self._inputs.items()}
        if shapes != self._shapes:
            for index, shape in shapes.items():
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, batch[name])
        self._interpreter.reset_all_variables()  # no sample leaves traces in the next
        self._interpreter.invoke()
        # One at a time, while the others compute: two threads of small NumPy steps hand Python's lock to and fro, which takes
        # longer than to wait.
        with self._looking:
            return seen, self._states(count, seen)

    def _states(self, count: int, seen: int) -> dict[int, Any]:
        states = {}
        for index, observer in self._observers.items():
            if isinstance(observer, Highest) and observer.is_settled(self.totals[index]):
                continue
            values = self._interpreter.tensor(index)()
            by_sample = values.size and values.size % count == 0
            values = values.reshape(count, -1)[:seen] if by_sample else values.reshape(1, -1)
            if index in self.totals:
                self.totals[index] = observer.update(self.totals[index], values)
            else:
                states[index] = observer.update(observer.init(), values)
            del values  # the interpreter refuses to run while a view of a tensor lives
        return states


def _watched(batches: Iterator[Any], on_inputs: Callable[[Any], None] | None) -> Iterator[Any]:
    for batch in batches:
        if on_inputs is not None:
            on_inputs(batch)
        yield batch


def _in_order(
    workers: list[_Worker], batches: Iterator[Mapping[str, np.ndarray]]
) -> Iterator[tuple[int, dict[int, Any]]]:
    """Yields each batch's states in the order of the data, with a bounded number of batches in flight."""
    pool: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for each in workers:
        pool.put(each)

    def observe(batch: Mapping[str, np.ndarray]) -> tuple[int, dict[int, Any]]:
        worker = pool.get()
        try:
            return worker.observe(batch)
        finally:
            pool.put(worker)

    with ThreadPoolExecutor(len(workers)) as executor:
        flying: queue.SimpleQueue[Future] = queue.SimpleQueue()
        for batch in batches:
            flying.put(executor.submit(observe, batch))
            if flying.qsize() > len(workers):
                yield flying.get().result()
        while not flying.empty():
            yield flying.get().result()
