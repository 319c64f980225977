"""How long int8 conversion takes, against TFLiteConverter and ai-edge-quantizer on the same model and samples in the same run.

``python benchmarks/conversion.py --samples=100 --json=conversion.json``. MobileNetV2 at 224x224 that ends in logits, its
BatchNorm statistics set by a seeded forward pass (an untrained one answers the same for every input). Each contender
runs in a process of its own, in turns, so that peak memory is its own; the ratio is taken pair by pair.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.files import write_atomically

CONTENDERS = ("tfcompress", "TFLiteConverter", "ai-edge-quantizer")
FILES = ("tfcompress", "TFLiteConverter", "tfcompress, their ranges")


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("samples", 100, "representative samples", lower_bound=20, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "interleaved runs of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("contender", None, "internal: convert once in this process", flag_values=values)
    flags.DEFINE_string("folder", None, "internal: where the model and samples are", flag_values=values)
    return values


def prepare(folder: Path, count: int) -> None:
    """Writes the model and its samples: smooth seeded pictures in [-1, 1]."""
    import keras
    import numpy as np

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


def with_ai_edge_quantizer(model, samples) -> bytes:
    """Returns the full int8 file of ai-edge-quantizer: TFLiteConverter's float file, its calibration, its quantizer."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    float_file = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    library = quantizer.Quantizer(bytearray(float_file), recipe.static_wi8_ai8())
    ((key, signature),) = Interpreter(model_content=float_file).get_signature_list().items()
    feeds = [{signature["inputs"][0]: sample[None]} for sample in samples]
    ranges = library.calibrate({key: feeds}, num_threads=2)
    return bytes(library.quantize(ranges, enable_progress_report=False).quantized_model)


def convert_once(contender: str, folder: Path) -> dict:
    """Loads the model, converts it and returns seconds and peak memory; loading does not count."""
    import keras
    import numpy as np
    import tensorflow  # noqa: F401 - loading it is nobody's conversion time

    model = keras.models.load_model(folder / "model.keras", compile=False)
    samples = np.load(folder / "samples.npy", mmap_mode="r")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    if contender == "tfcompress":
        import tfcompress

        content = tfcompress.convert(model, target="cpu-int8", representative_data=samples).tflite
    elif contender == "ai-edge-quantizer":
        content = with_ai_edge_quantizer(model, samples)
    else:
        content = their_converter(model, samples).convert()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (folder / f"{contender}.tflite").write_bytes(content)
    return {"seconds": seconds, "peak_mb": peak / 1024, "loaded_mb": before / 1024, "size_bytes": len(content)}


def convert_with_their_ranges(folder: Path) -> dict:
    """Writes our file once more, from the very ranges that TFLiteConverter's calibrator measured."""
    import keras
    import numpy as np

    from tfcompress import TARGETS, flatbuffer, lowering, quantization

    model = keras.models.load_model(folder / "model.keras", compile=False)
    converter = their_converter(model, np.load(folder / "samples.npy", mmap_mode="r"))
    converter._experimental_calibrate_only = True
    calibrated = flatbuffer.parse(converter.convert())
    lowered = lowering.lower_keras(model)
    hub = flatbuffer.parse(lowered.content)
    ranges = {}
    for mine, other in zip(flatbuffer.activation_tensors(hub), flatbuffer.activation_tensors(calibrated), strict=True):
        measured = calibrated.subgraphs[0].tensors[other].quantization
        name = flatbuffer.tensor_name(hub.subgraphs[0].tensors[mine])
        ranges[name] = float(measured.min[0]), float(measured.max[0])
    content = quantization.quantize(lowered.content, ranges, TARGETS["cpu-int8"])
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


def main() -> int:
    values = _flags()
    try:
        if parse(values, sys.argv[1:], required=()):
            print(help_text(values, program="conversion.py", summary=(__doc__ or "").splitlines()[0], example=""))
            return 0
    except UsageError as error:
        print(f"conversion.py: {error}", file=sys.stderr)
        return 2
    if values.contender:
        folder = Path(values.folder)
        if values.contender == "prepare":
            prepare(folder, values.samples)
            print("{}")
            return 0
        again = values.contender == FILES[2]
        print(json.dumps(convert_with_their_ranges(folder) if again else convert_once(values.contender, folder)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _child("prepare", folder, f"--samples={values.samples}")
        runs: dict[str, list[dict]] = {contender: [] for contender in CONTENDERS}
        for turn in range(values.rounds):
            for contender in CONTENDERS if turn % 2 == 0 else CONTENDERS[::-1]:
                runs[contender].append(_child(contender, folder))
                print(f"round {turn + 1}: {contender:16} {runs[contender][-1]['seconds']:6.1f} s", file=sys.stderr)
        _child(FILES[2], folder)
        outputs = compare(folder)
    ours = runs["tfcompress"]
    ratios = {
        name: [theirs["seconds"] / mine["seconds"] for mine, theirs in zip(ours, runs[name], strict=True)]
        for name in CONTENDERS[1:]
    }
    pairs = ratios["TFLiteConverter"]
    record = {
        "model": "MobileNetV2 224x224",
        "samples": values.samples,
        "cpus": len(os.sched_getaffinity(0)),
        "runs": runs,
        "speed_ratio_median": statistics.median(pairs),
        "speed_ratios": ratios,
        "outputs": outputs,
    }
    if values.json != "-":
        print(f"int8 conversion of {record['model']}, {values.samples} samples, {values.rounds} interleaved rounds")
        print(f"{'':18}{'median s':>10}{'peak MB':>10}{'bytes':>12}")
        for contender, rows in runs.items():
            seconds = statistics.median(row["seconds"] for row in rows)
            peak = statistics.median(row["peak_mb"] for row in rows)
            print(f"{contender:18}{seconds:10.2f}{peak:10.0f}{rows[0]['size_bytes']:12,}")
        for name, values_of_pairs in ratios.items():
            spread = f"{min(values_of_pairs):.2f} to {max(values_of_pairs):.2f}"
            middle = statistics.median(values_of_pairs)
            print(f"tfcompress is {middle:.2f} times as fast as {name} ({spread}, pair by pair)")
        print(
            f"outputs: {outputs['distinct_answers']} of 20 distinct, smallest activation scale "
            f"{outputs['smallest_activation_scale']:.2e}, largest difference "
            f"{outputs['largest_difference_steps']} step(s) on the same ranges"
        )
    text = json.dumps(record, indent=2) + "\n"
    if values.json == "-":
        print(text, end="")
    elif values.json:
        write_atomically(values.json, text, overwrite=True)
    sound = (
        outputs["distinct_answers"] == 20
        and outputs["smallest_activation_scale"] > 1e-6
        and outputs["largest_difference_steps"] <= 1
    )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
