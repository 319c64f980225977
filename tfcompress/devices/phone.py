"""An Android phone as a device: by its own Python where it has one, else by the user's ``benchmark_model``."""

import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import child
from ..errors import DeviceError
from . import benchmark_model
from .adb import AdbChannel, phone_details
from .addresses import Adb
from .board import Board
from .conversation import Progress, checked_answer

__all__ = ["Phone", "mask_of"]

SAMPLES_AT_ONCE = 50
DEFAULT_SECONDS = 3600.0


class Phone:
    """A phone behind adb.

    Args:
        address: which one.
        benchmark_model: path of the tool, built for the phone's processor; None for the phone's own Python. Default: None.
        timeout_seconds: after which a silent phone is given up. Default: 3600.
        debug: lets the far end's own lines through. Default: False.
    """

    def __init__(
        self,
        address: Adb,
        *,
        benchmark_model: Path | None = None,
        timeout_seconds: float | None = None,
        debug: bool = False,
    ):
        self._channel = AdbChannel(address)
        self._board = Board(self._channel, timeout_seconds=timeout_seconds, debug=debug)
        self._tool = benchmark_model
        self._timeout_seconds = timeout_seconds or DEFAULT_SECONDS
        self._stopped = False
        self._details: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """How the record calls it, with its serial once it is known."""
        return self._channel.name

    @property
    def kind(self) -> str:
        """What its times are: "measured", or "emulated" where the phone's processor is."""
        return self._board.kind

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns the answer to one request, with what the phone says about itself.

        Args:
            request: as ``agent`` takes it.
            files: local files by key.
            results: where the results go, by key.
            progress: called with what is done and what is to do. Default: None.

        Raises:
            DeviceError: the phone cannot be used, or gave no complete answer.
            TfcompressError: what the agent raised.
        """
        self._stopped = False
        before = phone_details(self._channel)
        if self._tool is None:
            answer = self._board.run(request, files, results, progress=progress)
        else:
            answer = self._run_tool(request, files, results, progress)
        if "device" in answer:
            details = {**before, **_after(before, phone_details(self._channel))}
            answer["device"]["details"] = {**answer["device"].get("details", {}), **details}
        return answer

    def interrupt(self) -> None:
        """Asks the request that runs to answer with what it has; from any thread."""
        self._stopped = True
        self._board.interrupt()

    def close(self) -> None:
        """Removes what the job has left on the phone."""
        self._board.close()

    def cached(self) -> list:
        """Returns the files in the phone's cache, the largest first."""
        return self._board.cached()

    def clear(self) -> None:
        """Removes everything that this package has left on the phone."""
        self._board.clear()

    def _run_tool(
        self, request: Mapping[str, Any], files: Mapping[str, Path], results: Mapping[str, Path], progress: Progress | None
    ) -> dict[str, Any]:
        kinds: dict[str, Callable[..., dict[str, Any]]] = {
            "latency": self._latency,
            "profile": self._profile,
            "outputs": self._outputs,
        }
        if request["kind"] not in kinds:
            raise DeviceError(f"benchmark_model cannot run files in turns. Received: {request['kind']}. Leave --interleave out.")
        assert self._tool is not None
        if not self._tool.is_file():
            raise DeviceError(f"benchmark_model must be a file. Received: {self._tool}. Check the path.")
        tool = self._board.place(self._tool)
        model = self._board.place(files["model"])
        self._shell(f"chmod 755 {shlex.quote(tool)}")
        mask = f"taskset {mask_of(request['cpus'])} " if request.get("cpus") else ""
        answer = kinds[request["kind"]](request, files, results, f"{mask}{shlex.quote(tool)}", model, progress)
        # The answer counts only for the very file that lies there once it has run.
        digest = self._shell(f"sha256sum {shlex.quote(model)}").split()[:1]
        answer = {**answer, "complete": True, "sha256": {"model": digest[0] if digest else None}}
        return checked_answer(answer, {"model": self._board.sha256(files["model"])}, place=self.name)

    def _shell(self, script: str) -> str:
        ended = self._channel.run(script, timeout_seconds=self._timeout_seconds)
        if ended.code != 0:
            said = [line.strip() for line in (ended.text + ended.said).splitlines() if line.strip()] or ["no message"]
            telling = [line for line in said if line.startswith("ERROR")] or said[-1:]
            raise DeviceError(f"{self.name}: {telling[0][:300].rstrip('.')} (exit code {ended.code}).")
        return ended.text

    def _call(self, tool: str, arguments: list[str]) -> str:
        return self._shell(f"cd {shlex.quote(self._board.job)} && {tool} {shlex.join(arguments)} 2>&1")

    def _latency(self, request: Mapping[str, Any], files: Mapping[str, Path], results: Any, tool: str, model: str, progress: Any) -> dict[str, Any]:
        text = self._call(tool, benchmark_model.run_arguments(request, model))
        run = benchmark_model.read_run(text, accelerator=request.get("accelerator", "cpu"))
        details = {} if run.has_median else {"median": "not printed by this benchmark_model: the mean stands for it"}
        return {
            "latency": run.latency,
            "peak_bytes": run.extra_bytes,
            "runtime_bytes": None if run.extra_bytes is None else 0,
            "device": {**self._info(), "details": details},
            "settings": {
                "threads": request.get("threads", 1),
                "xnnpack": "XNN" in run.delegate,
                "delegate_nodes": run.partitions,
                "warmup_runs": run.latency["warmup_runs"],
                "runs": run.latency["runs"],
                "accelerator": request.get("accelerator", "cpu"),
                "cpus": list(request.get("cpus") or ()),
            },
            **describe(files["model"], request),
        }

    def _profile(self, request: Mapping[str, Any], files: Any, results: Any, tool: str, model: str, progress: Any) -> dict[str, Any]:
        arguments = benchmark_model.run_arguments(request, model)
        plain = benchmark_model.read_run(self._call(tool, arguments), accelerator=request.get("accelerator", "cpu"))
        # The newer name of the table's file and the older one: a tool that does not know a flag leaves it aside.
        table = ["--enable_op_profiling=true", "--op_profiling_output_mode=csv", "--op_profiling_output_file=new.csv"]
        text = self._call(tool, [*arguments, *table, "--profiling_output_csv_file=old.csv"])
        run = benchmark_model.read_run(text)
        rows = self._shell(f"cd {shlex.quote(self._board.job)}; cat new.csv 2>/dev/null || cat old.csv; rm -f new.csv old.csv")
        times = {"whole_ms": run.latency["mean_ms"], "plain_ms": plain.latency["mean_ms"], "runs": run.latency["runs"]}
        return {"profile": benchmark_model.read_profile(rows, **times)}

    def _outputs(
        self, request: Mapping[str, Any], files: Mapping[str, Path], results: Mapping[str, Path], tool: str, model: str, progress: Progress | None
    ) -> dict[str, Any]:
        known = describe(files["model"], request)
        inputs, outputs = known["inputs"], known["outputs"]
        with np.load(files["inputs"]) as arrays:
            feeds = [arrays[info["name"]] for info in inputs]
        step = next((info["shape"][0] for info in inputs if info["shape"] and info["shape"][0]), 1)
        total = len(feeds[0])
        blocks = -(-total // step)
        found: list[list[np.ndarray]] = [[] for _ in outputs]
        done = 0
        for start in range(0, blocks, SAMPLES_AT_ONCE):
            if self._stopped:
                break
            numbers = range(start, min(start + SAMPLES_AT_ONCE, blocks))
            for answers in self._run_blocks(request, feeds, step, numbers, tool, model, outputs):
                for kept, answer in zip(found, answers, strict=True):
                    kept.append(answer)
            done = min(total, (numbers[-1] + 1) * step)
            if progress is not None:
                progress(done, total)
        arrays_out = {
            info["name"]: np.concatenate(kept)[:done] if kept else np.zeros((0, *info["shape"][1:]), info["dtype"])
            for info, kept in zip(outputs, found, strict=True)
        }
        np.savez(results["outputs"], **arrays_out)  # type: ignore[arg-type]
        interrupted = {"interrupted": True} if done < total else {}
        # A process for each block: nothing of one is left in the next.
        return {"samples": done, "state": "reset" if known.get("stateful") else "none", "seconds": 0.0, **interrupted}

    def _run_blocks(
        self, request: Mapping[str, Any], feeds: list[np.ndarray], step: int, numbers: range, tool: str, model: str, outputs: Any
    ) -> list[list[np.ndarray]]:
        """Returns the outputs of some blocks of samples, each run by a process of its own on the phone."""
        job = self._board.job
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as scratch:
            local = Path(scratch) / "in"
            local.mkdir()
            lines = [f"cd {shlex.quote(job)} && mkdir -p out || exit 1"]
            for number in numbers:
                names = []
                for position, feed in enumerate(feeds):
                    block = feed[number * step : (number + 1) * step]
                    block = np.concatenate([block, np.repeat(block[-1:], step - len(block), axis=0)])
                    names.append(f"in/{number}.{position}")
                    (local / f"{number}.{position}").write_bytes(np.ascontiguousarray(block).tobytes())
                shapes = [[step, *feed.shape[1:]] for feed in feeds]
                arguments = benchmark_model.output_arguments(request, model, shapes, names, f"out/{number}")
                lines.append(f"{tool} {shlex.join(arguments)} > log 2>&1 || {{ cat log; exit 1; }}")
            script = Path(scratch) / "run.sh"
            script.write_text("\n".join(lines) + "\n")
            self._channel.push(local, f"{job}/")
            self._channel.push(script, f"{job}/run.sh")
            self._shell(f"sh {shlex.quote(job)}/run.sh")
            self._channel.pull(f"{job}/out", Path(scratch) / "out")
            self._shell(f"cd {shlex.quote(job)} && rm -rf in out log run.sh")
            return [split(Path(scratch, "out", str(number)).read_bytes(), outputs, step, self.name) for number in numbers]

    def _info(self) -> dict[str, Any]:
        """Returns the fields of ``conditions.DeviceInfo``."""
        text = self._shell("nproc; uname -srm; grep -m1 -E '^(Hardware|model name|Model)' /proc/cpuinfo || true")
        lines = [*text.splitlines(), "", "", ""]
        cpu = lines[2].partition(":")[2].strip() or phone_details(self._channel).get("SoC", "unknown")
        cores = int(lines[0]) if lines[0].isdigit() else 1
        return {"cpu": cpu, "cores": cores, "os": lines[1], "python": "", "runtime": f"benchmark_model {self._board.sha256(self._tool)[:12]}"}  # type: ignore[arg-type]


def describe(model: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inputs, outputs and operations of a file, which a child of this process opens.

    Args:
        model: the file.
        request: whose ``name`` messages use.
    """
    name = request.get("name") or str(model)
    return child.call("devices.agent:describe_file", {"model": os.fspath(model), "name": name}, place=name)


def split(content: bytes, outputs: list[Mapping[str, Any]], step: int, place: str) -> list[np.ndarray]:
    """Returns the arrays in the raw bytes of all outputs.

    Args:
        content: one output after the other, as tensors hold them.
        outputs: ``shape`` and ``dtype`` of each.
        step: length of the first axis where it is free.
        place: how messages call the device.

    Raises:
        DeviceError: there are more or fewer bytes.

    Example:
        >>> split(bytes(range(4)), [{"name": "y", "shape": [None, 4], "dtype": "int8"}], 1, "adb://")[0].tolist()
        [[0, 1, 2, 3]]
    """
    arrays, start = [], 0
    for info in outputs:
        shape = [size or step for size in info["shape"][:1]] + list(info["shape"][1:])
        dtype = np.dtype(info["dtype"])
        length = int(np.prod(shape)) * dtype.itemsize if all(shape) else -1
        if length < 0 or start + length > len(content):
            break
        arrays.append(np.frombuffer(content, dtype, int(np.prod(shape)), start).reshape(shape))
        start += length
    if len(arrays) != len(outputs) or start != len(content):
        raise DeviceError(
            f"{place} must write all outputs of the model. Received: {len(content)} bytes of another shape. Is its "
            "benchmark_model of 2023 or newer (--output_filepath)?"
        )
    return arrays


def mask_of(cpus: list[int]) -> str:
    """Returns the mask of processors as ``taskset`` takes it.

    Example:
        >>> mask_of([4, 5])
        '30'
    """
    return f"{sum(1 << cpu for cpu in cpus):x}"


def _after(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    changed = ("temperature", "battery temperature")
    return {f"{key} after": after[key] for key in changed if key in before and key in after}
