"""Training on the examples that the model gets wrong most: a callback that perturbs each batch before the training step."""

import math
from typing import Any

import keras

from ...errors import TrainingError
from ...layers import active_callbacks, check_backend, interception, recovery
from ...system.arguments import checked_arguments
from .gradient_attacks import STEP_OF_EPS
from .pixel_range import PixelRange

__all__ = ["AdversarialTraining"]

_ONE_STEP = 1.25


class AdversarialTraining(keras.callbacks.Callback):
    """Trains a model on adversarial examples of itself, in an ordinary ``fit``.

    Each training step starts from x + uniform noise of ``eps``, goes ``steps`` times up the model's own loss,
    x <- clip(x + step_size * sign(gradient)) to the ball of ``eps`` and to the input's range, and trains on the result. The
    examples are made with the float model as it is outside of training, BatchNormalization with its moving statistics, also
    while ``QuantizationAwareTraining`` rounds the step itself: examples transfer from one to the other, and ranges learn from
    training alone. Its place among the callbacks does not matter. Metrics of training are those of the perturbed batches,
    validation is clean. A step costs about ``1 + steps * ratio`` plain ones.

    Args:
        eps: largest change of a value, as a share of the range from black to white, in (0, 1].
        steps: of PGD; 1 is FGSM from a random start. Default: 7.
        step_size: of one step, as ``eps``. Default: 2.5 * eps / steps, and 1.25 * eps for one step.
        ratio: share of each batch that is perturbed, in (0, 1]. Default: 1.
        input_range: what black and white are to the model. Default: (0, 1).
        seed: of the random starts, which also depend on the optimizer's step. Default: 0.

    Raises:
        ValueError: a number out of range.
        TrainingError: Keras does not run on TensorFlow; the model has several inputs, or batches have no labels.

    Examples:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x, y = np.random.rand(32, 4).astype("float32"), np.arange(32) % 3
        >>> history = model.fit(x, y, verbose=0, callbacks=[AdversarialTraining(eps=0.1, steps=2)])
        >>> len(history.history["loss"]), "train_step" in vars(model)
        (1, False)

    Source: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", 2015,
    https://arxiv.org/abs/1412.6572 (the mixture); Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    2018, https://arxiv.org/abs/1706.06083; Wong, Rice and Kolter, "Fast is better than free: Revisiting adversarial training",
    2020, https://arxiv.org/abs/2001.03994 (one step of 1.25 eps).
    """

    @checked_arguments
    def __init__(
        self,
        *,
        eps: float,
        steps: int = 7,
        step_size: float | None = None,
        ratio: float = 1.0,
        input_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_backend()
        for name, value in (("eps", eps), ("ratio", ratio), ("step_size", step_size)):
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1]. Received: {name}={value}. Write eps=8 / 255 for 8 of 255.")
        if steps < 1 or seed < 0:
            raise ValueError(f"steps must be at least 1 and seed 0. Received: steps={steps}, seed={seed}.")
        usual = _ONE_STEP * eps if steps == 1 else STEP_OF_EPS * eps / steps
        self.eps = eps
        self.steps = steps
        self.step_size = usual if step_size is None else step_size
        self.ratio = ratio
        self.pixels = PixelRange((input_range[0],), (input_range[1],))
        self.seed = seed
        self._on = False

    def settled(self) -> bool:
        """Returns True: the model is from the first step on what it will be."""
        return True

    def snapshot(self) -> None:
        """Returns None: nothing here belongs to the weights."""

    def recall(self, snapshot: None) -> None:
        """Does nothing: see ``snapshot``."""

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; what an exception left on the last one is taken off."""
        self.remove()
        super().set_model(model)

    def remove(self, model: keras.Model | None = None) -> None:
        """Gives the model its own training step back, also after an exception in ``fit``."""
        active_callbacks.leave(self)
        if self._on:
            interception.around_training_step(self.model if model is None else model, None)
        self._on = False

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts the perturbation in front of the training step."""
        subject = interception.subject(self.model)
        inputs = getattr(subject, "inputs", None)
        if inputs is not None and len(inputs) != 1:
            raise TrainingError(
                f"Adversarial training is of models with one input. Received: {subject.name!r} with {len(inputs)}."
            )
        self._attach()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Puts it back where something took it off, and watches for exceptions."""
        if not self._on:
            self._attach()
        recovery.guard(self.model)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the hands off."""
        self.remove()

    def _attach(self) -> None:
        interception.around_training_step(self.model, self._step)
        active_callbacks.enter(self.model, self)
        self._on = True
        self.model.make_train_function(force=True)

    def _step(self, train_step: Any, data: Any) -> Any:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if y is None or len(keras.tree.flatten(x)) != 1:
            raise TrainingError(
                "Adversarial training needs batches of one input with labels. Received: "
                f"{len(keras.tree.flatten(x))} inputs{' without labels' if y is None else ''}. Give fit(x, y)."
            )
        x = keras.tree.map_structure(lambda values: self._perturbed(values, y, x), x)
        return train_step(keras.utils.pack_x_y_sample_weight(x, y, weights))

    def _perturbed(self, x: Any, y: Any, structure: Any) -> Any:
        """Returns a batch whose first share is adversarial; ``structure`` is how the model takes it."""
        import tensorflow as tf

        (low,), (high,) = self.pixels.low, self.pixels.high
        low, high = min(low, high), max(low, high)
        eps, step = self.eps * (high - low), self.step_size * (high - low)
        x = x if x.dtype.is_floating else tf.cast(x, tf.float32)
        rest = None
        if self.ratio < 1:
            count = x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]
            share = (
                math.ceil(self.ratio * count)
                if isinstance(count, int)
                else tf.cast(tf.math.ceil(self.ratio * tf.cast(count, tf.float32)), tf.int32)
            )
            x, rest = x[:share], x[share:]
            y = keras.tree.map_structure(lambda labels: labels[:share], y)
        seed = tf.stack([tf.constant(self.seed, tf.int32), tf.cast(self.model.optimizer.iterations.value, tf.int32)])
        moved = x + tf.random.stateless_uniform(tf.shape(x), seed, -eps, eps, x.dtype)
        with interception.suspended(interception.subject(self.model)):
            for _ in range(self.steps):
                moved = tf.clip_by_value(moved, low, high)
                with tf.GradientTape() as tape:
                    tape.watch(moved)
                    inputs = keras.tree.pack_sequence_as(structure, [moved])
                    answers = self.model(inputs, training=False)
                    loss = self.model.compute_loss(inputs, y, answers, None, training=False)
                moved = moved + step * tf.sign(tape.gradient(loss, moved))
                moved = tf.clip_by_value(moved, x - eps, x + eps)
        moved = tf.stop_gradient(tf.clip_by_value(moved, low, high))
        return moved if rest is None else tf.concat([moved, rest], axis=0)
