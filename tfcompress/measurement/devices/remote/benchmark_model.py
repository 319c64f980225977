"""A phone without Python: the user's own ``benchmark_model`` for its processor times, profiles and answers there.

It is pushed to the phone's cache like any other file. One sample is one call: inputs and outputs travel as raw tensors.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DeviceError
from ....tflite import TensorInfo, run_interpreter
from ..addresses import Adb
from .adb import AdbChannel, phone_details
from .benchmark_output import check_accelerator, delegate_nodes, latency_of, peak_bytes, profile_of, summary_of
from .board import Board, sha256_of
from .protocol import Progress

__all__ = ["BenchmarkModel"]

RUNS_WARM = 10  # of a warm-up until steady, which benchmark_model does not know
AT_ONCE = 20  # samples per shell command: so that Ctrl-C and the progress bar are not kept waiting


class BenchmarkModel(Board):
    """A phone that runs ``benchmark_model``.

    Args:
        address: which phone.
        path: of the program on this machine.
        timeout_seconds: for one command there. Default: 3600.
        debug: has no effect here. Default: False.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, address: Adb, path: Path, *, timeout_seconds: float | None = None, debug: bool = False):
        if not path.is_file():
            raise ValueError(f"benchmark_model must be a file. Received: {path}. Check the path.")
        super().__init__(AdbChannel(address), timeout_seconds=timeout_seconds, debug=debug)
        self._program = path
        self._is_stopped = False

    def _find_python(self) -> str:
        return ""  # none is needed

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns an answer in the agent's form.

        Args:
            request: as ``agent`` takes it, without paths.
            files: local files by the key under which the request means them.
            results: where outputs go, by key.
            progress: called with what is done and what is to do. Default: None.

        Raises:
            ModelError: LiteRT on this machine cannot open the file either.
            DeviceError: the phone is out of reach or full, the program failed, or has no such kind of request.
        """
        kinds = {"latency": self._latency, "profile": self._profile}
        kind = str(request.get("kind", "latency"))
        if kind == "outputs":
            return self._outputs(request, files, results["outputs"], progress)
        if kind not in kinds:
            raise DeviceError(f"benchmark_model on {self.name} cannot do {kind!r}. Measure one file at a time.")
        return kinds[kind](request, files["model"])

    def interrupt(self) -> None:
        """Asks for an end after the samples that run now."""
        self._is_stopped = True

    def _latency(self, request: Mapping[str, Any], model: Path) -> dict[str, Any]:
        described = self._describe(request, model)
        warm = RUNS_WARM if request.get("warmup_runs") is None else int(request["warmup_runs"])
        text = self._call(request, model, runs=int(request.get("runs", 100)), warmup_runs=warm)
        latency, note = latency_of(text, self.name, warmup_runs=warm)
        return {
            **described,
            "latency": latency,
            "peak_bytes": peak_bytes(text),
            "device": self._device(note),
            "settings": self._settings(request, text, warm, latency["runs"]),
        }

    def _profile(self, request: Mapping[str, Any], model: Path) -> dict[str, Any]:
        runs, warm = int(request.get("runs", 50)), RUNS_WARM
        plain = summary_of(self._call(request, model, runs=runs, warmup_runs=warm), self.name)
        table = f"{self._folder}/{self._job}/profile.csv"
        # The older flag and the newer ones; what a program does not know it only warns of.
        flags = (
            "--enable_op_profiling=true",
            f"--profiling_output_csv_file={table}",
            "--op_profiling_output_mode=csv",
            f"--op_profiling_output_file={table}",
        )
        text = self._call(request, model, *flags, runs=runs, warmup_runs=warm)
        counted = int(summary_of(text, self.name)["count"])
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            self.channel.pull(table, Path(folder) / "profile.csv")
            content = (Path(folder) / "profile.csv").read_text(errors="replace")
        plain_ms = plain.get("median", plain["avg"]) / 1000
        profile = profile_of(content, plain_ms=plain_ms, runs=counted, place=self.name)
        ops = [vars(op) for op in profile.ops]
        return {"profile": {**vars(profile), "ops": ops}, "device": self._device({})}

    def _outputs(
        self, request: Mapping[str, Any], files: Mapping[str, Path], target: Path, progress: Progress | None
    ) -> dict[str, Any]:
        described = self._describe(request, files["model"])
        ins = [TensorInfo.from_json(info) for info in described["inputs"]]
        outs = [TensorInfo.from_json(info) for info in described["outputs"]]
        with np.load(files["inputs"], allow_pickle=False) as arrays:
            feeds = [np.ascontiguousarray(arrays[info.name]) for info in ins]
        samples = len(feeds[0])
        began, blocks = time.perf_counter(), []
        self._is_stopped = False
        for start in range(0, samples, AT_ONCE):
            blocks.append(
                self._answer(request, files["model"], ins, outs, [feed[start : start + AT_ONCE] for feed in feeds])
            )
            if progress is not None:
                progress(min(start + AT_ONCE, samples), samples)
            if self._is_stopped:
                break
        found = {info.name: np.concatenate([block[number] for block in blocks]) for number, info in enumerate(outs)}
        with open(target, "wb") as file:
            np.savez(file, **found)  # type: ignore[arg-type]
        done = len(next(iter(found.values())))
        answer = {
            "samples": done,
            "seconds": round(time.perf_counter() - began, 6),
            "state": "none",
            "peak_bytes": None,
        }
        return {**answer, **({"interrupted": True} if done < samples else {})}

    def _answer(
        self,
        request: Mapping[str, Any],
        model: Path,
        ins: list[TensorInfo],
        outs: list[TensorInfo],
        feeds: list[np.ndarray],
    ) -> list[np.ndarray]:
        """Returns each output of a few samples."""
        self._prepare()
        count = len(feeds[0])
        job = f"{self._folder}/{self._job}"
        sizes = [int(np.prod([size or 1 for size in info.shape])) * info.dtype.itemsize for info in outs]
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            for number, feed in enumerate(feeds):
                (Path(folder) / "raw").write_bytes(feed.tobytes())
                self.channel.push(Path(folder) / "raw", f"{job}/in{number}")
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
            line = self._line(request, model, *flags, runs=1, warmup_runs=0)
            script = (
                f": > {job}/out; i=0; while [ $i -lt {count} ]; do {cut} && rm -f {job}/one && {line} >{job}/said 2>&1 && "
                f"cat {job}/one >> {job}/out || {{ tail -n 1 {job}/said >&2; exit 1; }}; i=$((i+1)); done"
            )
            ended = self.channel.run(script, timeout_seconds=self._timeout_seconds)
            if ended.code != 0:
                raise DeviceError(f"benchmark_model on {self.name} gave no outputs: {ended.last_words}.")
            self.channel.pull(f"{job}/out", Path(folder) / "out")
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

    def _line(self, request: Mapping[str, Any], model: Path, *flags: str, runs: int, warmup_runs: int) -> str:
        """Returns the shell command that runs the program on the phone, where both files lie by then."""
        self._prepare()
        sent = sha256_of(model)
        program, graph = self._place(self._program, sha256_of(self._program)), self._place(model, sent)
        accelerators = {"cpu": (), "gpu": ("--use_gpu=true",), "npu": ("--use_nnapi=true",)}
        words = [
            program,
            f"--graph={graph}",
            f"--num_threads={request.get('threads', 1)}",
            f"--use_xnnpack={str(bool(request.get('xnnpack', True))).lower()}",
            *accelerators[str(request.get("accelerator", "cpu"))],
            f"--num_runs={runs}",
            f"--warmup_runs={warmup_runs}",
            "--min_secs=0",
            "--warmup_min_secs=0",
            *flags,
        ]
        cpus = [int(number) for number in request.get("cpus") or ()]
        pin = f"taskset {sum(1 << number for number in cpus):x} " if cpus else ""
        return f"chmod 755 {shlex.quote(program)} && {pin}{shlex.join(words)}"

    def _call(self, request: Mapping[str, Any], model: Path, *flags: str, runs: int, warmup_runs: int) -> str:
        line = self._line(request, model, *flags, runs=runs, warmup_runs=warmup_runs)
        ended = self.channel.run(f"{line} 2>&1", timeout_seconds=self._timeout_seconds)
        placed = self.channel.run(f"sha256sum {self._folder}/files/{sha256_of(model)}").text.split()
        if placed[:1] != [sha256_of(model)]:
            raise DeviceError(f"The model on {self.name} must be the one that was sent. Clear the cache and try again.")
        check_accelerator(ended.text, str(request.get("accelerator", "cpu")), self.name)
        summary_of(ended.text, self.name)  # refuses what did not come to its end
        if ended.code != 0:
            raise DeviceError(f"benchmark_model on {self.name} ended with exit code {ended.code}. Run it again.")
        return ended.text

    def _describe(self, request: Mapping[str, Any], model: Path) -> dict[str, Any]:
        name = request.get("name") or str(model)
        return run_interpreter(
            "tfcompress.measurement.devices.on_device.agent:describe_file",
            {"model": str(model), "name": name},
            place=name,
        )

    def _device(self, note: Mapping[str, str]) -> dict[str, Any]:
        assert isinstance(self.channel, AdbChannel)
        details = phone_details(self.channel)
        digest = hashlib.sha256(self._program.read_bytes()).hexdigest()[:12]
        cores = self.channel.run("nproc 2>/dev/null || echo 1").text.strip()
        return {
            "name": self.name,
            "cpu": details.get("SoC", details.get("ABI", "unknown")),
            "cores": int(cores) if cores.isdigit() else 1,
            "os": f"Android {details.get('Android', '?')}",
            "python": "",
            "runtime": f"benchmark_model {digest}",
            "details": {**details, **note},
        }

    def _settings(self, request: Mapping[str, Any], text: str, warmup_runs: int, runs: int) -> dict[str, Any]:
        nodes = delegate_nodes(text)
        is_cpu = request.get("accelerator", "cpu") == "cpu"
        return {
            "threads": request.get("threads", 1),
            "xnnpack": bool(request.get("xnnpack", True)) and nodes != 0 and is_cpu,
            "delegate_nodes": nodes,
            "warmup_runs": warmup_runs,
            "runs": runs,
            "accelerator": request.get("accelerator", "cpu"),
            "cpus": list(request.get("cpus") or ()),
        }
