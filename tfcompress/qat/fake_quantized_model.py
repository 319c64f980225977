"""One model with everything that fake-quantizes it: where it rounds, the ranges it rounds to, its calls and their interception.

Made once for each model that a callback trains, and put on and taken off as often as the phases want it. When that is, is
decided by ``callback``.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ..errors import TrainingError
from ..layers import interception, model_inputs, quantization_points, signatures
from ..quantization import TrainedRanges, hash_weights
from .fake_quantized_calls import FakeQuantizedCalls
from .phases import Phase
from .range_trackers import RangeSettings, Trackers

__all__ = ["FakeQuantizedModel"]

_OBSERVED_BATCH = 32
_OBSERVED_SAMPLES = 1024


class FakeQuantizedModel:
    """A model that can be made to compute as its file will, and plain again.

    Args:
        model: a built Keras 3 model.
        settings: what it is rounded to, and how the ranges of it come about.

    Attributes:
        model: the model.
        plan: where it rounds.
        trackers: its ranges.
        calls: what its calls compute.

    Raises:
        TrainingError: the model is not built.
    """

    def __init__(self, model: keras.Model, settings: RangeSettings) -> None:
        if not model.built:
            raise TrainingError(
                f"The model must be built before training. Received: {model.name!r} without weights. Give it an "
                "Input, call it once, or call model.build(input_shape)."
            )
        self.model = model
        self.plan = quantization_points.plan(model)
        _warn_of(self.plan.skipped)
        self.trackers = Trackers(model, self.plan, settings)
        layers = interception.layer_paths(model)
        inputs = dict(zip(signatures.input_keys(model), self.plan.inputs, strict=True))
        self.calls = FakeQuantizedCalls(model, self.plan, self.trackers, inputs)
        self._target = settings.target
        self._has_batch_norm = any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers.values())
        watched = {path: layers[path] for path in {path for path, _ in self.plan.sites}}
        self._interception = interception.Interception(model, watched, self.calls.on_layer, self.calls.on_model)

    @property
    def installed(self) -> bool:
        """Whether the model's calls are fake-quantized now; another interception may have taken them off."""
        return self._interception.installed

    def install(self, phase: Phase) -> None:
        """Makes the model's calls those of a phase that intercepts them."""
        self.follow(phase)
        self._interception.install()

    def follow(self, phase: Phase) -> None:
        """Lets ranges learn as the phase says."""
        self.calls.observing = phase is Phase.OBSERVING
        self.trackers.learning.assign(phase.learns)

    def freeze_batch_norm(self, frozen: bool) -> bool:
        """Lets BatchNormalization use its moving statistics in training; returns whether that makes another training step."""
        changed = frozen != self.calls.norms_frozen
        self.calls.norms_frozen = frozen
        return changed and self._has_batch_norm

    def observe(self, data: Any) -> None:
        """Gives activations their first ranges from representative data, in the phase OBSERVING.

        Args:
            data: samples as ``convert`` takes them; up to 1024 are used.

        Raises:
            DataError: the data does not fit the model.
        """
        for block in model_inputs.read_samples(self.model, data, size=_OBSERVED_BATCH, most=_OBSERVED_SAMPLES):
            self.model(model_inputs.as_inputs(self.model, block), training=False)

    def values_at_points(self, inputs: Any) -> dict[str, np.ndarray]:
        """Returns what the installed model holds at each point, float32 arrays by name; see ``points_of`` of the callback."""
        recorded: dict[str, Any] = {}
        self.calls.recording = recorded
        try:
            self.model(inputs, training=False)
        finally:
            self.calls.recording = None
        return {name: np.asarray(values, np.float32) for name, values in recorded.items()}

    def trained_ranges(self) -> TrainedRanges | None:
        """Returns the ranges as a value, with the hash of the weights that they belong to; None before training."""
        ranges = self.trackers.ranges
        if not ranges:
            return None
        weights = hash_weights(self.model.get_weights())
        return TrainedRanges(ranges, weights, self._target.name, self._target.rounding, self.trackers.bounds)


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
