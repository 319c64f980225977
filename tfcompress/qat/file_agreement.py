"""Does the ``.tflite`` file compute what quantization-aware training computed?

Converts a trained model and compares the file with the fake-quantized model on the same samples: answers, quantization
steps, and on request point by point. Changes neither.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..comparison.side_by_side import File, run_blocks
from ..conversion import convert
from ..layers import model_inputs, signatures
from ..tflite import affine

__all__ = ["SAME_ANSWERS", "FileAgreement", "PointDifference", "compare_with_file", "verify"]

SAME_ANSWERS = 0.998
"""The share of same answers that a model whose points are all trained reaches at least."""
_MOST_SAMPLES = 1000
_MOST_POINT_SAMPLES = 64
_BATCH = 32
_SAME_SCALE = 1e-5  # relative: a range is nudged in float32 on both sides
_WORST = 10


@dataclass(frozen=True)
class PointDifference:
    """How far a tensor of the file is from the fake-quantized model's.

    Args:
        name: of the point.
        tensor: its name in the file.
        max_steps: largest difference in quantization steps.
        mean_steps: mean difference.
        within_one_step: share of values at most one step apart.

    Examples:
        >>> print(PointDifference("conv", "conv/Relu", 2.0, 0.01, 0.999))
        conv: max 2 steps, mean 0.01, 99.90 % within one
    """

    name: str
    tensor: str
    max_steps: float
    mean_steps: float
    within_one_step: float

    def __str__(self) -> str:
        shares = f"{self.within_one_step:.2%}".replace("%", " %")
        return f"{self.name}: max {self.max_steps:.3g} steps, mean {self.mean_steps:.3g}, {shares} within one"


@dataclass(frozen=True)
class FileAgreement:
    """How the file answers beside the fake-quantized model.

    Args:
        samples: how many were compared.
        same_answers: share of same largest values along the last axis; for outputs of one value, of values at most one
            step apart.
        outputs: the difference of each output.
        points: the difference of each point in the order of the model's calls; empty unless asked for.
        calibrated: how many ranges came from the samples and not from training.
        size_bytes: of the file.

    Examples:
        >>> print(FileAgreement(500, 1.0, (PointDifference("logits", "logits", 1.0, 0.02, 1.0),)))
        The file gives 100.0 % same answers on 500 samples; logits: max 1 steps, mean 0.02, 100.00 % within one
    """

    samples: int
    same_answers: float
    outputs: tuple[PointDifference, ...]
    points: tuple[PointDifference, ...] = ()
    calibrated: int = 0
    size_bytes: int = field(default=0, repr=False)

    def __str__(self) -> str:
        same = f"{self.same_answers:.1%}".replace("%", " %")
        lines = [f"The file gives {same} same answers on {self.samples} samples; {'; '.join(map(str, self.outputs))}"]
        if self.calibrated:
            lines.append(f"{self.calibrated} ranges were calibrated, which training did not round to")
        worst = sorted(self.points, key=lambda point: point.within_one_step)[:_WORST]
        lines += [f"  {point}" for point in self.points if point in worst]
        return "\n".join(lines)


def compare_with_file(
    model: keras.Model, qat: Any, data: Any, *, by_point: bool = False, debug: bool = False
) -> FileAgreement:
    """Converts ``model`` for the target it was trained for and returns how far the file is from the callback's model.

    Args:
        model: what ``qat`` was trained on.
        qat: the ``QuantizationAwareTraining`` callback after ``fit``.
        data: samples as ``convert`` takes them; up to 1000 are used. Points that training could not round are calibrated
            on them; trained ranges stay.
        by_point: whether every point is compared, on up to 64 samples. Default: False.
        debug: whether TensorFlow's log lines are shown. Default: False.

    Raises:
        DataError: the data does not fit the model.
        ConversionError: the model has no ranges, or cannot be converted.
        TrainingError: the callback has learned nothing on ``model``.

    Examples:
        >>> from tfcompress.qat import QuantizationAwareTraining
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x, qat = np.random.rand(64, 4).astype("float32"), QuantizationAwareTraining()
        >>> history = model.fit(x, x[:, :3], verbose=0, callbacks=[qat])
        >>> compare_with_file(model, qat, x).same_answers
        1.0
    """
    blocks = list(model_inputs.read_samples(model, data, size=_BATCH, most=_MOST_SAMPLES))
    arrays = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    converted = convert(model, target=qat.target, representative_data=arrays, debug=debug)
    predicted = model.predict(model_inputs.as_inputs(model, arrays), batch_size=_BATCH, verbose=0, callbacks=[qat])
    expected = dict(zip(signatures.output_names(model, predicted), _flat(predicted), strict=True))
    file = File(converted.tflite, model.name, debug=debug)
    outputs, same = _compare_outputs(file, arrays, expected)
    points = _compare_points(file, model, qat, arrays) if by_point else ()
    return FileAgreement(
        len(next(iter(arrays.values()))), same, outputs, points, converted.points.calibrated, len(converted.tflite)
    )


def verify(model: keras.Model, qat: Any, data: Any, *, by_point: bool, is_shown: bool) -> FileAgreement:
    """Returns ``compare_with_file`` at the end of a ``fit``, with one warning below ``SAME_ANSWERS``.

    Args:
        model: see ``compare_with_file``.
        qat: see there.
        data: see there.
        by_point: see there.
        is_shown: whether it is printed.
    """
    agreement = compare_with_file(model, qat, data, by_point=by_point)
    if is_shown:
        print(agreement)
    if agreement.same_answers < SAME_ANSWERS:
        warnings.warn(
            f"The file must answer as the model does in training. Received: {agreement.same_answers:.1%} of "
            "same answers. The callback's file_agreement says how far they are apart; verify_layers=True says where.",
            stacklevel=3,
        )
    return agreement


def _flat(outputs: Any) -> list[np.ndarray]:
    if isinstance(outputs, dict):
        return [leaf for key in sorted(outputs) for leaf in _flat(outputs[key])]
    if isinstance(outputs, list | tuple):
        return [leaf for item in outputs for leaf in _flat(item)]
    return [np.asarray(outputs)]


def _difference(name: str, tensor: str, steps: np.ndarray) -> PointDifference:
    return PointDifference(name, tensor, float(steps.max()), float(steps.mean()), float(np.mean(steps < 1.5)))


def _compare_outputs(
    file: File, arrays: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> tuple[tuple[PointDifference, ...], float]:
    answers = file.model.run(dict(arrays), batch=_BATCH)
    differences, same = [], []
    for info in file.model.outputs:
        ours, theirs = np.asarray(expected[info.name], np.float32), answers[info.name].astype(np.float32)
        step = info.scale or float(np.abs(ours).max()) / 255 or 1.0
        steps = np.abs(ours - theirs) / step
        differences.append(_difference(info.name, info.name, steps))
        if ours.ndim > 1 and ours.shape[-1] > 1:
            same.append(np.mean(ours.argmax(-1) == theirs.argmax(-1)))
        else:
            same.append(np.mean(steps < 1.5))
    return tuple(differences), float(min(same))


def _compare_points(
    file: File, model: keras.Model, qat: Any, arrays: Mapping[str, np.ndarray]
) -> tuple[PointDifference, ...]:
    """Compares each point with the tensor of the file that has its scale, its zero point and its size."""
    few = {name: values[: file.own_batch or _MOST_POINT_SAMPLES] for name, values in arrays.items()}
    expected = qat.points_of(model_inputs.as_inputs(model, few))
    for _ in run_blocks([file], few, batch=_MOST_POINT_SAMPLES):
        break
    wide = qat.target.activations == "int16"
    found = []
    tensors = file.schema.subgraphs[0].tensors
    scales = {index: file.scale(index) for index in range(len(tensors))}
    for name, values in expected.items():
        parameters = affine.from_range(*qat.ranges[name])
        scale = max(map(abs, qat.ranges[name])) / 32767 if wide else float(parameters.scale)
        zero = 0 if wide else int(parameters.zero_point)
        candidates = []
        for index, own in scales.items():
            if own is None or own[1] != zero or abs(own[0] - scale) > _SAME_SCALE * scale:
                continue
            held = file.values(index)
            if held is None or held[0].size != values.size or held[0].dtype == np.int32:
                continue
            real = (held[0].astype(np.float32) - own[1]) * own[0]
            steps = np.abs(real.reshape(values.shape) - values) / own[0]
            tensor = tensors[index].name
            candidates.append(_difference(name, tensor.decode() if isinstance(tensor, bytes) else tensor, steps))
        if candidates:
            found.append(min(candidates, key=lambda difference: difference.mean_steps))
    return tuple(found)
