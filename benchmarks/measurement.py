"""How fast and how right ``measure`` is: against a plain loop over samples, and against LiteRT's own benchmark tool.

``python benchmarks/measurement.py --json=measurement.json``. The model is MobileNetV2 at 96x96 (more than 2 ms per picture),
its BatchNorm statistics set by a seeded forward pass; float and int8. Contenders take turns, each in a process of its own;
the ratio is taken pair by pair, so that both meet the same disturbances.

- Evaluation: 2000 pictures with ``devices.agent`` (batches, all cores) against one interpreter with one thread, picture by
  picture; the answers must be equal. Seconds of the evaluation alone, and of the whole processes.
- Latency: the median of ``CompiledModel`` with one thread, ours against ``ai_edge_litert.tools.benchmark_litert_model``.
- Profile: the sum of the ops' times against the profiled whole, and what the profiler itself costs.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.measurement import Profile, Ratio
from tfcompress.measurement.devices import LocalDevice
from tfcompress.system import write_atomically

SIDE = 96
RUNS, WARMUP_RUNS = 50, 5  # the other tool's own
FILES = ("float", "int8")


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("samples", 2000, "pictures to evaluate", lower_bound=64, flag_values=values)
    flags.DEFINE_integer("rounds", 5, "interleaved evaluations of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("pairs", 9, "interleaved latencies of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("loop", None, "internal: evaluate picture by picture in this process", flag_values=values)
    flags.DEFINE_string("prepare", None, "internal: write the models into this folder", flag_values=values)
    return values


def prepare(folder: Path, count: int) -> None:
    """Writes float and int8 files and their raw inputs: smooth seeded pictures."""
    import keras

    import tfcompress
    from tfcompress.tflite import open_model, to_raw

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    coarse = random.uniform(-1, 1, (count, SIDE // 8, SIDE // 8, 3)).astype(np.float32)
    pictures = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    model = keras.applications.MobileNetV2((SIDE, SIDE, 3), weights=None, classifier_activation=None)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # one pass sets the statistics
    model(pictures[:32], training=True)
    for layer in norms:
        layer.momentum = 0.999
    tfcompress.convert(model, target="float32").save(folder / "float.tflite")
    tfcompress.convert(model, target="cpu-int8", representative_data=pictures[:100]).save(folder / "int8.tflite")
    for name in FILES:
        opened = open_model(folder / f"{name}.tflite")
        (info,) = opened.inputs
        np.savez(folder / f"{name}.npz", **{info.name: to_raw(pictures, info)})
        answers = next(iter(opened.run_raw(to_raw(pictures[:20], info)).values()))
        if len({tuple(row) for row in answers.round(4)}) != 20:
            raise SystemExit(f"the prepared {name} model does not tell its inputs apart")


def loop(path: Path) -> dict[str, float]:
    """Evaluates picture by picture: one process, one interpreter, one thread."""
    from ai_edge_litert.interpreter import Interpreter

    with np.load(path.with_suffix(".npz")) as arrays:
        (pictures,) = (arrays[name] for name in arrays.files)
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, wanted = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    start = time.perf_counter()
    answers = []
    for i in range(len(pictures)):
        interpreter.set_tensor(given, pictures[i : i + 1])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(wanted))
    seconds = time.perf_counter() - start
    np.save(path.with_name("loop.npy"), np.concatenate(answers))
    return {"seconds": seconds}


def child(*arguments: str) -> str:
    """Returns what this script prints when it is run with other flags."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def evaluate_in_turns(folder: Path, name: str, rounds: int) -> dict[str, Any]:
    """Returns seconds of both contenders, and how often and how far their answers differ."""
    path, outputs = folder / f"{name}.tflite", folder / "outputs.npz"
    seconds: dict[str, list[float]] = {"ours": [], "loop": [], "our process": [], "its process": []}
    equal, apart = True, 0.0

    def ours() -> None:
        start = time.perf_counter()
        files = {"model": path, "inputs": path.with_suffix(".npz")}
        answer = LocalDevice().run({"kind": "outputs"}, files, {"outputs": outputs})
        seconds["our process"].append(time.perf_counter() - start)
        seconds["ours"].append(answer["seconds"])

    def theirs() -> None:
        start = time.perf_counter()
        answer = json.loads(child(f"--loop={path}").splitlines()[-1])
        seconds["its process"].append(time.perf_counter() - start)
        seconds["loop"].append(answer["seconds"])

    for turn in range(rounds):
        for contender in (ours, theirs) if turn % 2 else (theirs, ours):
            contender()
        with np.load(outputs) as arrays:
            (mine,) = (arrays[each] for each in arrays.files)
        other = np.load(folder / "loop.npy")
        equal = equal and bool(np.array_equal(mine.argmax(1), other.argmax(1)))
        apart = max(apart, float(np.abs(mine.astype(np.float64) - other).max()))
    return {
        "model": name,
        "seconds": {key: round(statistics.median(each), 3) for key, each in seconds.items()},
        "faster": vars(Ratio.of("ours", seconds["loop"], seconds["ours"])),
        "faster_with_start": vars(Ratio.of("ours", seconds["its process"], seconds["our process"])),
        "same_answers": equal,
        "largest_difference": apart,
    }


def latency_in_turns(folder: Path, name: str, pairs: int) -> dict[str, Any]:
    """Returns the medians of both tools in ms, and the ratio pair by pair."""
    path = folder / f"{name}.tflite"
    result = folder / "result.json"
    command = [
        sys.executable,
        "-m",
        "ai_edge_litert.tools.benchmark_litert_model",
        f"--model={path}",
        "--num_threads=1",
    ]
    command += [f"--num_runs={RUNS}", f"--warmup_runs={WARMUP_RUNS}", f"--result_json={result}"]
    request = {"kind": "latency", "api": "compiled", "threads": 1, "runs": RUNS, "warmup_runs": WARMUP_RUNS}
    medians: dict[str, list[float]] = {"ours": [], "theirs": []}

    def ours() -> None:
        answer = LocalDevice().run(request, {"model": path}, {})
        medians["ours"].append(answer["latency"]["median_ms"])

    def theirs() -> None:
        subprocess.run(command, check=True, capture_output=True)
        medians["theirs"].append(json.loads(result.read_text())["latency"]["median_ms"])

    for turn in range(pairs):
        for contender in (ours, theirs) if turn % 2 else (theirs, ours):
            contender()
    ratio = Ratio.of("theirs", medians["ours"], medians["theirs"])
    return {"model": name, "medians_ms": medians, "ratio": vars(ratio)}


def profiled(folder: Path, name: str) -> dict[str, Any]:
    """Returns how much of the whole the ops' times explain, and what the profiler costs."""
    answer = LocalDevice().run({"kind": "profile", "runs": RUNS}, {"model": folder / f"{name}.tflite"}, {})
    profile = Profile.from_json(answer["profile"])
    return {
        "model": name,
        "ops": len(profile.ops),
        "sum_ms": round(profile.sum_ms, 3),
        "whole_ms": profile.whole_ms,
        "explained": round(profile.sum_ms / profile.whole_ms, 4),
        "overhead": profile.overhead,
        "delegated_share": round(profile.delegated_share, 4),
    }


def table(found: dict[str, Any]) -> str:
    """Returns the figures as text."""
    lines = [f"{found['samples']} pictures, {found['rounds']} rounds, {found['pairs']} pairs", ""]
    lines.append("evaluation  loop, s  ours, s  times as fast (95 % interval)  with process start  equal answers")
    for each in found["evaluation"]:
        seconds, faster, whole = each["seconds"], each["faster"], each["faster_with_start"]
        interval = f"{faster['median']:.2f} ({faster['low']:.2f} to {faster['high']:.2f})"
        lines.append(
            f"{each['model']:10}  {seconds['loop']:7.2f}  {seconds['ours']:7.2f}  {interval:29}  {whole['median']:18.2f}  "
            f"{'yes' if each['same_answers'] else 'no'}, largest difference {each['largest_difference']:.3g}"
        )
    lines += ["", "latency     theirs, ms  ours, ms  ours / theirs (95 % interval)"]
    for each in found["latency"]:
        medians, ratio = each["medians_ms"], each["ratio"]
        middle = [statistics.median(medians[key]) for key in ("theirs", "ours")]
        interval = f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
        lines.append(f"{each['model']:10}  {middle[0]:10.2f}  {middle[1]:8.2f}  {interval}")
    lines += ["", "profile     ops  sum, ms  whole, ms  explained  profiler's overhead  delegated"]
    for each in found["profile"]:
        lines.append(
            f"{each['model']:10}  {each['ops']:3}  {each['sum_ms']:7.2f}  {each['whole_ms']:9.2f}  "
            f"{100 * each['explained']:7.1f} %  {100 * each['overhead']:17.1f} %  {100 * each['delegated_share']:7.1f} %"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    values = _flags()
    try:
        if parse(values, arguments, required=()):
            example = "python benchmarks/measurement.py --json=measurement.json"
            print(help_text(values, program="measurement.py", summary="speed of measurement", example=example))
            return 0
    except UsageError as error:
        print(f"measurement.py: {error}", file=sys.stderr)
        return 2
    if values.loop:
        print(json.dumps(loop(Path(values.loop))))
        return 0
    if values.prepare:
        prepare(Path(values.prepare), values.samples)
        return 0
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as name:
        folder = Path(name)
        child(f"--prepare={folder}", f"--samples={values.samples}")
        found = {
            "samples": values.samples,
            "rounds": values.rounds,
            "pairs": values.pairs,
            "evaluation": [evaluate_in_turns(folder, each, values.rounds) for each in FILES],
            "latency": [latency_in_turns(folder, each, values.pairs) for each in FILES],
            "profile": [profiled(folder, each) for each in FILES],
        }
    text = json.dumps(found, indent=2) + "\n"
    if values.json and values.json != "-":
        write_atomically(values.json, text, overwrite=True)
    print(text if values.json == "-" else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
