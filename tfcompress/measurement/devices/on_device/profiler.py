"""How long does each op take? LiteRT's own profiler, by way of the C interface in the wheel's ``libLiteRt.so``.

The Python package has no door to it. Structures and calls are those of LiteRT 2.x: litert/c/litert_profiler_event.h,
litert_model_types.h, litert_compiled_model.h. What its events mean is in ``events``.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import DeviceError
from .events import Event

__all__ = ["Profiler"]

LIBRARY = "libLiteRt.so"
CPU = 1  # kLiteRtHwAcceleratorCpu
WRITE = 1  # kLiteRtTensorBufferLockModeWrite
MOST_AXES = 8
RANK_BITS = 127  # of the bit field rank:7, has_strides:1
Pointer = ctypes.c_void_p
Size = ctypes.c_size_t


class _Layout(ctypes.Structure):
    _fields_ = [
        ("rank", ctypes.c_uint32),
        ("sizes", ctypes.c_int32 * MOST_AXES),
        ("strides", ctypes.c_uint32 * MOST_AXES),
    ]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int32), ("layout", _Layout)]


class _Memory(ctypes.Structure):
    _fields_ = [("in_use", Size), ("allocated", Size), ("held", Size)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", _Memory),
        ("memory_after", _Memory),
        ("node", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int32),
    ]


class Profiler:
    """A file opened with LiteRT's profiler, XNNPACK on or off; to be closed.

    Args:
        path: of the file.
        name: how messages call it.
        threads: for one inference. Default: 1.
        xnnpack: whether XNNPACK may take over parts of the graph. Default: True.
        recorder: whether there is a profiler; without one an inference takes its usual time. Default: True.

    Raises:
        DeviceError: the runtime has no profiler, or does not take the file with it.
    """

    def __init__(self, path: str, name: str, *, threads: int = 1, xnnpack: bool = True, recorder: bool = True):
        self._name = name
        self._library = _library()
        self._release = ctypes.CFUNCTYPE(None, Pointer)(self._free)
        self._closers: list[tuple[str, Pointer]] = []
        try:
            environment = self._make("Environment", 0, None)
            self._environment = environment
            file = Pointer()
            self._call("LiteRtCreateModelFromFile", environment, os.fsencode(path), ctypes.byref(file))
            self._closers.append(("LiteRtDestroyModel", file))
            options = self._make("Options")
            self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
            kernel = "delegate" if xnnpack else "builtin"
            if recorder:
                self._add(options, b"runtime_options_string", "enable_profiling = true\n")
            self._add(options, b"xnnpack", f'num_threads = {threads}\nkernel_mode = "{kernel}"\n')
            self._model = self._make("CompiledModel", environment, file, options)
            self._signature = Pointer()
            self._call("LiteRtGetModelSignature", file, Size(0), ctypes.byref(self._signature))
            self._inputs = self._buffers("Input")
            self._outputs = self._buffers("Output")
            self._profiler = Pointer()
            if recorder:
                self._call("LiteRtCompiledModelGetProfiler", self._model, ctypes.byref(self._profiler))
            if recorder and not self._profiler:
                raise DeviceError(f"A profile needs LiteRT's profiler. Received: a runtime without one, for {name}.")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives everything back to LiteRT, the newest first."""
        while self._closers:
            function, pointer = self._closers.pop()
            getattr(self._library, function)(pointer)

    def invoke(self) -> None:
        """Runs the graph once."""
        counts = Size(len(self._inputs)), Size(len(self._outputs))
        arguments = Size(0), counts[0], self._inputs, counts[1], self._outputs
        self._call("LiteRtRunCompiledModel", self._model, *arguments)

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Event]]:
        """Gives a list that holds the events of the block after its end."""
        found: list[Event] = []
        self._call("LiteRtStartProfiler", self._profiler)
        try:
            yield found
        finally:
            self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * max(1, count.value))()
        self._call("LiteRtGetProfilerEvents", self._profiler, count.value, events)
        for event in events[: count.value]:
            tag = (event.tag or b"").decode(errors="replace")
            found.append(Event(event.kind, tag, event.node, event.elapsed_us))

    def _buffers(self, direction: str) -> Any:
        """Returns one buffer per input or output; inputs hold zeros, as what was left in memory may be slow numbers."""
        count = Size()
        self._call(f"LiteRtGetNumSignature{direction}s", self._signature, ctypes.byref(count))
        buffers = (Pointer * count.value)()
        for place in range(count.value):
            tensor, kind, needs = Pointer(), _TensorType(), Pointer()
            get = f"LiteRtGetSignature{direction}TensorByIndex"
            self._call(get, self._signature, Size(place), ctypes.byref(tensor))
            self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
            for axis in range(kind.layout.rank & RANK_BITS):
                kind.layout.sizes[axis] = max(1, kind.layout.sizes[axis])  # -1 is free
            get = f"LiteRtGetCompiledModel{direction}BufferRequirements"
            self._call(get, self._model, Size(0), Size(place), ctypes.byref(needs))
            buffer = Pointer()
            make = "LiteRtCreateManagedTensorBufferFromRequirements"
            self._call(make, self._environment, ctypes.byref(kind), needs, ctypes.byref(buffer))
            self._closers.append(("LiteRtDestroyTensorBuffer", buffer))
            buffers[place] = buffer
            if direction == "Input":
                self._clear(buffer)
        return buffers

    def _clear(self, buffer: Pointer) -> None:
        size, address = Size(), Pointer()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), WRITE)
        ctypes.memset(address, 0, size.value)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _make(self, what: str, *arguments: Any) -> Pointer:
        made = Pointer()
        self._call(f"LiteRtCreate{what}", *arguments, ctypes.byref(made))
        self._closers.append((f"LiteRtDestroy{what}", made))
        return made

    def _add(self, options: Pointer, identifier: bytes, text: str) -> None:
        content = text.encode() + b"\0"
        memory = _libc().malloc(len(content))  # LiteRT gives it back by our function when it is done
        ctypes.memmove(memory, content, len(content))
        made = Pointer()
        arguments = ctypes.c_char_p(identifier), Pointer(memory), self._release, ctypes.byref(made)
        self._call("LiteRtCreateOpaqueOptions", *arguments)
        self._call("LiteRtAddOpaqueOptions", options, made)

    def _free(self, pointer: int) -> None:
        _libc().free(pointer)

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            status = getattr(self._library, function)(*arguments)
        except AttributeError as error:
            raise DeviceError(
                f"A profile needs LiteRT's profiler. Received: a runtime without {function}. Install ai-edge-litert 2.1 or "
                "newer."
            ) from error
        if status:
            raise DeviceError(
                f"LiteRT's profiler must take the file. Received: {self._name}, which {function} refuses (status {status}). "
                "CompiledModel, which has the profiler, takes no variable tensors (LSTM) and no free shapes."
            )


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("ai_edge_litert")
    path = Path(spec.origin).parent / LIBRARY if spec is not None and spec.origin else Path(LIBRARY)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"A profile needs {LIBRARY} of ai-edge-litert 2.1 or newer. Received: a runtime without it. Install it."
        ) from error


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = Pointer, [Size]
    libc.free.restype, libc.free.argtypes = None, [Pointer]
    return libc
