"""How fast does one file run here, and how much memory does it take?

The only job of the process it runs in, so that the numbers are the file's own. One JSON request on standard input, one
JSON line on standard output:

    {"model": "a.tflite", "threads": 1, "warmup_runs": 10, "runs": 100, "seed": 0, "debug": false}
    {"latency": {...}, "peak_bytes": ..., "device": {...}, "settings": {...}, ...}  or  {"error": ..., "message": ...}

It sees no user data: quantized inputs are filled with random integers, float inputs with random numbers in [0, 1), all
others (indices, flags) with zeros. No latency of the operations in use depends on the values.
"""

import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TfcompressError
from ..interpreter import Model, TensorInfo, open_model
from ..records import DeviceInfo, Latency, Settings

__all__ = ["describe_device", "main", "random_input", "resident_bytes", "run_request"]

STATUS = Path("/proc/self/status")
NANOSECONDS_PER_MILLISECOND = 1e6
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a model as often as asked and returns what was seen, as plain JSON values.

    Args:
        request: ``model`` (path), ``threads``, ``warmup_runs``, ``runs``, ``seed`` and ``debug``.

    Raises:
        ModelError: the file cannot be opened.
        DeviceError: the interpreter failed.
    """
    runtime_bytes = resident_bytes()
    start = time.perf_counter_ns()
    model = open_model(request["model"], threads=request["threads"], reset_state=False, debug=request["debug"])
    load_ms = (time.perf_counter_ns() - start) / NANOSECONDS_PER_MILLISECOND
    generator = np.random.default_rng(request["seed"])
    model.feed({info.name: random_input(info, generator) for info in model.inputs})
    first_ms = time_once(model)
    for _ in range(request["warmup_runs"]):
        model.invoke()
    times = [time_once(model) for _ in range(request["runs"])]
    latency = Latency.of(times, warmup_runs=request["warmup_runs"], load_ms=load_ms, first_ms=first_ms)
    return {
        "latency": vars(latency),
        "peak_bytes": resident_bytes(peak=True),
        "runtime_bytes": runtime_bytes,
        "device": vars(describe_device()),
        "settings": vars(
            Settings(
                threads=request["threads"],
                xnnpack=model.delegate_nodes > 0,
                delegate_nodes=model.delegate_nodes,
                warmup_runs=request["warmup_runs"],
                runs=request["runs"],
            )
        ),
        "input_dtypes": [str(info.dtype) for info in model.inputs],
        "output_dtypes": [str(info.dtype) for info in model.outputs],
    }


def time_once(model: Model) -> float:
    """Returns the milliseconds that one inference takes."""
    start = time.perf_counter_ns()
    model.invoke()
    return (time.perf_counter_ns() - start) / NANOSECONDS_PER_MILLISECOND


def random_input(info: TensorInfo, generator: np.random.Generator) -> np.ndarray:
    """Returns one block for an input, in its own dtype; axes of free length get length 1.

    Example:
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


def resident_bytes(*, peak: bool = False) -> int | None:
    """Returns the resident size of this process, or None where the system does not tell.

    Args:
        peak: the largest so far instead of the present one. Default: False.

    Example:
        >>> resident_bytes() is None or resident_bytes() > 0
        True
    """
    if not STATUS.exists():
        return peak_of_unix() if peak else None
    # getrusage would answer with the parent's peak: Linux hands ru_maxrss on through fork and exec.
    field = "VmHWM:" if peak else "VmRSS:"
    lines = [line for line in STATUS.read_text().splitlines() if line.startswith(field)]
    return int(lines[0].split()[1]) * 1024 if lines else None


def peak_of_unix() -> int | None:
    """Returns the peak resident size as macOS counts it, in bytes; None on other systems."""
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe_device(name: str = "local") -> DeviceInfo:
    """Returns what this machine says about itself, without its name on the network.

    Example:
        >>> describe_device().cores >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return DeviceInfo(
        name=name,
        cpu=cpu_model(),
        cores=cores,
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        runtime=f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}",
    )


def cpu_model() -> str:
    """Returns the processor's name: ``model name`` on x86, the board's ``Model`` on ARM, else the architecture.

    Example:
        >>> cpu_model() != ""
        True
    """
    path = Path("/proc/cpuinfo")
    rows = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in rows}
    found = [fields[key] for key in ("model name", "Model", "Hardware") if fields.get(key)]
    return found[0] if found else platform.processor() or platform.machine() or "unknown"


def die_with_parent() -> None:
    """Asks Linux to end this process when the one that started it ends, however that happens."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answers the request on standard input; an expected error is an answer too."""
    die_with_parent()
    request = json.loads(sys.stdin.readline())
    try:
        answer = run_request(request)
    except TfcompressError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
