"""What does compression do to a model under attack and in bad weather? Files side by side on the same pictures."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data import InputSpec, Labelled, Scaling, ScalingName, load_labelled
from ...errors import DataError, ModelError
from ...measurement.measuring import file_of, is_one_model
from ...metrics import (
    are_probabilities,
    check_labels,
    class_scores,
    expected_calibration_error,
    predicted_classes,
    probabilities,
)
from ...system import checked_arguments, option_or_default
from ...tflite import Model, open_model
from .class_disagreement import disagreement
from .corruptions import CORRUPTIONS, STRENGTHS, corrupt, unsuited
from .gradient_attacks import fgsm, gradients_of, pgd
from .pixel_range import PixelRange
from .result import AttackOptions, FileRobustness, NoiseAnswers, Robustness, Share
from .square_attack import square

__all__ = ["answer", "robustness"]

NOISE_SAMPLES = 256
_WITHOUT_GRADIENTS = "needs gradients: give the Keras model (keras_model, --keras_model)"


@checked_arguments
def robustness(
    model: Any,
    data: Any,
    *,
    keras_model: Any = None,
    attacks: AttackOptions | None = None,
    input_range: tuple[float, float] | None = None,
    scaling: ScalingName | Scaling | None = None,
    threads: int = 1,
    allow_unsafe: bool = False,
    debug: bool = False,
) -> Robustness:
    """Returns how files answer under attack, to corrupted pictures and to noise, how sure they are, and where they disagree.

    FGSM and PGD are computed with the gradients of a Keras model and shown to each file; Square asks each file itself. All
    change no value by more than ``eps`` of the range from black to white, and stay in that range.

    Args:
        model: path of a ``.tflite`` file, its bytes, a ``Conversion``, a Keras model, or a list of them; the first is the
            reference of disagreements, the float one.
        data: labelled samples as ``measure`` takes them.
        keras_model: the Keras 3 model, or its path, whose gradients FGSM and PGD follow. Default: None, which leaves both out.
        attacks: how strong. Default: ``AttackOptions()``.
        input_range: what black and white are to the model. Default: from ``scaling``, else the narrowest of [0, 1], [-1, 1] and
            [0, 255] that holds the samples.
        scaling: how 8-bit pixels become inputs, as ``data.resolve_scaling`` takes it. Default: None.
        threads: of the interpreter. Default: 1.
        allow_unsafe: whether the Keras file and the data may bring code along. Default: False.
        debug: lets log lines through. Default: False.

    Raises:
        ModelError: a file is damaged, or has several inputs or outputs; the Keras model is none.
        DataError: the data does not fit.
        ValueError: ``input_range`` is not known, or does not hold the data; no model.

    Examples:
        >>> from tfcompress.data import load_digits
        >>> digits = load_digits()
        >>> found = robustness(
        ...     "models/digits/digits_int8.tflite",
        ...     (digits.x_test, digits.y_test),
        ...     attacks=AttackOptions(eps=0.1, samples=50, queries=50),
        ... )
        >>> file = found.files[0]
        >>> file.clean.value > 0.9 > file.attacked["Square"].value
        True
        >>> found.skipped["PGD"]
        'needs gradients: give the Keras model (keras_model, --keras_model)'
    """
    options = option_or_default("attacks", attacks, AttackOptions)
    models: list[Any] = [model] if is_one_model(model) else list(model)
    if not models:
        raise ValueError("model must name at least one file. Received: none.")
    with contextlib.ExitStack() as stack:
        files = [_File.opened(*file_of(stack, each, debug=debug), threads=threads, debug=debug) for each in models]
        labelled = _loaded(files, data, scaling, allow_unsafe)
        x, y = labelled.x[files[0].input_name], labelled.y
        pixels = PixelRange.of(x, input_range=input_range, scaling=scaling)
        answers = [file.scores(x) for file in files]
        for file, scores in zip(files, answers, strict=True):
            _check_classes(scores, answers[0], y, file.name)
        chosen = np.sort(np.random.default_rng(options.seed).permutation(len(y))[: options.samples])
        pictures, labels = pixels.to_unit(x[chosen]), y[chosen]
        source = None if keras_model is None else _keras(keras_model, x, pixels, allow_unsafe, debug)
        transferred, white_box = _transferred(source, pictures, labels, options)
        skipped = dict.fromkeys(("FGSM", "PGD"), _WITHOUT_GRADIENTS) if source is None else {}
        reasons = {name: unsuited(name, pictures.shape) for name in CORRUPTIONS}
        skipped |= {name: reason for name, reason in reasons.items() if reason is not None}
        shown = {
            name: [corrupt(name, pictures, strength=i, seed=options.seed) for i in range(1, STRENGTHS + 1)]
            for name, reason in reasons.items()
            if reason is None
        }
        found: list[FileRobustness] = []
        for file, scores in zip(files, answers, strict=True):
            one = _assessed(file, pixels, labels, transferred, shown, pictures, options)
            is_first = not found
            first, own = predicted_classes(answers[0]), predicted_classes(scores)
            found.append(
                dataclasses.replace(
                    one,
                    clean=_share(scores, y),
                    attacked={"none": _share(scores[chosen], labels), **one.attacked},
                    calibration_error=expected_calibration_error(scores, y),
                    confidence=float(probabilities(scores).max(axis=1).mean()),
                    disagreement=None if is_first else disagreement(first, own, classes=max(2, scores.shape[1])),
                )
            )
    return Robustness(tuple(found), white_box, pixels, options, labelled.sha256, skipped)


def answer(request: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Assesses in the child process of the command line: ``robustness`` on plain JSON values.

    Args:
        request: the arguments of ``robustness`` by name, ``attacks`` as a dictionary.
        report: not called.

    Returns:
        The ``Robustness`` as JSON values.
    """
    return robustness(**{**request, "attacks": AttackOptions(**request["attacks"])}).to_json()


@dataclasses.dataclass(frozen=True)
class _File:
    """A file that answers with the scores of classes to one input of real numbers."""

    name: str
    sha256: str
    model: Model

    @classmethod
    def opened(cls, path: str, name: str, *, threads: int, debug: bool) -> "_File":
        model = open_model(path, threads=threads, debug=debug)
        for what, tensors in (("input", model.inputs), ("output", model.outputs)):
            if len(tensors) != 1:
                raise ModelError(
                    f"Robustness is of models with one input and one output. Received: {name} with {len(tensors)} {what}s."
                )
        if model.inputs[0].real_dtype.kind != "f":
            raise ModelError(
                f"Attacks change real numbers. Received: {name} whose input holds {model.inputs[0].dtype} without a scale."
            )
        return cls(name, hashlib.sha256(Path(path).read_bytes()).hexdigest(), model)

    @property
    def input_name(self) -> str:
        return self.model.inputs[0].name

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Returns the answers to inputs, shape (n, classes) or (n, 1)."""
        return class_scores(self.model.run(x)[self.model.outputs[0].name])


def _loaded(files: Sequence[_File], data: Any, scaling: Any, allow_unsafe: bool) -> Labelled:
    """Returns the samples as the first file takes them; the others must take the same."""
    shapes = {file.name: file.model.inputs[0].shape[1:] for file in files}
    if len(set(shapes.values())) > 1:
        raise ModelError(f"Files with inputs of one shape are compared. Received: {shapes}.")
    info = files[0].model.inputs[0]
    spec = InputSpec(info.name, (None, *info.shape[1:]), info.real_dtype)
    return load_labelled(data, [spec], kind="classes", scaling=scaling, allow_pickle=allow_unsafe)


def _check_classes(scores: np.ndarray, first: np.ndarray, labels: np.ndarray, name: str) -> None:
    if scores.shape != first.shape:
        raise ModelError(
            f"Files with the same classes are compared. Received: {name} with {scores.shape[1]}, the first has "
            f"{first.shape[1]}."
        )
    try:
        check_labels(labels, samples=len(scores), columns=scores.shape[1])
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _keras(model: Any, x: np.ndarray, pixels: PixelRange, allow_unsafe: bool, debug: bool) -> Any:
    """Returns gradients of a Keras model, opened as ``convert`` opens it."""
    from ...lowering import SourceOptions, open_source  # loads TensorFlow, which files alone do not need

    source = open_source(model, options=SourceOptions(allow_unsafe=allow_unsafe), debug=debug)
    if source.kind != "keras":
        raise ModelError(f"keras_model must be a Keras 3 model. Received: {source.name}, {source.kind}.")
    if len(source.value.inputs) != 1 or len(source.value.outputs) != 1:
        raise ModelError(
            f"keras_model must have one input and one output. Received: {source.name} with {len(source.value.inputs)} and "
            f"{len(source.value.outputs)}."
        )
    if source.value.inputs[0].shape[1:] != x.shape[1:]:
        raise ModelError(
            f"keras_model must take what the files take, {x.shape[1:]}. Received: {source.name} of "
            f"{tuple(source.value.inputs[0].shape[1:])}."
        )
    outputs = np.asarray(source.value(x[:256], training=False))
    return gradients_of(source.value, pixels, are_probabilities=are_probabilities(outputs))


def _transferred(
    gradients: Any, pictures: np.ndarray, labels: np.ndarray, options: AttackOptions
) -> tuple[dict[str, np.ndarray], dict[str, Share] | None]:
    """Returns pictures by attack that the Keras model's gradients lead to, and what the model itself makes of them."""
    if gradients is None:
        return {}, None
    made = {
        "FGSM": fgsm(gradients, pictures, labels, eps=options.eps),
        "PGD": pgd(
            gradients,
            pictures,
            labels,
            eps=options.eps,
            steps=options.steps,
            restarts=options.restarts,
            seed=options.seed,
        ),
    }
    wrong = {name: gradients(each, labels).wrong for name, each in {"none": pictures, **made}.items()}
    return made, {name: Share(int((~each).sum()), len(labels)) for name, each in wrong.items()}


def _assessed(
    file: _File,
    pixels: PixelRange,
    labels: np.ndarray,
    transferred: Mapping[str, np.ndarray],
    shown: Mapping[str, Sequence[np.ndarray]],
    pictures: np.ndarray,
    options: AttackOptions,
) -> FileRobustness:
    """Returns what a file makes of made pictures; what it makes of the samples themselves is filled in by the caller."""

    def scores(made: np.ndarray) -> np.ndarray:
        return file.scores(pixels.from_unit(made))

    def two_columns(made: np.ndarray) -> np.ndarray:
        found = scores(made)
        return probabilities(found) if found.shape[1] == 1 else found

    squares = square(two_columns, pictures, labels, eps=options.eps, queries=options.queries, seed=options.seed)
    return FileRobustness(
        name=file.name,
        sha256=file.sha256,
        clean=Share(0, 1),
        attacked={
            **{name: _share(scores(made), labels) for name, made in transferred.items()},
            "Square": _share(scores(squares), labels),
        },
        corrupted={name: tuple(_share(scores(made), labels) for made in parts) for name, parts in shown.items()},
        calibration_error=0.0,
        confidence=0.0,
        noise=_noise_answers(scores, pictures.shape[1:], options.seed),
    )


def _noise_answers(scores: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], seed: int) -> NoiseAnswers:
    noise = np.random.default_rng(seed).random((NOISE_SAMPLES, *shape), np.float32)
    shares = probabilities(scores(noise))
    counts = np.bincount(shares.argmax(axis=1))
    return NoiseAnswers(
        float(shares.max(axis=1).mean()), int(counts.argmax()), float(counts.max() / NOISE_SAMPLES), NOISE_SAMPLES
    )


def _share(scores: np.ndarray, labels: np.ndarray) -> Share:
    return Share(int((predicted_classes(scores) == labels).sum()), len(labels))
