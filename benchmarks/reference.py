"""The case ``reference`` of ``accuracy.py``: what each kind of compression costs and wins, on one table.

Models of the zoo are trained on data that are learned here within minutes (``examples/``), and compressed in every way;
all int8 files of a model run in turns. The same training continues for the same number of epochs in each fine-tuned row.
``reference_tables.py`` makes the pages of it.
"""

import dataclasses
import gc
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import flow
from reference_tables import FIGURES, HALVED, ROWS, Figures

from tfcompress.cli.progress import say
from tfcompress.errors import TrainingError

MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and what it learns.

    Attributes:
        title: for the table.
        make: returns the task, given the folder of all shared data; ``None`` is for embedded data.
        recipe: how it is trained.
        scope: of the pruned rows. "global" keeps the few weights of depthwise convolutions, which "layer" thins like all others.
    """

    title: str
    make: Callable[[Path], flow.Task]
    recipe: flow.Recipe
    scope: str = "layer"


def digits(_: Path) -> flow.Task:
    """Returns the task of the digits that scikit-learn brings along."""
    import digits as example

    return example.make_task()


def zoo_model(name: str, **arguments: Any) -> Any:
    """Returns a model of the zoo whose BatchNorm statistics follow within the few steps that it is trained here."""
    import keras

    import tfcompress as tfc

    model = tfc.zoo.build(name, **arguments)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return model


def sms_spam(build: str) -> Callable[[Path], flow.Task]:
    """Returns what makes the task of the filter of text messages, with a text model of the zoo."""

    def make(shared: Path) -> flow.Task:
        import sms_spam as example

        messages = example.load(shared / "data" / "sms_spam")
        task = example.make_task(messages, example.learned_tokenizer(messages))
        arguments = {"length": example.LENGTH, "vocabulary": example.VOCABULARY}
        return dataclasses.replace(task, build=lambda: zoo_model(build, **arguments), metric="top1", answer=None)

    return make


def cifar10(build: str) -> Callable[[Path], flow.Task]:
    """Returns what makes the task of the pictures, with a model of the zoo."""

    def make(shared: Path) -> flow.Task:
        return dataclasses.replace(example("cifar10", "cifar10")(shared), build=lambda: zoo_model(build))

    return make


def mnist(build: str, *, border: int = 0, **arguments: Any) -> Callable[[Path], flow.Task]:
    """Returns what makes the task of 2000 handwritten digits learned from 8000, with a model of the zoo.

    Args:
        build: name of the model.
        border: pixels of background on each side, for models that take no pictures as small as 28x28.
        **arguments: of the model.
    """

    def make(shared: Path) -> flow.Task:
        import numpy as np
        from accuracy import mnist as load

        x, y, test_x, test_y = load(shared)
        widths = ((0, 0), (border, border), (border, border), (0, 0))
        x, test_x = np.pad(x, widths, mode="edge"), np.pad(test_x, widths, mode="edge")
        return flow.Task(
            title=build,
            build=lambda: zoo_model(build, input_shape=x.shape[1:], classes=10, **arguments),
            x=x,
            y=y,
            test=(test_x, test_y),
        )

    return make


def example(module: str, folder: str) -> Callable[[Path], flow.Task]:
    """Returns what makes the task of an example."""

    def make(shared: Path) -> flow.Task:
        found = __import__(module).make_task(shared / "data" / folder)
        # One target for all rows of the table, whatever the example is for.
        return dataclasses.replace(found, target="cpu-int8", metric="top1", answer=None)

    return make


MOBILE: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {"width": 0.25},
    "mobilenet_v2": {"width": 0.35},
    "mobilenet_v3_small_minimal": {"width": 0.35},
    "shufflenet_v1": {"width": 0.5},
    "shufflenet_v2": {"width": 0.5},
    "squeezenet": {},
}
SUBJECTS = {
    "digits": Subject(
        "small separable CNN, digits", digits, flow.Recipe(epochs=20, compressed_epochs=24, batch_size=64)
    ),
    "motions": Subject(
        "separable CNN, motions",
        example("motions", "motions"),
        flow.Recipe(epochs=60, compressed_epochs=30, batch_size=8),
    ),
    "spoken_digits": Subject(
        "ds_cnn, spoken digits", example("spoken_digits", "spoken_digits"), flow.Recipe(epochs=24, compressed_epochs=8)
    ),
    **{
        name: Subject(
            f"{name}, SMS spam",
            sms_spam(name),
            flow.Recipe(epochs=epochs, compressed_epochs=4, batch_size=64, learning_rate=2e-3),
        )
        for name, epochs in (("text_cnn", 8), ("text_attention", 8), ("text_lstm", 16))
    },
    "cifar10": Subject(
        "residual CNN, CIFAR-10 (2000)",
        example("cifar10", "cifar10"),
        flow.Recipe(epochs=30, compressed_epochs=8, batch_size=50, learning_rate=4e-3),
    ),
    "resnet_8": Subject(
        "resnet_8, CIFAR-10 (2000)",
        cifar10("resnet_8"),
        flow.Recipe(epochs=30, compressed_epochs=8, batch_size=50, learning_rate=4e-3),
    ),
    "resnet_20": Subject(
        "resnet_20, CIFAR-10 (2000)",
        cifar10("resnet_20"),
        flow.Recipe(epochs=30, compressed_epochs=8, batch_size=50, learning_rate=4e-3),
    ),
    **{
        name: Subject(
            f"{name} ({', '.join(f'{key} {value}' for key, value in arguments.items())}), MNIST (8000)",
            mnist(name, border=2, **arguments),
            flow.Recipe(epochs=8, compressed_epochs=6, batch_size=64),
            scope="global",
        )
        for name, arguments in MOBILE.items()
    },
}


def make_files(
    task: flow.Task, recipe: flow.Recipe, folder: Path, *, seed: int, teacher: Any, scope: str
) -> dict[str, Path]:
    """Trains and compresses with one seed; returns the file of each row."""
    import keras

    import tfcompress as tfc

    representative = task.x[: flow.REPRESENTATIVE]
    steps = len(flow.batches(task, recipe, seed))
    later = {"seed": seed, "epochs": recipe.compressed_epochs, "rate": flow.LATER_RATE * recipe.learning_rate}
    paths: dict[str, Path] = {}

    def write(row: str, model: Any, target: str = "cpu-int8") -> None:
        paths[row] = folder / f"{ROWS.index(row)}.tflite"
        result = tfc.convert(model, target=target, representative_data=representative, **task.settings)
        result.save(paths[row], overwrite=True)

    def again() -> Any:
        return keras.models.load_model(folder / "float.keras", compile=False)

    keras.utils.set_random_seed(seed)
    model = task.build()
    flow.fit(model, task, recipe, what="float", seed=seed, epochs=recipe.epochs, rate=recipe.learning_rate)
    model.save(folder / "float.keras")
    write("float32", model, "float32")
    write("int8 post-training", model)
    aware = again()
    flow.fit(aware, task, recipe, what="QAT", callbacks=[tfc.QuantizationAwareTraining()], **later)
    write("int8 QAT", aware)
    for row, sparsity in (("int8 pruned 50 %", 0.5), ("int8 pruned 75 %", 0.75)):
        sparse = again()
        end = max(1, recipe.compressed_epochs * steps // 2)
        ramp = tfc.schedules.Polynomial(final=sparsity, begin=0, end=end)
        pruning = tfc.MagnitudePruning(ramp, frequency=max(1, steps // 8), scope=scope)
        flow.fit(sparse, task, recipe, what=f"pruning {sparsity:.0%}", callbacks=[pruning], **later)
        write(row, sparse)
    try:
        smaller = tfc.remove_channels(again(), multiply_adds=0.5, multiple_of=4)
    except TrainingError as error:
        say(f"  no row {HALVED!r}: {error}")
    else:
        flow.fit(smaller, task, recipe, what="smaller", **later)
        write(HALVED, smaller)
    if teacher is not None:
        keras.utils.set_random_seed(seed)
        student = task.build()
        options = {"epochs": recipe.epochs, "rate": recipe.learning_rate, "seed": seed}
        flow.fit(student, task, recipe, what="distilled", teacher=teacher, **options)
        write("int8 distilled", student)
    return paths


def run(name: str, shared: Path, seeds: int, *, quick: bool = False) -> Figures:
    """Returns the figures of each row, a value per seed, for one subject."""
    import keras

    import tfcompress as tfc

    subject = SUBJECTS[name]
    task, recipe = subject.make(shared), subject.recipe.quick() if quick else subject.recipe
    teacher = None
    if task.teacher is not None:
        keras.utils.set_random_seed(0)
        teacher = task.teacher()
        flow.fit(teacher, task, recipe, what="teacher", seed=0, epochs=recipe.epochs, rate=recipe.learning_rate)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as place:
            paths = make_files(task, recipe, Path(place), seed=seed, teacher=teacher, scope=subject.scope)
            measured = tfc.measure(
                [str(path) for path in paths.values()],
                task.test,
                metric=task.metric,
                latency=tfc.LatencyOptions(interleave=True),
            )
        for row, each in zip(paths, measured, strict=True):
            figures = dict(
                zip(FIGURES, (each.accuracy, each.size_bytes, each.gzip_bytes, each.latency.median_ms), strict=True)
            )
            for figure, value in figures.items():
                found.setdefault(row, {}).setdefault(figure, []).append(value)
        gc.collect()
    return found
