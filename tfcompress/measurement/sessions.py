"""One device and a plan of what is to be measured there: each file is timed, then scored, then profiled.

What is known after each step is kept, so that an early end loses only the step that it fell into.
"""

import dataclasses
import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data import InputSpec, LabelKind, Labelled, Scaling, load_labelled
from ..errors import DataError
from ..metrics import Metric
from ..tflite import flatbuffer, read_model
from .accuracy import Answers, File, answers_of, check_label_range, load_reference, reference_agreement, scores_of
from .devices.device import Device
from .devices.local import LocalDevice
from .latency import Latency, Noise, Ratio
from .op_times import Profile
from .records import DeviceInfo, Measurement, Settings

__all__ = ["Job", "Plan", "Session"]

GZIP_LEVEL = 9
DESCRIBING_RUNS = 3  # of each file alone before files run in turns: for memory and loading time


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to be measured.

    Attributes:
        path: where it is.
        name: how the record calls it.
        label: what it is; may be empty.
        call: how it can be measured again, for the record.
    """

    path: Path
    name: str
    label: str
    call: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is measured of every file, on every device.

    Attributes:
        request: the part of each request that is always the same.
        runs: timed runs.
        warmup_runs: before them; None until the times are steady.
        data: labelled samples as ``data.load_labelled`` takes them; None for no accuracy.
        metrics: what answers are judged by.
        confusion: whether answers are counted by label.
        scaling: of pixels.
        allow_pickle: whether data may bring code.
        reference: outputs or a model to compare answers with, None for none.
        profile_runs: how many inferences are profiled; 0 for no profile.
        progress: called with the file's name, done and total samples.
    """

    request: Mapping[str, Any]
    runs: int
    warmup_runs: int | None
    data: Any = None
    metrics: Sequence[Metric] = ()
    confusion: bool = False
    scaling: str | Scaling | None = None
    allow_pickle: bool = False
    reference: str | None = None
    profile_runs: int = 0
    progress: Callable[[str, int, int], None] | None = None
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict)
    lock: Any = dataclasses.field(default_factory=threading.RLock)

    def labelled(self, file: File) -> Labelled:
        """Returns the samples as the file takes them; read once for all files that take the same."""
        specs = tuple(InputSpec(info.name, (None, *info.shape[1:]), info.real_dtype) for info in file.inputs)
        with self.lock:
            if specs not in self.cache:
                kind: LabelKind = next((m.labels for m in self.metrics if m.labels != "any"), "any")
                self.cache[specs] = load_labelled(
                    self.data, specs, kind=kind, scaling=self.scaling, allow_pickle=self.allow_pickle
                )
            return self.cache[specs]

    def reference_outputs(self, file: File, labelled: Labelled) -> Any:
        """Returns the reference's outputs, by name or in order; a model's are found by running it here, once."""
        assert self.reference is not None
        path = Path(self.reference)
        if path.suffix != ".tflite":
            return load_reference(path, file)
        with self.lock:
            key = "reference", labelled.sha256
            if key not in self.cache:
                device = LocalDevice()
                request = {**self.request, "name": str(path), "cpus": (), "accelerator": "cpu", "api": "interpreter"}
                answer = device.run({**request, "runs": 1, "warmup_runs": 0}, {"model": path}, {})
                other = File.of(answer)
                if len(other.inputs) != len(labelled.x):
                    raise DataError(f"A reference takes the same inputs. Received: {path} with {len(other.inputs)}.")
                renamed = dict(zip((info.name for info in other.inputs), labelled.x.values(), strict=True))
                found = answers_of(device, request, path, other, dataclasses.replace(labelled, x=renamed))
                self.cache[key] = found.values
            return self.cache[key]


def check_file(path: Path) -> None:
    """Refuses a file that is damaged before a device, this machine among them, opens it.

    Raises:
        ModelError: it is, or it is no ``.tflite`` file.

    Examples:
        >>> check_file(Path("missing.tflite"))
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: The model file must exist. Received: missing.tflite. Check the path.
    """
    name, content = read_model(path)
    flatbuffer.parse(content, place=name)


class Session:
    """Measures files on one device, one after the other.

    Args:
        device: where.
        plan: what.

    Attributes:
        begun: what is known so far of the files that are being measured, by the path of the file.
    """

    def __init__(self, device: Device, plan: Plan) -> None:
        self.device, self.plan = device, plan
        self.begun: dict[Path, Measurement] = {}

    def measure(self, job: Job) -> Measurement:
        """Returns everything that the plan asks for about one file.

        Raises:
            TfcompressError: the file, the data or the device failed.
            KeyboardInterrupt: it was ended early; ``begun`` has what is known.
        """
        self.begun.clear()
        check_file(job.path)  # what is no model needs no device to say so
        answer = self._request(job, "latency", runs=self.plan.runs, warmup_runs=self.plan.warmup_runs)
        self._keep(job, record_of(job, answer, self.device), answer)
        return self._finished(job, answer)

    def alone(self, job: Job) -> dict[str, Any]:
        """Returns what a file takes to open and to hold, before it runs in turns with others.

        Raises:
            TfcompressError: the file or the device failed.
        """
        check_file(job.path)
        return self._request(job, "latency", runs=DESCRIBING_RUNS, warmup_runs=0)

    def measure_in_turns(self, jobs: Sequence[Job], alone: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
        """Yields the same about several files that ran A B A B, with the ratio of each to the first.

        Args:
            jobs: the files.
            alone: what ``alone`` returned for each.

        Raises:
            TfcompressError: a file, the data or the device failed.
            KeyboardInterrupt: it was ended early.
        """
        self.begun.clear()
        files = {f"model{number}": job.path for number, job in enumerate(jobs)}
        runs = {"runs": self.plan.runs, "warmup_runs": self.plan.warmup_runs}
        names = [job.name for job in jobs]
        answer = self.device.run({**self.plan.request, "kind": "interleave", "names": names, **runs}, files, {})
        answers = [timed_in_turns(own, answer, number) for number, own in enumerate(alone)]
        for number, job in enumerate(jobs):
            record = record_of(job, answers[number], self.device)
            if number:
                ratio = Ratio.of(Path(names[0]).name, answer["times_ms"][number], answer["times_ms"][0])
                record = dataclasses.replace(record, ratio=ratio)
            self.begun[job.path] = record
        for job, own in zip(jobs, answers, strict=True):
            self._keep(job, self.begun[job.path], answer)
            yield self._finished(job, own)

    def _finished(self, job: Job, answer: Mapping[str, Any]) -> Measurement:
        """Adds accuracy and profile to what is known of a file."""
        if self.plan.data is not None:
            self._score(job, answer)
        if self.plan.profile_runs:
            profile = self._request(job, "profile", runs=self.plan.profile_runs, warmup_runs=self.plan.warmup_runs)
            self._keep(job, self._with(job, profile=Profile.from_json(profile["profile"])), profile)
        return self.begun[job.path]

    def _score(self, job: Job, answer: Mapping[str, Any]) -> None:
        plan, file = self.plan, File.of(answer)
        labelled = plan.labelled(file)
        check_label_range(file, labelled, plan.metrics, job.name)
        shown = None if plan.progress is None else lambda done, total: plan.progress(job.name, done, total)  # type: ignore[misc]
        request = {**plan.request, "name": job.name}
        try:
            answers = answers_of(self.device, request, job.path, file, labelled, progress=shown)
        except DataError as error:
            raise DataError(f"{job.name}: {error}") from error
        scores, confusion = scores_of(answers, labelled, plan.metrics, file, job.name, confusion=plan.confusion)
        first = plan.metrics[0]
        value = scores[first.name]
        record = self._with(
            job,
            accuracy=value if first.is_share and 0 <= value <= 1 else None,
            metric=first.name,
            scores=scores,
            confusion=confusion,
            samples=answers.samples,
            data_sha256=labelled.sha256,
            reference=self._compared(answers, file, labelled),
            settings=dataclasses.replace(self.begun[job.path].settings, state=answers.state),
        )
        self._keep(job, record, {"interrupted": answers.interrupted})

    def _compared(self, answers: Answers, file: File, labelled: Labelled) -> Any:
        if self.plan.reference is None:
            return None
        outputs = self.plan.reference_outputs(file, labelled)
        digest = hashlib.sha256(Path(self.plan.reference).read_bytes()).hexdigest()
        return reference_agreement(answers, outputs, file, name=Path(self.plan.reference).name, sha256=digest)

    def _request(self, job: Job, kind: str, **settings: Any) -> dict[str, Any]:
        request = {**self.plan.request, "kind": kind, "name": job.name, **settings}
        return self.device.run(request, {"model": job.path}, {})

    def _with(self, job: Job, **changes: Any) -> Measurement:
        return dataclasses.replace(self.begun[job.path], **changes)

    def _keep(self, job: Job, record: Measurement, answer: Mapping[str, Any]) -> None:
        """Remembers a record; stops here if the device was asked to end early."""
        interrupted = bool(answer.get("interrupted"))
        self.begun[job.path] = dataclasses.replace(record, interrupted=interrupted)
        if interrupted:
            raise KeyboardInterrupt


def timed_in_turns(alone: Mapping[str, Any], answer: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns the answer about one file alone with the times that it has in turns with others.

    Args:
        alone: to "latency".
        answer: to "interleave".
        number: of the file in it.
    """
    own, times = alone["latency"], answer["times_ms"][number]
    counts = {"warmup_runs": answer["warmup_runs"], "steady": answer["steady"]}
    latency = Latency.of(times, load_ms=own["load_ms"], first_ms=own["first_ms"], **counts)
    settings = {"interleaved": True, "runs": latency.runs, "warmup_runs": latency.warmup_runs}
    return {
        **alone,
        "latency": vars(latency),
        "settings": {**alone["settings"], **settings},
        "noise": answer["noise"][number],
    }


def record_of(job: Job, answer: Mapping[str, Any], device: Device) -> Measurement:
    """Returns the record of an answer to "latency", without accuracy."""
    _, content = read_model(job.path)
    inputs, outputs = ([info["dtype"] for info in answer.get(key) or ()] for key in ("inputs", "outputs"))
    return Measurement(
        model=job.name,
        label=job.label,
        model_sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        gzip_bytes=len(gzip.compress(content, GZIP_LEVEL, mtime=0)),
        accuracy=None,
        samples=0,
        data_sha256=None,
        latency=Latency(**answer["latency"]) if answer.get("latency") else None,
        peak_bytes=answer.get("peak_bytes"),
        runtime_bytes=answer.get("runtime_bytes"),
        input_dtypes=tuple(inputs),
        output_dtypes=tuple(outputs),
        device=DeviceInfo(**{**answer["device"], "name": device.name}),
        settings=Settings.from_json(answer["settings"]),
        kind=device.kind,
        activation_bytes=answer.get("activation_bytes"),
        noise=Noise.from_json(answer["noise"]) if answer.get("noise") else None,
        estimates=dict(answer.get("estimates") or {}),
        call=job.call,
    )
