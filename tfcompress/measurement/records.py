"""What a measurement is, as a value that can be saved, diffed and reused.

Holds numbers and writes them as JSON; ``measuring`` obtains them, ``tables`` and ``reporting`` show them.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from ..errors import DataError
from ..system.declared_types import from_plain
from ..system.documents import parse_json
from .conditions import DeviceInfo, Settings
from .latency import Latency, Noise, Ratio
from .op_times import Profile

__all__ = [
    "DeviceInfo",
    "Failure",
    "Latency",
    "Measurement",
    "Reference",
    "Settings",
    "json_lines",
    "json_text",
    "measurements_from_json",
]

SHA256_DIGITS = 64
KINDS = ("measured", "modelled", "emulated", "example")


@dataclasses.dataclass(frozen=True)
class Reference:
    """How far a model's answers are from those in a reference file.

    Attributes:
        file: the reference: outputs, or another model's file.
        sha256: its hash.
        same_answers: share of the samples with the same class; None for outputs without classes.
        max_difference: largest difference of an output, in real numbers.
        max_steps: the same in quantization steps of the output; None for a float output.
        mean_steps: the mean difference in such steps.

    Examples:
        >>> print(Reference("float.tflite", "0" * 64, 0.976, 0.25, 2.0, 0.1))
        same answer as float.tflite for 97.6 % of the samples, outputs at most 2.0 steps apart
    """

    file: str
    sha256: str
    same_answers: float | None
    max_difference: float
    max_steps: float | None = None
    mean_steps: float | None = None

    def __str__(self) -> str:
        answers = "" if self.same_answers is None else f" for {100 * self.same_answers:.1f} % of the samples"
        apart = f"{self.max_difference:.3g}" if self.max_steps is None else f"{self.max_steps:.1f} steps"
        return f"same answer as {self.file}{answers}, outputs at most {apart} apart"


class Call(TypedDict, total=False):
    """How a measurement can be repeated: the arguments of ``measure`` that JSON can hold."""

    model: str | None
    data: str | None
    metric: str
    reference: str | None
    scaling: str | None
    threads: int
    xnnpack: bool
    api: str | None
    accelerator: str
    cpus: tuple[int, ...]
    batch: int
    workers: int
    reset_state: bool
    seed: int
    warmup: int | None
    runs: int
    interleave: bool
    confusion: bool
    profile: bool


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one file did on one device.

    Attributes:
        model: path of the file, or the name given for bytes.
        label: what the file is, for tables: "int8", "pruned"; may be empty.
        model_sha256: hash of the file.
        size_bytes: its size.
        gzip_bytes: its size after gzip at level 9, what a download costs.
        accuracy: the fraction of samples that it answers right (top-1; also AUC, mAP and others that lie in [0, 1]);
            None without labelled data, or for an error such as the mean square.
        samples: how many labelled samples were scored; 0 without.
        data_sha256: hash of the labelled data; None without.
        latency: time per inference at batch size 1 (or the file's own fixed batch size); None where it was not timed.
        peak_bytes: peak resident size of the process that ran the file: Python, interpreter and model; None where the
            system does not tell.
        runtime_bytes: resident size of that process before it opened the file; None where the system does not tell.
        input_dtypes: dtype of each input.
        output_dtypes: dtype of each output.
        device: where it ran.
        settings: how it ran.
        kind: what times and sizes are: "measured" on a real device, "modelled" by a compiler's or simulator's
            estimate, or "emulated" on another machine's emulator. Default: "measured".
        metric: what ``accuracy`` is. Default: "top1".
        scores: all metrics that were asked for, by name. Default: none.
        confusion: number of samples by label (row) and answer (column). Default: None.
        reference: agreement with a reference file. Default: None.
        activation_bytes: bytes of all activations that are alive at once, at worst (``Model.activation_bytes``), the least
            that an arena needs. Default: None.
        noise: what else went on meanwhile. Default: None.
        ratio: to the first of the files that ran in turns. Default: None.
        profile: time per op. Default: None.
        estimates: what else a device says in numbers: cycles, SRAM, instructions. Default: none.
        call: how ``measure`` was called, as far as JSON can hold it; ``measure --like`` reads it. Default: none.
        interrupted: whether Ctrl-C ended it early. Default: False.

    Examples:
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
    latency: Latency | None
    peak_bytes: int | None
    runtime_bytes: int | None
    input_dtypes: tuple[str, ...]
    output_dtypes: tuple[str, ...]
    device: DeviceInfo
    settings: Settings
    kind: str = "measured"
    metric: str = "top1"
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] | None = None
    reference: Reference | None = None
    activation_bytes: int | None = None
    noise: Noise | None = None
    ratio: Ratio | None = None
    profile: Profile | None = None
    estimates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    interrupted: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: kind={self.kind!r}.")
        if self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy is a fraction in [0, 1] or None. Received: accuracy={self.accuracy}.")
        if len(self.model_sha256) != SHA256_DIGITS:
            raise ValueError(f"model_sha256 has {SHA256_DIGITS} hex digits. Received: {self.model_sha256!r}.")
        if self.size_bytes <= 0 or self.gzip_bytes <= 0:
            raise ValueError(f"Sizes are above 0. Received: {self.size_bytes} and {self.gzip_bytes} bytes.")

    @property
    def name(self) -> str:
        """The last part of the model's path."""
        return last_part(self.model)

    @property
    def run_bytes(self) -> int | None:
        """Peak resident size of the run over that of the runtime alone, in bytes."""
        return None if self.peak_bytes is None or self.runtime_bytes is None else self.peak_bytes - self.runtime_bytes

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
            found = from_plain(cls, dict(record))
            from_plain(Call, found.call, place="call")
            return found
        except (TypeError, ValueError) as error:
            raise DataError(f"Not a measurement record: {error}. Write it again with this version.") from error

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f"accuracy {self.accuracy:.1%}, ".replace("%", " %")
        sizes = f"{self.size_bytes / 1000:.1f} kB (gzip {self.gzip_bytes / 1000:.1f} kB)"
        return f"{self.name}: {accuracy}{sizes}, {self.latency or 'not timed'}"


def last_part(path: str) -> str:
    """Returns the last part of a path of any system.

    Examples:
        >>> last_part("folder\\\\digits.tflite")
        'digits.tflite'
    """
    return path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True)
class Failure:
    """One file that could not be measured on one device, in the place of its record.

    Attributes:
        model: path of the file, or the name given for bytes.
        device: as it was asked for.
        reason: one line.
        label: what the file is. Default: "".

    Examples:
        >>> print(Failure("a.tflite", "local", "The model file must exist."))
        a.tflite on local: The model file must exist.
    """

    model: str
    device: str
    reason: str
    label: str = ""

    @property
    def name(self) -> str:
        """The last part of the model's path."""
        return last_part(self.model)

    def to_json(self) -> dict[str, Any]:
        """Returns the failure as plain strings."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{self.name} on {self.device}: {self.reason}"


Result = Measurement | Failure
FAILURE_FIELDS = {field.name for field in dataclasses.fields(Failure)}


def json_text(results: Result | Iterable[Result]) -> str:
    """Returns the JSON array, one record per model and device, that ``--json`` writes.

    Examples:
        >>> measurements_from_json(json_text(example_measurement())) == [example_measurement()]
        True
    """
    return json.dumps([record.to_json() for record in as_list(results)], indent=2, allow_nan=False) + "\n"


def json_lines(results: Result | Iterable[Result]) -> str:
    """Returns one line of JSON per record, as databases and ``jq`` read them.

    Examples:
        >>> json_lines([example_measurement(), example_measurement()]).count("\\n")
        2
    """
    return "".join(json.dumps(record.to_json(), allow_nan=False) + "\n" for record in as_list(results))


def as_list(results: Result | Iterable[Result]) -> list[Result]:
    """Returns records as a list, also a single one.

    Examples:
        >>> len(as_list(example_measurement()))
        1
    """
    return [results] if isinstance(results, Measurement | Failure) else list(results)


def measurements_from_json(text: str) -> list[Measurement]:
    """Returns the measurements in text that ``json_text`` or ``json_lines`` wrote; failures are left out.

    Raises:
        DataError: the text is not JSON, not an array, or a record in it is not a measurement.

    Examples:
        >>> measurements_from_json("[]")
        []
    """
    try:
        if text.startswith("{") and "\n{" in text.strip():
            records = [parse_json(line) for line in text.splitlines() if line.strip()]
        else:
            records = parse_json(text)
            records = [records] if isinstance(records, dict) and "latency" in records else records
    except ValueError as error:
        raise DataError(f"Measurements are a JSON array. Received text that is not JSON: {error}.") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"Measurements are a JSON array of records. Received: {type(records).__name__}.")
    return [Measurement.from_json(record) for record in records if set(record) != FAILURE_FIELDS]


def example_measurement(**changes: Any) -> Measurement:
    """Returns a made-up measurement with ``changes`` applied: for examples of how records are shown, never a result.

    Examples:
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
