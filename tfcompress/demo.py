"""The main job on real input in about two minutes: train, compress while training, convert, measure, report.

``python -m tfcompress.demo`` trains a small depthwise-separable network on the handwritten digits that scikit-learn
ships, once plain and once with the pruning and quantization callbacks, makes three ``.tflite`` files and measures them.
Nothing is downloaded.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from .cli import guarded
from .cli.parsing import help_text, new_flags, parse, show
from .cli.progress import say
from .data import Digits, load_digits
from .errors import OutputError
from .system import write_atomically

__all__ = ["build_model", "layer_sparsity", "made_folder", "main", "narrator", "train_compressed", "train_plain"]

SPARSITY = 0.75
BATCH_SIZE = 64
PLAIN_EPOCHS = 25
COMPRESSED_EPOCHS = 40
PRUNING_EPOCHS = (4, 22)  # the ramp's begin and end
QAT_EPOCH = 25


def build_model(seed: int) -> Any:
    """Returns the untrained network: a 3x3 stem, three depthwise-separable blocks, one residual; ends in logits.

    Args:
        seed: for the initial weights.

    Returns:
        A Keras model from (n, 8, 8, 1) float32 in [0, 1] to (n, 10) float32 logits; about 9,000 parameters.
    """
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)

    def norm_relu(x: Any, name: str) -> Any:
        # 20 steps an epoch are too few for Keras's default momentum of 0.99: validation would lag behind for epochs.
        return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x))

    def separable(x: Any, filters: int, name: str) -> Any:
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
        x = norm_relu(x, f"{name}_depthwise")
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_pointwise")(x)
        return norm_relu(x, f"{name}_pointwise")

    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(24, 3, padding="same", use_bias=False, name="stem")(image)
    x = separable(norm_relu(x, "stem"), 48, "block1")
    x = layers.Add(name="residual")([x, separable(x, 48, "block2")])
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = separable(x, 96, "block3")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, layers.Dense(10, name="logits")(x), name="digits")


def _compile(model: Any) -> None:
    import keras

    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def narrator(what: str, epochs: int) -> Any:
    """Returns a callback that says every few epochs where the training stands, in plain lines."""
    import keras

    def speak(epoch: int, logs: dict) -> None:
        if (epoch + 1) % 10 == 0 or epoch + 1 == epochs:
            extra = f", sparsity {logs['sparsity']:.0%}" if "sparsity" in logs else ""
            learned = f"accuracy {logs['accuracy']:.1%}" if "accuracy" in logs else f"loss {logs['loss']:.3f}"
            say(f"  {what}: epoch {epoch + 1} of {epochs}, {learned}{extra}")

    return keras.callbacks.LambdaCallback(on_epoch_end=speak)


def train_plain(digits: Digits, seed: int) -> Any:
    """Returns the network after plain training."""
    model = build_model(seed)
    _compile(model)
    model.fit(
        digits.x_train,
        digits.y_train,
        epochs=PLAIN_EPOCHS,
        batch_size=BATCH_SIZE,
        verbose=0,
        callbacks=[narrator("plain", PLAIN_EPOCHS)],
    )
    return model


def train_compressed(digits: Digits, seed: int) -> tuple[Any, Any]:
    """Returns the network trained with both callbacks, and the QAT callback."""
    import tfcompress as tfc

    model = build_model(seed)
    _compile(model)
    steps = -(-len(digits.x_train) // BATCH_SIZE)
    begin, end = (epoch * steps for epoch in PRUNING_EPOCHS)
    qat = tfc.QuantizationAwareTraining(begin_epoch=QAT_EPOCH)
    pruning = tfc.MagnitudePruning(tfc.schedules.Polynomial(final=SPARSITY, begin=begin, end=end), frequency=10)
    model.fit(
        digits.x_train,
        digits.y_train,
        epochs=COMPRESSED_EPOCHS,
        batch_size=BATCH_SIZE,
        verbose=0,
        callbacks=[pruning, qat, narrator("pruning + QAT", COMPRESSED_EPOCHS)],
    )
    return model, qat


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string(
        "output", "demo_output", "the folder for the files, the JSON record and the report", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "seed of the initial weights and of the split", lower_bound=0, flag_values=values)
    return values


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit code."""
    return guarded(_command, list(sys.argv[1:] if arguments is None else arguments), program="demo")


def _command(arguments: Sequence[str], *, program: str) -> int:
    values = _flags()
    if parse(values, arguments, required=("output",)):
        summary = "train, compress, convert and measure on real handwritten digits"
        show(help_text(values, program=program, summary=summary, example="python -m tfcompress.demo"))
        return 0
    _run(Path(values.output), values.seed, debug=values.debug)
    return 0


def made_folder(path: str | os.PathLike) -> Path:
    """Returns the folder that results go to, made if it is not there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The output folder cannot be made: {path} ({error.strerror}). Choose another.") from error
    return Path(path)


def _run(folder: Path, seed: int, *, debug: bool) -> None:
    made_folder(folder)
    say("Loading TensorFlow ...")
    from .system import converter_silenced

    with converter_silenced(debug=debug):
        import tensorflow  # noqa: F401

    import tfcompress as tfc

    digits = load_digits(seed=seed)
    say(f"Training on {len(digits.x_train)} handwritten digits, {len(digits.x_test)} held back:")
    plain = train_plain(digits, seed)
    compressed, qat = train_compressed(digits, seed)
    answers = compressed.evaluate(digits.x_test, digits.y_test, verbose=0, callbacks=[qat], return_dict=True)
    say(f"  fake-quantized Keras model on the held-back digits: {answers['accuracy']:.1%}")

    say("Converting and measuring ...")
    representative = digits.x_train[:200]
    conversions = {
        "float32": tfc.convert(plain, target="float32", representative_data=representative, debug=debug),
        "int8_post_training": tfc.convert(plain, target="cpu-int8", representative_data=representative, debug=debug),
        "int8_pruned_qat": tfc.convert(compressed, target="cpu-int8", representative_data=representative, debug=debug),
    }
    paths = {name: result.save(folder / f"{name}.tflite", overwrite=True) for name, result in conversions.items()}
    compressed.save(folder / "pruned_qat.keras")
    measurements = tfc.measure([str(path) for path in paths.values()], (digits.x_test, digits.y_test))
    _write(folder, conversions, measurements, qat_accuracy=float(answers["accuracy"]), seed=seed)


def _write(folder: Path, conversions: dict, measurements: list, *, qat_accuracy: float, seed: int) -> None:
    import tfcompress as tfc

    from .measurement import measurement_table

    record = {
        "seed": seed,
        "target_sparsity": SPARSITY,
        "fake_quantized_keras_accuracy": qat_accuracy,
        "measurements": [measurement.to_json() for measurement in measurements],
        "conversions": {name: result.to_json() for name, result in conversions.items()},
    }
    write_atomically(folder / "demo.json", json.dumps(record, indent=2) + "\n", overwrite=True)
    sparsity = {name: layer_sparsity(result) for name, result in conversions.items()}
    tfc.report(
        measurements,
        folder / "report.html",
        title="tfcompress demo: handwritten digits",
        sparsity=sparsity,
        notes=_notes(qat_accuracy),
        overwrite=True,
    )
    show(f"\n{measurement_table(measurements)}")
    show(f"Weights that are zero in int8_pruned_qat: {_zeros(conversions['int8_pruned_qat']):.0%}")
    show(f"Files, record and report: {folder}/ (open {folder / 'report.html'})")


def _notes(qat_accuracy: float) -> list[str]:
    files = (
        "A small depthwise-separable network on real handwritten digits: float32 and int8_post_training are the same plain "
        "training; int8_pruned_qat was trained with the pruning and quantization callbacks in model.fit. Its "
        f"fake-quantized Keras model answers {qat_accuracy:.1%} of the held-back digits correctly."
    )
    latency = "The network has about 9,000 weights: the cost of a call hides what int8 saves in time. Measure your own."
    return [files, latency]


def layer_sparsity(result: Any) -> dict[str, float]:
    """Returns the share of zeros in the weights of a conversion's file by layer.

    The layer of "digits_1/stem_1/convolution" is "stem": Keras opens each scope twice.
    """
    found = {}
    for tensor, zeros in result.contents.sparsity.items():
        scopes = tensor.split(";")[0].split("/")
        found[scopes[1].removesuffix("_1") if len(scopes) > 2 else tensor] = zeros
    return found


def _zeros(result: Any) -> float:
    values = list(result.contents.sparsity.values())
    return sum(values) / len(values) if values else 0.0


if __name__ == "__main__":
    sys.exit(main())
