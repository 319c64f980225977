"""What the example commands share: train, distil, prune, train with rounding, convert, measure, report; for several seeds.

A ``Task`` says what is learned from what, a ``Recipe`` for how long; ``run_task`` makes three files for each seed:
float32 and int8_ptq of the trained model, and int8_qat of the same model after pruning and
quantization-aware training. Nothing here knows pictures, sound or text.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from outcome import FILES, scores_text, seed_table, sentences, summary

from tfcompress.cli import guarded
from tfcompress.cli.parsing import help_text, new_flags, parse
from tfcompress.cli.progress import say
from tfcompress.demo import layer_sparsity, made_folder, narrator
from tfcompress.errors import DataError, TrainingError
from tfcompress.measurement import measurement_table
from tfcompress.system import write_atomically

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
LATER_RATE = 0.3  # of the learning rate, for a model that is trained on
QUICK_EPOCHS, QUICK_TEACHER_EPOCHS, QUICK_STEPS = 3, 1, 8
REPRESENTATIVE = 200


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How long and how a model is trained.

    Attributes:
        epochs: of plain training. Default: 30.
        compressed_epochs: of pruning and then quantization-aware training, which takes the last third. Default: 18.
        teacher_epochs: of the larger teacher; 0 for none. Default: 0.
        batch_size: samples per step. Default: 32.
        learning_rate: of Adam, falling along a cosine. Default: 3e-3.
        sparsity: share of zeros among the weights at the end, in [0, 1). Default: 0.5.
        temperature: of the distillation. Default: 4.
        student_weight: share of the labels in the distillation. Default: 0.3.
        most_steps: of an epoch; None for all of the data. Default: None.
    """

    epochs: int = 30
    compressed_epochs: int = 18
    teacher_epochs: int = 0
    batch_size: int = 32
    learning_rate: float = 3e-3
    sparsity: float = 0.5
    temperature: float = 4.0
    student_weight: float = 0.3
    most_steps: int | None = None

    def quick(self) -> "Recipe":
        """Returns the same with few short epochs: enough to see that everything runs, too few to learn."""
        return dataclasses.replace(
            self,
            epochs=QUICK_EPOCHS,
            compressed_epochs=QUICK_EPOCHS,
            teacher_epochs=min(self.teacher_epochs, QUICK_TEACHER_EPOCHS),
            most_steps=QUICK_STEPS,
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned, and how answers are judged.

    Attributes:
        title: of the report.
        build: returns the untrained model; weights are seeded before.
        x: what it learns from, (n, ...) or a dictionary of such arrays.
        y: the truth about it, (n, ...).
        test: labelled samples as ``tfcompress.measure`` takes them.
        loss: returns what ``compile`` takes; None for the cross-entropy of logits and class numbers. Default: None.
        teacher: returns the larger model, untrained. Default: None.
        augment: maps a batch (x, y) of tensors to another, in the training of each epoch. Default: None.
        metric: as ``tfcompress.measure`` takes it. Default: "top1".
        watch: metrics of Keras while training, the first is told. Default: "accuracy".
        representative: what activations are calibrated on. Default: the first 200 of ``x``.
        export: returns the model that is converted from the trained one. Default: the same.
        settings: for ``tfcompress.convert``: metadata, allow_float and others. Default: none.
        answer: called with the int8 file and the folder, returns lines that show what it answers. Default: None.
        target: as ``tfcompress.convert`` takes it. Default: "cpu-int8".
        claims: what the means over all seeds must show, told at the end with yes or NO. Called with what ``summary`` returns.
            Default: none.
    """

    title: str
    build: Callable[[], Any]
    x: Any
    y: np.ndarray
    test: Any
    loss: Callable[[], Any] | None = None
    teacher: Callable[[], Any] | None = None
    augment: Callable[[Any, Any], tuple[Any, Any]] | None = None
    metric: Any = "top1"
    watch: Sequence[Any] = ("accuracy",)
    representative: Any = None
    export: Callable[[Any], Any] = lambda model: model
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    answer: Callable[[Path, Path], list[str]] | None = None
    target: str = "cpu-int8"
    claims: Mapping[str, Callable[[Mapping[str, Any]], bool]] = dataclasses.field(default_factory=dict)


def batches(task: Task, recipe: Recipe, seed: int) -> Any:
    """Returns the training data as a data set, shuffled anew in each epoch."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((task.x, task.y)).shuffle(len(task.y), seed=seed).batch(recipe.batch_size)
    if task.augment is not None:
        data = data.map(task.augment, num_parallel_calls=1, deterministic=True)
    return data.prefetch(2) if recipe.most_steps is None else data.take(recipe.most_steps).prefetch(2)


def fit(
    model: Any,
    task: Task,
    recipe: Recipe,
    *,
    what: str,
    seed: int,
    epochs: int,
    rate: float,
    teacher: Any = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Trains ``model`` in place, on the labels alone or also on what ``teacher`` answers."""
    import keras

    import tfcompress as tfc

    data = batches(task, recipe, seed)
    subject = model
    if teacher is not None:
        subject = tfc.distill(model, teacher, temperature=recipe.temperature, student_weight=recipe.student_weight)
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * len(data), alpha=0.01)
    loss = task.loss() if task.loss else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    subject.compile(keras.optimizers.Adam(decay), loss, metrics=list(task.watch), jit_compile=False)
    subject.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, narrator(what, epochs)])


def compress(model: Any, task: Task, recipe: Recipe, *, seed: int, teacher: Any) -> None:
    """Prunes the trained model in place and trains it on with rounding."""
    import tfcompress as tfc

    later = LATER_RATE * recipe.learning_rate
    steps = len(batches(task, recipe, seed))
    begin = recipe.compressed_epochs * 2 // 3
    ramp = tfc.schedules.Polynomial(final=recipe.sparsity, begin=0, end=max(1, begin * steps * 3 // 4))
    qat = tfc.QuantizationAwareTraining(begin_epoch=begin, target=task.target)
    pruning = tfc.MagnitudePruning(ramp, frequency=max(1, steps // 8))
    options = {"seed": seed, "epochs": recipe.compressed_epochs, "rate": later, "teacher": teacher}
    fit(model, task, recipe, what="pruning + QAT", callbacks=[pruning, qat], **options)


def make_files(task: Task, recipe: Recipe, folder: Path, *, seed: int, teacher: Any, debug: bool) -> dict[str, Any]:
    """Trains one model, compresses it, and writes its three files; returns the conversions by name."""
    import keras

    import tfcompress as tfc

    keras.utils.set_random_seed(seed)
    model = task.build()
    say(f"Seed {seed}: {model.count_params():,} parameters")
    fit(model, task, recipe, what="float", seed=seed, epochs=recipe.epochs, rate=recipe.learning_rate, teacher=teacher)
    representative = task.x[:REPRESENTATIVE] if task.representative is None else task.representative
    options = {"representative_data": representative, "debug": debug, **task.settings}
    plain = task.export(model)
    made = {
        "float32": tfc.convert(plain, target="float32", **options),
        "int8_ptq": tfc.convert(plain, target=task.target, **options),
    }
    model.save(folder / "float32.keras")
    compress(model, task, recipe, seed=seed, teacher=teacher)
    made["int8_qat"] = tfc.convert(task.export(model), target=task.target, **options)
    model.save(folder / "int8_qat.keras")
    for name, result in made.items():
        result.save(folder / f"{name}.tflite", overwrite=True)
    return made


def run_task(
    task: Task, recipe: Recipe, folder: Path, *, seeds: int, devices: Sequence[str] = (), debug: bool = False
) -> dict[str, Any]:
    """Runs everything for ``seeds`` seeds, prints tables, writes the files, ``results.json`` and ``report.html``.

    One teacher, trained with seed 0, is shared by all seeds. The other devices measure the files of seed 0.

    Returns:
        What ``results.json`` holds.
    """
    import keras

    import tfcompress as tfc

    teacher, notes = None, []
    if recipe.teacher_epochs and task.teacher is not None:
        keras.utils.set_random_seed(0)
        teacher = task.teacher()
        say(f"Teacher: {teacher.count_params():,} parameters")
        options = {"seed": 0, "epochs": recipe.teacher_epochs, "rate": recipe.learning_rate}
        fit(teacher, task, recipe, what="teacher", **options)
        converted = tfc.convert(task.export(teacher), target="float32", debug=debug, **task.settings)
        once = tfc.LatencyOptions(runs=1, warmup=0)
        score = tfc.measure(converted, task.test, metric=task.metric, latency=once)
        notes.append(f"The teacher, {teacher.count_params():,} parameters, in float: {scores_text(score.scores)}.")
    measured, conversions = [], {}
    for seed in range(seeds):
        place = made_folder(folder / f"seed{seed}")
        made = make_files(task, recipe, place, seed=seed, teacher=teacher, debug=debug)
        conversions = conversions or made
        paths = [str(place / f"{name}.tflite") for name in FILES]
        measured.append(tfc.measure(paths, task.test, metric=task.metric, latency=tfc.LatencyOptions(interleave=True)))
        for name, each in zip(FILES, measured[-1], strict=True):
            say(f"  {name} on the test data: {scores_text(each.scores)}")
    elsewhere = [row for device in devices for row in measure_on(device, folder / "seed0", task)]
    print()
    print(measurement_table([*measured[0], *elsewhere]))
    shown = task.answer(folder / "seed0" / "int8_qat.tflite", folder) if task.answer is not None else []
    claims = {claim: bool(holds(summary(measured))) for claim, holds in task.claims.items()}
    verdicts = [f"{'yes' if holds else 'NO':<5}{claim}" for claim, holds in claims.items()]
    for lines in filter(None, (seed_table(measured), notes, verdicts, shown)):
        print("\n".join(["", *lines]))
    record = {
        "title": task.title,
        "recipe": dataclasses.asdict(recipe),
        "notes": notes,
        "measurements": [[each.to_json() for each in row] for row in measured],
        "elsewhere": [each.to_json() for each in elsewhere],
        "summary": summary(measured),
        "claims": claims,
        "answers": shown,
    }
    write_atomically(folder / "results.json", json.dumps(record, indent=1) + "\n", overwrite=True)
    tfc.report(
        [*measured[0], *elsewhere],
        folder / "report.html",
        title=task.title,
        sparsity={name: layer_sparsity(result) for name, result in conversions.items()},
        notes=[*sentences(measured), *notes, *shown],
        overwrite=True,
    )
    print(f"Files, record and report: {folder}/ (open {folder / 'report.html'})")
    return record


def measure_on(device: str, folder: Path, task: Task) -> list[Any]:
    """Returns the measurements of one seed's files there. A compiler's model of a processor takes integers and no data."""
    import tfcompress as tfc

    is_compiler = device.startswith("ethos-u")
    paths = [str(folder / f"{name}.tflite") for name in (FILES[1:] if is_compiler else FILES)]
    return tfc.measure(paths, None if is_compiler else task.test, metric=task.metric, device=[device])


def find_data(folder: str | Path, name: str, *, origin: str) -> Path:
    """Returns the path of a data file.

    Raises:
        DataError: it is not there; says where it comes from.
    """
    path = Path(folder) / name
    if not path.exists():
        raise DataError(f"The data must be there. Received: no {path}. It is {origin}; name its folder with --data.")
    return path


def define_flags(*, name: str, data: str | None) -> flags.FlagValues:
    """Returns the flags that all examples have."""
    values = new_flags()
    flags.DEFINE_string("output", f"{name}_output", "the folder for files, record and report", flag_values=values)
    if data is not None:
        flags.DEFINE_string("data", str(SHARED / data), "the folder of the data", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "how many models are trained", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("quick", False, "train for few epochs: to see it run, not to learn", flag_values=values)
    flags.DEFINE_bool("teacher", True, "distil from the larger teacher, if there is one", flag_values=values)
    flags.DEFINE_list("device", [], "where else the files of seed 0 are measured: tflm, ssh://...", flag_values=values)
    return values


def command(
    run: Callable[[flags.FlagValues], Any],
    values: flags.FlagValues,
    arguments: Sequence[str],
    *,
    name: str,
    summary: str,
) -> int:
    """Returns the exit code of an example: reads the flags and calls ``run``."""

    def call(rest: Sequence[str], *, program: str) -> int:
        if parse(values, rest, required=("output",)):
            print(help_text(values, program=program, summary=summary, example=f"python examples/{name}.py"))
            return 0
        is_new = not Path(values.output).exists()
        made_folder(values.output)
        try:
            run(values)
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):  # it is not empty: what was made stays
                    Path(values.output).rmdir()
            raise
        return 0

    return guarded(call, arguments, program=name)


def run_flags(task: Task, recipe: Recipe, values: flags.FlagValues) -> dict[str, Any]:
    """Runs a task as the flags say; TensorFlow is loaded here, once the data are known to be there.

    Raises:
        TrainingError: it was trained at full length, and a claim does not hold.
    """
    from tfcompress.system import converter_silenced

    say("Loading TensorFlow ...")
    with converter_silenced(debug=values.debug):
        import tensorflow  # noqa: F401
    recipe = recipe.quick() if values.quick else recipe
    recipe = recipe if values.teacher else dataclasses.replace(recipe, teacher_epochs=0)
    record = run_task(task, recipe, Path(values.output), seeds=values.seeds, devices=values.device, debug=values.debug)
    missed = [claim for claim, holds in record["claims"].items() if not holds]
    if missed and not values.quick:
        raise TrainingError(
            f"The means over {values.seeds} seeds must show what the example claims. Received: NO to "
            f"{' and '.join(map(repr, missed))}. The figures are in {Path(values.output) / 'results.json'}."
        )
    return record
