"""A ``.tflite`` file as an estimator of the Adversarial Robustness Toolbox, for the attacks that it has and we do not.

The toolbox is imported when it is used: ``pip install tfcompress[robustness]``.
"""

from typing import Any

import numpy as np

from ...errors import ModelError
from ...metrics import class_scores, probabilities
from ...tflite import ModelSource, open_model

__all__ = ["art_classifier"]


def art_classifier(
    source: ModelSource, *, input_range: tuple[float, float], as_probabilities: bool = False, threads: int = 1
) -> Any:
    """Returns the toolbox's ``BlackBoxClassifierNeuralNetwork`` over LiteRT's interpreter, quantized inputs and outputs included.

    For ``art.attacks.evasion.HopSkipJump``, ``SquareAttack`` and what else needs answers and no gradients.

    Args:
        source: path of a ``.tflite`` file, its bytes, or a ``Conversion``, with one input and one output of classes.
        input_range: the lowest and the highest value of an input.
        as_probabilities: whether logits become probabilities. Default: False.
        threads: of the interpreter. Default: 1.

    Raises:
        ModelError: the toolbox is not installed, or the file has several inputs or outputs.

    Examples:
        >>> art_classifier(b"", input_range=(0, 1))
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: ...
    """
    try:
        from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork
    except ImportError as error:
        raise ModelError(
            "The Adversarial Robustness Toolbox must be installed. Received: no module art. "
            "Run pip install 'tfcompress[robustness]'."
        ) from error
    model = open_model(source, threads=threads)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"An estimator has one input and one output. Received: {model.name} with {len(model.inputs)} and "
            f"{len(model.outputs)}."
        )
    info = model.inputs[0]

    def predict(x: np.ndarray) -> np.ndarray:
        scores = class_scores(model.run(np.asarray(x, info.real_dtype))[model.outputs[0].name])
        return probabilities(scores) if as_probabilities or scores.shape[1] == 1 else scores

    shape = tuple(size or 1 for size in info.shape[1:])
    classes = predict(np.zeros((1, *shape), info.real_dtype)).shape[1]
    return BlackBoxClassifierNeuralNetwork(
        predict, input_shape=shape, nb_classes=classes, channels_first=False, clip_values=input_range
    )
