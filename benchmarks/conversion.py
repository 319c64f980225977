"""How long int8 conversion takes, against TFLiteConverter and ai-edge-quantizer on the same model and samples in the same run.

The full table takes about 45 minutes on two quiet cores:
``python benchmarks/conversion.py --samples=100,1000 --rounds=3 --json=conversion.json``; ``--samples=20 --rounds=1`` shows in
6 minutes that everything runs. MobileNetV2 at 224x224 that ends in logits, its BatchNorm statistics set by a seeded
forward pass (an untrained one answers the same for every input). Each contender runs in a process of its own, in turns, and
reads its samples as a stream, so that peak memory is its own; the ratio is taken pair by pair. The contenders "of .tflite"
begin with the same float file: calibration and quantization alone. ``calibration.py`` follows on 100 samples: calibration
against float inference, every observer against min/max, and peak memory by samples and batch.
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
from typing import Any

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.system import write_atomically

WHOLE = ("tfcompress", "TFLiteConverter", "ai-edge-quantizer")
PARTS = ("tfcompress of .tflite", "ai-edge-quantizer of .tflite")
CONTENDERS = (*WHOLE, *PARTS)
FILES = ("tfcompress", "TFLiteConverter", "tfcompress, their ranges")
SUMMARY = (
    "Compares int8 conversion with TFLiteConverter and ai-edge-quantizer: seconds, peak memory, outputs. "
    "The full table, --samples=100,1000 --rounds=3, takes about 45 minutes; --samples=20 --rounds=1 takes 6."
)


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_list("samples", ["100", "1000"], "numbers of representative samples, 20 at least", flag_values=values)
    flags.DEFINE_integer("rounds", 3, "interleaved runs of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_boolean("calibration", True, "whether calibration.py follows", flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("contender", None, "internal: convert once in this process", flag_values=values)
    flags.DEFINE_string("folder", None, "internal: where the model and samples are", flag_values=values)
    flags.DEFINE_integer("count", 0, "internal: how many samples", flag_values=values)
    return values


def prepare(folder: Path, count: int) -> None:
    """Writes the model and its samples: smooth seeded pictures in [-1, 1]."""
    import keras
    import numpy as np

    from tfcompress import lowering

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    coarse = random.uniform(-1, 1, (count, 14, 14, 3)).astype(np.float32)
    samples = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)
    samples += random.normal(0, 0.1, samples.shape).astype(np.float32)
    model = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # one pass sets the statistics
    model(samples[:16], training=True)
    for layer in norms:
        layer.momentum = 0.999
    answers = model.predict(samples[:20], verbose=0)
    if len({tuple(row) for row in answers.round(4)}) != 20:
        raise SystemExit("the prepared model does not tell its inputs apart")
    model.save(folder / "model.keras")
    (folder / "float.tflite").write_bytes(lowering.lower_keras(model).content)
    np.save(folder / "samples.npy", samples.astype(np.float32))


def their_converter(model, samples):
    """Returns TFLiteConverter set up for full int8."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter


class Stream:
    """The first samples of a ``.npy`` file, read anew each time; a file mapped whole would count as the process's memory.

    Args:
        path: the file.
        count: how many samples.
        wrap: what becomes of each sample. Default: it stays as it is.
    """

    def __init__(self, path: Path, count: int, wrap: Callable[[Any], Any] = lambda sample: sample) -> None:
        self.path, self.count, self.wrap = path, count, wrap

    def __iter__(self) -> Iterator[Any]:
        import numpy as np

        for start in range(0, self.count, 50):
            for sample in np.array(np.load(self.path, mmap_mode="r")[start : min(start + 50, self.count)]):
                yield self.wrap(sample)


def with_ai_edge_quantizer(float_file: bytes, samples: Stream) -> bytes:
    """Returns the full int8 file of ai-edge-quantizer: its calibration and its quantizer."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    library = quantizer.Quantizer(bytearray(float_file), recipe.static_wi8_ai8())
    ((key, signature),) = Interpreter(model_content=float_file).get_signature_list().items()
    samples.wrap = lambda sample: {signature["inputs"][0]: sample[None]}
    ranges = library.calibrate({key: samples}, num_threads=2)
    return bytes(library.quantize(ranges, enable_progress_report=False).quantized_model)


def convert_once(contender: str, folder: Path, count: int) -> dict:
    """Loads the model, converts it and returns seconds and peak memory; loading does not count."""
    import keras
    import tensorflow as tf

    model = None
    if contender in WHOLE:
        model = keras.models.load_model(folder / "model.keras", compile=False)
    samples = Stream(folder / "samples.npy", count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if contender.startswith("tfcompress"):
        import tfcompress

        source = model or folder / "float.tflite"
        content = tfcompress.convert(source, target="cpu-int8", representative_data=samples).tflite
    elif contender.startswith("ai-edge-quantizer"):
        converted = tf.lite.TFLiteConverter.from_keras_model(model).convert() if model else None
        content = with_ai_edge_quantizer(converted or (folder / "float.tflite").read_bytes(), samples)
    else:
        content = their_converter(model, samples).convert()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (folder / f"{contender}.tflite").write_bytes(content)
    return {"seconds": seconds, "peak_mb": peak / 1024, "loaded_mb": before / 1024, "size_bytes": len(content)}


def convert_with_their_ranges(folder: Path, count: int) -> dict:
    """Writes our file once more, from the very ranges that TFLiteConverter's calibrator measured."""
    import keras

    from tfcompress import TARGETS, lowering
    from tfcompress.quantization import quantizers
    from tfcompress.tflite import flatbuffer

    model = keras.models.load_model(folder / "model.keras", compile=False)
    converter = their_converter(model, Stream(folder / "samples.npy", count))
    converter._experimental_calibrate_only = True
    calibrated = flatbuffer.parse(converter.convert())
    lowered = lowering.lower_keras(model)
    hub = flatbuffer.parse(lowered.content)
    ranges = {}
    for mine, other in zip(flatbuffer.activation_tensors(hub), flatbuffer.activation_tensors(calibrated), strict=True):
        measured = calibrated.subgraphs[0].tensors[other].quantization
        name = flatbuffer.tensor_name(hub.subgraphs[0].tensors[mine])
        ranges[name] = float(measured.min[0]), float(measured.max[0])
    content = quantizers.quantize(lowered.content, ranges, TARGETS["cpu-int8"])
    (folder / "tfcompress, their ranges.tflite").write_bytes(content)
    return {"tensors": len(ranges)}


def compare(folder: Path) -> dict:
    """Returns how the files answer: distinct answers, smallest scale, largest difference in steps on the same ranges."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    samples = np.load(folder / "samples.npy", mmap_mode="r")[:20]
    answers, scales, smallest = {}, {}, {}
    for name in FILES:
        interpreter = Interpreter(str(folder / f"{name}.tflite"), num_threads=2)
        interpreter.allocate_tensors()
        given, wanted = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        scale, zero = given["quantization"]
        rows = []
        for sample in samples:
            integers = np.clip(np.round(sample / scale) + zero, -128, 127).astype(np.int8)
            interpreter.set_tensor(given["index"], integers[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(wanted["index"])[0].astype(np.int32))
        answers[name], scales[name] = np.stack(rows), wanted["quantization"][0]
        details = interpreter.get_tensor_details()
        smallest[name] = min(
            float(d["quantization_parameters"]["scales"].min())
            for d in details
            if d["dtype"] == np.int8 and len(d["quantization_parameters"]["scales"]) == 1
        )
    first, second = answers["tfcompress, their ranges"], answers["TFLiteConverter"]
    return {
        "distinct_answers": len({tuple(row) for row in answers["tfcompress"]}),
        "smallest_activation_scale": smallest["tfcompress"],
        "same_output_scale": scales["tfcompress, their ranges"] == scales["TFLiteConverter"],
        "largest_difference_steps": int(np.abs(first - second).max()),
        "differing_fraction": float(np.mean(first != second)),
    }


def _child(contender: str, folder: Path, *more: str) -> dict:
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    command = [sys.executable, __file__, f"--contender={contender}", f"--folder={folder}", *more]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def contest(folder: Path, count: int, rounds: int) -> dict:
    """Returns seconds and memory of every run on ``count`` samples, ratios pair by pair, and what the files answer."""
    runs: dict[str, list[dict]] = {contender: [] for contender in CONTENDERS}
    for turn in range(rounds):
        for contender in CONTENDERS if turn % 2 == 0 else CONTENDERS[::-1]:
            runs[contender].append(_child(contender, folder, f"--count={count}"))
            print(
                f"{count} samples, round {turn + 1}: {contender:28} {runs[contender][-1]['seconds']:6.1f} s",
                file=sys.stderr,
            )
    _child(FILES[2], folder, f"--count={count}")

    def against(mine: str, other: str) -> list[float]:
        return [b["seconds"] / a["seconds"] for a, b in zip(runs[mine], runs[other], strict=True)]

    ratios = {other: against(WHOLE[0], other) for other in WHOLE[1:]} | {PARTS[1]: against(*PARTS)}
    return {
        "runs": runs,
        "speed_ratio_median": statistics.median(ratios["TFLiteConverter"]),
        "speed_ratios": ratios,
        "outputs": compare(folder),
    }


def show(count: int, found: dict) -> None:
    """Prints what ``contest`` found."""
    print(f"int8 conversion of MobileNetV2 224x224, {count} samples, {len(found['runs'][WHOLE[0]])} interleaved rounds")
    print(f"{'':30}{'median s':>10}{'peak MB':>10}{'bytes':>12}")
    for contender, rows in found["runs"].items():
        seconds = statistics.median(row["seconds"] for row in rows)
        peak = statistics.median(row["peak_mb"] for row in rows)
        print(f"{contender:30}{seconds:10.2f}{peak:10.0f}{rows[0]['size_bytes']:12,}")
    for name, pairs in found["speed_ratios"].items():
        middle, spread = statistics.median(pairs), f"{min(pairs):.2f} to {max(pairs):.2f}"
        print(f"tfcompress is {middle:.2f} times as fast as {name} ({spread}, pair by pair)")
    outputs = found["outputs"]
    print(
        f"outputs: {outputs['distinct_answers']} of 20 distinct, smallest activation scale "
        f"{outputs['smallest_activation_scale']:.2e}, largest difference "
        f"{outputs['largest_difference_steps']} step(s) on the same ranges"
    )


def is_sound(outputs: dict) -> bool:
    """Returns whether the files tell their inputs apart and agree with TFLiteConverter's on the same ranges."""
    return (
        outputs["distinct_answers"] == 20
        and outputs["smallest_activation_scale"] > 1e-6
        and outputs["largest_difference_steps"] <= 1
    )


def calibration(folder: Path, samples: int, rounds: int) -> dict:
    """Runs ``calibration.py`` and returns its record."""
    script = Path(__file__).with_name("calibration.py")
    to = folder / "calibration.json"
    command = [sys.executable, str(script), f"--samples={samples}", f"--rounds={rounds}", f"--json={to}"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"calibration.py failed with exit code {done.returncode}")
    return {**json.loads(to.read_text()), "table": done.stdout}


def _counts(values: flags.FlagValues) -> list[int]:
    if not all(text.isdigit() and int(text) >= 20 for text in values.samples) or not values.samples:
        raise UsageError(f"--samples must be numbers of 20 or more. Received: {','.join(values.samples)}.")
    return sorted({int(text) for text in values.samples})


def main() -> int:
    values = _flags()
    try:
        if parse(values, sys.argv[1:], required=()):
            print(help_text(values, program="conversion.py", summary=SUMMARY, example=""))
            return 0
        counts = _counts(values)
    except UsageError as error:
        print(f"conversion.py: {error}", file=sys.stderr)
        return 2
    if values.contender:
        folder = Path(values.folder)
        if values.contender == "prepare":
            prepare(folder, values.count)
            print("{}")
            return 0
        make = convert_with_their_ranges(folder, values.count) if values.contender == FILES[2] else None
        print(json.dumps(make or convert_once(values.contender, folder, values.count)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _child("prepare", folder, f"--count={counts[-1]}")
        record: dict = {"model": "MobileNetV2 224x224", "cpus": len(os.sched_getaffinity(0)), "by_samples": {}}
        for count in counts:
            record["by_samples"][count] = contest(folder, count, values.rounds)
            if values.json != "-":
                show(count, record["by_samples"][count])
        if values.calibration:
            record["calibration"] = calibration(folder, min(counts[0], 100), values.rounds)
            table = record["calibration"].pop("table")
            if values.json != "-":
                print(table, end="")
    text = json.dumps(record, indent=2) + "\n"
    if values.json == "-":
        print(text, end="")
    elif values.json:
        write_atomically(values.json, text, overwrite=True)
    return 0 if all(is_sound(found["outputs"]) for found in record["by_samples"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
