"""Arm's Ethos-U processors as devices, by Arm's own compiler Vela: cycles, memory, and what falls back to the CPU.

Everything here is the compiler's model of the processor; nothing runs. Needs the extra ``ethos-u``.
"""

import csv
import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import DeviceError, ModelError
from ..device import TIMEOUT_SECONDS, AnsweringDevice, Request
from ..local import describe_file
from ..protocol import command, last_line

__all__ = ["Compiled", "EthosUDevice", "Fallback", "fallbacks"]

PACKAGE = "ethos-u-vela"
START = "import sys; from ethosu.vela.vela import main; sys.exit(main())"
KIBIBYTE = 1024
# The tables come to files, and the operators that stay on the CPU with their reasons to standard output.
FLAGS = ("--verbose-performance",)
REFUSED = re.compile(
    r"operator: (?P<operator>\S+?),? ofm: '(?P<output>[^\n]*)'\s*\n\s*Reason: (?P<reason>[^\n]*)(?:\n(?P<rule>[^\n]+))?"
)


class Fallback(NamedTuple):
    """An operation that the processor does not take, so that the CPU beside it has to.

    Attributes:
        operator: its kind.
        output: name of its output.
        reason: why, as the compiler says.
    """

    operator: str
    output: str
    reason: str


class Compiled(NamedTuple):
    """What Vela says about one model.

    Attributes:
        summary: its table of the network, by column.
        layers: its table of operations, a row each.
        fallbacks: what stays on the CPU.
    """

    summary: dict[str, str]
    layers: list[dict[str, str]]
    fallbacks: list[Fallback]


class EthosUDevice(AnsweringDevice):
    """One of the Ethos-U processors, modelled by Vela with the system that Vela takes as typical for it.

    Args:
        processor: as ``addresses.ETHOS_U`` names it.
        timeout_seconds: after which the compiler is given up. Default: 3600.
        debug: lets the compiler's own lines through. Default: False.
    """

    kind = "modelled"

    def __init__(self, processor: str, *, timeout_seconds: float | None = None, debug: bool = False):
        self.name = processor
        self._timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        self._debug = debug
        self._known: dict[str, Compiled] = {}

    def answer(self, request: Request) -> dict[str, Any]:
        """Returns the answer to "latency" (cycles and memory, no times) or "profile" (modelled time per operation).

        Args:
            request: what is asked for; its progress is not called.

        Raises:
            ModelError: the compiler refuses the file, or gives the processor nothing to do.
            DeviceError: the extra is missing, the compiler crashed, or the request is of another kind.
        """
        if importlib.util.find_spec("ethosu") is None:
            raise DeviceError(
                f"{self.name} needs the package {PACKAGE}. Received: not installed. In a clone of tfcompress: "
                "pip install -c constraints.txt -e '.[ethos-u]'"
            )
        if request.kind not in ("latency", "profile"):
            raise DeviceError(
                f"{self.name} is modelled by a compiler and runs nothing. Received: {request.kind!r}. Measure accuracy on "
                "tflm or local, whose integer arithmetic is the same within one step."
            )
        digest = hashlib.sha256(request.model.read_bytes()).hexdigest()
        if digest not in self._known:
            self._known[digest] = self._compile(request.model, request.name)
        if request.kind == "profile":
            return self._profile(self._known[digest])
        return {**self._latency(self._known[digest]), **describe_file(request.model, request.name)}

    def _compile(self, model: Path, name: str) -> Compiled:
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            local = Path(folder) / "model.tflite"
            shutil.copyfile(model, local)
            ended = command(
                [sys.executable, "-P", "-c", START, str(local), f"--accelerator-config={self.name}"]
                + [f"--output-dir={folder}/out", *FLAGS],
                folder=Path(folder),
                timeout_seconds=self._timeout_seconds,
            )
            if self._debug:
                sys.stderr.write(ended.text + ended.said)
            if ended.code is None:
                raise DeviceError(
                    f"Vela must be done with {name} within {self._timeout_seconds:.0f} s. Received: no end."
                )
            if ended.code < 0:
                raise DeviceError(
                    f"Vela crashed on {name} (signal {-ended.code}), in a process of its own. Convert the file again."
                )
            summaries = sorted(Path(folder, "out").glob("*_summary_*.csv"))
            if ended.code or not summaries:
                reason = last_line(ended.said or ended.text)
                raise ModelError(f"Vela refuses {name}: {reason}. Convert it again, in full integers and with batch 1.")
            tables = sorted(Path(folder, "out").glob("*per-layer.csv"))
            compiled = Compiled(
                rows_of(summaries[0])[0], rows_of(tables[0]) if tables else [], fallbacks(ended.text + ended.said)
            )
        # A model in floats ends with exit code 0 and an empty table.
        if float(compiled.summary["cycles_npu"]) <= 0:
            example = (
                f" ({compiled.fallbacks[0].operator}: {compiled.fallbacks[0].reason})" if compiled.fallbacks else ""
            )
            raise ModelError(
                f"{self.name} runs integers only. Received: {name}, of which every operation falls back to the CPU{example}. "
                "Convert it to int8 (--target) and measure that file."
            )
        return compiled

    def _latency(self, compiled: Compiled) -> dict[str, Any]:
        summary = compiled.summary
        kinds = Counter(fallback.operator for fallback in compiled.fallbacks)
        shown = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())
        reasons = "; ".join(dict.fromkeys(f"{f.operator}: {f.reason}" for f in compiled.fallbacks))
        details = {"system": summary["system_config"], "memory mode": summary["memory_mode"]}
        details["CPU operators"] = f"{shown} ({reasons})" if shown else "none"
        estimates = {
            "cycles": float(summary["cycles_total"]),
            "NPU cycles": float(summary["cycles_npu"]),
            "inference ms": 1000 * float(summary["inference_time"]),
            "SRAM bytes": KIBIBYTE * float(summary["sram_memory_used"]),
            "DRAM bytes": KIBIBYTE * float(summary["dram_memory_used"]),
            "flash bytes": KIBIBYTE
            * (float(summary["on_chip_flash_memory_used"]) + float(summary["off_chip_flash_memory_used"])),
            "CPU operators": float(len(compiled.fallbacks)),
        }
        clock = float(summary["core_clock"]) / 1e6
        return {
            "latency": None,
            "device": {
                "cpu": f"{summary['accelerator_configuration']} at {clock:.0f} MHz",
                "cores": 1,
                "os": "none",
                "python": "",
                "runtime": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}",
                "details": details,
            },
            "settings": {
                "threads": 1,
                "xnnpack": False,
                "delegate_nodes": 0,
                "warmup_runs": 0,
                "runs": 0,
                "accelerator": "npu",
            },
            "estimates": estimates,
        }

    def _profile(self, compiled: Compiled) -> dict[str, Any]:
        clock = float(compiled.summary["core_clock"])
        reasons = {fallback.output: fallback.reason for fallback in compiled.fallbacks}
        ops = []
        for node, row in enumerate(compiled.layers):
            op, original = row["NNG Operator"], row["Original Operator"]
            is_npu = row["Target"].strip().upper() == "NPU"
            name = op if is_npu and op == original else f"{op} of {original}" if is_npu else original
            reason = "" if is_npu else reasons.get(row["Name"].strip(), "not for the NPU")
            milliseconds = 1000 * float(row["Op Cycles"]) / clock
            ops.append(
                {"name": name, "node": node, "part": 0 if is_npu else None, "ms": milliseconds, "reason": reason}
            )
        whole = 1000 * float(compiled.summary["inference_time"])
        return {"profile": {"ops": ops, "whole_ms": whole, "plain_ms": whole, "runs": 1}}


def rows_of(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file by column."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fallbacks(text: str) -> list[Fallback]:
    """Returns the operations that Vela leaves to the CPU, from what it prints.

    Args:
        text: its output.

    Examples:
        >>> fallbacks('''Warning (supported operators) operator: SOFTMAX, ofm: 'Identity'
        ... Reason: Operation has tensor with unsupported DataType Float32 (model/dense)
        ... Feature-map dataTypes must be one of {"INT8"}''')
        [Fallback(operator='SOFTMAX', output='Identity', reason='Operation has tensor with unsupported DataType Float32')]
    """
    found = []
    for match in REFUSED.finditer(text):
        reason = re.sub(r" \([^()]*\)$", "", match["reason"].strip()).rstrip(".")
        found.append(Fallback(match["operator"], match["output"], reason))
    return found
