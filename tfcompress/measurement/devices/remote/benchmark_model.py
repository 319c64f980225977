"""How is a file measured on a phone without Python? By the user's own ``benchmark_model``, built for its processor.

It is pushed to the phone's cache like any other file. One sample is one call: inputs and outputs travel as raw tensors.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DeviceError
from ....tflite import TensorInfo
from ..addresses import Adb
from ..device import Request
from ..local import describe_file
from .adb import AdbChannel
from .benchmark_output import check_accelerator, delegate_nodes, latency_of, peak_bytes, profile_of, summary_of
from .cache import RemoteDevice, sha256_of

__all__ = ["BenchmarkModel"]

RUNS_WARM = 10  # of a warm-up until steady, which benchmark_model does not know
AT_ONCE = 20  # samples per shell command: so that Ctrl-C and the progress bar are not kept waiting


class BenchmarkModel(RemoteDevice):
    """A phone that runs ``benchmark_model``.

    Args:
        address: which phone.
        path: of the program on this machine.
        timeout_seconds: for one command there. Default: 3600.
        debug: has no effect here. Default: False.

    Raises:
        ValueError: there is no such file.

    Attributes:
        cache: what lies on the phone.
    """

    def __init__(self, address: Adb, path: Path, *, timeout_seconds: float | None = None, debug: bool = False):
        if not path.is_file():
            raise ValueError(f"benchmark_model must be a file. Received: {path}. Check the path.")
        super().__init__(AdbChannel(address), timeout_seconds=timeout_seconds)
        self._program = path
        self._is_stopped = False

    def answer(self, request: Request) -> dict[str, Any]:
        """Returns an answer in the agent's form to "latency", "profile" or "outputs".

        Args:
            request: what is asked for.

        Raises:
            ModelError: LiteRT on this machine cannot open the file either.
            DeviceError: the phone is out of reach or full, the program failed, or has no such kind of request.
        """
        kinds = {"latency": self._latency, "profile": self._profile, "outputs": self._outputs}
        if request.kind not in kinds:
            raise DeviceError(f"benchmark_model on {self.name} cannot do {request.kind!r}. Measure one file at a time.")
        return kinds[request.kind](request)

    def interrupt(self) -> None:
        """Asks for an end after the samples that run now."""
        self._is_stopped = True

    def _latency(self, request: Request) -> dict[str, Any]:
        described = describe_file(request.model, request.name)
        wanted = request.settings.get("warmup_runs")
        warm = RUNS_WARM if wanted is None else int(wanted)
        text = self._call(request, runs=int(request.settings.get("runs", 100)), warmup_runs=warm)
        latency, note = latency_of(text, self.name, warmup_runs=warm)
        return {
            **described,
            "latency": latency,
            "peak_bytes": peak_bytes(text),
            "device": self._device(note),
            "settings": self._settings(request.settings, text, warm, latency["runs"]),
        }

    def _profile(self, request: Request) -> dict[str, Any]:
        runs, warm = int(request.settings.get("runs", 50)), RUNS_WARM
        plain = summary_of(self._call(request, runs=runs, warmup_runs=warm), self.name)
        table = f"{self.cache.job}/profile.csv"
        # The older flag and the newer ones; what a program does not know it only warns of.
        flags = (
            "--enable_op_profiling=true",
            f"--profiling_output_csv_file={table}",
            "--op_profiling_output_mode=csv",
            f"--op_profiling_output_file={table}",
        )
        text = self._call(request, *flags, runs=runs, warmup_runs=warm)
        counted = int(summary_of(text, self.name)["count"])
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            self._channel.pull(table, Path(folder) / "profile.csv")
            content = (Path(folder) / "profile.csv").read_text(errors="replace")
        plain_ms = plain.get("median", plain["avg"]) / 1000
        profile = profile_of(content, plain_ms=plain_ms, runs=counted, place=self.name)
        ops = [vars(op) for op in profile.ops]
        return {"profile": {**vars(profile), "ops": ops}, "device": self._device({})}

    def _outputs(self, request: Request) -> dict[str, Any]:
        described = describe_file(request.model, request.name)
        ins = [TensorInfo.from_json(info) for info in described["inputs"]]
        outs = [TensorInfo.from_json(info) for info in described["outputs"]]
        with np.load(request.files["inputs"], allow_pickle=False) as arrays:
            feeds = [np.ascontiguousarray(arrays[info.name]) for info in ins]
        samples = len(feeds[0])
        began, blocks = time.perf_counter(), []
        self._is_stopped = False
        for start in range(0, samples, AT_ONCE):
            blocks.append(self._block(request, ins, outs, [feed[start : start + AT_ONCE] for feed in feeds]))
            if request.progress is not None:
                request.progress(min(start + AT_ONCE, samples), samples)
            if self._is_stopped:
                break
        found = {info.name: np.concatenate([block[number] for block in blocks]) for number, info in enumerate(outs)}
        with open(request.results["outputs"], "wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        done = len(next(iter(found.values())))
        answer = {
            "samples": done,
            "seconds": round(time.perf_counter() - began, 6),
            "state": "none",
            "peak_bytes": None,
        }
        return {**answer, **({"interrupted": True} if done < samples else {})}

    def _block(
        self, request: Request, ins: list[TensorInfo], outs: list[TensorInfo], feeds: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Returns each output of a few samples."""
        count, job = len(feeds[0]), self.cache.job
        sizes = [int(np.prod([size or 1 for size in info.shape])) * info.dtype.itemsize for info in outs]
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            for number, feed in enumerate(feeds):
                (Path(folder) / "raw").write_bytes(feed.tobytes())
                self._channel.push(Path(folder) / "raw", f"{job}/in{number}")
            # Names of its own: the model's may hold signs that the flags are split at, and it goes by the order.
            layers = ",".join(f"in{number}" for number in range(len(ins)))
            shapes = ":".join(",".join(map(str, (1, *feed.shape[1:]))) for feed in feeds)
            values = ",".join(f"in{number}:{job}/one{number}" for number in range(len(ins)))
            cut = " && ".join(
                f"tail -c +$((i*{feed[:1].nbytes}+1)) {job}/in{number} | head -c {feed[:1].nbytes} > {job}/one{number}"
                for number, feed in enumerate(feeds)
            )
            flags = (
                f"--input_layer={layers}",
                f"--input_layer_shape={shapes}",
                f"--input_layer_value_files={values}",
                f"--output_filepath={job}/one",
            )
            line = self._line(request, *flags, runs=1, warmup_runs=0)
            script = (
                f": > {job}/out; i=0; while [ $i -lt {count} ]; do {cut} && rm -f {job}/one && {line} >{job}/said 2>&1 && "
                f"cat {job}/one >> {job}/out || {{ tail -n 1 {job}/said >&2; exit 1; }}; i=$((i+1)); done"
            )
            ended = self._channel.run(script, timeout_seconds=self._timeout_seconds)
            if ended.code != 0:
                raise DeviceError(f"benchmark_model on {self.name} gave no outputs: {ended.last_words}.")
            self._channel.pull(f"{job}/out", Path(folder) / "out")
            raw = (Path(folder) / "out").read_bytes()
        if len(raw) != count * sum(sizes):
            raise DeviceError(
                f"benchmark_model on {self.name} must write {sum(sizes)} bytes of outputs per sample (--output_filepath). "
                f"Received: {len(raw)} bytes for {count} samples. Use a newer benchmark_model."
            )
        rows = np.frombuffer(raw, np.uint8).reshape(count, sum(sizes))
        edges = np.cumsum([0, *sizes])
        return [
            np.ascontiguousarray(rows[:, edges[number] : edges[number + 1]])
            .view(info.dtype)
            .reshape(count, *info.shape[1:])
            for number, info in enumerate(outs)
        ]

    def _line(self, request: Request, *flags: str, runs: int, warmup_runs: int) -> str:
        """Returns the shell command that runs the program on the phone, where both files lie by then."""
        settings = request.settings
        program, graph = self.cache.place(self._program), self.cache.place(request.model)
        accelerators = {"cpu": (), "gpu": ("--use_gpu=true",), "npu": ("--use_nnapi=true",)}
        words = [
            program,
            f"--graph={graph}",
            f"--num_threads={settings.get('threads', 1)}",
            f"--use_xnnpack={str(bool(settings.get('xnnpack', True))).lower()}",
            *accelerators[str(settings.get("accelerator", "cpu"))],
            f"--num_runs={runs}",
            f"--warmup_runs={warmup_runs}",
            "--min_secs=0",
            "--warmup_min_secs=0",
            *flags,
        ]
        cpus = [int(number) for number in settings.get("cpus") or ()]
        pin = f"taskset {sum(1 << number for number in cpus):x} " if cpus else ""
        return f"chmod 755 {shlex.quote(program)} && {pin}{shlex.join(words)}"

    def _call(self, request: Request, *flags: str, runs: int, warmup_runs: int) -> str:
        line = self._line(request, *flags, runs=runs, warmup_runs=warmup_runs)
        ended = self._channel.run(f"{line} 2>&1", timeout_seconds=self._timeout_seconds)
        digest = sha256_of(request.model)
        placed = self._channel.run(f"sha256sum {self.cache.folder}/files/{digest}").text.split()
        if placed[:1] != [digest]:
            raise DeviceError(f"The model on {self.name} must be the one that was sent. Clear the cache and try again.")
        check_accelerator(ended.text, str(request.settings.get("accelerator", "cpu")), self.name)
        summary_of(ended.text, self.name)  # refuses what did not come to its end
        if ended.code != 0:
            raise DeviceError(f"benchmark_model on {self.name} ended with exit code {ended.code}. Run it again.")
        return ended.text

    def _device(self, note: Mapping[str, str]) -> dict[str, Any]:
        details = self._channel.details()
        cores = self._channel.run("nproc 2>/dev/null || echo 1").text.strip()
        return {
            "name": self.name,
            "cpu": details.get("SoC", details.get("ABI", "unknown")),
            "cores": int(cores) if cores.isdigit() else 1,
            "os": f"Android {details.get('Android', '?')}",
            "python": "",
            "runtime": f"benchmark_model {sha256_of(self._program)[:12]}",
            "details": {**details, **note},
        }

    def _settings(self, settings: Mapping[str, Any], text: str, warmup_runs: int, runs: int) -> dict[str, Any]:
        nodes = delegate_nodes(text)
        is_cpu = settings.get("accelerator", "cpu") == "cpu"
        return {
            "threads": settings.get("threads", 1),
            "xnnpack": bool(settings.get("xnnpack", True)) and nodes != 0 and is_cpu,
            "delegate_nodes": nodes,
            "warmup_runs": warmup_runs,
            "runs": runs,
            "accelerator": settings.get("accelerator", "cpu"),
            "cpus": list(settings.get("cpus") or ()),
        }
