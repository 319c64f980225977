"""Under which conditions was a file measured: the machine, and how the interpreter was set up.

Values only; ``devices`` fills them in and ``records`` keeps them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

__all__ = ["ACCELERATORS", "APIS", "Accelerator", "Api", "DeviceInfo", "Settings"]

STATES = {"none": "", "reset": ", state reset between samples", "carried": ", state carried from sample to sample"}
Api = Literal["interpreter", "compiled"]
Accelerator = Literal["cpu", "gpu", "npu"]
APIS: tuple[Api, ...] = get_args(Api)
ACCELERATORS: tuple[Accelerator, ...] = get_args(Accelerator)


@dataclasses.dataclass(frozen=True)
class DeviceInfo:
    """The machine that a measurement was made on.

    Attributes:
        name: how it was asked for: "local".
        cpu: what the processor calls itself.
        cores: how many the process was allowed to use.
        os: system, release and architecture.
        python: version of the Python that ran the interpreter.
        runtime: name and version of the interpreter: "ai-edge-litert 2.3.0".
        details: what else it says about itself: Android version, battery. Default: none.

    Examples:
        >>> print(DeviceInfo("local", "Cortex-A76", 4, "Linux 6.6 aarch64", "3.11.7", "ai-edge-litert 2.3.0"))
        local: Cortex-A76, 4 cores, Linux 6.6 aarch64, Python 3.11.7, ai-edge-litert 2.3.0
    """

    name: str
    cpu: str
    cores: int
    os: str
    python: str
    runtime: str
    details: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        details = "".join(f", {key}: {value}" for key, value in self.details.items())
        python = f", Python {self.python}" if self.python else ""
        return f"{self.name}: {self.cpu}, {cores}, {self.os}{python}, {self.runtime}{details}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the interpreter was set up while it was timed.

    Attributes:
        threads: threads that the interpreter was allowed.
        xnnpack: whether XNNPACK took over at least one part of the graph.
        delegate_nodes: how many parts it took over; None where the runtime does not tell.
        warmup_runs: untimed runs.
        runs: timed runs.
        state: what became of variable tensors, such as an LSTM's state, between labelled samples: "none" (the file has
            no such tensor), "reset" or "carried". Default: "none".
        api: "interpreter", or "compiled" for LiteRT's CompiledModel. Default: "interpreter".
        accelerator: "cpu", "gpu" or "npu". Default: "cpu".
        cpus: the processors that the process was pinned to; empty for all. Default: ().
        interleaved: whether the files ran in turns, run by run. Default: False.

    Examples:
        >>> print(Settings(threads=1, xnnpack=True, delegate_nodes=1, warmup_runs=10, runs=100))
        1 thread, XNNPACK on (1 node), 10 warm-up runs, 100 timed runs
        >>> print(Settings(1, False, 0, 5, 9, api="compiled", cpus=(0, 2)))
        1 thread on CPU 0 and 2, CompiledModel, XNNPACK off, 5 warm-up runs, 9 timed runs
    """

    threads: int
    xnnpack: bool
    delegate_nodes: int | None
    warmup_runs: int
    runs: int
    state: str = "none"
    api: str = "interpreter"
    accelerator: str = "cpu"
    cpus: tuple[int, ...] = ()
    interleaved: bool = False

    def __post_init__(self):
        for name, known in (("state", STATES), ("api", APIS), ("accelerator", ACCELERATORS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {name}={getattr(self, name)!r}.")

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Settings:
        """Returns what ``dataclasses.asdict`` and JSON made of one."""
        return cls(**{**fields, "cpus": tuple(fields.get("cpus", ()))})

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        cpus = f" on CPU {' and '.join(map(str, self.cpus))}" if self.cpus else ""
        api = ", CompiledModel" if self.api == "compiled" else ""
        accelerator = f", {self.accelerator.upper()}" if self.accelerator != "cpu" else ""
        nodes = {None: "", 1: " (1 node)"}.get(self.delegate_nodes, f" ({self.delegate_nodes} nodes)")
        xnnpack = f"XNNPACK on{nodes}" if self.xnnpack else "XNNPACK off"
        turns = ", in turns" if self.interleaved else ""
        return (
            f"{threads}{cpus}{api}{accelerator}, {xnnpack}, {self.warmup_runs} warm-up runs, "
            f"{self.runs} timed runs{turns}{STATES[self.state]}"
        )
