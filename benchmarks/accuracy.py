"""What training-time compression costs in accuracy and wins in latency: over seeds, with the spread, TFMOT where it can.

``python benchmarks/accuracy.py --seeds=3 --json=accuracy.json``. ``resnet8``: the official ResNet-8 of MLPerf Tiny is
fine-tuned on 2000 pictures of CIFAR-10 and tested on 500. ``mnist``: a small CNN is trained on 8000 pictures and tested on
2000, with tfcompress and, the same steps in a process of its own, with TFMOT on tf_keras; agreement is the share of test
pictures that the training framework and the int8 file answer alike. Both need ``--shared``. ``mobilenet``: channels of
MobileNetV1-1.0 at 224x224 are removed, and the int8 files run on one thread in turns with the whole model's. ``reference``:
every kind of compression on models that are trained here within minutes (``reference.py``), with ``--keep`` as the tables of
docs/results.md.
"""

import gzip
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.system import write_atomically

ROOT = Path(__file__).resolve().parents[1]
CASES = ("resnet8", "mnist", "mobilenet", "reference")
DURATION = "One seed takes about 5 (resnet8), 2 (mnist), 2 (mobilenet) minutes, and 1 to 8 for a model of reference, on two cores."
PAIRS = 61  # runs of both files
BATCH = 64
TUNING: dict[str, Any] = {"epochs": 8, "rate": 1e-4, "shift": 0}  # of the official ResNet-8, with and without QAT
PRUNING: dict[str, Any] = {"epochs": 32, "rate": 1e-3, "shift": 3}

# What the means over all seeds must show, by case.
CLAIMS: dict[str, dict[str, Callable[[dict[str, float]], bool]]] = {
    "resnet8": {
        "QAT int8 is not below float minus 0.5 points": lambda m: m["int8 QAT"] >= m["float"] - 0.005,
        "QAT int8 is not below post-training int8": lambda m: m["int8 QAT"] >= m["int8 post-training"],
        "pruned by half and distilled is within 2 points": lambda m: (
            m["pruned 50 %, distilled, float"] >= m["float"] - 0.02
        ),
        "Keras under QAT and its file agree to at least 99.8 %": lambda m: m["QAT agreement with its file"] >= 0.998,
        "and so is its int8 file": lambda m: m["pruned 50 %, distilled, int8 post-training"] >= m["float"] - 0.02,
    },
    "mnist": {
        "int8 QAT is not below TFMOT's": lambda m: m["tfcompress int8 QAT"] >= m["TFMOT int8 QAT"],
        "agreement is at least 99.8 %": lambda m: m["tfcompress agreement"] >= 0.998,
    },
    "mobilenet": {
        "half the multiply-adds take at most 0.68 of the time": lambda m: m["multiply_adds=0.5: latency"] <= 0.68,
        "target_latency=0.6 takes at most 0.6": lambda m: m["target_latency=0.6: latency"] <= 0.6,
    },
}


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("seeds", 3, "runs with other seeds", lower_bound=1, flag_values=values)
    flags.DEFINE_list("cases", list(CASES), "which cases", flag_values=values)
    shared = os.environ.get("TFCOMPRESS_SHARED", str(ROOT.parent / "shared"))
    flags.DEFINE_string(
        "shared", shared, "folder with data/mlperf_resnet8, data/cifar10 and data/mnist", flag_values=values
    )
    flags.DEFINE_list(
        "reference", None, "models of the case reference, all by default; a wrong name lists them", flag_values=values
    )
    flags.DEFINE_bool("quick", False, "the case reference: few epochs, to see it run", flag_values=values)
    flags.DEFINE_bool(
        "keep", False, "the case reference: write its figures into docs/results.md and README", flag_values=values
    )
    flags.DEFINE_string("json", None, "also write the figures as JSON; - is stdout", flag_values=values)
    flags.DEFINE_integer("peer", None, "internal: train the CNN with TFMOT and this seed", flag_values=values)
    return values


def answers(tflite: Any, x: Any, *, xnnpack: bool = True) -> Any:
    """Returns the file's outputs for float inputs."""
    from tfcompress.tflite import open_model

    file = open_model(tflite, xnnpack=xnnpack)
    return next(iter(file.run({file.inputs[0].name: x}).values()))


def resnet8(shared: Path, seed: int) -> dict[str, float]:
    """Returns the accuracy of each recipe for one seed."""
    import keras
    import numpy as np
    import tensorflow as tf

    import tfcompress as tfc

    with np.load(shared / "data" / "cifar10" / "cifar10_subset.npz") as data:
        x, y = data["x_train"].astype(np.float32), data["y_train"].ravel()
        test_x, test_y = data["x_test"].astype(np.float32), data["y_test"].ravel()
    samples = x[:100]

    def load() -> Any:
        model = keras.models.load_model(shared / "data" / "mlperf_resnet8" / "pretrainedResnet.h5", compile=False)
        model.trainable = True
        return model

    def score(model: Any, **settings: Any) -> float:
        file = tfc.convert(model, target="cpu-int8", **settings).tflite
        return float(np.mean(answers(file, test_x).argmax(1) == test_y))

    def float_score(model: Any) -> float:
        return float(np.mean(model.predict(test_x, verbose=0).argmax(1) == test_y))

    def fit(model: Any, callbacks: list[Any], *, epochs: int, rate: float, shift: int) -> None:
        """Trains on pictures that are mirrored and moved by up to ``shift`` pixels; the rate falls along a cosine."""

        def moved(pictures: Any, labels: Any) -> tuple[Any, Any]:
            return mirrored_and_moved(pictures, shift), labels

        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed).batch(BATCH)
        decay = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data), alpha=0.01)
        model.compile(keras.optimizers.Adam(decay), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
        data = data.map(moved, num_parallel_calls=1, deterministic=True).prefetch(2)
        model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)

    keras.utils.set_random_seed(seed)
    plain = load()
    result = {"float": float_score(plain)}
    result["int8 post-training"] = score(plain, representative_data=samples)
    for observer in ("percentile", "mean_squared_error"):
        result[f"int8 post-training, {observer}"] = score(plain, representative_data=samples, calibration=observer)
    tuned, aware = load(), load()
    fit(tuned, [], **TUNING)
    result["fine-tuned float"] = float_score(tuned)
    qat = tfc.QuantizationAwareTraining()
    fit(aware, [qat], **TUNING)
    file = tfc.convert(aware, target="cpu-int8").tflite
    said = answers(file, test_x).argmax(1)
    result["int8 QAT"] = float(np.mean(said == test_y))
    fake = aware.predict(test_x, verbose=0, callbacks=[qat])
    result["QAT agreement with its file"] = float(np.mean(fake.argmax(1) == said))
    # What one and the same file answers by the two sets of kernels that TFLite has: no model can agree better with both.
    result["file by XNNPACK and by TFLite's kernels"] = float(
        np.mean(answers(file, test_x, xnnpack=False).argmax(1) == said)
    )
    pruned = load()
    distiller = tfc.distill(pruned, load(), temperature=4.0, student_weight=0.1, from_logits=False)
    end = PRUNING["epochs"] * -(-len(x) // BATCH) // 2
    ramp = tfc.schedules.Polynomial(final=0.5, end=end)
    fit(distiller, [tfc.MagnitudePruning(ramp, frequency=8, scope="global")], **PRUNING)
    result["pruned 50 %, distilled, float"] = float_score(pruned)
    result["pruned 50 %, distilled, int8 post-training"] = score(pruned, representative_data=samples)
    return result


def mirrored_and_moved(pictures: Any, most: int) -> Any:
    """Returns pictures (n, 32, 32, 3), half of them mirrored, each moved by up to ``most`` pixels along both axes."""
    import tensorflow as tf

    count, size = tf.shape(pictures)[0], pictures.shape[1]
    pictures = tf.where(tf.random.uniform([count, 1, 1, 1]) < 0.5, pictures[:, :, ::-1], pictures)
    pictures = tf.pad(pictures, [[0, 0], [most] * 2, [most] * 2, [0, 0]], "REFLECT")
    for _ in range(2):
        first = tf.random.uniform([count, 1], 0, 2 * most + 1, tf.int32)
        pictures = tf.gather(pictures, first + tf.range(size), axis=1, batch_dims=1)
        pictures = tf.transpose(pictures, [0, 2, 1, 3])
    return pictures


def mobilenet(seed: int) -> dict[str, float]:
    """Returns what is left of multiply-adds and of int8 latency, as fractions, for one seed of random weights."""
    import keras
    import numpy as np

    import tfcompress as tfc
    from tfcompress.layers import multiply_adds
    from tfcompress.pruning import latency_ratio

    keras.utils.set_random_seed(seed)
    model = keras.applications.MobileNet(weights=None, input_shape=(224, 224, 3))
    noise = np.random.default_rng(seed).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)

    def int8(each: Any) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that noise is no representative data
            return tfc.convert(each, target="cpu-int8", representative_data=noise).tflite

    whole, result = int8(model), {}
    for name, value in (("multiply_adds", 0.5), ("target_latency", 0.6)):
        smaller = tfc.remove_channels(model, **{name: value})
        result[f"{name}={value}: multiply-adds"] = multiply_adds(smaller) / multiply_adds(model)
        result[f"{name}={value}: latency"] = latency_ratio(int8(smaller), whole, pairs=PAIRS)
    # What fewer channels win at all is a matter of the processor: the narrower MobileNet of the paper beside it.
    by_hand = keras.applications.MobileNet(weights=None, input_shape=(224, 224, 3), alpha=0.75)
    result["width 0.75 by hand: multiply-adds"] = multiply_adds(by_hand) / multiply_adds(model)
    result["width 0.75 by hand: latency"] = latency_ratio(int8(by_hand), whole, pairs=PAIRS)
    return result


def mnist(shared: Path) -> tuple[Any, ...]:
    """Returns 8000 training and 2000 test pictures (n, 28, 28, 1) in [0, 1] with labels."""
    import numpy as np

    folder = shared / "data" / "mnist"
    images = next(path for path in sorted(folder.glob("*images*.gz")))
    labels = next(path for path in sorted(folder.glob("*labels*.gz")))
    with gzip.open(images) as file:
        x = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1).astype(np.float32) / 255
    with gzip.open(labels) as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return x[:8000], y[:8000], x[8000:], y[8000:]


def small_cnn(keras: Any) -> Any:
    """Returns the CNN, ending in logits; ``keras`` is Keras 3 or tf_keras."""
    layers = keras.layers
    image = keras.Input((28, 28, 1))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(12, 3, 2, padding="same", use_bias=False)(image)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(24, 1, use_bias=False)(x)))
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(24, 3, padding="same", use_bias=False)(x)))
    x = layers.MaxPooling2D(2)(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(10)(layers.Flatten()(x)))


def train(keras: Any, model: Any, data: tuple[Any, ...], callbacks: list[Any], rate: float) -> None:
    """Trains three epochs."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    model.fit(*data[:2], batch_size=64, epochs=3, verbose=0, callbacks=callbacks)


def mnist_ours(shared: Path, seed: int) -> dict[str, float]:
    """Returns accuracies and agreement of QAT by tfcompress."""
    import keras
    import numpy as np

    import tfcompress as tfc

    keras.utils.set_random_seed(seed)
    data = mnist(shared)
    model = small_cnn(keras)
    train(keras, model, data, [], 1e-3)
    result = {"tfcompress float": float(np.mean(model.predict(data[2], verbose=0).argmax(1) == data[3]))}
    qat = tfc.QuantizationAwareTraining()
    train(keras, model, data, [qat], 1e-4)
    file = answers(tfc.convert(model, target="cpu-int8-float-io").tflite, data[2]).argmax(1)
    fake = model.predict(data[2], verbose=0, callbacks=[qat]).argmax(1)
    return result | {
        "tfcompress int8 QAT": float(np.mean(file == data[3])),
        "tfcompress agreement": float(np.mean(file == fake)),
    }


def mnist_peer(shared: Path, seed: int) -> dict[str, float]:
    """Returns the same of TFMOT; runs in a process of its own."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    data = mnist(shared)
    model = small_cnn(tf_keras)
    train(tf_keras, model, data, [], 1e-3)
    result = {"TFMOT float": float(np.mean(model.predict(data[2], verbose=0).argmax(1) == data[3]))}
    model = tfmot.quantization.keras.quantize_model(model)
    train(tf_keras, model, data, [], 1e-4)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    file = answers(converter.convert(), data[2]).argmax(1)
    fake = model.predict(data[2], verbose=0).argmax(1)
    return result | {
        "TFMOT int8 QAT": float(np.mean(file == data[3])),
        "TFMOT agreement": float(np.mean(file == fake)),
    }


def run_peer(values: Any, seed: int) -> dict[str, float]:
    """Runs ``mnist_peer`` in a child process."""
    command = [sys.executable, __file__, f"--peer={seed}", f"--shared={values.shared}"]
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"TFMOT failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(case: str, rows: dict[str, list[float]]) -> dict[str, Any]:
    """Prints the figures of a case and whether they show what they must; returns both."""
    print(f"{case}, {len(next(iter(rows.values())))} seeds\n{'':<52}{'mean':>8}{'std':>8}{'lowest':>8}{'highest':>9}")
    table = {}
    for name, each in rows.items():
        figures = {
            "mean": statistics.mean(each),
            "std": statistics.pstdev(each),
            "lowest": min(each),
            "highest": max(each),
        }
        print(f"{name:<52}" + "".join(f"{value:>8.4f}" for value in figures.values()))
        table[name] = figures | {"seeds": each}
    means = {name: figures["mean"] for name, figures in table.items()}
    claims = {claim: bool(holds(means)) for claim, holds in CLAIMS[case].items()}
    for claim, holds in claims.items():
        print(f"{'yes' if holds else 'NO':<5}{claim}")
    print()
    return {"rows": table, "claims": claims}


def reference_tables(values: Any, shared: Path) -> dict[str, Any]:
    """Prints the tables of the case ``reference`` and returns its figures."""
    import reference
    import reference_tables

    found = {}
    for name in values.reference or reference.SUBJECTS:
        found[name] = reference.run(name, shared, values.seeds, quick=values.quick)
        title = reference.SUBJECTS[name].title
        entry = {"title": title, "day": "this day", "code": "this code", "rows": found[name]}
        print(reference_tables.section(name, entry), flush=True)
        if values.keep:
            reference_tables.keep(name, title, found[name], known=list(reference.SUBJECTS))
    return found


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    values = _flags()
    try:
        if parse(values, sys.argv[1:], required=()):
            summary = f"{(__doc__ or '').splitlines()[0]}\n\n{DURATION}"
            print(help_text(values, program="accuracy.py", summary=summary, example="accuracy.py --seeds=3"))
            return 0
        if not set(values.cases) <= set(CASES):
            raise UsageError(f"--cases must be of {', '.join(CASES)}. Received: {','.join(values.cases)!r}.")
        if values.keep and values.quick:
            raise UsageError("--keep takes figures of full length. Received: --quick too. Drop one of the two.")
        if "reference" in values.cases and values.reference:
            from reference import SUBJECTS

            if not set(values.reference) <= set(SUBJECTS):
                known = ", ".join(SUBJECTS)
                raise UsageError(f"--reference must be of {known}. Received: {','.join(values.reference)!r}.")
    except UsageError as error:
        print(f"accuracy.py: {error}", file=sys.stderr)
        return 2
    shared = Path(values.shared)
    if values.peer is not None:
        print(json.dumps(mnist_peer(shared, values.peer)))
        return 0
    record: dict[str, Any] = {"seeds": values.seeds, "cases": {}}
    for case in values.cases:
        if case == "reference":
            record["cases"][case] = reference_tables(values, shared)
            continue
        rows: dict[str, list[float]] = {}
        for seed in range(values.seeds):
            if case == "mobilenet":
                found = mobilenet(seed)
            elif case == "resnet8":
                found = resnet8(shared, seed)
            else:
                found = mnist_ours(shared, seed) | run_peer(values, seed)
            for name, value in found.items():
                rows.setdefault(name, []).append(value)
            print(f"{case} seed {seed}: {found}", file=sys.stderr)
        record["cases"][case] = report(case, rows)
    if values.json:
        text = json.dumps(record, indent=2)
        print(text) if values.json == "-" else write_atomically(values.json, text + "\n", overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
