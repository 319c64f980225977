"""How long calibration takes, against pure float inference of the same samples, for every observer.

``python benchmarks/calibration.py --samples=100 --json=calibration.json``. MobileNetV2 at 224x224 as in ``conversion.py``.
Contenders take turns in one process, which has loaded everything before: float inference on XNNPACK with 2 threads at batch
8 (the peer), ``min_max`` at batch 8, and every observer at the batch that ``calibrate`` chooses. Ratios are taken turn by
turn. Peak memory is that of a child process which calibrates on a generator, by number of samples and batch, and of
one in which TFLiteConverter does.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import flags
from conversion import prepare

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.system import write_atomically

PEER, SAME_BATCH, PLAIN = "float inference", "min_max, batch 8", "min_max"
BATCH = 8
THREADS = 2


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("samples", 100, "representative samples", lower_bound=20, flag_values=values)
    flags.DEFINE_integer("rounds", 5, "interleaved runs of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    flags.DEFINE_integer("stream", 0, "internal: calibrate once on a generator of so many samples", flag_values=values)
    flags.DEFINE_integer("batch", 1, "internal: samples of one inference of --stream", flag_values=values)
    flags.DEFINE_boolean("peer", False, "internal: --stream by TFLiteConverter", flag_values=values)
    flags.DEFINE_boolean("prepare", False, "internal: write the model and its samples", flag_values=values)
    flags.DEFINE_string("folder", None, "internal: where the model and samples are", flag_values=values)
    return values


def infer(content: bytes, samples: np.ndarray) -> None:
    """Runs the samples through the float file, nothing exposed and nothing looked at."""
    from ai_edge_litert.interpreter import Interpreter

    from tfcompress.system import native_stderr_silenced

    with native_stderr_silenced():
        interpreter = Interpreter(model_content=content, num_threads=THREADS)
        index = interpreter.get_input_details()[0]["index"]
        shape = None
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            if batch.shape != shape:
                interpreter.resize_tensor_input(index, batch.shape)
                interpreter.allocate_tensors()
                shape = batch.shape
            interpreter.set_tensor(index, batch)
            interpreter.invoke()


def contenders(content: bytes, samples: np.ndarray) -> dict[str, Callable[[], object]]:
    """Returns what is timed, by name."""
    from tfcompress.calibration import OBSERVERS, Observer, calibrate
    from tfcompress.data import load_representative
    from tfcompress.quantization import quantizers

    specs = inputs(content)
    needed = set(quantizers.needed_ranges(content))

    def run(observer: Observer, batch: int | None = None) -> object:
        data = load_representative(samples, specs)
        return calibrate(content, data, observer=observer, tensors=needed, workers=THREADS, batch=batch)

    found: dict[str, Callable[[], object]] = {PEER: lambda: infer(content, samples)}
    found[SAME_BATCH] = lambda: run(OBSERVERS[PLAIN], BATCH)
    for name, observer in OBSERVERS.items():
        found[name] = lambda observer=observer: run(observer)
    return found


def inputs(content: bytes) -> list:
    """Returns what the file accepts."""
    from tfcompress.data import InputSpec
    from tfcompress.tflite import flatbuffer

    model = flatbuffer.parse(content)
    return [
        InputSpec(entry.name.decode(), (None, *model.subgraphs[0].tensors[entry.tensorIndex].shape[1:]), np.float32)
        for entry in model.signatureDefs[0].inputs
    ]


def stream(folder: Path, count: int, batch: int) -> dict:
    """Calibrates on a generator of ``count`` samples and returns the process's peak memory."""
    from tfcompress.calibration import calibrate
    from tfcompress.data import load_representative

    content = (folder / "float.tflite").read_bytes()
    specs = inputs(content)
    samples = load_representative(generated(specs[0].shape[1:], count), specs)
    calibrate(content, samples, workers=THREADS, batch=batch)
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def stream_to_peer(folder: Path, count: int) -> dict:
    """Has TFLiteConverter calibrate on the same generator, and returns the process's peak memory."""
    import keras
    from conversion import their_converter

    model = keras.models.load_model(folder / "model.keras", compile=False)
    converter = their_converter(model, generated(model.input_shape[1:], count))
    converter._experimental_calibrate_only = True
    converter.convert()
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def generated(shape: tuple, count: int) -> Iterator[np.ndarray]:
    """Yields ``count`` samples that are made while they are read."""
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.uniform(-1, 1, shape).astype(np.float32)


def peaks(folder: Path) -> list[dict]:
    """Returns the peak memory for each number of samples and batch, ours and TFLiteConverter's."""
    rows = []
    for count in (100, 400):
        for batch in (1, BATCH):
            found = _child(folder, f"--stream={count}", f"--batch={batch}")
            rows.append({"contender": "tfcompress", "samples": count, "batch": batch, **found})
        found = _child(folder, f"--stream={count}", "--peer")
        rows.append({"contender": "TFLiteConverter", "samples": count, "batch": 1, **found})
    return rows


def _child(folder: Path, *arguments: str) -> dict:
    package = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, __file__, f"--folder={folder}", *arguments]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Returns wall and processor seconds of each contender, in turns."""
    content = (folder / "float.tflite").read_bytes()
    samples = np.load(folder / "samples.npy")
    found = contenders(content, samples)
    wall: dict[str, list[float]] = {name: [] for name in found}
    processor: dict[str, list[float]] = {name: [] for name in found}
    infer(content, samples[:BATCH])
    for turn in range(rounds):
        for name in list(found) if turn % 2 == 0 else list(found)[::-1]:
            start, used = time.perf_counter(), time.process_time()
            found[name]()
            wall[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
            print(f"round {turn + 1}: {name:20} {wall[name][-1]:6.2f} s", file=sys.stderr)
    return wall, processor


def _ratio(times: dict[str, list[float]], name: str, peer: str) -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[peer], strict=True))


def main() -> int:
    values = _flags()
    try:
        if parse(values, sys.argv[1:], required=()):
            print(help_text(values, program="calibration.py", summary=(__doc__ or "").splitlines()[0], example=""))
            return 0
    except UsageError as error:
        print(f"calibration.py: {error}", file=sys.stderr)
        return 2
    if values.folder:
        if values.prepare:
            prepare(Path(values.folder), values.samples)
        folder, found = Path(values.folder), {}
        if values.stream and values.peer:
            found = stream_to_peer(folder, values.stream)
        elif values.stream:
            found = stream(folder, values.stream, values.batch)
        print(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _child(folder, "--prepare", f"--samples={values.samples}")
        wall, processor = measure(folder, values.rounds)
        memory = peaks(folder)
    rows = {
        contender: {
            "seconds": statistics.median(wall[contender]),
            "to_inference": _ratio(wall, contender, PEER),
            "to_min_max": _ratio(wall, contender, PLAIN),
            "processor_to_inference": _ratio(processor, contender, PEER),
            "processor_to_min_max": _ratio(processor, contender, PLAIN),
        }
        for contender in wall
    }
    record = {
        "model": "MobileNetV2 224x224",
        "samples": values.samples,
        "cpus": len(os.sched_getaffinity(0)),
        "rounds": values.rounds,
        "contenders": rows,
        "wall_seconds": wall,
        "processor_seconds": processor,
        "peak_mb": memory,
    }
    if values.json != "-":
        print(
            f"calibration on {record['model']}, {values.samples} samples, {values.rounds} interleaved rounds, wall (cpu)"
        )
        print(f"{'':20}{'median s':>10}{'x inference':>18}{'x min_max':>18}")
        for contender, row in rows.items():
            inference = f"{row['to_inference']:.2f} ({row['processor_to_inference']:.2f})"
            plain = f"{row['to_min_max']:.2f} ({row['processor_to_min_max']:.2f})"
            print(f"{contender:20}{row['seconds']:10.2f}{inference:>18}{plain:>18}")
        print(f"{'peak memory on a stream':24}{'samples':>8}{'batch':>7}{'MB':>7}")
        for row in memory:
            print(f"{row['contender']:24}{row['samples']:8}{row['batch']:7}{row['peak_mb']:7.0f}")
    text = json.dumps(record, indent=2) + "\n"
    if values.json == "-":
        print(text, end="")
    elif values.json:
        write_atomically(values.json, text, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
