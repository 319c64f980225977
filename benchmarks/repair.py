"""What each accuracy repair of post-training int8 wins and costs, on models that need it and on models that do not.

``python benchmarks/repair.py --seeds=3 --json=repair.json``. The ready digits model and the official ResNet-8 are
quantized with ranges measured on pictures to train with, plainly, with each repair alone and with ``auto``, and scored
on pictures to test with. In the cases "scaled" each channel between two layers of the digits model was divided by a
factor between 1 and 1000 and multiplied back behind it: the same function, but one scale no longer suits all channels.
ResNet-8 is left out where ``--shared`` has no such folder.
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.system import write_atomically

ROOT = Path(__file__).resolve().parents[1]
LARGEST_FACTOR = 1000


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("seeds", 3, "sets of factors for the scaled models", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("samples", 256, "pictures to calibrate and repair with", lower_bound=2, flag_values=values)
    shared = os.environ.get("TFCOMPRESS_SHARED", str(ROOT.parent / "shared"))
    flags.DEFINE_string("shared", shared, "folder with data/mlperf_resnet8 and data/cifar10", flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    return values


@dataclasses.dataclass(frozen=True)
class Case:
    """A lowered model with pictures to calibrate and pictures to test."""

    name: str
    content: bytes
    inputs: tuple
    calibration: object
    x: object
    y: object


def digits_cases(seeds: int, samples: int) -> Iterator[Case]:
    """Yields the digits model as it is and with scaled channels."""
    import numpy as np

    from tfcompress import lowering
    from tfcompress.conversion.repair.equalization import find_pairs, rescale
    from tfcompress.data import load_digits
    from tfcompress.lowering import sources
    from tfcompress.tflite import flatbuffer

    digits = load_digits(seed=0)
    lowered = lowering.lower_keras(sources.open_source(ROOT / "models" / "digits" / "digits.keras").value)
    pairs = find_pairs(flatbuffer.parse(lowered.content))
    rest = lowered.inputs, digits.x_train[:samples], digits.x_test, digits.y_test
    yield Case("digits", lowered.content, *rest)
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        factors = {pair.first.name: LARGEST_FACTOR ** random.uniform(0, 1, pair.first.channels) for pair in pairs}
        yield Case(f"digits, scaled, seed {seed}", rescale(lowered.content, factors), *rest)


def resnet_cases(folder: Path, samples: int) -> Iterator[Case]:
    """Yields the official ResNet-8 if it is there."""
    import numpy as np

    from tfcompress import lowering

    model, pictures = folder / "mlperf_resnet8" / "pretrainedResnet.tflite", folder / "cifar10" / "cifar10_subset.npz"
    if not (model.is_file() and pictures.is_file()):
        print(f"ResNet-8 left out: no {model}", file=sys.stderr)
        return
    lowered = lowering.lower_flatbuffer(model.read_bytes(), place=model.name)
    with np.load(pictures) as data:
        x_train, x_test, y_test = (data[name] for name in ("x_train", "x_test", "y_test"))
    rest = x_train[:samples].astype(np.float32), x_test.astype(np.float32), y_test.ravel()
    yield Case("ResNet-8", lowered.content, lowered.inputs, *rest)


def measure_case(case: Case, *, per_channel: bool) -> list[dict]:
    """Returns one row for each way to repair the case."""
    import numpy as np

    from tfcompress import TARGETS
    from tfcompress.calibration import calibrator as calibration
    from tfcompress.conversion.repair import METHODS, repair
    from tfcompress.conversion.repair.scores import answers, score
    from tfcompress.data import loading as data
    from tfcompress.quantization import quantizers
    from tfcompress.tflite import open_model

    target = dataclasses.replace(TARGETS["cpu-int8"], per_channel=per_channel)
    name = case.inputs[0].name

    def samples():
        return data.load_representative(case.calibration, case.inputs)

    def outputs(content: bytes):
        return next(iter(open_model(content).run({name: case.x}).values()))

    ranges = quantizers.complete_ranges(case.content, calibration.calibrate(case.content, samples()).ranges)
    wanted = answers(case.content, {name: case.x})
    expected = outputs(case.content).argmax(axis=1)
    rows = []
    for way in ("none", *METHODS, "auto"):
        start = time.perf_counter()
        content, found, kept = case.content, ranges, []
        if way != "none":
            methods = way if way == "auto" else [way]
            repaired = repair(case.content, samples(), target, ranges=ranges, methods=methods)
            content, found = repaired.content, repaired.ranges
            kept = [step.method for step in repaired.steps if step.kept]
        seconds = time.perf_counter() - start
        integer = quantizers.quantize(content, found, target)
        predicted = outputs(integer).argmax(axis=1)
        rows.append(
            {
                "model": case.name,
                "weights": "per channel" if per_channel else "per tensor",
                "repair": way,
                "kept": kept,
                "float_accuracy": float(np.mean(expected == case.y)),
                "accuracy": float(np.mean(predicted == case.y)),
                "agreement": float(np.mean(predicted == expected)),
                "sqnr_db": score(answers(integer, {name: case.x}), wanted).sqnr_db,
                "seconds": seconds,
                "size_bytes": len(integer),
            }
        )
        print(f"{case.name}, {rows[-1]['weights']}, {way}: {seconds:.1f} s", file=sys.stderr)
    return rows


def gains(rows: list[dict]) -> list[dict]:
    """Returns what each repair changed against none, the median over the scaled models of all seeds."""
    plain = {(row["model"], row["weights"]): row for row in rows if row["repair"] == "none"}
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        before = plain[row["model"], row["weights"]]
        change = row["accuracy"] - before["accuracy"], row["sqnr_db"] - before["sqnr_db"]
        model = row["model"].partition(", seed")[0]
        if row["repair"] != "none":
            groups.setdefault((model, row["weights"], row["repair"]), []).append(change)
    return [
        {
            "model": model,
            "weights": weights,
            "repair": way,
            "accuracy_gain_median": statistics.median(change[0] for change in changes),
            "sqnr_gain_db_median": statistics.median(change[1] for change in changes),
            "models": len(changes),
        }
        for (model, weights, way), changes in groups.items()
    ]


def main() -> int:
    values = _flags()
    try:
        if parse(values, sys.argv[1:], required=()):
            print(help_text(values, program="repair.py", summary=(__doc__ or "").splitlines()[0], example=""))
            return 0
    except UsageError as error:
        print(f"repair.py: {error}", file=sys.stderr)
        return 2
    cases = [*digits_cases(values.seeds, values.samples)]
    cases += resnet_cases(Path(values.shared) / "data", values.samples)
    rows = [
        row for case in cases for per_channel in (False, True) for row in measure_case(case, per_channel=per_channel)
    ]
    record = {"samples": values.samples, "rows": rows, "gains": gains(rows)}
    if values.json != "-":
        print(f"accuracy repairs of int8, {values.samples} samples; float accuracy is the first row's of each model")
        print(f"{'model':24} {'weights':12} {'repair':13} {'accuracy':>9} {'agrees':>7} {'SQNR dB':>8} {'s':>6}  kept")
        last = ""
        for row in rows:
            if row["model"] != last:
                print(f"{row['model']:24} {'float':12} {'':13} {row['float_accuracy']:9.3f}")
            last = row["model"]
            print(
                f"{row['model']:24} {row['weights']:12} {row['repair']:13} {row['accuracy']:9.3f} "
                f"{row['agreement']:7.3f} {row['sqnr_db']:8.1f} {row['seconds']:6.1f}  {', '.join(row['kept'])}"
            )
    text = json.dumps(record, indent=2) + "\n"
    if values.json == "-":
        print(text, end="")
    elif values.json:
        write_atomically(values.json, text, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
