"""What pruning and quantization-aware training add to a training step, against TFMOT on tf_keras in the same run.

``python benchmarks/training.py --rounds=20 --json=training.json``. ResNet-8 (32x32) and MobileNetV1-0.25 (96x96), batch 64,
random pictures. Each framework and each kind of training (float, pruning, QAT) is a process of its own, so that peak memory
is its own; all of them are alive at once, and in each round one after the other trains a few steps while the others wait.
Ratios are taken round by round. The first round, which compiles, and the first step of each turn do not count. Masks move
every 100 steps, TFMOT's default: what is compared is the step between, and not the ranking of the weights.
"""

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.system import write_atomically

KINDS = ("float", "pruning", "qat")
FRAMEWORKS = ("tfcompress", "tfmot")
MODELS = ("resnet8", "mobilenet")
BATCH = 64
MOST_TIME = {"pruning": 1.03, "qat": 1.2}
MOST_MEMORY = 1.3
DURATION = "20 rounds of both models take about 10 minutes on two idle cores, and about 8 GB of memory."


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("rounds", 20, "turns of each contender", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("steps", 6, "training steps of a turn", lower_bound=3, flag_values=values)
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


def contend(framework: str, kind: str, name: str, rounds: int, steps: int) -> None:
    """Trains in turns: after each prints its median step in ms and waits for a line; in the end the peak memory in MB."""
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
    stamps: list[tuple[float, float]] = []

    class Gate(keras.callbacks.Callback):
        """Stands before the other callbacks, so that a step is from its begin to the next one's."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            stamps.append((time.perf_counter(), time.process_time()))
            if len(stamps) > steps:
                pairs = list(itertools.pairwise(stamps[1:]))
                medians = [
                    statistics.median(later[i] - earlier[i] for earlier, later in pairs) * 1000 for i in range(2)
                ]
                print(json.dumps({"ms": medians[0], "processor_ms": medians[1]}), flush=True)
                sys.stdin.readline()
                stamps[:] = [(time.perf_counter(), time.process_time())]

    random = np.random.default_rng(0)
    count = (rounds + 1) * steps + 1
    x = random.normal(size=(BATCH * count, *model.input_shape[1:])).astype(np.float32)
    y = random.integers(0, 10, BATCH * count)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[Gate(), *callbacks])
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


class Contender:
    """A process that trains when it is told to."""

    def __init__(self, framework: str, kind: str, name: str, rounds: int, steps: int) -> None:
        self.title = f"{framework} {kind}"
        environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"} | ({"TF_USE_LEGACY_KERAS": "1"} if framework == "tfmot" else {})
        options = [f"--contender={framework},{kind},{name}", f"--rounds={rounds}", f"--steps={steps}"]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [sys.executable, __file__, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def answer(self) -> dict[str, float]:
        """Returns what the process says next."""
        for line in self._process.stdout:  # type: ignore[union-attr]
            if line.startswith("{"):
                return json.loads(line)
        self._errors.seek(0)
        raise SystemExit(f"{self.title} failed: {self._errors.read().strip().splitlines()[-1:]}")

    def go_on(self) -> dict[str, float]:
        """Lets the process train for a turn, or end; returns what it says."""
        self._process.stdin.write("\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return self.answer()

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def measure(name: str, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Returns each contender's median steps of each round, "ms" and "processor_ms", and its peak memory, "peak_mb"."""
    contenders: list[Contender] = []
    try:
        for framework in FRAMEWORKS:
            for kind in KINDS:
                contenders.append(Contender(framework, kind, name, rounds, steps))
                contenders[-1].answer()
        found: dict[str, dict[str, Any]] = {each.title: {"ms": [], "processor_ms": []} for each in contenders}
        for turn in range(rounds):
            for each in contenders if turn % 2 == 0 else reversed(contenders):
                for unit, value in each.go_on().items():
                    found[each.title][unit].append(value)
            print(f"{name} round {turn + 1} of {rounds}", file=sys.stderr)
        for each in contenders:
            found[each.title]["peak_mb"] = each.go_on()["peak_mb"]
    finally:
        for each in contenders:
            each.end()
    return found


def report(name: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Prints the figures of a model and whether they show what they must; returns both."""
    table: dict[str, Any] = {}
    print(
        f"{name}, batch {BATCH}\n{'':<20}{'median ms':>10}{'cpu ms':>8}{'x own float':>13}{'quartiles':>14}{'peak MB':>9}{'x own float':>13}"
    )
    for title, run in runs.items():
        base = runs[f"{title.split()[0]} float"]
        ratios = [mine / other for mine, other in zip(run["ms"], base["ms"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        ms, memory = statistics.median(run["ms"]), run["peak_mb"] / base["peak_mb"]
        processor = statistics.median(run["processor_ms"])
        table[title] = {
            "ms": ms,
            "processor_ms": processor,
            "x_float": middle,
            "quartiles": [low, high],
            "peak_mb": run["peak_mb"],
        }
        table[title]["memory_x_float"] = memory
        between = f"{low:.2f} {high:.2f}"
        print(
            f"{title:<20}{ms:>10.1f}{processor:>8.0f}{middle:>13.3f}{between:>14}{run['peak_mb']:>9.0f}{memory:>13.2f}"
        )
    pairs = zip(runs["tfcompress qat"]["ms"], runs["tfmot qat"]["ms"], strict=True)
    against = statistics.median(ours / theirs for ours, theirs in pairs)
    claims = {f"{kind} takes at most {most} times a plain step": table[f"tfcompress {kind}"]["x_float"] <= most
              for kind, most in MOST_TIME.items()}  # fmt: skip
    claims |= {f"{kind} takes at most {MOST_MEMORY} times the memory": table[f"tfcompress {kind}"]["memory_x_float"]
               <= MOST_MEMORY for kind in MOST_TIME}  # fmt: skip
    claims[f"a QAT step takes no longer than TFMOT's ({against:.2f} times)"] = against <= 1
    for claim, holds in claims.items():
        print(f"{'yes' if holds else 'NO':<5}{claim}")
    print()
    return {"contenders": table, "qat_step_x_tfmot": against, "claims": claims}


def main(arguments: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    values = _flags()
    if parse(values, arguments, required=()):
        summary = f"{(__doc__ or '').splitlines()[0]}\n\n{DURATION}"
        print(help_text(values, program="training.py", summary=summary, example="training.py --rounds=20"))
        return 0
    if not set(values.models) <= set(MODELS):
        raise UsageError(f"--models must be of {', '.join(MODELS)}. Received: {','.join(values.models)!r}.")
    if values.contender:
        contend(*values.contender.split(","), values.rounds, values.steps)
        return 0
    record: dict[str, Any] = {"steps": values.steps, "rounds": values.rounds, "batch": BATCH, "models": {}}
    for name in values.models:
        record["models"][name] = report(name, measure(name, values.rounds, values.steps))
    if values.json:
        text = json.dumps(record, indent=2)
        print(text) if values.json == "-" else write_atomically(values.json, text + "\n", overwrite=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        sys.exit(str(error))
