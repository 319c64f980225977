"""Quantization-aware training as a Keras callback: the model is fake-quantized during ``fit`` and plain afterwards.

The callback intercepts layer calls in place: weights are fake-quantized for the duration of a layer's call, and each
point (see ``points``) passes a range tracker (see ``rounded_calls`` and ``tracking``). What it learns, the ranges, travels with ``model.save``.
It converts only to prove itself (see ``proof``).
"""

import functools
import os
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, get_args

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import check_backend, interception, model_inputs, phases, quantization_points, recovery, signatures
from ..quantization import RangeAsset, Target, TrainedRanges, hash_weights
from ..quantization.targets import resolve as resolve_target
from . import training_state
from .fake_quantized_calls import RoundedCalls
from .range_trackers import ActivationRanges, Trackers, WeightRanges

__all__ = ["QuantizationAwareTraining"]


class QuantizationAwareTraining(keras.callbacks.Callback):
    """Trains a model with the rounding of its int8 ``.tflite`` file in place.

    In ``fit``, validation included, and in ``model.evaluate(..., callbacks=[qat])`` and
    ``model.predict(..., callbacks=[qat])`` the model computes as the file will; without the callback it is the float
    model. The model stays as it is: nothing to strip, and ``model.save`` writes an ordinary Keras file that also holds
    the ranges.

    Weights are symmetric per output channel, activations asymmetric per tensor over the moving average of each batch's
    lowest and highest value. The average starts from ``representative_data``, without it from the first batch, as a plain
    mean of the first 1 / (1 - momentum) batches, and stands still from ``freeze_epoch`` on, so that the last epochs train
    against the file's own grid.

    Args:
        begin_epoch: first epoch, from 0, that is fake-quantized. Default: 0.
        begin_step: first optimizer step that is, instead of ``begin_epoch``. Default: None.
        freeze_epoch: first epoch whose ranges stand still, or None for the last epoch of a fit that has at least three
            fake-quantized ones. Default: None.
        freeze_batch_norm_epoch: first epoch in which BatchNormalization uses its moving statistics and keeps them, as
            the file does. Have a low learning rate by then: nothing levels the gradients any more, and what was learned at
            a high one can be lost in an epoch. Default: None, never.
        momentum: weight of the past in the moving average, in [0, 1). Default: 0.99.
        activation_ranges: "moving_average", or "learned": trained by the loss, see ``tracking.Trackers``.
            Default: "moving_average".
        weight_ranges: "abs_max", each channel's largest value, or "learned". Default: "abs_max".
        target: what the file will be for, a name from ``tfcompress.TARGETS`` or a ``Target``: bits of weights and
            activations, per-channel or per-tensor scales. ``convert`` refuses targets that round otherwise.
            Default: "cpu-int8".
        representative_data: samples that the ranges of activations start from, as ``convert`` takes them; up to 1024 are
            used. Default: None, the first batch.
        state_path: file for the ranges beside a ``BackupAndRestore`` (``save_freq`` of steps too) or weights-only
            checkpoints, which do not carry them: those of the last eight times that ``model.save_weights`` was called and
            of the last epoch; read when a fit goes on, refused without the step of its weights, deleted when the fit is
            done. Default: None.
        verify: samples (representative data as ``convert`` takes it) on which the finished model is converted and the
            file compared with what the callback computes, at the end of ``fit``; the result is ``proof``, printed
            unless ``verbose=0``, with one warning below 99.8 % of same answers. Default: None.
        verify_layers: whether ``proof`` goes point by point, too. Default: False.

    Raises:
        ValueError: a target without integer activations; a negative epoch or step, ``freeze_epoch`` not after
            ``begin_epoch``, both ``begin_epoch`` and ``begin_step``, momentum outside [0, 1), an unknown kind of ranges,
            learned activations of 16 bits.
        TrainingError: Keras does not run on TensorFlow; the model is not built; evaluation before any training.

    Examples:
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
        begin_step: int | None = None,
        freeze_epoch: int | None = None,
        freeze_batch_norm_epoch: int | None = None,
        momentum: float = 0.99,
        activation_ranges: ActivationRanges = "moving_average",
        weight_ranges: WeightRanges = "abs_max",
        target: str | Target = "cpu-int8",
        representative_data: Any = None,
        state_path: str | os.PathLike | None = None,
        verify: Any = None,
        verify_layers: bool = False,
    ) -> None:
        super().__init__()
        self.target = resolve_target(target)
        if not self.target.integer:
            raise ValueError(
                f"target must be an integer one, such as cpu-int8. Received: target={self.target.name!r}, whose "
                "activations are float."
            )
        for name, value, known in (
            ("activation_ranges", activation_ranges, get_args(ActivationRanges)),
            ("weight_ranges", weight_ranges, get_args(WeightRanges)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}.")
        if activation_ranges == "learned" and self.target.activations == "int16":
            raise ValueError(
                "activation_ranges='learned' is for 8 bits: 16 lose nothing to the range. Received: "
                f"target={self.target.name!r}. Leave activation_ranges out."
            )
        _check_times(
            begin_epoch=begin_epoch,
            begin_step=begin_step,
            freeze_epoch=freeze_epoch,
            freeze_batch_norm_epoch=freeze_batch_norm_epoch,
        )
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: momentum={momentum!r}.")
        check_backend()
        self.begin_epoch = begin_epoch
        self.begin_step = begin_step
        self.freeze_epoch = freeze_epoch
        self.freeze_batch_norm_epoch = freeze_batch_norm_epoch
        self.momentum = momentum
        self.activation_ranges = activation_ranges
        self.weight_ranges = weight_ranges
        self.representative_data = representative_data
        self.state_path = None if state_path is None else os.fspath(state_path)
        self.verify = verify
        self.verify_layers = verify_layers
        self.proof: Any = None
        self.plan: quantization_points.Plan | None = None
        self._planned_for: keras.Model | None = None
        self._trackers: Trackers | None = None
        self._interception: interception.Interception | None = None
        self._calls: RoundedCalls | None = None
        self._fitting = False
        self._fresh = True
        self._quantized_from: int | None = None
        self._state: training_state.StateFile | None = None
        self._subject: Any = None
        self._frozen: weakref.WeakKeyDictionary[keras.Model, TrainedRanges] = weakref.WeakKeyDictionary()

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Learned (lowest, highest) by point; empty before training."""
        return self._trackers.ranges if self._trackers is not None else {}

    def settled(self) -> bool:
        """Returns whether the model is fake-quantized now."""
        return self._interception is not None and self._interception.installed

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the ranges as they are, to go back to with ``recall``."""
        return self._trackers.snapshot() if self._trackers is not None else {}

    def recall(self, snapshot: dict[str, np.ndarray]) -> None:
        """Goes back to ranges that belong to weights which somebody has restored."""
        if self._trackers is not None:
            self._trackers.recall(snapshot)
        if self._planned_for is not None:
            self._keep(self._planned_for)

    def points_of(self, inputs: Any) -> dict[str, np.ndarray]:
        """Returns what the fake-quantized model holds at each point.

        Args:
            inputs: what the model is called on: arrays (n, ...) in its own structure.

        Returns:
            float32 arrays by point name.

        Raises:
            TrainingError: nothing was learned yet.
        """
        self._begin_inference()
        recorded: dict[str, Any] = {}
        calls: RoundedCalls = self._calls  # type: ignore[assignment]
        calls.recording = recorded
        try:
            self._subject(inputs, training=False)
        finally:
            calls.recording = None
            self.remove(self._subject)
        return {name: np.asarray(values, np.float32) for name, values in recorded.items()}

    def remove(self, model: keras.Model | None = None) -> None:
        """Makes ``model`` (default: the last one trained) the float model again, also after an exception in ``fit``."""
        model = model if model is not None else self._planned_for
        if self._fitting and self._planned_for is not None:
            self._keep(self._planned_for)
        if model is not None and interception.restore(model) and self.model is not model and self.model is not None:
            interception.forget_functions(self.model)  # a distiller's, which hold the student's calls
        if self._fitting and self._state is not None and self.model is not None:
            interception.before_saving_weights(self.model, None)
        self._fitting = False
        if self._calls is not None:
            self._calls.norms_frozen = False
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
        """Prepares the trackers; the fake quantization starts with ``begin_epoch`` or ``begin_step``."""
        self.remove(self._subject)
        self._prepare()
        self._state = None if self.state_path is None else training_state.StateFile(self.state_path)
        self._enter()
        self._fresh = True
        self._quantized_from = None
        own = weakref.ref(self._subject)
        interception.attach_asset(self._subject, RangeAsset(functools.partial(self._current, own)))
        if self.model.train_function is None:
            self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the fake quantization, and stops the learning of ranges and statistics, at their epochs."""
        if self._fresh:
            self._fresh = False
            self._go_on()
        begins = epoch >= self.begin_epoch if self.begin_step is None else self._step() >= self.begin_step
        if begins and not self.settled():
            self._quantize(epoch)
        last = epoch == int(self.params.get("epochs") or 0) - 1
        long_enough = self._quantized_from is not None and epoch - self._quantized_from >= 2
        freezes = last and long_enough if self.freeze_epoch is None else epoch >= self.freeze_epoch
        self._trackers.learning.assign(not freezes)  # type: ignore[union-attr]
        calls: RoundedCalls = self._calls  # type: ignore[assignment]
        stands_still = self.freeze_batch_norm_epoch is not None and epoch >= self.freeze_batch_norm_epoch
        if stands_still and self.settled() and not calls.norms_frozen:
            calls.norms_frozen = True
            if any(isinstance(layer, keras.layers.BatchNormalization) for layer in self._layers.values()):
                self._compile_training()
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Starts the fake quantization at its step, and marks that what is traced now is a training step."""
        if not self.settled():
            by_step = self.begin_step is not None and self._step() >= self.begin_step
            if self._quantized_from is not None or by_step:  # or a conversion in the middle of the fit took it off
                self._quantize(self._epoch)
        if not self._fitting:
            self._enter()
        recovery.guard(self.model)
        self._calls.training = True  # type: ignore[union-attr]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Marks the end of a training step."""
        self._calls.training = False  # type: ignore[union-attr]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Gives all replicas the same statistics; writes the ranges to ``state_path``, whole or not at all."""
        interception.level_replicas(self._subject)
        self._write_state(saved=False)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the hands off: the model is plain again and keeps its ranges as an asset."""
        interception.level_replicas(self._subject)
        self.remove(self._subject)
        if self.state_path is not None and os.path.exists(self.state_path):
            os.remove(self.state_path)
        if not self.ranges:
            begin = f"begin_epoch={self.begin_epoch}" if self.begin_step is None else f"begin_step={self.begin_step}"
            warnings.warn(
                f"Quantization-aware training must begin before the end of fit. Received: {begin}, "
                "and no range was learned. Begin earlier or train for more epochs.",
                stacklevel=2,
            )
        elif self.verify is not None:
            self._prove()

    def _prove(self) -> None:
        from .file_agreement import SAME_ANSWERS, prove

        shown = self.params.get("verbose")  # the prediction of the proof sets its own
        self.proof = prove(self._subject, self, self.verify, by_point=self.verify_layers)
        if shown:
            print(self.proof)
        if self.proof.same_answers < SAME_ANSWERS:
            warnings.warn(
                f"The file must answer as the model does in training. Received: {self.proof.same_answers:.1%} of "
                "same answers. The callback's proof says how far they are apart; verify_layers=True says where.",
                stacklevel=3,
            )

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Fake-quantizes an evaluation that is not part of a ``fit``; one that is sees what the file will hold."""
        if self._fitting:
            interception.level_replicas(self._subject)
        else:
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

    def _step(self) -> int:
        return int(interception.read(self.model.optimizer.iterations))

    def _go_on(self) -> None:
        """Reads the ranges of an interrupted fit, when the weights are those of the same step."""
        if self._state is not None and os.path.exists(self.state_path):  # type: ignore[arg-type]
            self._state.read(self._step(), self._trackers)  # type: ignore[arg-type]

    def _write_state(self, *, saved: bool) -> None:
        if self._state is not None and self.ranges:
            self._state.write(self._step(), self.snapshot(), saved=saved)

    def _prepare(self) -> None:
        if self._planned_for is self._subject:
            return
        if not self._subject.built:
            raise TrainingError(
                f"The model must be built before training. Received: {self._subject.name!r} without weights. Give it an "
                "Input, call it once, or call model.build(input_shape)."
            )
        self.plan = quantization_points.plan(self._subject)
        _warn_of(self.plan.skipped)
        self._planned_for = self._subject
        self._trackers = Trackers(
            self._subject,
            self.plan,
            self.target,
            momentum=self.momentum,
            activation_ranges=self.activation_ranges,
            weight_ranges=self.weight_ranges,
        )
        self._layers = interception.layer_paths(self._subject)
        inputs = dict(zip(signatures.input_keys(self._subject), self.plan.inputs, strict=True))
        self._calls = RoundedCalls(self._subject, self.plan, self._trackers, inputs)
        watched = {path: self._layers[path] for path in {path for path, _ in self.plan.sites}}
        self._interception = interception.Interception(
            self._subject, watched, self._calls.on_layer, self._calls.on_model
        )

    def _enter(self) -> None:
        self._fitting = True
        phases.enter(self.model, self)
        if self._state is not None:
            interception.before_saving_weights(self.model, functools.partial(self._write_state, saved=True))

    def _quantize(self, epoch: int) -> None:
        """Starts the fake quantization of training."""
        self._enter()
        self._trackers.start()  # type: ignore[union-attr]
        if self._quantized_from is None:
            self._quantized_from = epoch
        self._install()
        if self.representative_data is not None and not self.ranges:
            self._observe()
        self._compile_training()

    def _compile_training(self) -> None:
        interception.forget_functions(self._subject)
        self.model.make_train_function(force=True)

    def _observe(self) -> None:
        """Gives activations their first ranges from the representative data."""
        calls: RoundedCalls = self._calls  # type: ignore[assignment]
        calls.observing = True
        try:
            blocks = model_inputs.read_samples(
                self._subject, self.representative_data, size=_OBSERVED_BATCH, most=_OBSERVED_SAMPLES
            )
            for block in blocks:
                self._subject(model_inputs.as_inputs(self._subject, block), training=False)
        except BaseException:
            self.remove(self._subject)
            raise
        finally:
            calls.observing = False

    def _begin_inference(self) -> None:
        interception.restore(self._subject)
        if self._planned_for is not self._subject or not self.ranges:
            raise TrainingError(
                f"The callback has learned no ranges for {self._subject.name!r}. Received: an evaluation before fit. "
                "Pass the same callback to model.fit first."
            )
        self._calls.training = False  # type: ignore[union-attr]
        self._install()

    def _install(self) -> None:
        self._interception.install()  # type: ignore[union-attr]
        for model in {id(each): each for each in (self.model, self._subject)}.values():
            interception.forget_functions(model)

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Keras calls no ``on_test_end`` after an exception: a step that fails takes the interception off itself."""
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

    def _keep(self, model: keras.Model) -> None:
        ranges = self.ranges
        if ranges:
            self._frozen[model] = TrainedRanges(
                ranges,
                hash_weights(model.get_weights()),
                self.target.name,
                self.target.rounding,
                self._trackers.bounds,  # type: ignore[union-attr]
            )

    def _current(self, reference: "weakref.ref[keras.Model]") -> TrainedRanges | None:
        """Returns the ranges of the model that the asset was attached to, whatever this callback trained since."""
        model = reference()
        if model is None:
            return None
        if self._fitting and model is self._planned_for:
            self._keep(model)
        return self._frozen.get(model)


_OBSERVED_BATCH = 32
_OBSERVED_SAMPLES = 1024


def _check_times(
    *, begin_epoch: int, begin_step: int | None, freeze_epoch: int | None, freeze_batch_norm_epoch: int | None
) -> None:
    times = {
        "begin_epoch": begin_epoch,
        "begin_step": begin_step,
        "freeze_epoch": freeze_epoch,
        "freeze_batch_norm_epoch": freeze_batch_norm_epoch,
    }
    for name, value in times.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            unit = "a step" if name == "begin_step" else "an epoch"
            raise ValueError(f"{name} must be {unit}, a whole number from 0 on. Received: {name}={value!r}.")
    if begin_step is not None and begin_epoch:
        raise ValueError(
            f"Training begins to be quantized at an epoch or at a step. Received: begin_epoch={begin_epoch} and "
            f"begin_step={begin_step}. Leave one out."
        )
    if freeze_epoch is not None and begin_step is None and freeze_epoch <= begin_epoch:
        raise ValueError(
            "freeze_epoch must come after begin_epoch, or the ranges are never learned. "
            f"Received: begin_epoch={begin_epoch}, freeze_epoch={freeze_epoch}."
        )


def _warn_of(skipped: Mapping[str, str]) -> None:
    """One warning for all layers that training cannot round inside."""
    by_layer = {name.partition("#")[0]: reason for name, reason in skipped.items()}
    if by_layer:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(by_layer.items())[:3])
        warnings.warn(
            f"Some layers stay in float while training and are calibrated at conversion, which then needs representative "
            f"data. Received: {len(by_layer)} ({listed}{'; ...' if len(by_layer) > 3 else ''}). The callback's plan.skipped "
            "lists them; tfcompress.quantization_points.register adds a rule.",
            stacklevel=4,
        )
