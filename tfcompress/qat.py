"""Quantization-aware training as a Keras callback: the model is fake-quantized during ``fit`` and plain afterwards.

The callback intercepts layer calls in place: weights are fake-quantized for the duration of a layer's call, and each
point (see ``points``) passes a range tracker. What it learns, the ranges, travels with ``model.save``. It does not
convert anything.
"""

import functools
import json
import os
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from . import fake_quantization, interception, phases, points, signatures
from .errors import TrainingError
from .files import write_atomically
from .ranges import RangeAsset, TrainedRanges, hash_weights
from .targets import Target
from .targets import resolve as resolve_target

__all__ = ["QuantizationAwareTraining", "check_backend", "trained_ranges"]


def check_backend() -> None:
    """Raises ``TrainingError`` unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise TrainingError(
            f"The callbacks need Keras on TensorFlow. Received: the {keras.backend.backend()} backend. "
            "Set KERAS_BACKEND=tensorflow before Keras is imported."
        )


def trained_ranges(model: keras.Model) -> TrainedRanges | None:
    """Returns the ranges that a callback learned on ``model`` in this process, None where there are none."""
    asset = vars(model).get("save_assets")
    return asset.ranges() if isinstance(asset, RangeAsset) else None


class QuantizationAwareTraining(keras.callbacks.Callback):
    """Trains a model with the rounding of its int8 ``.tflite`` file in place.

    In ``fit``, validation included, and in ``model.evaluate(..., callbacks=[qat])`` and
    ``model.predict(..., callbacks=[qat])`` the model computes as the file will; without the callback it is the float
    model. The model stays as it is: nothing to strip, and ``model.save`` writes an ordinary Keras file that also holds
    the ranges.

    Weights are symmetric per output channel, activations asymmetric per tensor over the moving average of each batch's
    lowest and highest value. The average starts from the first batch (a plain mean of the first 1 / (1 - momentum)
    batches) and stands still from ``freeze_epoch`` on, so that the last epochs train against the file's own grid.

    Args:
        begin_epoch: first epoch, from 0, that is fake-quantized. Default: 0.
        freeze_epoch: first epoch whose ranges stand still, or None for the last epoch of a fit that has at least three
            fake-quantized ones. Default: None.
        momentum: weight of the past in the moving average, in [0, 1). Default: 0.99.
        target: what the file will be for, a name from ``tfcompress.TARGETS`` or a ``Target``: bits of weights and
            activations, per-channel or per-tensor scales. ``convert`` refuses targets that round otherwise.
            Default: "cpu-int8".
        state_path: file for the ranges of each epoch, beside a ``BackupAndRestore`` or weights-only checkpoints, which do
            not carry them; read when a fit goes on, refused when it is of another step, deleted when the fit is done.
            Default: None.

    Raises:
        ValueError: a target without integer activations; a negative epoch, ``freeze_epoch`` not after ``begin_epoch``,
            momentum outside [0, 1).
        TrainingError: Keras does not run on TensorFlow; evaluation before any training.

    Example:
        >>> import keras, numpy as np
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.random.rand(64, 4).astype("float32"), np.random.rand(64, 2).astype("float32")
        >>> qat = QuantizationAwareTraining()
        >>> history = model.fit(x, y, epochs=1, verbose=0, callbacks=[qat])
        >>> sorted(qat.ranges)
        ['head', 'input:x']

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, https://arxiv.org/abs/1712.05877. We do not fold BatchNorm while training: a scale per channel
    makes the folded kernel's grid the unfolded one's times a constant.
    """

    def __init__(
        self,
        *,
        begin_epoch: int = 0,
        freeze_epoch: int | None = None,
        momentum: float = 0.99,
        target: str | Target = "cpu-int8",
        state_path: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        self.target = resolve_target(target)
        if not self.target.integer:
            raise ValueError(
                f"target must be an integer one, such as cpu-int8. Received: target={self.target.name!r}, whose "
                "activations are float."
            )
        self.state_path = None if state_path is None else os.fspath(state_path)
        for name, value in (("begin_epoch", begin_epoch), ("freeze_epoch", freeze_epoch)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ValueError(f"{name} must be an epoch, a whole number from 0 on. Received: {name}={value!r}.")
        if freeze_epoch is not None and freeze_epoch <= begin_epoch:
            raise ValueError(
                "freeze_epoch must come after begin_epoch, or the ranges are never learned. "
                f"Received: begin_epoch={begin_epoch}, freeze_epoch={freeze_epoch}."
            )
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: momentum={momentum!r}.")
        check_backend()
        self.begin_epoch = begin_epoch
        self.freeze_epoch = freeze_epoch
        self.momentum = momentum
        self.plan: points.Plan | None = None
        self._planned_for: keras.Model | None = None
        self._trackers: dict[str, Any] = {}  # point -> variable (3,): low, high, batches seen
        self._learning: Any = None
        self._interception: interception.Interception | None = None
        self._training_now = False
        self._training_call = False
        self._fitting = False
        self._first_epoch = 0
        self._subject: Any = None
        self._frozen: weakref.WeakKeyDictionary[keras.Model, TrainedRanges] = weakref.WeakKeyDictionary()

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Learned (lowest, highest) by point; empty before training."""
        learned = {}
        for name, tracker in self._trackers.items():
            low, high, batches = (float(value) for value in interception.read(tracker))
            if batches:
                learned[name] = (low, high)
        return learned

    def settled(self) -> bool:
        """Returns whether the model is fake-quantized now."""
        return self._interception is not None and self._interception.installed

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the ranges as they are, to go back to with ``recall``."""
        return {name: interception.read(tracker).copy() for name, tracker in self._trackers.items()}

    def recall(self, snapshot: dict[str, np.ndarray]) -> None:
        """Goes back to ranges that belong to weights which somebody has restored."""
        for name, values in snapshot.items():
            self._trackers[name].assign(values)
        if self._planned_for is not None:
            self._keep(self._planned_for)

    def remove(self, model: keras.Model | None = None) -> None:
        """Makes ``model`` (default: the last one trained) the float model again, also after an exception in ``fit``."""
        model = model if model is not None else self._planned_for
        if self._fitting and self._planned_for is not None:
            self._keep(self._planned_for)
        if model is not None and interception.restore(model) and self.model is not model and self.model is not None:
            interception.forget_functions(self.model)  # a distiller's, which hold the student's calls
        self._fitting = False
        phases.leave(self)

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; Keras calls it before each ``fit``, ``evaluate`` and ``predict``.

        What an exception outside the training step left behind is put right here.
        """
        if self._fitting:
            self.remove()
        super().set_model(model)
        self._subject = interception.subject(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepares the trackers; the fake quantization starts with ``begin_epoch``."""
        self.remove(self._subject)
        self._prepare()
        self._fitting = True
        self._first_epoch = -1
        phases.enter(self.model, self)
        own = weakref.ref(self._subject)
        interception.attach_asset(self._subject, RangeAsset(functools.partial(self._current, own)))
        if self.model.train_function is None:
            self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the fake quantization and stops the learning of ranges at their epochs."""
        if self._first_epoch < 0:
            self._first_epoch = epoch
            self._go_on()
        if epoch >= self.begin_epoch and not self._interception.installed:  # type: ignore[union-attr]
            self._install()
            self.model.make_train_function(force=True)
            self.model.train_function = self._guarded(self.model.train_function)
        self._learning.assign(epoch < self._freeze_from())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the ranges to ``state_path``, whole or not at all."""
        if self.state_path is not None and self.ranges:
            state = {name: [float(v) for v in values] for name, values in self.snapshot().items()}
            record = {"iterations": self._step(), "trackers": state}
            write_atomically(self.state_path, json.dumps(record), overwrite=True)

    def _step(self) -> int:
        return int(interception.read(self.model.optimizer.iterations))

    def _go_on(self) -> None:
        """Reads the ranges of an interrupted fit, when the weights are those of the same step."""
        if self.state_path is None or not os.path.exists(self.state_path):
            return
        try:
            with open(self.state_path, encoding="utf-8") as file:
                record = json.load(file)
            step, trackers = (
                int(record["iterations"]),
                {k: [float(x) for x in v] for k, v in record["trackers"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"The state of quantization-aware training is damaged: {self.state_path} ({error}). Delete it to learn the "
                "ranges anew."
            ) from error
        if step != self._step() or set(trackers) != set(self._trackers):
            raise TrainingError(
                f"The state of quantization-aware training must be of this model and step. Received: {self.state_path} of "
                f"step {step} with {len(trackers)} points for step {self._step()} with {len(self._trackers)}. Restore the "
                "weights of that step, or delete the file to learn the ranges anew."
            )
        for name, values in trackers.items():
            self._trackers[name].assign(values)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Marks that what is traced now is a training step."""
        self._training_now = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Marks the end of a training step."""
        self._training_now = False

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the hands off: the model is plain again and keeps its ranges as an asset."""
        self.remove(self._subject)
        if self.state_path is not None and os.path.exists(self.state_path):
            os.remove(self.state_path)
        if not self.ranges:
            warnings.warn(
                f"Quantization-aware training must begin before the last epoch. Received: begin_epoch={self.begin_epoch}, "
                "and no range was learned. Begin earlier or train for more epochs.",
                stacklevel=2,
            )

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Fake-quantizes an evaluation that is not part of a ``fit``."""
        if not self._fitting:
            self._begin_inference()
            self.model.make_test_function(force=True)
            self.model.test_function = self._guarded(self.model.test_function)

    def on_test_end(self, logs: dict | None = None) -> None:
        """Ends it."""
        if not self._fitting:
            self.remove(self._subject)

    def on_predict_begin(self, logs: dict | None = None) -> None:
        """Fake-quantizes a prediction."""
        if not self._fitting:
            self._begin_inference()
            self.model.make_predict_function(force=True)
            self.model.predict_function = self._guarded(self.model.predict_function)

    def on_predict_end(self, logs: dict | None = None) -> None:
        """Ends it."""
        if not self._fitting:
            self.remove(self._subject)

    def _freeze_from(self) -> int:
        if self.freeze_epoch is not None:
            return self.freeze_epoch
        epochs = int(self.params.get("epochs") or 0)
        learning = epochs - max(self.begin_epoch, self._first_epoch)
        return epochs - 1 if learning >= 3 else epochs

    def _prepare(self) -> None:
        import tensorflow as tf

        if self._planned_for is self._subject:
            return
        self.plan = points.plan(self._subject)
        _warn_of(self.plan.skipped)
        self._planned_for = self._subject
        self._input_points = dict(zip(signatures.input_keys(self._subject), self.plan.inputs, strict=True))
        # Each replica learns from its own part of the batch; what is read outside is their mean.
        each_replica = {
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
        with self._subject.distribute_strategy.scope():
            self._learning = tf.Variable(True, trainable=False, name="qat_learning")
            self._trackers = {
                name: tf.Variable(tf.zeros(3), trainable=False, name="qat_range", **each_replica)
                for name in self.plan.tracked
            }
        layers = interception.layer_paths(self._subject)
        watched = {path: layers[path] for path in {path for path, _ in self.plan.sites}}
        self._interception = interception.Interception(self._subject, watched, self._on_layer, self._on_model)

    def _begin_inference(self) -> None:
        interception.restore(self._subject)
        if self._planned_for is not self._subject or not self.ranges:
            raise TrainingError(
                f"The callback has learned no ranges for {self._subject.name!r}. Received: an evaluation before fit. "
                "Pass the same callback to model.fit first."
            )
        self._training_now = False
        self._install()

    def _install(self) -> None:
        self._interception.install()  # type: ignore[union-attr]
        for model in {id(each): each for each in (self.model, self._subject)}.values():
            interception.forget_functions(model)

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Keras calls no ``on_train_end`` after an exception: a step that fails takes the interception off itself."""
        import tensorflow as tf

        def step(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except (StopIteration, tf.errors.OutOfRangeError):
                raise  # how Keras learns that the data is at its end
            except BaseException:
                self.remove(self._subject)
                raise

        return step

    def _on_model(self, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        training = kwargs.get("training")
        self._training_call = self._training_now if training is None else bool(training)
        if not args and "inputs" in kwargs:  # a train_step of the user's own may call by name
            kwargs = dict(kwargs)
            args = (kwargs.pop("inputs"),)
        return call(self._quantized_inputs(args[0]), *args[1:], **kwargs) if args else call(**kwargs)

    def _quantized_inputs(self, inputs: Any) -> Any:
        """Returns the model's inputs on the grids of their points: those of a dictionary by name, others by position."""

        def quantize(tensor: Any, point: str | None) -> Any:
            return tensor if point is None else self._track(point, tensor)

        if isinstance(inputs, dict) and set(inputs) <= set(self._input_points):
            return {name: quantize(tensor, self._input_points[name]) for name, tensor in inputs.items()}
        remaining = iter(self.plan.inputs)  # type: ignore[union-attr]
        return keras.tree.map_structure(lambda tensor: quantize(tensor, next(remaining, None)), inputs)

    def _on_layer(self, path: str, index: int, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        site = self.plan.sites.get((path, index))  # type: ignore[union-attr]
        if site is None:
            return call(*args, **kwargs)
        mapping = []
        for rule in site.weights:
            variable = getattr(layer, rule.attribute)
            # Under mixed precision ``variable.value`` is in half precision here; the file's weights are rounded from float32.
            value = keras.ops.convert_to_tensor(variable._value)
            axes, bits = self._weight_grid(layer, rule)
            mapping.append((variable, fake_quantization.weights(value, axes, bits)))

        def around(activation: Callable[..., Any], values: Any) -> Any:
            return activation(self._track(f"{site.name}:inner", values))

        with interception.swapped_activation(layer, around if site.inner else None):
            outputs = interception.call_with_weights(call, mapping, args, kwargs)
        if site.follows:
            return self._round_like(site.follows, outputs)
        if not site.output:
            return outputs
        if site.fixed:
            low, high = site.fixed
            return fake_quantization.activations(outputs, low, high, bits=self._bits)
        return self._track(site.name, outputs)

    @property
    def _bits(self) -> int:
        return 16 if self.target.activations == "int16" else 8

    def _weight_grid(self, layer: Any, rule: points.WeightRule) -> tuple[tuple[int, ...], int]:
        """Returns the axes that have scales of their own, and the bits, of a layer's weight."""
        kind = type(layer).__name__
        dense = kind in ("Dense", "EinsumDense")
        per_channel = self.target.per_channel_dense if dense else self.target.per_channel
        four = self.target.weights == "int4" and (dense or kind in ("Conv1D", "Conv2D"))
        return rule.channel_axes if per_channel else (), 4 if four else 8

    def _round_like(self, point: str, values: Any) -> Any:
        if point in self._trackers:
            low, high = self._trackers[point][0], self._trackers[point][1]
        else:
            sites = self.plan.sites.values()  # type: ignore[union-attr]
            low, high = next(site.fixed for site in sites if site.name == point and site.fixed)
        if self._bits == 16:
            return fake_quantization.activations(values, low, high, bits=16)
        return fake_quantization.averages(values, low, high)

    def _track(self, name: str, values: Any) -> Any:
        import tensorflow as tf

        tracker = self._trackers[name]
        if not self._training_call:
            rounded = fake_quantization.activations(values, tracker[0], tracker[1], bits=self._bits)
            return tf.where(tracker[2] > 0, rounded, values)  # a point that has learned nothing lets everything pass
        seen = tf.cast(values, tf.float32)
        low = tf.minimum(tf.reduce_min(seen), 0.0)
        high = tf.maximum(tf.reduce_max(seen), 0.0)
        batches = tracker[2]
        past = tf.minimum(self.momentum, batches / (batches + 1.0))
        moved = tf.stack([past * tracker[0] + (1 - past) * low, past * tracker[1] + (1 - past) * high, batches + 1.0])
        learning = tf.logical_or(self._learning, batches < 1)
        current = tf.stop_gradient(tf.where(learning, moved, tracker))
        tracker.assign(current)
        return fake_quantization.activations(values, current[0], current[1], bits=self._bits)

    def _keep(self, model: keras.Model) -> None:
        ranges = self.ranges
        if ranges:
            self._frozen[model] = TrainedRanges(
                ranges, hash_weights(model.get_weights()), self.target.name, self.target.rounding
            )

    def _current(self, reference: "weakref.ref[keras.Model]") -> TrainedRanges | None:
        """Returns the ranges of the model that the asset was attached to, whatever this callback trained since."""
        model = reference()
        if model is None:
            return None
        if self._fitting and model is self._planned_for:
            self._keep(model)
        return self._frozen.get(model)


def _warn_of(skipped: Mapping[str, str]) -> None:
    """One warning for all layers that training cannot round inside."""
    by_layer = {name.partition("#")[0]: reason for name, reason in skipped.items()}
    if by_layer:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(by_layer.items())[:3])
        warnings.warn(
            f"Some layers stay in float while training and are calibrated at conversion, which then needs representative "
            f"data. Received: {len(by_layer)} ({listed}{'; ...' if len(by_layer) > 3 else ''}). The callback's plan.skipped "
            "lists them; tfcompress.points.register adds a rule.",
            stacklevel=4,
        )
