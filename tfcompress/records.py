"""What a measurement is, as a value that can be saved, diffed and reused.

Holds numbers and writes them as JSON; ``measurement`` obtains them, ``tables`` and ``report`` show them.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import DataError

__all__ = ["DeviceInfo", "Latency", "Measurement", "Settings", "json_text", "measurements_from_json"]

MILLISECONDS_DIGITS = 6  # a nanosecond: the clock's own resolution
SHA256_DIGITS = 64
STATES = {"none": "", "reset": ", state reset between samples", "carried": ", state carried from sample to sample"}


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one inference takes, in milliseconds, over ``runs`` timed calls of the interpreter.

    Attributes:
        median_ms: half of the runs were faster.
        p90_ms: nine of ten runs were faster.
        p99_ms: 99 of 100 runs were faster.
        mean_ms: arithmetic mean.
        std_ms: standard deviation (of the population).
        min_ms: the fastest run.
        runs: how many runs were timed.
        warmup_runs: how many ran before them untimed, the first one apart.
        load_ms: opening the file and allocating its tensors.
        first_ms: the very first inference.

    Example:
        >>> Latency.of([1.0, 2.0, 3.0], warmup_runs=5, load_ms=0.5, first_ms=4.0).median_ms
        2.0
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    min_ms: float
    runs: int
    warmup_runs: int
    load_ms: float
    first_ms: float

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be finite and not negative. Received: {field.name}={value}.")

    @classmethod
    def of(cls, milliseconds: Iterable[float], *, warmup_runs: int, load_ms: float, first_ms: float) -> "Latency":
        """Returns the summary of timed runs; percentiles are interpolated linearly between runs.

        Args:
            milliseconds: one value per run, at least one.
            warmup_runs: untimed runs before them.
            load_ms: opening the file.
            first_ms: the first inference.
        """
        times = np.asarray(list(milliseconds), np.float64)
        if not times.size:
            raise ValueError("A latency needs at least one timed run. Received: none.")
        median, p90, p99 = np.percentile(times, [50, 90, 99])
        numbers = [median, p90, p99, times.mean(), times.std(), times.min(), load_ms, first_ms]
        median, p90, p99, mean, std, least, load, first = (round(float(n), MILLISECONDS_DIGITS) for n in numbers)
        return cls(median, p90, p99, mean, std, least, len(times), warmup_runs, load_ms=load, first_ms=first)

    def __str__(self) -> str:
        return f"median {self.median_ms:.3f} ms, p90 {self.p90_ms:.3f} ms, p99 {self.p99_ms:.3f} ms ({self.runs} runs)"


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

    Example:
        >>> print(DeviceInfo("local", "Cortex-A76", 4, "Linux 6.6 aarch64", "3.11.7", "ai-edge-litert 2.3.0"))
        local: Cortex-A76, 4 cores, Linux 6.6 aarch64, Python 3.11.7, ai-edge-litert 2.3.0
    """

    name: str
    cpu: str
    cores: int
    os: str
    python: str
    runtime: str

    def __str__(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.name}: {self.cpu}, {cores}, {self.os}, Python {self.python}, {self.runtime}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the interpreter was set up while it was timed.

    Attributes:
        threads: threads that the interpreter was allowed.
        xnnpack: whether XNNPACK took over at least one part of the graph.
        delegate_nodes: how many parts it took over.
        warmup_runs: untimed runs.
        runs: timed runs.
        state: what became of variable tensors, such as an LSTM's state, between labelled samples: "none" (the file has
            no such tensor), "reset" or "carried". Default: "none".

    Example:
        >>> print(Settings(threads=1, xnnpack=True, delegate_nodes=1, warmup_runs=10, runs=100))
        1 thread, XNNPACK on (1 node), 10 warm-up runs, 100 timed runs
    """

    threads: int
    xnnpack: bool
    delegate_nodes: int
    warmup_runs: int
    runs: int
    state: str = "none"

    def __post_init__(self):
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}. Received: state={self.state!r}.")

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        nodes = "1 node" if self.delegate_nodes == 1 else f"{self.delegate_nodes} nodes"
        xnnpack = f"XNNPACK on ({nodes})" if self.xnnpack else "XNNPACK off"
        return f"{threads}, {xnnpack}, {self.warmup_runs} warm-up runs, {self.runs} timed runs{STATES[self.state]}"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one file did on one device.

    Attributes:
        model: path of the file, or the name given for bytes.
        label: what the file is, for tables: "int8", "pruned"; may be empty.
        model_sha256: hash of the file.
        size_bytes: its size.
        gzip_bytes: its size after gzip at level 9, what a download costs.
        accuracy: top-1, a fraction; None without labelled data.
        samples: how many labelled samples were scored; 0 without.
        data_sha256: hash of the labelled data; None without.
        latency: time per inference at batch size 1 (or the file's own fixed batch size).
        peak_bytes: peak resident size of the process that ran the file: Python, interpreter and model; None where the
            system does not tell.
        runtime_bytes: resident size of that process before it opened the file; None where the system does not tell.
        input_dtypes: dtype of each input.
        output_dtypes: dtype of each output.
        device: where it ran.
        settings: how it ran.
        kind: "measured", as opposed to an estimate. Default: "measured".

    Example:
        >>> record = example_measurement()
        >>> print(record)
        digits.tflite: accuracy 97.2 %, 24.0 kB (gzip 12.0 kB), median 0.100 ms, p90 0.120 ms, p99 0.200 ms (100 runs)
        >>> Measurement.from_json(record.to_json()) == record
        True
    """

    model: str
    label: str
    model_sha256: str
    size_bytes: int
    gzip_bytes: int
    accuracy: float | None
    samples: int
    data_sha256: str | None
    latency: Latency
    peak_bytes: int | None
    runtime_bytes: int | None
    input_dtypes: tuple[str, ...]
    output_dtypes: tuple[str, ...]
    device: DeviceInfo
    settings: Settings
    kind: str = "measured"

    def __post_init__(self):
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy is a fraction in [0, 1] or None. Received: accuracy={self.accuracy}.")
        if len(self.model_sha256) != SHA256_DIGITS:
            raise ValueError(f"model_sha256 has {SHA256_DIGITS} hex digits. Received: {self.model_sha256!r}.")
        if self.size_bytes <= 0 or self.gzip_bytes <= 0:
            raise ValueError(f"Sizes are above 0. Received: {self.size_bytes} and {self.gzip_bytes} bytes.")

    @property
    def name(self) -> str:
        """The last part of the model's path."""
        return self.model.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as plain dictionaries, lists, numbers and strings."""
        return json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Measurement":
        """Returns the measurement that ``to_json`` wrote.

        Raises:
            DataError: a field is missing, unknown or of another kind than ``to_json`` writes.
        """
        try:
            fields = dict(record)
            fields["latency"] = Latency(**fields["latency"])
            fields["device"] = DeviceInfo(**fields["device"])
            fields["settings"] = Settings(**fields["settings"])
            fields["input_dtypes"] = tuple(fields["input_dtypes"])
            fields["output_dtypes"] = tuple(fields["output_dtypes"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"Not a measurement record: {error}. Write it again with this version.") from error

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f"accuracy {self.accuracy:.1%}, ".replace("%", " %")
        sizes = f"{self.size_bytes / 1000:.1f} kB (gzip {self.gzip_bytes / 1000:.1f} kB)"
        return f"{self.name}: {accuracy}{sizes}, {self.latency}"


def json_text(measurements: Measurement | Iterable[Measurement]) -> str:
    """Returns the JSON array, one record per model and device, that ``--json`` writes.

    Example:
        >>> measurements_from_json(json_text(example_measurement())) == [example_measurement()]
        True
    """
    records = [measurements] if isinstance(measurements, Measurement) else list(measurements)
    return json.dumps([record.to_json() for record in records], indent=2, allow_nan=False) + "\n"


def measurements_from_json(text: str) -> list[Measurement]:
    """Returns the measurements in a JSON array that ``json_text`` wrote.

    Raises:
        DataError: the text is not JSON, not an array, or a record in it is not a measurement.

    Example:
        >>> measurements_from_json("[]")
        []
    """
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"Measurements are a JSON array. Received text that is not JSON: {error}.") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"Measurements are a JSON array of records. Received: {type(records).__name__}.")
    return [Measurement.from_json(record) for record in records]


def example_measurement(**changes: Any) -> Measurement:
    """Returns a made-up measurement with ``changes`` applied: for examples of how records are shown, never a result.

    Example:
        >>> example_measurement(accuracy=None).accuracy is None
        True
    """
    record = Measurement(
        model="digits.tflite",
        label="int8",
        model_sha256="0" * SHA256_DIGITS,
        size_bytes=24_000,
        gzip_bytes=12_000,
        accuracy=0.972,
        samples=500,
        data_sha256="1" * SHA256_DIGITS,
        latency=Latency(0.1, 0.12, 0.2, 0.11, 0.02, 0.09, runs=100, warmup_runs=10, load_ms=1.5, first_ms=0.4),
        peak_bytes=60_000_000,
        runtime_bytes=50_000_000,
        input_dtypes=("int8",),
        output_dtypes=("int8",),
        device=DeviceInfo("local", "Cortex-A76", 4, "Linux 6.6 aarch64", "3.11.7", "ai-edge-litert 2.3.0"),
        settings=Settings(threads=1, xnnpack=True, delegate_nodes=1, warmup_runs=10, runs=100),
        kind="example",
    )
    return dataclasses.replace(record, **changes)
