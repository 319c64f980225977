"""Knowledge distillation: a student learns from a teacher's answers and features, with every callback working on it.

Built on ``keras.distillation.Distiller``; what is added are features of other widths, one forward pass for both losses,
the student's own regularisation losses, and clear errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from ..errors import TrainingError
from ..layers import check_backend, interception
from ..system.arguments import checked_arguments

__all__ = ["SoftTargets", "StudentDistiller", "distill"]


@checked_arguments
def distill(
    student: keras.Model,
    teacher: keras.Model,
    *,
    temperature: float = 4.0,
    student_weight: float = 0.1,
    features: Mapping[str, str] | None = None,
    feature_weight: float = 1.0,
    from_logits: bool = True,
) -> "StudentDistiller":
    """Returns a model to compile and fit, which trains ``student`` on the labels and on what ``teacher`` answers.

    loss = student_weight * loss(labels, student)
    + (1 - student_weight) * (T**2 * KL(softmax(teacher / T) || softmax(student / T)) + feature_weight * features),
    where ``features`` is the sum of the mean squared errors between pairs of layers. Give the callbacks of this package
    to its ``fit``: they work on the student, which is the plain trained model afterwards, and which ``save`` writes, so
    that the file of a ``ModelCheckpoint`` is the student's.

    Args:
        student: the model to train, of the teacher's inputs and outputs.
        teacher: a trained functional or Sequential model; Keras sets its ``trainable`` to False.
        temperature: T, above 0; higher is softer. Default: 4.
        student_weight: share of the labels' loss, in [0, 1]. Default: 0.1.
        features: teacher's layer by student's layer, whose outputs (n, ..., channels) should agree; where the numbers of
            channels differ a linear projection of the student's is trained along and thrown away. Default: none.
        feature_weight: weight of each pair, above 0. Default: 1.
        from_logits: whether the models answer with logits; False for probabilities, whose logarithm is taken.
            Default: True.

    Raises:
        ValueError: a number out of range, a layer that does not exist, or features of different sizes.
        TrainingError: the models do not fit each other, or Keras does not run on TensorFlow.

    Examples:
        >>> import numpy as np
        >>> def dense(width):
        ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(3)])
        >>> student = dense(4)
        >>> distiller = distill(student, dense(32))
        >>> distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = distiller.fit(np.zeros((8, 4)), np.zeros(8), verbose=0)
        >>> sorted(history.history)
        ['distillation_loss', 'loss', 'student_loss', 'total_loss']

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015,
    https://arxiv.org/abs/1503.02531; Romero et al., "FitNets: hints for thin deep nets", 2015,
    https://arxiv.org/abs/1412.6550 (features with a projection).
    """
    check_backend()
    for name, value, sound, rule in (
        ("temperature", temperature, lambda x: x > 0, "above 0"),
        ("student_weight", student_weight, lambda x: 0 <= x <= 1, "in [0, 1]"),
        ("feature_weight", feature_weight, lambda x: x > 0, "above 0"),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or not sound(value):
            raise ValueError(f"{name} must be a number {rule}. Received: {name}={value!r}.")
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, keras.Model):
            raise TrainingError(f"The {role} must be a Keras model. Received: {model!r}.")
        if not model.built:
            raise TrainingError(f"The {role} must be built. Received: {model.name!r}, not built. Call it once on data.")
    pairs = [_pair(student, teacher, mine, theirs) for mine, theirs in (features or {}).items()]
    losses = [SoftTargets(float(temperature), from_logits=from_logits), *pairs]
    try:
        return StudentDistiller(
            teacher=teacher,
            student=student,
            distillation_losses=losses,
            distillation_loss_weights=[1.0, *[float(feature_weight)] * len(pairs)],
            student_loss_weight=float(student_weight),
        )
    except ValueError as error:
        raise TrainingError(
            f"Student and teacher must have the same inputs and outputs. Received: {str(error).splitlines()[0]}"
        ) from error


class SoftTargets(keras.distillation.DistillationLoss):
    """T**2 * KL(softmax(teacher / T) || softmax(student / T)), the mean over samples and the sum over outputs.

    Args:
        temperature: T, above 0.
        from_logits: whether answers are logits rather than probabilities. Default: True.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015,
    https://arxiv.org/abs/1503.02531, section 2.
    """

    def __init__(self, temperature: float, *, from_logits: bool = True) -> None:
        self.temperature = temperature
        self.from_logits = from_logits

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
        """Returns the loss, a scalar, of answers (n, ..., classes)."""
        losses = keras.tree.map_structure(self._one, teacher_outputs, student_outputs)
        return sum(keras.tree.flatten(losses))

    def _one(self, teacher: Any, student: Any) -> Any:
        teacher, student = (self._log_softmax(values) for values in (teacher, student))
        divergence = keras.ops.sum(keras.ops.exp(teacher) * (teacher - student), axis=-1)
        return self.temperature**2 * keras.ops.mean(divergence)

    def _log_softmax(self, values: Any) -> Any:
        values = keras.ops.cast(values, "float32")
        logits = values if self.from_logits else keras.ops.log(keras.ops.maximum(values, 1e-7))
        return keras.ops.log_softmax(logits / self.temperature, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {"temperature": self.temperature, "from_logits": self.from_logits}


class _Features(keras.distillation.DistillationLoss):
    """The mean squared error between a layer of the teacher and one of the student, projected where widths differ."""

    def __init__(self, student_layer: str, teacher_layer: str, projection: Any) -> None:
        self.student_layer_name = student_layer
        self.teacher_layer_name = teacher_layer
        self.projection = projection

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_: Any) -> Any:
        student = keras.ops.cast(student_outputs, "float32")
        if self.projection is not None:
            student = self.projection(student)
        return keras.ops.mean(keras.ops.square(keras.ops.cast(teacher_outputs, "float32") - student))

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Shapes were compared when the pair was made."""


def _pair(student: keras.Model, teacher: keras.Model, mine: str, theirs: str) -> _Features:
    shapes = []
    for role, model, name in (("student", student, mine), ("teacher", teacher, theirs)):
        known = {layer.name: layer for layer in model.layers}
        if name not in known:
            raise ValueError(f"features must name layers. Received: {name!r} of the {role}. Known: {', '.join(known)}.")
        output = getattr(known[name], "output", None)
        if output is None:
            raise ValueError(f"Features need a layer with one output. Received: {name!r} of the {role}.")
        shapes.append(tuple(output.shape))
    if shapes[0][:-1] != shapes[1][:-1]:
        raise ValueError(
            f"Features must have the same size but for channels. Received: {mine} {shapes[0]} of the student and {theirs} "
            f"{shapes[1]} of the teacher."
        )
    projection = None
    if shapes[0][-1] != shapes[1][-1]:
        projection = keras.layers.Dense(shapes[1][-1], use_bias=False, name=f"projection_of_{mine}", dtype="float32")
        projection.build(shapes[0])
    return _Features(mine, theirs, projection)


class StudentDistiller(keras.distillation.Distiller):
    """``keras.distillation.Distiller`` whose student runs once a step; made by ``distill``."""

    def __init__(self, *, distillation_losses: Sequence[Any], **options: Any) -> None:
        super().__init__(distillation_losses=list(distillation_losses), **options)
        self._student_layers = {
            loss.student_layer_name: self.student.get_layer(loss.student_layer_name)
            for loss in distillation_losses
            if isinstance(loss, _Features)
        }
        # As an attribute of the model Keras trains them along.
        self.projections = [loss.projection for loss in distillation_losses if getattr(loss, "projection", None)]
        self._seen: dict[str, Any] = {}

    def _create_multi_feature_extractors(self) -> None:
        names = [loss.teacher_layer_name for loss in self.distillation_losses if isinstance(loss, _Features)]
        self._teacher_feature_extractor = self._create_feature_extractor(self.teacher, names)
        self._student_feature_extractor = None

    def call(self, inputs: Any, training: bool | None = None, **options: Any) -> Any:
        """Returns the student's answers; what its layers answer is kept for the loss."""
        seen: dict[str, Any] = {}
        with interception.recorded(self._student_layers, seen):
            outputs = self.student(inputs, training=training, **options)
        object.__setattr__(self, "_seen", seen)
        return outputs

    def save(self, filepath: Any, overwrite: bool = True, **options: Any) -> None:
        """Saves the student, with the ranges of quantization-aware training: the teacher has a file already."""
        self.student.save(filepath, overwrite=overwrite, **options)

    def _extract_all_student_features(self, x: Any, y_pred: Any) -> dict[str, Any]:
        return {"final_output": y_pred, **self._seen}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        """Returns Keras's loss plus what the student's layers add, such as regularisation."""
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        return loss + sum(self.student.losses) if self.student.losses else loss
