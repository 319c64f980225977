"""What pruning and quantization-aware training add to a training step, against TFMOT on tf_keras in the same run.

``python benchmarks/training.py --rounds=3 --json=training.json``. ResNet-8 (32x32) and MobileNetV1-0.25 (96x96), batch 64,
random pictures. Each framework and each kind of training (float, pruning, QAT) runs in a process of its own, in turns, so
that peak memory is its own; ratios are taken round by round. A step is the median over all but the first ones.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.files import write_atomically

KINDS = ("float", "pruning", "qat")
FRAMEWORKS = ("tfcompress", "tfmot")
MODELS = ("resnet8", "mobilenet")
BATCH, WARM_UP = 64, 5


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("rounds", 3, "interleaved runs of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("steps", 40, "training steps of a run", lower_bound=10, flag_values=values)
    flags.DEFINE_list("models", list(MODELS), "which models", flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    flags.DEFINE_string("contender", None, "internal: FRAMEWORK,KIND,MODEL in this process", flag_values=values)
    return values


def resnet8(keras: Any) -> Any:
    """Returns MLPerf Tiny's ResNet-8, ending in logits; ``keras`` is Keras 3 or tf_keras."""
    layers = keras.layers

    def conv(x: Any, width: int, size: int = 3, stride: int = 1) -> Any:
        x = layers.Conv2D(width, size, stride, padding="same")(x)
        return layers.BatchNormalization()(x)

    image = keras.Input((32, 32, 3))
    x = layers.ReLU()(conv(image, 16))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = conv(layers.ReLU()(conv(x, width, stride=stride)), width)
        x = x if stride == 1 else layers.Conv2D(width, 1, stride, padding="same")(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(image, layers.Dense(10)(x))


def mobilenet(keras: Any) -> Any:
    """Returns MobileNetV1-0.25 at 96x96, ending in logits."""
    layers = keras.layers

    def normed(x: Any) -> Any:
        return layers.ReLU(6.0)(layers.BatchNormalization()(x))

    image = keras.Input((96, 96, 3))
    x = normed(layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(image))
    for width, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1)):
        x = normed(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x))
        x = normed(layers.Conv2D(width, 1, padding="same", use_bias=False)(x))
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def contend(framework: str, kind: str, name: str, steps: int) -> None:
    """Trains once and prints the median step in ms and the peak memory in MB."""
    import numpy as np

    callbacks: list[Any] = []
    if framework == "tfmot":
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras
    else:
        import keras

        import tfcompress as tfc
    build = {"resnet8": resnet8, "mobilenet": mobilenet}[name]
    model = build(keras)
    if framework == "tfmot" and kind == "pruning":
        schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=100)
        model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
        callbacks.append(tfmot.sparsity.keras.UpdatePruningStep())
    elif framework == "tfmot" and kind == "qat":
        model = tfmot.quantization.keras.quantize_model(model)
    elif kind == "pruning":
        callbacks.append(tfc.MagnitudePruning(0.5, frequency=100))
    elif kind == "qat":
        callbacks.append(tfc.QuantizationAwareTraining())
    stamps: list[float] = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            stamps.append(time.perf_counter())

    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH * steps, *model.input_shape[1:])).astype(np.float32)
    y = random.integers(0, 10, BATCH * steps)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[*callbacks, Watch()])
    each = [later - earlier for earlier, later in zip(stamps[WARM_UP:], stamps[WARM_UP + 1 :], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": statistics.median(each) * 1000, "peak_mb": peak}))


def measure(framework: str, kind: str, name: str, steps: int) -> dict[str, float]:
    """Returns the figures of one contender, run in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"} | ({"TF_USE_LEGACY_KERAS": "1"} if framework == "tfmot" else {})
    command = [sys.executable, __file__, f"--contender={framework},{kind},{name}", f"--steps={steps}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{framework} {kind} {name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(arguments: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    values = _flags()
    if parse(values, arguments, required=()):
        print(
            help_text(values, program="training.py", summary=__doc__.splitlines()[0], example="training.py --rounds=3")
        )
        return 0
    if not set(values.models) <= set(MODELS):
        raise UsageError(f"--models must be of {', '.join(MODELS)}. Received: {','.join(values.models)!r}.")
    if values.contender:
        contend(*values.contender.split(","), values.steps)
        return 0
    record: dict[str, Any] = {"steps": values.steps, "rounds": values.rounds, "batch": BATCH, "models": {}}
    for name in values.models:
        runs: dict[str, list[dict[str, float]]] = {f"{f} {k}": [] for f in FRAMEWORKS for k in KINDS}
        for turn in range(values.rounds):
            for contender in list(runs) if turn % 2 == 0 else list(reversed(runs)):
                runs[contender].append(measure(*contender.split(), name, values.steps))
                print(f"{name} round {turn + 1}: {contender:<20}{runs[contender][-1]['ms']:>8.1f} ms", file=sys.stderr)
        table = {}
        print(f"{name}, batch {BATCH}\n{'':<22}{'median ms':>10}{'x own float':>13}{'peak MB':>9}{'x own float':>13}")
        for contender, each in runs.items():
            base = runs[f"{contender.split()[0]} float"]
            time_ratio = statistics.median(a["ms"] / b["ms"] for a, b in zip(each, base, strict=True))
            memory_ratio = statistics.median(a["peak_mb"] / b["peak_mb"] for a, b in zip(each, base, strict=True))
            ms, peak = (statistics.median(run[key] for run in each) for key in ("ms", "peak_mb"))
            table[contender] = {"ms": ms, "x_float": time_ratio, "peak_mb": peak, "memory_x_float": memory_ratio}
            print(f"{contender:<22}{ms:>10.1f}{time_ratio:>13.2f}{peak:>9.0f}{memory_ratio:>13.2f}")
        pairs = zip(runs["tfcompress qat"], runs["tfmot qat"], strict=True)
        against = statistics.median(ours["ms"] / theirs["ms"] for ours, theirs in pairs)
        print(f"one QAT step takes {against:.2f} times TFMOT's\n")
        record["models"][name] = {"contenders": table, "qat_step_x_tfmot": against}
    if values.json:
        text = json.dumps(record, indent=2)
        print(text) if values.json == "-" else write_atomically(values.json, text + "\n", overwrite=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        sys.exit(str(error))
