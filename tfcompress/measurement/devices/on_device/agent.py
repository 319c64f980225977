"""What runs on the device: one request on standard input, one answer on standard output, both a line of JSON.

The only job of the process it runs in, so that the numbers are the file's own. Requests:

    {"kind": "latency", "paths": {"model": "a.tflite"}, "threads": 1, "warmup_runs": null, "runs": 100, "seed": 0, ...}
    {"kind": "interleave", "paths": {"model0": "a.tflite", "model1": "b.tflite"}, "runs": 100, ...}
    {"kind": "outputs", "paths": {"model": "a.tflite", "inputs": "in.npz", "outputs": "out.npz"}, "batch": 32, ...}
    {"kind": "profile", "paths": {"model": "a.tflite"}, "runs": 50, ...}

All take "name" (how messages call the file), "threads", "xnnpack", "api" ("interpreter" or "compiled"), "accelerator",
"cpus", "seed" and "debug"; ``SETTINGS`` has their defaults. Lines of ``{"progress": [done, total]}`` may come before the
answer, which holds ``"complete": true`` and the sha256 of each model file: an answer without them was cut off.

Latency and profile see no user data: quantized inputs are filled with random integers, float inputs with random numbers in
[0, 1), all others (indices, flags) with zeros. No latency of the operations in use depends on the values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import ModelError, TfcompressError
from ....system.quiet import native_stderr_silenced
from ....tflite.interpreter import Model, TensorInfo, open_model
from ...conditions import Settings
from ...latency import Latency
from .compiled_model import Compiled
from .events import mean_of_fastest, profile_of
from .inference import evaluate
from .machine import Watch, describe_device, pin, resident_bytes
from .profiler import Profiler
from .timing import STOP, time_in_turns, time_once, warm_up

__all__ = ["MODULES", "describe_device", "describe_model", "main", "random_input", "resident_bytes", "run_request"]

MODULES = (
    "errors.py",
    "system/files.py",
    "system/quiet.py",
    "tflite/affine.py",
    "tflite/tensors.py",
    "tflite/model_files.py",
    "tflite/interpreter.py",
    "measurement/latency.py",
    "measurement/op_times.py",
    "measurement/conditions.py",
    "measurement/devices/on_device/machine.py",
    "measurement/devices/on_device/timing.py",
    "measurement/devices/on_device/compiled_model.py",
    "measurement/devices/on_device/inference.py",
    "measurement/devices/on_device/events.py",
    "measurement/devices/on_device/profiler.py",
    "measurement/devices/on_device/agent.py",
)
"""The files of this package that have to be on a device, with ``__init__.py`` of any content beside them."""

SETTINGS = {
    "kind": "latency",
    "threads": 1,
    "xnnpack": True,
    "api": "interpreter",
    "accelerator": "cpu",
    "cpus": (),
    "warmup_runs": None,
    "runs": 100,
    "batch": 32,
    "workers": 0,
    "reset_state": False,
    "seed": 0,
    "debug": False,
}
RUNS_AT_ONCE = 5  # of a profile
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the answer to one request, as plain JSON values.

    Args:
        request: as this module's first lines show; "model" may stand in place of ``paths`` for a lone file.

    Raises:
        ModelError: the file cannot be opened.
        DeviceError: the interpreter failed, or there is no such processor, accelerator or profiler.
        ValueError: the kind of request is unknown.
    """
    kinds = {"latency": latency, "interleave": interleave, "outputs": outputs, "profile": profile}
    request = {**SETTINGS, **request}
    request.setdefault("paths", {"model": request.get("model")})
    if request["kind"] not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}. Received: kind={request['kind']!r}.")
    pin(request["cpus"] or ())
    return kinds[request["kind"]](request)


def open_runner(request: Mapping[str, Any], key: str = "model", name: str | None = None) -> Any:
    """Returns the file opened as the request wants it: a ``Model`` or a ``Compiled``."""
    path = request["paths"][key]
    options = {"threads": request["threads"], "xnnpack": request["xnnpack"], "debug": request["debug"]}
    if request["api"] == "compiled":
        model = open_named(path, name or request.get("name"), debug=request["debug"])
        return Compiled(path, model, accelerator=request["accelerator"], **options)
    return open_named(path, name or request.get("name"), reset_state=request["reset_state"], **options)


def open_named(path: str, name: str | None, **options: Any) -> Model:
    """Opens a file whose name in messages is another one than its path here."""
    try:
        model = open_model(path, **options)
    except ModelError as error:
        raise ModelError(str(error).replace(str(Path(path)), name or str(path))) from error
    model.name = name or model.name
    return model


def latency(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times one file."""
    runtime_bytes = resident_bytes()
    opened: list[Any] = []
    load_ms = time_once(lambda: opened.append(open_runner(request)))
    runner = opened[0]
    generator = np.random.default_rng(request["seed"])
    runner.feed({info.name: random_input(info, generator) for info in runner.inputs})
    first_ms = time_once(runner.invoke)
    warmup_runs, steady = warm_up([runner.invoke], request["warmup_runs"])
    watch = Watch()
    (times,) = time_in_turns([runner.invoke], request["runs"])
    noise = watch.noise(times)
    peak_bytes = resident_bytes(peak=True)
    found = Latency.of(times, warmup_runs=warmup_runs, load_ms=load_ms, first_ms=first_ms, steady=steady)
    return {
        "latency": vars(found),
        "noise": vars(noise),
        "peak_bytes": peak_bytes,
        "runtime_bytes": runtime_bytes,
        "device": vars(describe_device()),
        "settings": settings_of(request, runner, warmup_runs, len(times)),
        **describe_model(described(request, runner)),
    }


def described(request: Mapping[str, Any], runner: Any) -> Model:
    """Returns the file in the interpreter, which knows its tensors and operations."""
    return runner if isinstance(runner, Model) else open_named(request["paths"]["model"], request.get("name"))


def settings_of(request: Mapping[str, Any], runner: Any, warmup_runs: int, runs: int) -> dict[str, Any]:
    """Returns how the file was set up, as plain JSON values."""
    nodes = runner.delegate_nodes if isinstance(runner, Model) else None
    settings = Settings(
        threads=request["threads"],
        xnnpack=request["xnnpack"] if nodes is None else nodes > 0,
        delegate_nodes=nodes,
        warmup_runs=warmup_runs,
        runs=runs,
        api=request["api"],
        accelerator=request["accelerator"],
        cpus=tuple(request["cpus"] or ()),
        interleaved=request["kind"] == "interleave",
    )
    return vars(settings)


def interleave(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times several files in turns: A B A B."""
    keys = sorted((key for key in request["paths"] if key.startswith("model")), key=lambda key: int(key[5:] or 0))
    names = request.get("names") or [None] * len(keys)
    runners = [open_runner(request, key, name) for key, name in zip(keys, names)]
    for runner in runners:
        generator = np.random.default_rng(request["seed"])
        runner.feed({info.name: random_input(info, generator) for info in runner.inputs})
        runner.invoke()
    invokes = [runner.invoke for runner in runners]
    warmup_runs, steady = warm_up(invokes, request["warmup_runs"])
    watch = Watch()
    times = time_in_turns(invokes, request["runs"])
    return {
        "times_ms": times,
        "warmup_runs": warmup_runs,
        "steady": steady,
        "noise": [vars(watch.noise(each)) for each in times],
        "device": vars(describe_device()),
        "settings": settings_of(request, runners[0], warmup_runs, len(times[0])),
    }


def outputs(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one file on many samples and writes its answers."""
    with np.load(request["paths"]["inputs"], allow_pickle=False) as file:
        feeds = {name: file[name] for name in file.files}
    first = open_runner(request)
    opened = [first]
    is_stateful = isinstance(first, Model) and first.is_stateful
    carried = is_stateful and not request["reset_state"]
    found, samples, seconds = evaluate(
        lambda: opened.pop() if opened else open_runner(request),
        feeds,
        batch=request["batch"] if not carried else len(next(iter(feeds.values()))),
        threads=request["threads"],
        workers=request["workers"],
        in_order=carried,
        report=lambda done, total: say({"progress": [done, total]}),
    )
    with open(request["paths"]["outputs"], "wb") as target:
        np.savez(target, **found)  # type: ignore[arg-type]
    return {
        "samples": samples,
        "seconds": round(seconds, 6),
        "state": "none" if not is_stateful else "carried" if carried else "reset",
        "peak_bytes": resident_bytes(peak=True),
    }


def profile(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times each op of one file with LiteRT's own profiler."""
    model = open_named(request["paths"]["model"], request.get("name"), debug=request["debug"])
    options = {"threads": request["threads"], "xnnpack": request["xnnpack"]}
    path, plain, recorded = request["paths"]["model"], [], []
    with contextlib.ExitStack() as stack:
        stack.enter_context(native_stderr_silenced(debug=request["debug"]))
        profiler = stack.enter_context(contextlib.closing(Profiler(path, model.name, **options)))
        usual = stack.enter_context(contextlib.closing(Profiler(path, model.name, recorder=False, **options)))
        warm_up([profiler.invoke, usual.invoke], request["warmup_runs"])
        # In turns, so that a machine that slows down does so for both.
        for _ in range(max(1, request["runs"] // RUNS_AT_ONCE)):
            plain += time_in_turns([usual.invoke], RUNS_AT_ONCE)[0]
            with profiler.recording() as events:
                for _ in range(RUNS_AT_ONCE):
                    profiler.invoke()
            recorded += events
            if STOP.requested:
                break
    operations = [
        {"op": operation["op_name"], "dtypes": [np.dtype(kind).name for kind in operation["operand_types"]]}
        for operation in model.operation_details()
    ]
    found = profile_of(recorded, operations, plain_ms=mean_of_fastest(plain), xnnpack=request["xnnpack"])
    return {"profile": dataclasses.asdict(found), "device": vars(describe_device())}


def describe_model(model: Model) -> dict[str, Any]:
    """Returns what the host has to know of a file that it does not open itself.

    Args:
        model: the opened file, after it ran at its own batch size.
    """
    return {
        "inputs": [info.to_json() for info in model.inputs],
        "outputs": [info.to_json() for info in model.outputs],
        "operations": list(model.operations),
        "activation_bytes": model.activation_bytes,
    }


def random_input(info: TensorInfo, generator: np.random.Generator) -> np.ndarray:
    """Returns one block for an input, in its own dtype; axes of free length get length 1.

    Examples:
        >>> info = TensorInfo("x", (None, 3), np.dtype(np.float32), None, 0, index=0)
        >>> random_input(info, np.random.default_rng(0)).round(2)
        array([[0.64, 0.27, 0.04]], dtype=float32)
    """
    shape = tuple(size or 1 for size in info.shape)
    if info.parameters is not None:
        return generator.integers(info.parameters.lowest, info.parameters.highest + 1, shape).astype(info.dtype)
    if info.dtype.kind == "f":
        return generator.random(shape).astype(info.dtype)
    return np.zeros(shape, info.dtype)


def die_with_parent() -> None:
    """Asks Linux to end this process when the one that started it ends, however that happens."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def say(line: Mapping[str, Any]) -> None:
    """Writes one line of JSON to standard output."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def hashes(paths: Mapping[str, str]) -> dict[str, str]:
    """Returns the sha256 of each model file, as it is on this device."""
    keys = [key for key in paths if key.startswith("model") and Path(paths[key]).is_file()]
    return {key: hashlib.sha256(Path(paths[key]).read_bytes()).hexdigest() for key in keys}


def main() -> None:
    """Answers the request on standard input; an expected error is an answer too."""
    die_with_parent()
    STOP.listen()
    request = json.loads(sys.stdin.readline())
    try:
        answer = run_request(request)
    except (TfcompressError, ValueError) as error:
        kind = type(error).__name__ if isinstance(error, TfcompressError) else "ValueError"
        answer = {"error": kind, "message": str(error)}
    if STOP.requested:
        answer["interrupted"] = True
    sys.stdout.write("\n")  # a native library may have left a line unfinished
    say({**answer, "complete": True, "sha256": hashes(request.get("paths") or {"model": request["model"]})})


if __name__ == "__main__":
    main()
