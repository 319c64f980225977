"""Quantization-aware training as a Keras callback: the model is fake-quantized during ``fit`` and plain afterwards.

The callback moves through the phases of ``phases``, which say what the model computes at each moment, and puts the fake quantization
on the model and takes it off as they demand (``fake_quantized_model``). What is learned, the ranges, travels with ``model.save``
(``saved_ranges``). It converts only to compare itself with the file (``file_agreement``).
"""

import functools
import os
import warnings
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import active_callbacks, check_backend, interception, quantization_points, recovery, weight_files
from ..quantization import Target, TargetName
from ..quantization.targets import resolve as resolve_target
from ..system.arguments import checked_arguments
from .fake_quantized_model import FakeQuantizedModel
from .phases import Phase, PhaseState, Timetable
from .range_trackers import ActivationRanges, RangeSettings, WeightRanges
from .saved_ranges import RangeAssets, StateFile

if TYPE_CHECKING:
    from .file_agreement import FileAgreement

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
        activation_ranges: "moving_average", or "learned": trained by the loss, see ``range_trackers.Trackers``.
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
            file compared with what the callback computes, at the end of ``fit``; the result is ``file_agreement``, printed
            unless ``verbose=0``, with one warning below 99.8 % of same answers. Default: None.
        verify_layers: whether ``file_agreement`` goes point by point, too. Default: False.

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

    @checked_arguments
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
        target: TargetName | Target = "cpu-int8",
        representative_data: Any = None,
        state_path: str | os.PathLike | None = None,
        verify: Any = None,
        verify_layers: bool = False,
    ) -> None:
        super().__init__()
        self.times = Timetable(
            begin_epoch=begin_epoch,
            begin_step=begin_step,
            freeze_epoch=freeze_epoch,
            freeze_batch_norm_epoch=freeze_batch_norm_epoch,
        )
        self.target = resolve_target(target)
        self.settings = RangeSettings(
            target=self.target,
            momentum=momentum,
            activation_ranges=activation_ranges,
            weight_ranges=weight_ranges,
        )
        check_backend()
        self.representative_data = representative_data
        self.state_path = None if state_path is None else os.fspath(state_path)
        self.verify = verify
        self.verify_layers = verify_layers
        self.file_agreement: FileAgreement | None = None
        self._phases = PhaseState()
        self._quantized: FakeQuantizedModel | None = None
        self._assets = RangeAssets(self._refresh)
        self._state_file: StateFile | None = None
        self._subject: Any = None
        self._epoch = 0
        self._began: int | None = None  # the first epoch of this fit that was fake-quantized

    @property
    def phase(self) -> Phase:
        """Where training is now: ``phase.computes`` says whether the model is float, observed or fake-quantized."""
        if self._phases.now.intercepts and not self._model_at_work().installed:
            self.remove()  # another interception of this package took ours off
        return self._phases.now

    @property
    def plan(self) -> quantization_points.Plan | None:
        """Where the model rounds, and what stays in float while training; None before training."""
        return None if self._quantized is None else self._quantized.plan

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Learned (lowest, highest) by point; empty before training."""
        return {} if self._quantized is None else self._quantized.trackers.ranges

    def settled(self) -> bool:
        """Returns whether the model's calls are fake-quantized now."""
        return self.phase.intercepts

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns the ranges as they are, to go back to with ``recall``."""
        return {} if self._quantized is None else self._quantized.trackers.snapshot()

    def recall(self, snapshot: dict[str, np.ndarray]) -> None:
        """Goes back to ranges that belong to weights which somebody has restored."""
        if self._quantized is not None:
            self._quantized.trackers.recall(snapshot)
            self._keep()

    def points_of(self, inputs: Any) -> dict[str, np.ndarray]:
        """Returns what the fake-quantized model holds at each point.

        Args:
            inputs: what the model is called on: arrays (n, ...) in its own structure.

        Returns:
            float32 arrays by point name.

        Raises:
            TrainingError: nothing was learned yet.
        """
        if self.phase.in_fit:
            self.remove()  # the fit goes on with its next step
        self._infer(by="points_of")
        try:
            return self._model_at_work().values_at_points(inputs)
        finally:
            self.remove()

    def remove(self, model: keras.Model | None = None) -> None:
        """Makes ``model`` (default: the last one trained) the float model again, also after an exception in ``fit``."""
        before, own = self._phases.now, None if self._quantized is None else self._quantized.model
        if before.in_fit:
            self._keep()
            if self._state_file is not None:
                weight_files.listen(self.model, self)
        for each in (model, own if before.intercepts or model is None else None):
            if each is not None and interception.restore(each) and self.model not in (each, None):
                interception.forget_functions(self.model)  # a distiller's, which hold the student's calls
        if self._quantized is not None:
            self._quantized.freeze_batch_norm(False)
        active_callbacks.leave(self)
        if before is not Phase.INTERRUPTED:
            self._phases.move(Phase.INTERRUPTED if before.in_fit else Phase.FLOAT, by="remove")

    def set_model(self, model: keras.Model) -> None:
        """Learns which model comes; Keras calls it before each ``fit``, ``evaluate`` and ``predict``.

        What an exception outside the training step left behind is put right here.
        """
        if self._phases.now is not Phase.FLOAT:
            self.remove()
            self._phases.move(Phase.FLOAT, by="set_model")
        super().set_model(model)
        self._subject = interception.subject(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepares the model; the fake quantization starts with ``begin_epoch`` or ``begin_step``."""
        self.remove(self._subject)
        if self._quantized is None or self._quantized.model is not self._subject:
            self._quantized = FakeQuantizedModel(self._subject, self.settings)
        self._state_file = None if self.state_path is None else StateFile(self.state_path)
        self._began = None
        self._enter(by="on_train_begin")
        self._assets.attach(self._subject)
        if self.model.train_function is None:
            self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the fake quantization, and stops the learning of ranges and statistics, at their epochs."""
        self._epoch = epoch
        if self._state_file is not None:
            self._state_file.resume(self._step(), self._model_at_work().trackers)
        self._go_on(by="on_epoch_begin")
        if self.phase.in_fit and self.phase.intercepts:
            after = self._trained_phase()
            self._phases.move(after, by="on_epoch_begin")
            self._model_at_work().follow(after)
            if self._model_at_work().freeze_batch_norm(self.times.freezes_batch_norm(epoch)):
                self._compile_training()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Starts the fake quantization at its step, and marks that what is traced now is a training step."""
        self._go_on(by="on_train_batch_begin")
        recovery.guard(self.model)
        self._model_at_work().calls.training = True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Marks the end of a training step."""
        self._model_at_work().calls.training = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Gives all replicas the same statistics; writes the ranges to ``state_path``, whole or not at all."""
        interception.level_replicas(self._subject)
        self._write_state(saved=False)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Takes the hands off: the model is plain again and keeps its ranges as an asset."""
        interception.level_replicas(self._subject)
        self.remove(self._subject)
        self._phases.move(Phase.FLOAT, by="on_train_end")
        if self._state_file is not None:
            self._state_file.delete()
        if not self.ranges:
            warnings.warn(
                f"Quantization-aware training must begin before the end of fit. Received: {self.times.begin}, "
                "and no range was learned. Begin earlier or train for more epochs.",
                stacklevel=2,
            )
        elif self.verify is not None:
            from .file_agreement import verify  # loads the converter, which training does not need

            is_shown = bool(self.params.get("verbose"))
            self.file_agreement = verify(
                self._subject, self, self.verify, by_point=self.verify_layers, is_shown=is_shown
            )

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Fake-quantizes an evaluation that is not part of a ``fit``; one that is sees what the file will hold."""
        if self.phase is Phase.INTERRUPTED:
            self._go_on(by="on_test_begin")
            self.model.make_test_function(force=True)  # Keras has made one before it calls this
        if self.phase.in_fit:
            interception.level_replicas(self._subject)
        else:
            self._infer(by="on_test_begin")
            self.model.make_test_function(force=True)
            recovery.guard(self.model, "test_function")

    def on_test_end(self, logs: dict | None = None) -> None:
        """Ends it."""
        if self.phase is Phase.INFERENCE:
            self.remove()

    def on_predict_begin(self, logs: dict | None = None) -> None:
        """Fake-quantizes a prediction."""
        if not self.phase.in_fit:
            self._infer(by="on_predict_begin")
            self.model.make_predict_function(force=True)
            recovery.guard(self.model, "predict_function")

    def on_predict_end(self, logs: dict | None = None) -> None:
        """Ends it."""
        if self.phase is Phase.INFERENCE:
            self.remove()

    def _model_at_work(self) -> FakeQuantizedModel:
        if self._quantized is None:
            raise TrainingError("The callback's on_train_begin must come first. Received: a step before it. Call it.")
        return self._quantized

    def _step(self) -> int:
        return int(interception.read(self.model.optimizer.iterations))

    def _write_state(self, *, saved: bool) -> None:
        if self._state_file is not None and self.ranges:
            self._state_file.write(self._step(), self.snapshot(), saved=saved)

    def _enter(self, *, by: str) -> None:
        """Begins to wait for the begin of fake quantization."""
        self._phases.move(Phase.WAITING, by=by)
        active_callbacks.enter(self.model, self)
        if self._state_file is not None:
            weight_files.listen(self.model, self, before_save=functools.partial(self._write_state, saved=True))

    def _go_on(self, *, by: str) -> None:
        """Goes where a fit is at this epoch and step, also where somebody has taken the callback off in the middle of it."""
        if not self.phase.in_fit:
            self._enter(by=by)
        if self.phase is Phase.WAITING:
            step = 0 if self.times.begin_step is None else self._step()  # to read it waits for the device
            if self._began is not None or self.times.begins(self._epoch, step=step):
                self._begin(by=by)

    def _begin(self, *, by: str) -> None:
        """Starts the fake quantization of training, from ranges of the representative data if there are no others."""
        quantized = self._model_at_work()
        quantized.trackers.start()
        if self._began is None:
            self._began = self._epoch
        if self.representative_data is not None and not self.ranges:
            self._install(Phase.OBSERVING, by=by)
            try:
                quantized.observe(self.representative_data)
            except BaseException:
                self.remove()
                raise
        self._install(self._trained_phase(), by=by)
        quantized.freeze_batch_norm(self.times.freezes_batch_norm(self._epoch))
        self._compile_training()

    def _trained_phase(self) -> Phase:
        epochs = int(self.params.get("epochs") or 0)
        began = self._epoch if self._began is None else self._began
        return Phase.FROZEN if self.times.freezes(self._epoch, epochs=epochs, began=began) else Phase.LEARNING

    def _compile_training(self) -> None:
        interception.forget_functions(self._subject)
        self.model.make_train_function(force=True)

    def _infer(self, *, by: str) -> None:
        """Fake-quantizes the model outside of a fit."""
        if self._quantized is None or self._quantized.model is not self._subject or not self.ranges:
            raise TrainingError(
                f"The callback has learned no ranges for {self._subject.name!r}. Received: an evaluation before fit. "
                "Pass the same callback to model.fit first."
            )
        self._quantized.calls.training = False
        self._install(Phase.INFERENCE, by=by)
        active_callbacks.enter(self.model, self)

    def _install(self, phase: Phase, *, by: str) -> None:
        self._phases.move(phase, by=by)
        self._model_at_work().install(phase)
        for model in {id(each): each for each in (self.model, self._subject)}.values():
            interception.forget_functions(model)

    def _keep(self) -> None:
        """Keeps the ranges that belong to the weights as they are, for ``model.save`` and ``convert``."""
        quantized = self._model_at_work()
        ranges = quantized.trained_ranges()
        if ranges is not None:
            self._assets.keep(quantized.model, ranges)

    def _refresh(self, model: keras.Model) -> None:
        if self._phases.now.in_fit and model is self._model_at_work().model:
            self._keep()
