"""TensorFlow Lite Micro on this machine, as a device: which operations does it know, and how large is its arena?

It answers as a microcontroller's interpreter does. It times nothing: how fast this machine is says nothing about a
microcontroller. The interpreter ends the process on some files, so that it runs in a child (``arena_of`` and ``outputs_of``),
and needs the extra ``tflm``.
"""

import importlib.metadata
import importlib.util
import os
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....errors import DeviceError, ModelError
from ....tflite import run_interpreter
from ..device import TIMEOUT_SECONDS, AnsweringDevice, Request
from ..local import describe_file
from ..on_device.agent import describe_device

__all__ = ["TflmDevice", "arena_bytes", "outputs_of"]

PACKAGE = "tflite-micro"
RUNTIME = "TensorFlow Lite Micro"
SPARE_BYTES = 64  # besides the recorded total: the arena is aligned to 16 bytes at both ends
LARGEST_ARENA = 1 << 28
SMALLEST_ARENA = 1 << 20
UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'|Unresolved custom op: (\S+)")
ALLOCATION = re.compile(r"\[RecordingMicroAllocator\] Arena allocation (total|head|tail) (\d+) bytes")


class TflmDevice(AnsweringDevice):
    """TensorFlow Lite Micro's interpreter as ``tflite-micro`` brings it for x86-64.

    Args:
        timeout_seconds: after which a request is given up. Default: 3600.
        debug: lets the interpreter's own lines through. Default: False.
    """

    name = "tflm"
    kind = "modelled"

    def __init__(self, *, timeout_seconds: float | None = None, debug: bool = False):
        self._timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        self._debug = debug

    def answer(self, request: Request) -> dict[str, Any]:
        """Returns the answer to "latency" (no times) or "outputs".

        Args:
            request: what is asked for; its progress is called once all is done.

        Raises:
            ModelError: the file cannot be opened, or holds operations that the interpreter does not know.
            DeviceError: the extra is missing, the interpreter crashed, or the request is of another kind.
        """
        if importlib.util.find_spec("tflite_micro") is None:
            raise DeviceError(
                f"tflm needs the package {PACKAGE} (x86-64). Received: not installed. In a clone of tfcompress: "
                "pip install -c constraints.txt -e '.[tflm]'"
            )
        known = describe_file(request.model, request.name)
        call: dict[str, Any] = {"model": os.fspath(request.model), "name": request.name, "known": known}
        if request.kind == "latency":
            return self._call("arena_of", call)
        if request.kind != "outputs":
            raise DeviceError(f"tflm cannot answer {request.kind!r}: it times nothing. Ask for accuracy or memory.")
        call |= {"inputs": os.fspath(request.files["inputs"]), "outputs": os.fspath(request.results["outputs"])}
        answer = self._call("outputs_of", {**call, "reset_state": bool(request.settings.get("reset_state"))})
        if request.progress is not None:
            request.progress(answer["samples"], answer["samples"])
        return answer

    def _call(self, function: str, call: Mapping[str, Any]) -> dict[str, Any]:
        return run_interpreter(
            f"{__name__}:{function}",
            call,
            place=call["name"],
            runtime=RUNTIME,
            timeout_seconds=self._timeout_seconds,
            debug=self._debug,
        )


def arena_bytes(text: str) -> dict[str, int]:
    """Returns the arena's size in what ``print_allocations`` writes: all of it, its head, its tail, and what suffices.

    Examples:
        >>> arena_bytes("[RecordingMicroAllocator] Arena allocation total 100 bytes")
        {'total': 100, 'arena': 176}
    """
    found = {name: int(size) for name, size in ALLOCATION.findall(text)}
    if "total" not in found:
        raise DeviceError(f"{RUNTIME} must say how large its arena is. Received: {text.strip()[:200] or 'nothing'}.")
    aligned = -(-(found["total"] + SPARE_BYTES) // 16) * 16
    return {**found, "arena": aligned}


# The child's side.


def arena_of(request: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Runs a model once on zeros and returns what it needs.

    Args:
        request: ``model``, ``name`` and ``known`` (of ``describe_file``).
        report: not called.
    """
    interpreter = _opened(request)
    for position, info in enumerate(request["known"]["inputs"]):
        interpreter.set_input(np.zeros(_shape(info), info["dtype"]), position)
    _quietly(interpreter.invoke, request["name"])
    sizes = arena_bytes(_quietly(interpreter.print_allocations, request["name"]))
    operations = sorted({name for name in request["known"]["operations"] if name != "DELEGATE"})
    device = {**vars(describe_device()), "runtime": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"}
    device["details"] = {"operations": f"all {len(operations)} kinds are known: {', '.join(operations)}"}
    return {
        "latency": None,
        "device": device,
        "settings": {"threads": 1, "xnnpack": False, "delegate_nodes": 0, "warmup_runs": 0, "runs": 0},
        "estimates": {"arena bytes": sizes["arena"], "arena tail bytes": sizes.get("tail", 0)},
        **request["known"],
    }


def outputs_of(request: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Runs a model on samples and writes its raw outputs.

    Args:
        request: as for ``arena_of``, and ``inputs``, ``outputs`` (files of arrays by name) and ``reset_state``.
        report: not called.
    """
    known = request["known"]
    with np.load(request["inputs"]) as arrays:
        feeds = [arrays[info["name"]] for info in known["inputs"]]
    interpreter = _opened(request)
    step = _shape(known["inputs"][0])[0] if known["inputs"] else 1
    found: list[list[np.ndarray]] = [[] for _ in known["outputs"]]
    total = len(feeds[0])

    def work() -> None:
        for start in range(0, total, step):
            for position, feed in enumerate(feeds):
                block = feed[start : start + step]
                block = np.concatenate([block, np.repeat(block[-1:], step - len(block), axis=0)])
                interpreter.set_input(np.ascontiguousarray(block), position)
            interpreter.invoke()
            for position, kept in enumerate(found):
                kept.append(np.array(interpreter.get_output(position))[: total - start])
            if request["reset_state"]:
                interpreter.reset()

    _quietly(work, request["name"])
    answers = {info["name"]: np.concatenate(kept) for info, kept in zip(known["outputs"], found, strict=True)}
    np.savez(request["outputs"], **answers)  # type: ignore[arg-type]
    stateful = any(name in ("UNIDIRECTIONAL_SEQUENCE_LSTM", "SVDF", "VAR_HANDLE") for name in known["operations"])
    state = "none" if not stateful else "reset" if request["reset_state"] else "carried"
    return {"samples": total, "seconds": 0.0, "state": state}


def _opened(request: Mapping[str, Any]) -> Any:
    from tflite_micro.python.tflite_micro import runtime

    # Its arena has to be there from the start; its own guess, ten times the file, is too small for small files.
    size = min(max(SMALLEST_ARENA, 20 * os.path.getsize(request["model"])), LARGEST_ARENA)
    opened: list[Any] = []
    _quietly(lambda: opened.append(runtime.Interpreter.from_file(request["model"], arena_size=size)), request["name"])
    return opened[0]


def _quietly(work: Any, name: str) -> str:
    """Calls ``work`` and returns what it wrote to descriptor 2, where the interpreter says why it failed."""
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        error: Exception | None = None
        try:
            work()
        except (RuntimeError, ValueError) as caught:
            error = caught
        finally:
            os.dup2(before, 2)
            os.close(before)
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    if error is None:
        return text
    unknown = UNKNOWN.search(text)
    if unknown:
        raise ModelError(
            f"{RUNTIME} must know every operation of {name}. Received: {unknown[1] or unknown[2]}, which it does not. "
            "Convert for a microcontroller (--target), or replace the layer."
        ) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [" ".join(str(error).split())]
    raise DeviceError(f"{RUNTIME} could not run {name}: {lines[0][:300].rstrip('.')}.") from error


def _shape(info: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(size or 1 for size in info["shape"])
