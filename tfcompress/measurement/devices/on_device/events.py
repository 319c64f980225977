"""What a profiler's events mean: which ops ran where, and how long each takes on average.

Pure arithmetic on lists of events. ``profiler`` obtains them from LiteRT, other runners print the like.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ...op_times import OpTime, Profile

__all__ = ["Event", "mean_of_fastest", "profile_of", "reason_off"]

# tflite/core/api/profiler.h, Profiler::EventType
WHOLE = 1
OPERATOR = 2
DELEGATED = 8  # DELEGATE_PROFILED_OPERATOR_INVOKE_EVENT: one kernel inside a delegated part
INVOKE = "Invoke"
MICROSECOND_MS = 1e-3
CUT_OFF_US = (
    0.5  # of each of XNNPACK's times, which it cuts to whole microseconds (xnn_get_elapsed_time): half on average
)
SHARE = 4  # the fastest quarter of the runs counts

# tensorflow/lite/delegates/xnnpack/README.md: ops with a float32 kernel, and those of them with one for int8.
FLOAT_OPS = frozenset(
    [
        "ABS",
        "ADD",
        "AVERAGE_POOL_2D",
        "BATCH_MATMUL",
        "CEIL",
        "CONCATENATION",
        "CONV_2D",
        "COPY",
        "DEPTH_TO_SPACE",
        "DEPTHWISE_CONV_2D",
        "DEQUANTIZE",
        "DIV",
        "ELU",
        "EXP",
        "FULLY_CONNECTED",
        "FLOOR",
        "GELU",
        "HARD_SWISH",
        "LEAKY_RELU",
        "LOGISTIC",
        "MAX_POOL_2D",
        "MAXIMUM",
        "MEAN",
        "MINIMUM",
        "MUL",
        "NEG",
        "PAD",
        "PRELU",
        "QUANTIZE",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "ROUND",
        "RSQRT",
        "SLICE",
        "SOFTMAX",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQRT",
        "SQUARE",
        "SQUARED_DIFFERENCE",
        "STRIDED_SLICE",
        "SUB",
        "TANH",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
    ]
)
INT8_OPS = frozenset(
    [
        "ADD",
        "CONCATENATION",
        "CONV_2D",
        "DEPTH_TO_SPACE",
        "DEPTHWISE_CONV_2D",
        "DEQUANTIZE",
        "ELU",
        "FULLY_CONNECTED",
        "LEAKY_RELU",
        "LOGISTIC",
        "MAX_POOL_2D",
        "MEAN",
        "MUL",
        "PAD",
        "QUANTIZE",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "SLICE",
        "SPLIT",
        "SUB",
        "TANH",
        "TRANSPOSE",
        "TRANSPOSE_CONV",
    ]
)


@dataclasses.dataclass(frozen=True)
class Event:
    """One entry of LiteRT's profile.

    Attributes:
        kind: TFLite's event type.
        tag: name of the op or kernel.
        node: its number in its part of the graph.
        elapsed_us: how long it took, in whole microseconds.
    """

    kind: int
    tag: str
    node: int
    elapsed_us: int


def profile_of(
    events: Sequence[Event], operations: Sequence[dict[str, Any]], *, plain_ms: float, xnnpack: bool = True
) -> Profile:
    """Returns the average of each op over the fastest quarter of the runs; the others were disturbed more.

    Args:
        events: of whole runs, in order; each run has one event of the whole and then one per op.
        operations: name ("op") and operand dtypes ("dtypes") of each op of the file, by node.
        plain_ms: average time of one inference without the profiler, of the fastest quarter as well.
        xnnpack: whether XNNPACK was allowed. Default: True.

    Examples:
        >>> run = [Event(1, "Invoke", 0, 1000), Event(8, "Convolution", 0, 900), Event(2, "SOFTMAX", 1, 50)]
        >>> operations = [{"op": "CONV_2D", "dtypes": ["int8"]}, {"op": "SOFTMAX", "dtypes": ["int8"]}]
        >>> profile = profile_of(run + run, operations, plain_ms=0.98)
        >>> profile.runs, profile.whole_ms, [(op.name, op.part, op.ms) for op in profile.ops]
        (2, 1.0, [('Convolution', 0, 0.9005), ('SOFTMAX', None, 0.05)])
        >>> profile.ops[1].reason
        'XNNPACK has a float32 kernel for it, none for int8'
    """
    runs = split_runs(events)
    chosen = sorted(runs, key=lambda run: run[0].elapsed_us)[: counted(len(runs))]
    sums: dict[tuple[int | None, int, str], float] = {}
    for run in chosen:
        for key, elapsed_us in located(run):
            sums[key] = sums.get(key, 0) + elapsed_us
    count = max(1, len(chosen))
    ops = []
    for (part, node, tag), elapsed_us in sums.items():
        reason = "" if part is not None else reason_off(operations, node, tag, xnnpack=xnnpack)
        ops.append(OpTime(tag, node, part, round(elapsed_us * MICROSECOND_MS / count, 6), reason))
    whole_ms = sum(run[0].elapsed_us for run in chosen) * MICROSECOND_MS / count
    return Profile(tuple(ops), round(whole_ms, 6), round(plain_ms, 6), len(runs))


def split_runs(events: Sequence[Event]) -> list[list[Event]]:
    """Returns the events run by run, that of the whole first.

    Examples:
        >>> [len(run) for run in split_runs([Event(1, "Invoke", 0, 9), Event(2, "ADD", 0, 5), Event(1, "Invoke", 0, 9)])]
        [2, 1]
    """
    runs: list[list[Event]] = []
    for event in events:
        if event.kind == WHOLE and event.tag == INVOKE:
            runs.append([event])
        elif runs:
            runs[-1].append(event)
    return runs


def located(run: Sequence[Event]) -> Iterator[tuple[tuple[int | None, int, str], float]]:
    """Yields delegated part (None for the interpreter itself), number, name and microseconds of each op of one run.

    A delegated part has no event of its own here: its kernels are numbered from 0 again.
    """
    part, last = -1, None
    for event in run:
        if event.kind == DELEGATED:
            part += last is None or event.node <= last
            last = event.node
            yield (part, event.node, event.tag), event.elapsed_us + CUT_OFF_US
        elif event.kind == OPERATOR and event.tag != "DELEGATE":
            last = None
            yield (None, event.node, event.tag), event.elapsed_us


def counted(runs: int) -> int:
    """Returns how many of the runs count.

    Examples:
        >>> counted(50), counted(1)
        (13, 1)
    """
    return max(1, -(-runs // SHARE))


def mean_of_fastest(times: Sequence[float]) -> float:
    """Returns the mean of the fastest quarter of some times.

    Examples:
        >>> mean_of_fastest([4.0, 1.0, 2.0, 9.0, 3.0])
        1.5
    """
    chosen = sorted(times)[: counted(len(times))]
    return sum(chosen) / len(chosen)


def reason_off(operations: Sequence[dict[str, Any]], node: int, op: str, *, xnnpack: bool = True) -> str:
    """Returns why an op stayed off XNNPACK, as far as its documentation tells.

    Args:
        operations: as in ``profile_of``.
        node: number of the op.
        op: its name.
        xnnpack: whether XNNPACK was allowed. Default: True.

    Examples:
        >>> reason_off([{"op": "CAST", "dtypes": ["int32"]}], 0, "CAST")
        'XNNPACK has no kernel for it'
        >>> reason_off([], 0, "ADD", xnnpack=False)
        'XNNPACK is off'
    """
    if not xnnpack:
        return "XNNPACK is off"
    if op not in FLOAT_OPS:
        return "XNNPACK has no kernel for it"
    known = node < len(operations) and operations[node]["op"] == op
    dtypes = operations[node]["dtypes"] if known else []
    first = dtypes[0] if dtypes else ""
    if first in ("int8", "uint8") and op not in INT8_OPS:
        return f"XNNPACK has a float32 kernel for it, none for {first}"
    if first and first not in ("float32", "int8", "uint8"):
        return f"XNNPACK computes float32 and 8 bit, not {first}"
    return "XNNPACK's kernel does not take these shapes or parameters"
