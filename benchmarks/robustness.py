"""What compression does to a model under attack, and what adversarial training wins, in one table per model.

``python benchmarks/robustness.py --json=robustness.json``. The network of the demo on the digits: trained plainly, with pruning
and QAT, and with adversarial training and QAT, with three seeds; each becomes files that ``tfcompress.robustness`` assesses.
``--resnet8=FOLDER --cifar10=FILE`` adds MLPerf Tiny's ResNet-8, float and official int8, on CIFAR-10's test pictures. Where the
Adversarial Robustness Toolbox is installed, its PGD and Square attack the same models with the same budgets.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import tfcompress as tfc
from tfcompress.cli.parsing import UsageError, help_text, new_flags, parse
from tfcompress.cli.progress import say
from tfcompress.data import load_digits
from tfcompress.demo import build_model
from tfcompress.security.robustness import PixelRange, gradients_of, pgd, square
from tfcompress.system import write_atomically

DIGITS = tfc.AttackOptions(eps=0.1, samples=300)
CIFAR = tfc.AttackOptions(eps=2 / 255, samples=100, queries=200)
UNIT = PixelRange((0.0,), (1.0,))
BATCH = 64


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_integer("seeds", 3, "how many trainings of the digits", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("epochs", 30, "of each", lower_bound=3, flag_values=values)
    flags.DEFINE_string("resnet8", None, "folder with a float and an int8 .tflite and an .h5 file", flag_values=values)
    flags.DEFINE_string("cifar10", None, ".npz with x_test and y_test", flag_values=values)
    flags.DEFINE_string("json", None, "also write the figures as JSON", flag_values=values)
    return values


def trained(digits: Any, seed: int, epochs: int, callbacks: list[Any]) -> Any:
    """Returns the demo's network after a fit."""
    import keras

    model = build_model(seed)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(digits.x_train) // BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=BATCH, verbose=0, callbacks=callbacks)
    return model


def digit_files(digits: Any, seed: int, epochs: int) -> dict[str, tuple[Any, list[tuple[str, bytes]]]]:
    """Returns for each kind of training the Keras model and its files by name."""
    steps = -(-len(digits.x_train) // BATCH)
    schedule = tfc.schedules.Polynomial(final=0.75, begin=2 * steps, end=epochs * steps // 2)

    def compressed(*more: Any) -> list[Any]:
        return [*more, tfc.QuantizationAwareTraining(begin_epoch=epochs * 2 // 3)]

    plain = trained(digits, seed, epochs, [])
    pruned = trained(digits, seed, epochs, compressed(tfc.MagnitudePruning(schedule, frequency=10)))
    adversarial = trained(digits, seed, epochs, compressed(tfc.AdversarialTraining(eps=DIGITS.eps, seed=seed)))
    both = trained(
        digits,
        seed,
        epochs,
        compressed(tfc.MagnitudePruning(schedule, frequency=10), tfc.AdversarialTraining(eps=DIGITS.eps, seed=seed)),
    )
    samples = digits.x_train[:500]

    def int8(model: Any) -> bytes:
        return tfc.convert(model, target="cpu-int8", representative_data=samples).tflite

    return {
        "plain": (plain, [("float", tfc.convert(plain, target="float32").tflite), ("int8", int8(plain))]),
        "pruned": (pruned, [("pruned int8", int8(pruned))]),
        "adversarial": (adversarial, [("adversarial int8", int8(adversarial))]),
        "adversarial, pruned": (both, [("adversarial, pruned int8", int8(both))]),
    }


def figures(found: tfc.Robustness, names: list[str]) -> dict[str, dict[str, float]]:
    """Returns accuracies and the calibration error by file."""
    rows = {}
    for name, file in zip(names, found.files, strict=True):
        rows[name] = {
            "clean": file.clean.value,
            **{attack: share.value for attack, share in file.attacked.items() if attack != "none"},
            **{corruption: file.mean_corrupted(corruption).value for corruption in file.corrupted},
            "calibration error": file.calibration_error,
        }
    return rows


def toolbox(model: Any, file: bytes, digits: Any) -> dict[str, float] | None:
    """Returns accuracies under the toolbox's attacks and under ours with the same budgets; None where it is not installed."""
    try:
        from art.attacks.evasion import ProjectedGradientDescentTensorFlowV2, SquareAttack
        from art.estimators.classification import TensorFlowV2Classifier
    except ImportError:
        return None
    import keras
    import tensorflow as tf

    x, y = digits.x_test[: DIGITS.samples], digits.y_test[: DIGITS.samples]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    estimator = TensorFlowV2Classifier(
        model=model, nb_classes=10, input_shape=x.shape[1:], loss_object=loss, clip_values=(0.0, 1.0)
    )
    step = 2.5 * DIGITS.eps / DIGITS.steps
    theirs = ProjectedGradientDescentTensorFlowV2(
        estimator,
        eps=DIGITS.eps,
        eps_step=step,
        max_iter=DIGITS.steps,
        num_random_init=DIGITS.restarts,
        batch_size=128,
        verbose=False,
    )
    tf.random.set_seed(0)
    np.random.seed(0)
    ours = pgd(
        gradients_of(model, UNIT, are_probabilities=False),
        x,
        y,
        eps=DIGITS.eps,
        steps=DIGITS.steps,
        restarts=DIGITS.restarts,
    )

    def accuracy(pictures: np.ndarray) -> float:
        return float((np.asarray(model(pictures, training=False)).argmax(axis=1) == y).mean())

    black_box = tfc.security.art_classifier(file, input_range=(0.0, 1.0))
    few, labels = x[:100], y[:100]
    queries = 200
    square_theirs = SquareAttack(black_box, eps=DIGITS.eps, max_iter=queries, batch_size=100, verbose=False)
    squares = {
        "toolbox Square, int8": square_theirs.generate(few, labels),
        "our Square, int8": square(black_box.predict, few, labels, eps=DIGITS.eps, queries=queries),
    }
    return {
        "toolbox PGD, float": accuracy(theirs.generate(x, y)),
        "our PGD, float": accuracy(ours),
        **{name: float((black_box.predict(made).argmax(axis=1) == labels).mean()) for name, made in squares.items()},
    }


def resnet8(folder: Path, pictures: Path) -> dict[str, Any]:
    """Returns the figures of the float and the official int8 file; their Keras file is of Keras 2, so without gradients."""
    files = sorted(folder.glob("*.tflite"), key=lambda path: -path.stat().st_size)
    with np.load(pictures) as arrays:
        data = arrays["x_test"].astype(np.float32), arrays["y_test"]
    found = tfc.robustness(files, data, attacks=CIFAR, input_range=(0, 255))
    rows = figures(found, [path.stem for path in files])
    return {
        "options": vars(CIFAR),
        "left out": dict(found.skipped),
        "rows": rows,
        "disagreement": [f.disagreement.to_json() for f in found.files if f.disagreement is not None],
        "suspicions": list(found.suspicions),
    }


def spread(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Returns mean, lowest and highest of each figure over the seeds."""
    return {
        name: {
            column: [round(each(run[name][column] for run in runs), 4) for each in (statistics.fmean, min, max)]
            for column in row
        }
        for name, row in runs[0].items()
    }


def main() -> None:
    """Trains, attacks, prints and writes."""
    import sys

    values = _flags()
    program = "python benchmarks/robustness.py"
    try:
        if parse(values, sys.argv[1:], required=()):
            print(help_text(values, program=program, summary="robustness of compressed models", example=program))
            return
    except UsageError as error:
        raise SystemExit(str(error)) from error
    result: dict[str, Any] = {}
    digits = load_digits()

    def keep() -> None:
        if values.json:
            write_atomically(values.json, json.dumps(result, indent=1) + "\n", overwrite=True)

    runs: list[dict[str, dict[str, float]]] = []
    for seed in range(values.seeds):
        rows: dict[str, dict[str, float]] = {}
        for kind, (model, files) in digit_files(digits, seed, values.epochs).items():
            names, contents = [name for name, _ in files], [content for _, content in files]
            test = digits.x_test, digits.y_test
            rows |= figures(tfc.robustness(contents, test, keras_model=model, attacks=DIGITS), names)
            say(f"seed {seed}, {kind}: {rows[names[-1]]}")
            if kind == "plain" and not seed:
                result["toolbox"] = toolbox(model, contents[-1], digits)
        runs.append(rows)
        result["digits"] = {"seeds": len(runs), "options": vars(DIGITS), "mean, lowest, highest": spread(runs)}
        keep()
    if values.resnet8 and values.cifar10:
        result["resnet8"] = resnet8(Path(values.resnet8), Path(values.cifar10))
        keep()
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
