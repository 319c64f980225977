"""Which range each tensor of the float flatbuffer needs, measured on representative data.

The tensors that need one become outputs of the flatbuffer, which then runs on XNNPACK in batches on all cores, one
single-threaded interpreter per core, so that values are observed while others are computed; observers turn the values
into ranges. Nothing is quantized here. Memory grows with the batch and the workers, not with the number of samples.
"""

import difflib
import os
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from . import flatbuffer
from .errors import ConversionError, DataError
from .fingerprints import model_sha256
from .measured_ranges import Calibration
from .observers import OBSERVERS, MinMax, Observer
from .quiet import native_stderr_silenced
from .samples import Samples, count_samples

__all__ = ["Calibration", "calibrate", "resolve_observer", "resolve_overrides", "usable"]

# A batch whose tensors fit the second-level caches loses no time to memory; small models need more samples a batch.
_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 32

Overrides = Iterable[tuple[str, str | Observer]]
"""(pattern of tensor names, observer or its name) in order; the last match wins."""


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
        near = difflib.get_close_matches(observer, OBSERVERS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"Unknown observer {observer!r}. Known: {', '.join(OBSERVERS)}.{hint}")
    return OBSERVERS[observer]


def resolve_overrides(overrides: Overrides, names: Iterable[str]) -> dict[str, Observer]:
    """Returns the observer of each tensor that an override names.

    Args:
        overrides: (pattern, observer) in order; the last match wins. Patterns are those of ``fnmatch``: ``*``, ``?``, and
            ``[`` starts a choice of characters.
        names: the tensors there are.

    Raises:
        ValueError: a pattern matches no tensor, or an observer is unknown.

    Example:
        >>> resolve_overrides([("*", "entropy"), ("head*", "min_max")], ["stem", "head/add"])["head/add"]
        MinMax()
        >>> resolve_overrides([("haed*", "min_max")], ["stem", "head/add"])
        Traceback (most recent call last):
        ...
        ValueError: Each override must match a tensor. Received: 'haed*', which matches none. Nearest: head/add, stem.
    """
    names = list(names)
    found: dict[str, Observer] = {}
    for pattern, observer in overrides:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            wanted = pattern.strip("*")
            nearest = sorted(names, key=lambda name: _likeness(wanted, name), reverse=True)[:3]
            raise ValueError(
                f"Each override must match a tensor. Received: {pattern!r}, which matches none. "
                f"Nearest: {', '.join(nearest)}."
            )
        found.update(dict.fromkeys(matches, resolve_observer(observer)))
    return found


def _likeness(wanted: str, name: str) -> float:
    parts = [name, *name.split("/")]
    return max(difflib.SequenceMatcher(None, wanted, part).ratio() for part in parts)


def usable(calibration: Calibration, content: bytes) -> None:
    """Checks that a calibration was measured on this very model.

    Args:
        calibration: made now or loaded from a file.
        content: bytes of the float ``.tflite`` file that it is to quantize.

    Raises:
        ConversionError: another model, other weights, or tensors that have other names now.
    """
    model = flatbuffer.parse(content)
    here = model_sha256(model)
    if calibration.model_sha256 != here:
        raise ConversionError(
            f"A calibration must be of the model it is used for. Received: one of the model {calibration.model_sha256[:12]} "
            f"for the model {here[:12]}: its graph or its weights differ. Calibrate again."
        )
    names = {flatbuffer.tensor_name(tensor) for tensor in model.subgraphs[0].tensors}
    if calibration.calibrator != "tfcompress":
        return  # its scratch tensors are in no file before ``converter_calibration`` puts them there
    strange = [name for name in calibration.ranges if name not in names]
    if strange:
        raise ConversionError(
            f"A calibration must name the model's tensors. Received: {len(strange)} unknown names ({strange[0]}, ...): "
            "layers were renamed since. Calibrate again."
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
        batch: samples of one inference; a model with a fixed batch keeps its own. Default: as many as fit 8 MB, 1 to 32.
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
    size = _batch_size(model, inputs, batch)
    workers = workers or _cores()
    seen = 0
    states = {index: each.init() for index, each in observers.items()}
    with native_stderr_silenced(debug=debug):
        try:
            pool = [_Worker(exposed, inputs, observers) for _ in range(workers)]
            for count, fresh in _in_order(pool, _watched(samples.batches(size), on_inputs)):
                for index, state in fresh.items():
                    states[index] = observers[index].merge(states[index], state)
                seen += count
                if on_batch is not None:
                    on_batch(count)
        except (RuntimeError, MemoryError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConversionError(
                f"The float model must run to be calibrated. Received: {reason}. Run with --debug for LiteRT's own log."
            ) from error
    if not seen:
        raise DataError("Representative data must have at least one sample. Received: none.")
    ranges = {name: _finite(name, observers[index].range(states[index])) for index, name in wanted.items()}
    return Calibration(
        ranges,
        repr(default),
        seen,
        samples.sha256 or "",
        model_sha256(model),
        {wanted[index]: repr(each) for index, each in observers.items() if each != default},
        min((limit for limit in map(_limit, observers.values()) if limit is not None), default=None),
    )


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


def _batch_size(model: Any, inputs: Mapping[str, int], wanted: int | None) -> int:
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
    return wanted or int(np.clip(_BATCH_BYTES // max(4 * floats, 1), 1, _LARGEST_BATCH))


class _Worker:
    """One interpreter with every wanted tensor as an output."""

    def __init__(self, exposed: bytes, inputs: Mapping[str, int], observers: Mapping[int, Observer]):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=exposed, num_threads=1)
        self._inputs = inputs
        self._observers = observers
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
        self._interpreter.reset_all_variables()  # no sample leaves traces in the next
        self._interpreter.invoke()
        states = {}
        for index, observer in self._observers.items():
            values = self._interpreter.tensor(index)()
            values = values.reshape(count, -1) if values.size and values.size % count == 0 else values.reshape(1, -1)
            states[index] = observer.update(observer.init(), values)
            del values  # the interpreter refuses to run while a view of a tensor lives
        return count, states


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
