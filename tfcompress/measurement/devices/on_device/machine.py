"""What does the machine under this process say about itself, and what else went on there while times were taken?

Linux tells most of it in ``/proc`` and ``/sys``; what a system does not tell is None.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from ....errors import DeviceError
from ...conditions import DeviceInfo
from ...latency import Noise, spread_of

__all__ = ["Watch", "describe_device", "pin", "resident_bytes", "usable_cores"]

STATUS = Path("/proc/self/status")
CPUS = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")
PI_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
# Names of Linux: x86 VNNI, ARM dot product and matrix multiplication.
DOT_PRODUCTS = ("avx_vnni", "avx512_vnni", "asimddp", "i8mm")
RUNTIMES = ("ai-edge-litert", "ai-edge-litert-nightly", "tflite-runtime")


class Watch:
    """Looks at the machine when it is made, and again for ``noise``.

    Examples:
        >>> Watch().noise([1.0, 1.0, 1.0]).spread
        0.0
    """

    def __init__(self):
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self.frequency, self.temperature = frequency_mhz(), temperature_c()
        self.throttled, self.preemptions = throttle_count(), preemptions()

    def noise(self, times: Sequence[float]) -> Noise:
        """Returns what went on since, with the spread of the times in ms that were taken meanwhile."""
        throttled, preempted = throttle_count(), preemptions()
        return Noise(
            spread=round(spread_of(times), 6),
            governor=first_line(CPUS / "cpu0/cpufreq/scaling_governor"),
            frequency_mhz=(self.frequency, frequency_mhz()),
            throttled=None if throttled is None or self.throttled is None else throttled - self.throttled,
            load=None if self.load is None else round(self.load, 2),
            preemptions=None if preempted is None or self.preemptions is None else preempted - self.preemptions,
            temperature_c=(self.temperature, temperature_c()),
            cores=usable_cores(),
        )


def first_line(path: Path) -> str | None:
    """Returns the first line of one of the system's files, or None where it has no such file."""
    try:
        return path.read_text().strip().splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def frequency_mhz() -> float | None:
    """Returns the present frequency of the first core in MHz."""
    text = first_line(CPUS / "cpu0/cpufreq/scaling_cur_freq")
    if text is not None and text.isdigit():
        return int(text) / 1000
    return next((round(float(f["cpu MHz"]), 1) for f in processors() if "cpu MHz" in f), None)


def temperature_c() -> float | None:
    """Returns the temperature of the hottest sensor in degrees Celsius."""
    texts = [first_line(path) for path in sorted(THERMAL.glob("thermal_zone*/temp"))]
    degrees = [int(text) / 1000 for text in texts if text is not None and text.lstrip("-").isdigit()]
    return max(degrees) if degrees else None


def throttle_count() -> int | None:
    """Returns how often the processor has been slowed down; on a Raspberry Pi 1 if it ever was since its start."""
    pi = first_line(PI_THROTTLED)
    if pi is not None:
        return int(int(pi, 16) != 0)
    texts = [first_line(path) for path in CPUS.glob("cpu*/thermal_throttle/*_throttle_count")]
    counts = [int(text) for text in texts if text is not None and text.isdigit()]
    return sum(counts) if counts else None


def preemptions() -> int | None:
    """Returns how often this process had to leave its processor to others."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def resident_bytes(*, peak: bool = False) -> int | None:
    """Returns the resident size of this process, or None where the system does not tell.

    Args:
        peak: the largest so far instead of the present one. Default: False.

    Examples:
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


def usable_cores() -> int:
    """Returns how many processors this process may use.

    Examples:
        >>> usable_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin(cpus: Sequence[int]) -> None:
    """Lets this process run on these processors only; on all for an empty list.

    Raises:
        DeviceError: the system has no such processor, or cannot do it.
    """
    if not cpus:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise DeviceError(f"Processors can be chosen on Linux only. Received: cpus={list(cpus)}. Leave them out.")
    allowed = sorted(os.sched_getaffinity(0))
    if not set(cpus) <= set(allowed):
        known = ", ".join(map(str, allowed))
        raise DeviceError(f"cpus must be among those that the process may use: {known}. Received: {list(cpus)}.")
    os.sched_setaffinity(0, cpus)


def describe_device(name: str = "local") -> DeviceInfo:
    """Returns what this machine says about itself, without its name on the network.

    Examples:
        >>> describe_device().cores >= 1
        True
    """
    return DeviceInfo(
        name=name,
        cpu=cpu_model(),
        cores=usable_cores(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        runtime=runtime(),
        details={"int8 dot product": dot_product()} if processors() else {},
    )


def dot_product() -> str:
    """Returns the processor's instructions for int8 dot products, or "none": without, int8 is often no faster than float."""
    words = {w for block in processors() for name in ("flags", "Features") for w in block.get(name, "").split()}
    return ", ".join(word for word in DOT_PRODUCTS if word in words) or "none"


def runtime() -> str:
    """Returns name and version of the interpreter's package."""
    for package in RUNTIMES:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "LiteRT of unknown version"


def cpu_model() -> str:
    """Returns the processor's name: ``model name`` on x86, the board's ``Model`` on ARM, else the architecture.

    Examples:
        >>> cpu_model() != ""
        True
    """
    fields = {key: value for block in processors() for key, value in block.items()}
    found = [fields[key] for key in ("model name", "Model", "Hardware") if fields.get(key)]
    return found[0] if found else platform.processor() or platform.machine() or "unknown"


def processors() -> list[dict[str, str]]:
    """Returns the blocks of ``/proc/cpuinfo``."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(errors="replace") if path.exists() else ""
    rows = [[line.partition(":") for line in block.splitlines()] for block in text.split("\n\n")]
    return [{key.strip(): value.strip() for key, _, value in block} for block in rows]
