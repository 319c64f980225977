"""TensorFlow's own ``benchmark_model``: how it is called, and what its lines and its table of operations mean.

Text in, values out; ``phone`` runs it. The formats are those of ``benchmark_tflite_model.cc``, ``profiling_listener.cc`` and
``stats_calculator.cc`` in the TensorFlow and LiteRT repositories, older and newer.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import DeviceError

__all__ = ["Run", "output_arguments", "profile_rows", "read_profile", "read_run", "run_arguments"]

MICROSECONDS = 1e-3  # of a millisecond
MEGABYTE = 1 << 20
REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs"
DELEGATE_INTERNAL = "Delegate internal"
RUN_ORDER = re.compile(r"^=+ Run Order =+$")
HEADER = "node type,"
DELEGATES = re.compile(r"Delegate|Kernel$")
ACCELERATORS = {"cpu": (), "gpu": ("--use_gpu=true",), "npu": ("--use_nnapi=true",)}
NO_DELEGATE = re.compile(r"Though (\S+) delegate is explicitly applied, the model graph will not be")
REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\) node, yielding (\d+) partitions")
COUNTS = re.compile(
    r"count=(?P<count>\d+)(?: first=(?P<first>\S+) curr=\S+ min=(?P<min>\S+) max=(?P<max>\S+))? avg=(?P<avg>[\d.e+]+)"
    r"(?: std=(?P<std>[\d.e+]+))?(?: p5=\S+ median=(?P<median>[\d.e+]+) p95=\S+)?"
)
TIMINGS = re.compile(
    r"Inference timings in us: Init: (?P<init>[\d.e+]+), First inference: (?P<first>[\d.e+]+), "
    r"Warmup \(avg\): (?P<warmup>[\d.e+]+), Inference \(avg\): (?P<average>[\d.e+]+)"
)
MEMORY = re.compile(r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): init=\S+ overall=(\S+)")


class Run(NamedTuple):
    """What ``benchmark_model`` printed about one call.

    Attributes:
        latency: the fields of ``figures.Latency``.
        has_median: whether it printed a median; older ones do not, and their mean stands for it.
        extra_bytes: resident memory over that at its start; None where it does not tell.
        delegate: name of the delegate that took operations over; "" for none.
        partitions: how many parts it took over.
    """

    latency: dict[str, Any]
    has_median: bool
    extra_bytes: int | None
    delegate: str
    partitions: int


def run_arguments(request: Mapping[str, Any], graph: str) -> list[str]:
    """Returns the flags for a timed call.

    Args:
        request: as the agent takes it: ``threads``, ``xnnpack``, ``accelerator``, ``runs``, ``warmup_runs``.
        graph: path of the model there.

    Raises:
        DeviceError: the request wants what the tool cannot do.

    Example:
        >>> run_arguments({"threads": 2, "xnnpack": True, "runs": 9, "warmup_runs": 1}, "m.tflite")[:3]
        ['--graph=m.tflite', '--num_threads=2', '--use_xnnpack=true']
    """
    if request.get("api", "interpreter") != "interpreter":
        raise DeviceError("benchmark_model runs the interpreter. Received: api=compiled. Use the interpreter there.")
    xnnpack = "true" if request.get("xnnpack", True) else "false"
    flags = [f"--graph={graph}", f"--num_threads={request.get('threads', 1)}", f"--use_xnnpack={xnnpack}"]
    flags += ACCELERATORS[request.get("accelerator", "cpu")]
    warmup = request.get("warmup_runs")
    # Without a number it runs for half a second before, its own default.
    flags += [] if warmup is None else [f"--warmup_runs={max(1, warmup)}", "--warmup_min_secs=0"]
    return [*flags, f"--num_runs={request.get('runs', 50)}", "--min_secs=0"]


def output_arguments(request: Mapping[str, Any], graph: str, shapes: Sequence[Sequence[int]], files: Sequence[str], output: str) -> list[str]:
    """Returns the flags for a call that reads raw input tensors and writes raw output tensors.

    Args:
        request: as for ``run_arguments``.
        graph: path of the model there.
        shapes: of each input.
        files: a file of raw values for each input.
        output: the file for the raw values of all outputs.

    Example:
        >>> output_arguments({}, "m", [[1, 2]], ["in"], "out")[-4:]
        ['--input_layer=in0', '--input_layer_shape=1,2', '--input_layer_value_files=in0:in', '--output_filepath=out']
    """
    # Names of its own: those of the model may hold the signs that the flags are split at, and it goes by the order.
    names = [f"in{number}" for number in range(len(shapes))]
    pairs = ",".join(f"{name}:{file}" for name, file in zip(names, files, strict=True))
    return [
        *run_arguments({**request, "runs": 1, "warmup_runs": 0}, graph),
        f"--input_layer={','.join(names)}",
        f"--input_layer_shape={':'.join(','.join(map(str, shape)) for shape in shapes)}",
        f"--input_layer_value_files={pairs}",
        f"--output_filepath={output}",
    ]


def read_run(text: str, *, accelerator: str = "cpu") -> Run:
    """Returns what a timed call printed.

    Args:
        text: everything, standard output and error.
        accelerator: which was asked for. Default: "cpu".

    Raises:
        DeviceError: it failed, printed no figures, or the accelerator took nothing over.

    Example:
        >>> lines = '''INFO: count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147 std=11478
        ... INFO: count=50 first=52162 curr=49785 min=49088 max=68610 avg=50000 std=716 p5=49620 median=49891 p95=51628
        ... INFO: Inference timings in us: Init: 119515, First inference: 87112, Warmup (avg): 58147, Inference (avg): 50000'''
        >>> run = read_run(lines)
        >>> run.latency["median_ms"], run.latency["runs"], run.latency["load_ms"]
        (49.891, 50, 119.515)
    """
    counts, timings = list(COUNTS.finditer(text)), TIMINGS.search(text)
    if timings is None or not counts:
        errors = [line.strip() for line in text.splitlines() if line.strip().startswith(("ERROR", "FATAL"))]
        lines = errors or [line.strip() for line in text.splitlines() if line.strip()] or ["nothing"]
        raise DeviceError(f"benchmark_model gave no figures. Received: {lines[0][:300].rstrip('.')}.")
    missed = NO_DELEGATE.search(text)
    if accelerator != "cpu" and missed:
        raise DeviceError(f"The {accelerator.upper()} there takes no operation of this model ({missed[1]} delegate). Use the CPU.")
    timed, warm = counts[-1], counts[0] if len(counts) > 1 else None

    def ms(value: str | None) -> float:
        return round(float(value or 0) * MICROSECONDS, 6)

    mean = ms(timed["avg"])
    latency = {
        "median_ms": ms(timed["median"]) if timed["median"] else mean,
        "p90_ms": None,
        "p99_ms": None,
        "mean_ms": mean,
        "std_ms": ms(timed["std"]),
        "min_ms": ms(timed["min"]) if timed["min"] else mean,
        "runs": int(timed["count"]),
        "warmup_runs": int(warm["count"]) - 1 if warm else 0,
        "load_ms": ms(timings["init"]),
        "first_ms": ms(timings["first"]),
    }
    memory, replaced = MEMORY.search(text), REPLACED.findall(text)
    return Run(
        latency,
        bool(timed["median"]),
        round(float(memory[1]) * MEGABYTE) if memory else None,
        replaced[-1][2] if replaced else "",
        int(replaced[-1][3]) if replaced else 0,
    )


def profile_rows(text: str) -> tuple[list[tuple[str, float, str]], list[tuple[str, float, str]]]:
    """Returns the operations of the graph and those inside its delegates, each as (type, ms, name), in order.

    Args:
        text: the CSV that the tool wrote. A type may hold commas, which it does not quote; in a name it makes them tabs.

    Example:
        >>> profile_rows('''Operator-wise Profiling Info for Regular Benchmark Runs:
        ... ============================== Run Order ==============================
        ... node type, first, avg_ms, %, cdf%, mem KB, times called, name
        ... TfLiteXNNPackDelegate, 0.2, 0.3, 75%, 75%, 0, 1, [out]:3
        ... SOFTMAX, 0.1, 0.1, 25%, 100%, 0, 1, [out]:4
        ...
        ... Delegate internal:
        ... ============================== Run Order ==============================
        ... node type, first, avg_ms, %, cdf%, mem KB, times called, name
        ... Convolution (NHWC, F32) IGEMM, 0.2, 0.28, 100%, 100%, 0, 1, Delegate/Convolution (NHWC\\t F32) IGEMM:0''')
        ([('TfLiteXNNPackDelegate', 0.3, '[out]:3'), ('SOFTMAX', 0.1, '[out]:4')], [('Convolution (NHWC, F32) IGEMM', 0.28, 'Delegate/Convolution (NHWC, F32) IGEMM:0')])
    """
    text = text.partition(REGULAR)[2] or text
    tables: dict[bool, list[tuple[str, float, str]]] = {False: [], True: []}
    columns, inside, in_order = 0, False, False
    for line in text.splitlines():
        line = line.strip()
        if line.startswith(DELEGATE_INTERNAL):
            inside = True
        elif line.startswith("="):
            in_order, columns = bool(RUN_ORDER.match(line)), 0
        elif line.startswith(HEADER):
            columns = len(line.split(","))
        elif not line:
            columns = 0
        elif in_order and columns:
            fields = [field.strip(" ") for field in line.split(",")]
            kind, rest = ", ".join(fields[: 1 - columns]), fields[1 - columns :]
            average = rest[2] if columns == 9 else rest[1]  # older ones have a column for the start
            tables[inside].append((kind, float(average), rest[-1].replace("\t", ",")))
    return tables[False], tables[True]


def read_profile(text: str, *, whole_ms: float, plain_ms: float, runs: int) -> dict[str, Any]:
    """Returns the fields of ``profiles.Profile``.

    Args:
        text: the CSV that the tool wrote.
        whole_ms: average time of an inference in that call.
        plain_ms: the same without the profiler.
        runs: of that call.

    Raises:
        DeviceError: there is no table.
    """
    graph, inner = profile_rows(text)
    if not graph:
        raise DeviceError("benchmark_model wrote no table of operations. Is it built with its profiler?")
    ops, part = [], -1
    for node, (kind, ms, name) in enumerate(graph):
        if not DELEGATES.search(kind):
            reason = "not taken over by the delegate" if any(DELEGATES.search(row[0]) for row in graph) else ""
            ops.append({"name": kind, "node": node, "part": None, "ms": ms, "reason": reason})
        elif not inner:
            part += 1
            ops.append({"name": kind, "node": node, "part": part, "ms": ms})
    part = -1
    for kind, ms, name in inner:
        number = name.rpartition(":")[2]
        part += number == "0" or part < 0  # each part counts from 0
        ops.append({"name": kind, "node": int(number) if number.isdigit() else 0, "part": part, "ms": ms})
    return {"ops": ops, "whole_ms": whole_ms, "plain_ms": plain_ms, "runs": runs}
