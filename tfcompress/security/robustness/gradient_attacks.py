"""How little must change for a model whose gradients are known to answer wrongly? FGSM and PGD in the maximum norm.

Both work on pictures in [0, 1]; ``gradients_of`` makes a Keras model into what they ask. ``square_attack`` needs no
gradients.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .pixel_range import PixelRange

__all__ = ["Gradients", "LossGradient", "fgsm", "gradients_of", "pgd"]

BATCH = 128
STEP_OF_EPS = 2.5  # steps may cross the ball this often, as in Madry's code
_LEAST_PROBABILITY = 1e-30


class LossGradient(NamedTuple):
    """What a model says about labelled pictures.

    Args:
        loss: cross-entropy of each, shape (n,).
        wrong: whether the answer is another class, shape (n,).
        gradient: of the logarithm of the odds of a wrong answer, shape of the pictures. The loss rises with the odds, so both
            gradients have the same signs, but that of a sure answer's loss vanishes in float32.
    """

    loss: np.ndarray
    wrong: np.ndarray
    gradient: np.ndarray


Gradients = Callable[[np.ndarray, np.ndarray], LossGradient]
"""(pictures in [0, 1], labels) -> what a model says about them."""


def fgsm(gradients: Gradients, pictures: np.ndarray, labels: np.ndarray, *, eps: float) -> np.ndarray:
    """Returns pictures a step of ``eps`` up the loss: clip(x + eps * sign(gradient), 0, 1).

    Source: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", 2015,
    https://arxiv.org/abs/1412.6572.

    Args:
        gradients: of the attacked model.
        pictures: shape (n, ...), float32 in [0, 1].
        labels: shape (n,), integers.
        eps: largest change of a value.

    Examples:
        >>> def rising(x, y):
        ...     return LossGradient(x.sum(axis=1), x.sum(axis=1) > 9, np.ones_like(x))
        >>> fgsm(rising, np.array([[0.25, 0.75]], np.float32), np.array([0]), eps=0.5)
        array([[0.75, 1.  ]], dtype=float32)
    """
    signs = np.sign(gradients(pictures, labels).gradient)
    return _projected(pictures + np.float32(eps) * signs, pictures, eps)


def pgd(
    gradients: Gradients,
    pictures: np.ndarray,
    labels: np.ndarray,
    *,
    eps: float,
    steps: int = 20,
    restarts: int = 2,
    step_size: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns the worst pictures that are found in several steps up the loss, from random starts within ``eps``.

    x <- clip to the ball of eps and to [0, 1] of (x + step_size * sign(gradient)). Kept is, of all that a start passes and of
    what FGSM finds, one that is answered wrongly before one that is not, then that of the highest loss.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018,
    https://arxiv.org/abs/1706.06083. We look at every step, they at the last.

    Args:
        gradients: of the attacked model.
        pictures: shape (n, ...), float32 in [0, 1].
        labels: shape (n,), integers.
        eps: largest change of a value.
        steps: from each start. Default: 20.
        restarts: how many starts. Default: 2.
        step_size: of one step. Default: 2.5 * eps / steps.
        seed: of the starts. Default: 0.

    Examples:
        >>> def rising(x, y):
        ...     return LossGradient(x.sum(axis=1), x.sum(axis=1) > 9, np.ones_like(x))
        >>> pgd(rising, np.array([[0.25, 0.75]], np.float32), np.array([0]), eps=0.5)
        array([[0.75, 1.  ]], dtype=float32)
    """
    step = np.float32(STEP_OF_EPS * eps / steps if step_size is None else step_size)
    random = np.random.default_rng(seed)
    best = pictures.copy()
    found = gradients(pictures, labels)
    loss, wrong = found.loss.copy(), found.wrong.copy()

    def keep(x: np.ndarray, said: LossGradient) -> None:
        better = (said.wrong > wrong) | ((said.wrong == wrong) & (said.loss > loss))
        best[better], loss[better], wrong[better] = x[better], said.loss[better], said.wrong[better]

    once = _projected(pictures + np.float32(eps) * np.sign(found.gradient), pictures, eps)
    keep(once, gradients(once, labels))
    for _ in range(restarts):
        x = _projected(pictures + random.uniform(-eps, eps, pictures.shape).astype(np.float32), pictures, eps)
        for _ in range(steps):
            said = gradients(x, labels)
            keep(x, said)
            x = _projected(x + step * np.sign(said.gradient), pictures, eps)
        keep(x, gradients(x, labels))
    return best


def _projected(x: np.ndarray, origin: np.ndarray, eps: float) -> np.ndarray:
    within = np.clip(x, origin - np.float32(eps), origin + np.float32(eps))
    return np.clip(within, 0, 1).astype(np.float32)


def gradients_of(model: Any, pixels: PixelRange, *, are_probabilities: bool, batch: int = BATCH) -> Gradients:
    """Returns the gradients of a Keras model's cross-entropy on pictures in [0, 1].

    A final softmax or sigmoid is looked through where Keras keeps its input: the gradient of a sure answer would vanish
    otherwise, and the attack with it.

    Args:
        model: a built Keras model with one input and one output, (n, classes) or (n, 1).
        pixels: what its input takes.
        are_probabilities: whether it answers with probabilities rather than logits.
        batch: samples at once. Default: 128.

    Examples:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="identity")])
        >>> ask = gradients_of(model, PixelRange((0.0,), (1.0,)), are_probabilities=False)
        >>> np.sign(ask(np.array([[0.5, 0.25]], np.float32), np.array([0])).gradient)
        array([[-1.,  1.]], dtype=float32)
    """
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def ask(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = _logits(model(pixels.from_unit(x), training=False), are_probabilities)
            if logits.shape[-1] == 1:
                odds = tf.where(y > 0, -logits[:, 0], logits[:, 0])
                answer = tf.cast(logits[:, 0] > 0, tf.int64)
            else:
                is_label = tf.one_hot(y, tf.shape(logits)[-1], on_value=True, off_value=False)
                others = tf.where(is_label, tf.constant(-np.inf, tf.float64), logits)
                odds = tf.reduce_logsumexp(others, axis=-1) - tf.gather(logits, y, axis=-1, batch_dims=1)
                answer = tf.argmax(logits, axis=-1)
        return tf.math.softplus(odds), answer != y, tape.gradient(odds, x)

    def gradients(pictures: np.ndarray, labels: np.ndarray) -> LossGradient:
        parts = []
        for start in range(0, len(pictures), batch):
            part = slice(start, start + batch)
            x = tf.constant(pictures[part], tf.float32)
            parts.append([each.numpy() for each in ask(x, tf.constant(labels[part], tf.int64))])
        return LossGradient(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    return gradients


def _logits(outputs: Any, are_probabilities: bool) -> Any:
    """Returns a model's answers before their softmax or sigmoid, (n, classes), float64."""
    import tensorflow as tf

    kept = getattr(outputs, "_keras_logits", None)  # Keras's own losses look there too
    values = tf.cast(outputs if kept is None else kept, tf.float64)
    values = tf.reshape(
        values, (tf.shape(values)[0], -1 if None in values.shape[1:] else int(np.prod(values.shape[1:])))
    )
    if kept is not None or not are_probabilities:
        return values
    logs = tf.math.log(tf.maximum(values, _LEAST_PROBABILITY))
    return logs - tf.math.log(tf.maximum(1 - values, _LEAST_PROBABILITY)) if values.shape[-1] == 1 else logs
