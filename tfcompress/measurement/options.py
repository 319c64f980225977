"""How is a file timed, scored and run, and how is a device reached? Four values that ``measure`` takes beside its arguments.

Each is checked when it is made, and says only what differs from its defaults. Does nothing by itself.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from ..system import Sandbox, checked_fields, repr_without_defaults
from .conditions import ACCELERATORS, APIS, Accelerator, Api

__all__ = ["ConnectionOptions", "EvaluationOptions", "LatencyOptions", "RuntimeOptions"]

DEFAULT_BATCH = 32


@checked_fields
@dataclasses.dataclass(frozen=True, repr=False)
class LatencyOptions:
    """How latency is measured.

    Args:
        runs: timed runs, at least 1. Default: 100.
        warmup: untimed runs, besides the very first; None until the times are steady (``latency.is_steady``), for at most
            5 seconds. Default: None.
        interleave: whether several models run in turns, A B A B, so that both meet the same disturbances; each record then
            has its ``ratio`` to the first. Default: False.
        profile: whether each op is timed with LiteRT's own profiler. Default: False.
        seed: of the made-up inputs, at least 0. Default: 0.

    Raises:
        ValueError: a number is too small.
        TypeError: a number is no whole number.

    Examples:
        >>> LatencyOptions(runs=20, warmup=0)
        LatencyOptions(runs=20, warmup=0)
        >>> LatencyOptions(runs=0)
        Traceback (most recent call last):
        ...
        ValueError: runs must be at least 1. Received: runs=0. Leave it out for 100.
    """

    runs: int = 100
    warmup: int | None = None
    interleave: bool = False
    profile: bool = False
    seed: int = 0

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        _check_count("runs", self.runs, 1, "Leave it out for 100.")
        if self.warmup is not None:
            _check_count("warmup", self.warmup, 0, "Leave it out to run until the times are steady.")
        _check_count("seed", self.seed, 0, "Leave it out for 0.")


@checked_fields
@dataclasses.dataclass(frozen=True, repr=False)
class EvaluationOptions:
    """How answers to labelled samples are obtained and counted.

    Args:
        confusion: whether answers are counted by label. Default: False.
        batch: samples per inference, where the file lets itself be resized, at least 1. Default: 32.
        workers: how many batches run at once; 0 for as many as the device has cores for. Default: 0.
        reset_state: whether an LSTM's state and other variable tensors are set to zero before each sample. Off, one sample
            leaves traces in the next, as with an interpreter that is merely called again. Default: False.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        ValueError: a number is too small.
        TypeError: a number is no whole number.

    Examples:
        >>> EvaluationOptions()
        EvaluationOptions()
        >>> EvaluationOptions(batch=0)
        Traceback (most recent call last):
        ...
        ValueError: batch must be at least 1. Received: batch=0. Leave it out for 32.
    """

    confusion: bool = False
    batch: int = DEFAULT_BATCH
    workers: int = 0
    reset_state: bool = False
    allow_pickle: bool = False

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        _check_count("batch", self.batch, 1, f"Leave it out for {DEFAULT_BATCH}.")
        _check_count("workers", self.workers, 0, "Leave it out to use all cores.")


@checked_fields
@dataclasses.dataclass(frozen=True, repr=False)
class RuntimeOptions:
    """What LiteRT runs a file with.

    Args:
        api: "interpreter", or "compiled" for LiteRT's CompiledModel. Default: None, which is the interpreter on a CPU and
            CompiledModel elsewhere.
        accelerator: "cpu", "gpu" or "npu", by way of CompiledModel. Default: "cpu".
        xnnpack: whether XNNPACK may take over parts of the graph. Default: True.
        cpus: numbers of the processors to run on; empty for all. Default: ().

    Attributes:
        chosen_api: ``api``, or what None stands for.

    Raises:
        ValueError: LiteRT has no such interface or accelerator, or the accelerator needs the other interface.

    Examples:
        >>> RuntimeOptions(cpus=[0, 1]), RuntimeOptions(accelerator="gpu").chosen_api
        (RuntimeOptions(cpus=(0, 1)), 'compiled')
        >>> RuntimeOptions("interpreter", "gpu")
        Traceback (most recent call last):
        ...
        ValueError: A gpu needs api='compiled'. Received: api='interpreter'. Leave api out.
    """

    api: Api | None = None
    accelerator: Accelerator = "cpu"
    xnnpack: bool = True
    cpus: Sequence[int] = ()

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        object.__setattr__(self, "cpus", tuple(self.cpus))
        for number in self.cpus:
            _check_count("cpus", number, 0, "Write cpus=(0, 1) for the first two.")
        for name, value, known in (("api", self.chosen_api, APIS), ("accelerator", self.accelerator, ACCELERATORS)):
            if value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}. Write one of them."
                )
        if self.accelerator != "cpu" and self.chosen_api != "compiled":
            raise ValueError(f"A {self.accelerator} needs api='compiled'. Received: api={self.api!r}. Leave api out.")

    @property
    def chosen_api(self) -> Api:
        """The interface that a file is run by."""
        return self.api or ("interpreter" if self.accelerator == "cpu" else "compiled")


@checked_fields
@dataclasses.dataclass(frozen=True, repr=False)
class ConnectionOptions:
    """How a device is prepared and waited for.

    Args:
        install: whether a missing Python environment is made on a board, in its cache folder. Default: False.
        benchmark_model: path of LiteRT's ``benchmark_model`` for a phone's processor; ``adb://`` devices then measure with
            it. Default: None.
        timeout_seconds: after which a device that gives no sign of life is given up, above 0. Default: None, an hour.
        sandbox: what the process may reach that runs files on this machine, besides the files. Default: None, everything.

    Raises:
        ValueError: the time is not above 0.

    Examples:
        >>> ConnectionOptions(install=True)
        ConnectionOptions(install=True)
        >>> ConnectionOptions(timeout_seconds=0)
        Traceback (most recent call last):
        ...
        ValueError: timeout_seconds must be above 0. Received: timeout_seconds=0. Leave it out to wait for an hour.
    """

    install: bool = False
    benchmark_model: str | os.PathLike | None = None
    timeout_seconds: float | None = None
    sandbox: Sandbox | None = None

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        if self.timeout_seconds is not None and not self.timeout_seconds > 0:
            raise ValueError(
                f"timeout_seconds must be above 0. Received: timeout_seconds={self.timeout_seconds}. "
                "Leave it out to wait for an hour."
            )


def _check_count(name: str, value: Any, least: int, way_out: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number. Received: {name}={value!r}. {way_out}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}. Received: {name}={value}. {way_out}")
