"""What LiteRT's ``benchmark_model`` prints and writes, as values.

Times come in microseconds; of the timed runs it tells count, first, min, max, mean and standard deviation, and newer ones
the median. Its profile is one table per part of the graph, as comma-separated values whose names hold commas too.
Read from tensorflow/lite/tools/benchmark/benchmark_model.cc, tensorflow/core/util/stats_calculator.cc and
tensorflow/lite/profiling/profile_summary_formatter.cc, TensorFlow 2.4 to 2.19.
"""

from __future__ import annotations

import re
from typing import Any

from ....errors import DeviceError
from ...latency import Latency
from ...op_times import OpTime, Profile

__all__ = ["check_accelerator", "latency_of", "profile_of", "summary_of"]

STATISTICS = re.compile(r"count=(\d+)\b(.*)")
PAIR = re.compile(r"(\w+)=([\d.e+]+)")
SUMMARY = re.compile(r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+)")
MEMORY = re.compile(r"(?:Overall p|P)eak memory footprint \(MB\).*?overall=([\d.]+)|footprint delta.*?overall=([\d.]+)")
DELEGATED = re.compile(r"(?:Replacing|replaced by|Explicitly applied|Applied).*?(\d+) partitions?", re.IGNORECASE)
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs"
NUMBER = r"-?[\d.]+(?:e[+-]?\d+)?"
ROW = re.compile(
    rf"^(?P<type>.+?), (?:{NUMBER}, )?(?P<first>{NUMBER}), (?P<avg>{NUMBER}), {NUMBER}%, {NUMBER}%, {NUMBER}, "
    r"(?P<times>\d+), (?P<name>.*)$"
)
NOT_TAKEN = re.compile(r"Though (\S+) delegate is explicitly applied, the model graph will not be")
NODE = re.compile(r":(\d+)$")
DELEGATE_NODE = re.compile(r"^TfLite\w*Delegate\w*$|Delegate$")


def summary_of(text: str, place: str) -> dict[str, float]:
    """Returns the statistics of the timed runs in microseconds, with "init" and "first".

    Args:
        text: what the program printed.
        place: how messages name the device.

    Raises:
        DeviceError: it holds no summary, so the program did not come to its end.

    Examples:
        >>> text = '''count=9 first=91020 curr=55300 min=54900 max=91020 avg=60125.5 std=11800
        ... count=20 first=31500 curr=30900 min=30718 max=36410 avg=31118.1 std=1323 p5=30720 median=30950 p95=33000
        ... Inference timings in us: Init: 21432, First inference: 91020, Warmup (avg): 60125.5, Inference (avg): 31118.1'''
        >>> found = summary_of(text, "adb://X1")
        >>> found["count"], found["median"], found["first"], found["init"]
        (20.0, 30950.0, 91020.0, 21432.0)
    """
    summary = SUMMARY.search(text)
    runs = [match for match in map(STATISTICS.search, text.splitlines()) if match]
    if summary is None or not runs:
        lines = [line.strip() for line in text.splitlines() if line.strip()] or ["nothing"]
        errors = [line for line in lines if re.search(r"error|fail|can't|cannot|denied", line, re.IGNORECASE)]
        raise DeviceError(
            f"benchmark_model on {place} must end with its inference timings. Received: {(errors or lines)[-1][:300]}. "
            "Check that it was built for this processor and knows the model's ops."
        )
    # The warm-up has such a line too; that of the timed runs is the last one before the summary.
    last = [match for match in runs if text.find(match.group(0)) < summary.start()][-1]
    found = {"count": float(last[1]), **{name: float(value) for name, value in PAIR.findall(last[2])}}
    if "avg" not in found:  # one run, or runs that all took the same time, are printed as count= and curr=
        found |= {"avg": found["curr"], "min": found["curr"], "max": found["curr"], "std": 0.0}
    return {**found, "init": float(summary[1]), "first": float(summary[2])}


def check_accelerator(text: str, accelerator: str, place: str) -> None:
    """Refuses with a ``DeviceError`` a run in which the GPU or NPU took over no part of the model.

    Args:
        text: what the program printed.
        accelerator: "cpu", "gpu" or "npu".
        place: how messages name the device.

    Examples:
        >>> check_accelerator("Though GPU delegate is explicitly applied, the model graph will not be", "gpu", "adb://X1")
        Traceback (most recent call last):
        ...
        tfcompress.errors.DeviceError: The GPU of adb://X1 must take over some of the model. Received: no operation of it...
    """
    if accelerator != "cpu" and NOT_TAKEN.search(text):
        raise DeviceError(
            f"The {accelerator.upper()} of {place} must take over some of the model. Received: no operation of it was "
            "taken. Leave --accelerator out."
        )


def latency_of(text: str, place: str, *, warmup_runs: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns a latency as JSON has it, and what has to be said of it.

    Args:
        text: what the program printed.
        place: how messages name the device.
        warmup_runs: that it was asked for.

    Raises:
        DeviceError: the program did not come to its end.
    """
    found = summary_of(text, place)
    note = (
        {}
        if "median" in found
        else {"latency": "mean in place of the median, which this benchmark_model does not tell"}
    )
    latency = Latency(
        median_ms=found.get("median", found["avg"]) / 1000,
        p90_ms=None,
        p99_ms=None,
        mean_ms=found["avg"] / 1000,
        std_ms=found.get("std", 0.0) / 1000,
        min_ms=found["min"] / 1000,
        runs=int(found["count"]),
        warmup_runs=warmup_runs,
        load_ms=found["init"] / 1000,
        first_ms=found["first"] / 1000,
    )
    return vars(latency), note


def delegate_nodes(text: str) -> int | None:
    """Returns how many parts of the graph a delegate took over, None where the program does not tell.

    Examples:
        >>> delegate_nodes("INFO: Replacing 29 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions")
        2
    """
    found = [int(match[1]) for match in DELEGATED.finditer(text)]
    return found[-1] if found else None


def peak_bytes(text: str) -> int | None:
    """Returns the memory that the program says it needed, None without a word of it.

    Examples:
        >>> peak_bytes("Memory footprint delta from the start of the tool (MB): init=2.5 overall=7.5")
        7864320
    """
    match = MEMORY.search(text)
    return int(float(match[1] or match[2]) * 1024 * 1024) if match else None


def profile_of(table: str, *, plain_ms: float, runs: int, place: str) -> Profile:
    """Returns the profile in the file that ``benchmark_model`` wrote.

    Args:
        table: its comma-separated values.
        plain_ms: time of an inference without the profiler.
        runs: how many inferences were profiled.
        place: how messages name the device.

    Raises:
        DeviceError: the file holds no op.

    Examples:
        >>> table = '''Operator-wise Profiling Info for Regular Benchmark Runs:
        ... ============================== Run Order ==============================
        ... node type, first, avg_ms, %, cdf%, mem KB, times called, name
        ... TfLiteXNNPackDelegate, 0.11, 0.9, 90%, 90%, 0, 1, [relu]:3
        ... SOFTMAX, 0.1, 0.1, 10%, 100%, 0, 1, [Identity]:2
        ... Delegate internal:
        ... ============================== Run Order ==============================
        ... node type, first, avg_ms, %, cdf%, mem KB, times called, name
        ... Convolution (NHWC, QC8) IGEMM, 0.11, 0.88, 100%, 100%, 0, 1, Delegate/Convolution (NHWC, QC8) IGEMM:0
        ... '''
        >>> [(op.name, op.node, op.part, op.ms) for op in profile_of(table, plain_ms=1.0, runs=5, place="adb://X1").ops]
        [('SOFTMAX', 2, None, 0.1), ('Convolution (NHWC, QC8) IGEMM', 0, 0, 0.88)]
    """
    regular = table.rpartition(REGULAR)[2]
    rows: list[tuple[str, int, float, bool]] = []
    in_order = False
    for line in regular.splitlines():
        if line.startswith("==="):
            in_order = "Run Order" in line  # the other tables repeat its rows
        match = ROW.match(line.strip()) if in_order else None
        if match:
            end = NODE.search(match["name"])
            rows.append((match["type"], int(end[1]) if end else 0, float(match["avg"]), "Delegate/" in match["name"]))
    kernels = [row for row in rows if row[3]]
    own = [row for row in rows if not row[3]]
    whole_ms = sum(ms for _, _, ms, _ in own) or sum(ms for _, _, ms, _ in kernels)
    ops = []
    for number, (name, node, ms, _) in enumerate(own):
        if not DELEGATE_NODE.search(name):
            ops.append(OpTime(name, node, None, ms))
        elif not kernels:  # older ones know nothing of what is inside
            ops.append(OpTime(name, node, number, ms))
    ops += [OpTime(name, node, 0, ms) for name, node, ms, _ in kernels]
    if not ops:
        raise DeviceError(f"The profile of benchmark_model on {place} must hold ops. Received: none. Try a newer one.")
    return Profile(tuple(ops), round(whole_ms, 6), round(plain_ms, 6), runs)
