"""The ranges that quantization-aware training learns, as variables: one for each point, one for each weight that learns.

``Trackers`` rounds values to the ranges as they are and moves the ranges while the model trains. Where values pass is
decided by ``layers.quantization_points``, when the ranges learn by ``phases``, how values are rounded by
``quantization.fake_quantization``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np

from ..layers import interception, quantization_points
from ..quantization import Target, fake_quantization

__all__ = ["ActivationRanges", "RangeSettings", "Trackers", "WeightRanges"]

ActivationRanges = Literal["moving_average", "learned"]
WeightRanges = Literal["abs_max", "learned"]

_AVERAGED = 20  # batches whose extremes a learned range starts from
_RATE = 2e-3  # of a learned range, relative, at most for one step
_DECAY = 0.99  # of the mean square of a range's slope
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class RangeSettings:
    """What a model is rounded to, and how the ranges of it come about.

    Args:
        target: what the file is for: bits, and which weights have a scale per channel.
        momentum: weight of the past in the moving average, in [0, 1). Default: 0.99.
        activation_ranges: "moving_average" or "learned". Default: "moving_average".
        weight_ranges: "abs_max" or "learned". Default: "abs_max".

    Raises:
        ValueError: a target without integer activations, momentum outside [0, 1), an unknown kind of ranges, learned
            activations of 16 bits.

    Examples:
        >>> from tfcompress.quantization import TARGETS
        >>> RangeSettings(target=TARGETS["cpu-int8"]).momentum
        0.99
    """

    target: Target
    momentum: float = 0.99
    activation_ranges: ActivationRanges = "moving_average"
    weight_ranges: WeightRanges = "abs_max"

    def __post_init__(self) -> None:
        if not self.target.integer:
            raise ValueError(
                f"target must be an integer one, such as cpu-int8. Received: target={self.target.name!r}, whose "
                "activations are float."
            )
        for name, known in (("activation_ranges", ActivationRanges), ("weight_ranges", WeightRanges)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(known))}. Received: {name}={getattr(self, name)!r}."
                )
        if self.activation_ranges == "learned" and self.target.activations == "int16":
            raise ValueError(
                "activation_ranges='learned' is for 8 bits: 16 lose nothing to the range. Received: "
                f"target={self.target.name!r}. Leave activation_ranges out."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1). Received: momentum={self.momentum!r}.")


class Trackers:
    """Every range of a model under quantization-aware training.

    Args:
        model: the model, for its distribution strategy.
        plan: where it rounds.
        settings: what it rounds to, and how the ranges come about.

    A learned range is trained by the loss, in log space and with a gradient divided by the root of its mean square, so
    that neither the optimizer's learning rate nor a loss scale matters: range *= exp(-rate * tanh(g / sqrt(E[g^2]))).
    Its slope is that of Esser et al., rounding error included. It starts from the data: activations from the mean
    extremes of the first 20 batches, weights from each channel's largest value, which they never exceed. Inputs, where no
    gradient arrives, and points that share a grid keep to the moving average.

    Each point keeps the range of what it has seen; those that share a grid are rounded to the union of theirs.

    Source: Esser et al., "Learned step size quantization", 2020, https://arxiv.org/abs/1902.08153; Bhalgat et al.,
    "LSQ+", 2020, https://arxiv.org/abs/2004.09576 (asymmetric); Jain et al., "Trained quantization thresholds for
    accurate and efficient fixed-point inference", 2020, https://arxiv.org/abs/1903.08066 (normed log gradients).
    """

    def __init__(self, model: Any, plan: quantization_points.Plan, settings: RangeSettings) -> None:
        import tensorflow as tf

        self._plan = plan
        self._target = settings.target
        self._momentum = settings.momentum
        self._learned = settings.activation_ranges == "learned"
        self._bits = 16 if settings.target.activations == "int16" else 8
        self._non_negative = {site.name for site in plan.sites.values() if site.non_negative}
        self._prescribed = {name: ends for site in plan.sites.values() for name, ends in site.inside.items() if ends}
        self._layers = interception.layer_paths(model)
        # Each replica learns from its own part of the batch; what is read outside is their mean.
        each_replica = {
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }

        def variable(shape: tuple[int, ...]) -> Any:
            return tf.Variable(tf.zeros(shape), trainable=False, name="qat_range", **each_replica)

        with model.distribute_strategy.scope():
            self.learning = tf.Variable(True, trainable=False, name="qat_learning")
            # low, high, batches seen; learned ones also the mean squares of both slopes
            self._points = {name: variable((5 if self._learned else 3,)) for name in plan.tracked}
            # largest absolute value by channel, mean square of its slope
            self._bounds = {
                name: variable((2, *self._bound_shape(layer, rule)))
                for name, layer, rule in self._weights()
                if settings.weight_ranges == "learned"
            }

    def _weights(self) -> Iterator[tuple[str, Any, quantization_points.WeightRule]]:
        seen = set()
        for (path, _), site in self._plan.sites.items():
            for rule in site.weights:
                name = f"{path}/{rule.attribute}"
                if name not in seen:
                    seen.add(name)
                    yield name, self._layers[path], rule

    def _grid(self, layer: Any, rule: quantization_points.WeightRule) -> tuple[tuple[int, ...], int]:
        """Returns the axes that have scales of their own, and the bits, of a layer's weight."""
        dense = isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense)
        per_channel = self._target.per_channel_dense if dense else self._target.per_channel
        four = self._target.weights == "int4" and (
            dense or isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D)
        )
        return rule.channel_axes if per_channel else (), 4 if four else 8

    def _bound_shape(self, layer: Any, rule: quantization_points.WeightRule) -> tuple[int, ...]:
        shape = getattr(layer, rule.attribute).shape
        kept = {axis % len(shape) for axis in self._grid(layer, rule)[0]}
        return tuple(int(size) if axis in kept else 1 for axis, size in enumerate(shape))

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Learned (lowest, highest) by point; empty before training."""
        state = {name: [float(value) for value in interception.read(tracker)] for name, tracker in self._points.items()}
        learned = {}
        for name, (_, _, batches, *_) in state.items():
            if batches:
                together = [state[each] for each in self._together(name)]
                learned[name] = (min(low for low, *_ in together), max(high for _, high, *_ in together))
        return learned

    @property
    def bounds(self) -> dict[str, tuple[float, ...]]:
        """Learned largest absolute values by weight, one for each scale; empty where weights do not learn theirs."""
        return {
            name: tuple(float(value) for value in interception.read(bound)[0].reshape(-1))
            for name, bound in self._bounds.items()
        }

    def start(self) -> None:
        """Gives the learned ranges of weights that have none yet their first value."""
        for name, layer, rule in self._weights():
            if name in self._bounds and not interception.read(self._bounds[name])[0].any():
                values = np.abs(interception.read(getattr(layer, rule.attribute)))
                shape = self._bound_shape(layer, rule)
                axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
                largest = values.max(axis=axes, keepdims=True)
                self._bounds[name].assign(np.stack([largest, np.zeros_like(largest)]))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns all state by name, to go back to with ``recall``."""
        everything = {**self._points, **self._bounds}
        return {name: interception.read(variable).copy() for name, variable in everything.items()}

    def recall(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Goes back to a snapshot of the same model.

        Raises:
            ValueError: it is of another model.
        """
        everything = {**self._points, **self._bounds}
        if set(snapshot) != set(everything) or any(
            np.shape(values) != tuple(everything[name].shape) for name, values in snapshot.items()
        ):
            raise ValueError(f"Received: {len(snapshot)} ranges for {len(everything)}.")
        for name, values in snapshot.items():
            everything[name].assign(np.asarray(values, np.float32))

    def weights(self, path: str, layer: Any, rule: quantization_points.WeightRule, *, training: bool) -> Any:
        """Returns a layer's weight as the file will hold it, a float32 tensor of its shape."""
        import tensorflow as tf

        # Under mixed precision ``variable.value`` is in half precision here; the file's weights are rounded from float32.
        values = tf.convert_to_tensor(getattr(layer, rule.attribute)._value)
        axes, bits = self._grid(layer, rule)
        state = self._bounds.get(f"{path}/{rule.attribute}")
        if state is None:
            return fake_quantization.weights(values, axes, bits)
        bound = self._bound(path, layer, rule)

        def learn(slope: Any) -> None:
            moved, power = _step(bound, slope, state[1])
            state.assign(tf.where(self.learning, tf.stack([moved, power]), state))

        return fake_quantization.bounded_weights(values, bound, axes, bits, learn if training else None)

    def _bound(self, path: str, layer: Any, rule: quantization_points.WeightRule) -> Any:
        """Returns the largest absolute value that a weight is rounded to, for each of its scales, of its rank."""
        import tensorflow as tf

        largest = fake_quantization.largest(
            tf.stop_gradient(tf.convert_to_tensor(getattr(layer, rule.attribute)._value)), self._grid(layer, rule)[0]
        )
        state = self._bounds.get(f"{path}/{rule.attribute}")
        return largest if state is None else tf.where(state[0] > 0, tf.minimum(state[0], largest), largest)

    def step(self, point: str) -> Any:
        """Returns the step of a point's grid, a float64 scalar."""
        import tensorflow as tf

        low, high = (tf.cast(end, tf.float64) for end in self._ends(point))
        if self._bits == 16:
            return tf.maximum(tf.abs(low), tf.abs(high)) / (2**15 - 1)
        return (tf.maximum(high, low + 1e-6) - low) / 255

    def integers(
        self, path: str, layer: Any, rule: quantization_points.WeightRule, slope: Any = None
    ) -> tuple[Any, Any]:
        """Returns a layer's weight as the file's integers, and their steps, float64 of its rank with 1 where axes share one.

        Args:
            path: path of the layer.
            layer: the layer.
            rule: the weight.
            slope: float32 factors of its channels that the converter multiplies it by before it rounds. Default: none.
        """
        import tensorflow as tf

        axes, bits = self._grid(layer, rule)
        bound = self._bound(path, layer, rule)
        values = tf.clip_by_value(tf.convert_to_tensor(getattr(layer, rule.attribute)._value), -bound, bound)
        if slope is not None:
            kept = {axis % len(values.shape) for axis in rule.channel_axes}
            values *= tf.reshape(slope, [size if axis in kept else 1 for axis, size in enumerate(values.shape)])
            bound = fake_quantization.largest(values, axes)
        steps = tf.cast(bound, tf.float64) / (2 ** (bits - 1) - 1)
        # TensorFlow's quantizer multiplies by the inverse in float32 and rounds halves away from zero: edges are near.
        inverse = tf.math.reciprocal_no_nan(tf.cast(steps, tf.float32))
        scaled = tf.cast(values * inverse, tf.float64)
        return tf.sign(scaled) * tf.floor(tf.abs(scaled) + 0.5), steps

    def bias_steps(self, bias: quantization_points.Bias) -> Any:
        """Returns the steps of the grid of a bias, float64 (channels,), or (1,) where all share one."""
        import tensorflow as tf

        layer = self._layers[bias.path]
        steps = tf.cast(self._bound(bias.path, layer, bias.weight), tf.float64)
        return self.step(bias.reads) * tf.reshape(steps, [-1]) / (2 ** (self._grid(layer, bias.weight)[1] - 1) - 1)

    @property
    def eight_bits(self) -> bool:
        """Whether activations are of 8 bits."""
        return self._bits == 8

    def _ends(self, point: str) -> tuple[Any, Any]:
        if point in self._points:
            return self._united(point, self._points[point])
        return next(s.fixed for s in self._plan.sites.values() if s.name == point and s.fixed)

    def _together(self, point: str) -> tuple[str, ...]:
        return next((group for group in self._plan.tied if point in group), (point,))

    def _united(self, point: str, state: Any) -> tuple[Any, Any]:
        """Returns the ends of a point's grid: its own, of which ``state`` is to be taken, and those of the points tied to it."""
        import tensorflow as tf

        others = [self._points[name] for name in self._together(point) if name != point]
        low, high = state[0], state[1]
        for other in others:
            low, high = tf.minimum(low, other[0]), tf.maximum(high, other[1])
        return low, high

    def fixed(self, site: quantization_points.Site, values: Any) -> Any:
        """Returns values rounded to the range that the format prescribes for the site's output."""
        low, high = site.fixed  # type: ignore[misc]
        return fake_quantization.activations(values, low, high, bits=self._bits)

    def like(self, point: str, values: Any) -> Any:
        """Returns pooled averages rounded to the range of another point."""
        low, high = self._ends(point)
        if self._bits == 16:
            return fake_quantization.activations(values, low, high, bits=16)
        return fake_quantization.averages(values, low, high)

    def point(self, name: str, values: Any, *, training: bool) -> Any:
        """Returns values rounded to the range of a point, which learns from them in training.

        Args:
            name: the point.
            values: a float tensor of any shape.
            training: whether this is a training step.
        """
        import tensorflow as tf

        if name in self._prescribed:
            return fake_quantization.activations(values, *self._prescribed[name], bits=self._bits)
        tracker = self._points[name]
        if not training:
            rounded = fake_quantization.activations(values, *self._ends(name), bits=self._bits)
            return tf.where(tracker[2] > 0, rounded, values)  # a point that has learned nothing lets everything pass
        seen = tf.cast(values, tf.float32)
        low = tf.zeros([]) if name in self._non_negative else tf.minimum(tf.reduce_min(seen), 0.0)
        high = tf.maximum(tf.reduce_max(seen), 0.0)
        batches = tracker[2]
        past = batches / (batches + 1.0)
        averaging = tf.logical_or(self.learning, batches < 1)
        # No gradient arrives at the data, and tied points would pull at one range.
        learned = self._learned and name not in self._plan.inputs and self._together(name) == (name,)
        if learned:
            averaging = tf.logical_and(averaging, batches < _AVERAGED)
        else:
            past = tf.minimum(self._momentum, past)
        moved = tf.stack([past * tracker[0] + (1 - past) * low, past * tracker[1] + (1 - past) * high, batches + 1.0])
        state = tracker.read_value() if hasattr(tracker, "read_value") else tf.convert_to_tensor(tracker)
        current = tf.stop_gradient(tf.where(averaging, tf.concat([moved, state[3:]], 0), state))
        tracker.assign(current)
        if not learned:
            return fake_quantization.activations(values, *self._united(name, current), bits=self._bits)

        def learn(slope_of_low: Any, slope_of_high: Any) -> None:
            low, power_of_low = _step(current[0], slope_of_low, current[3])
            high, power_of_high = _step(current[1], slope_of_high, current[4])
            stepped = tf.stack([low, high, current[2], power_of_low, power_of_high])
            ready = tf.logical_and(self.learning, tf.logical_not(averaging))
            tracker.assign(tf.where(ready, stepped, current))

        return fake_quantization.learned_activations(values, current[0], current[1], self._bits, learn)


def _step(bound: Any, slope: Any, power: Any) -> tuple[Any, Any]:
    """Returns a bound one step down its slope in log space, and the new mean square of the slope."""
    import tensorflow as tf

    slope = bound * slope
    slope = tf.where(tf.math.is_finite(slope), slope, tf.zeros_like(slope))  # a loss scale may overflow
    squared = slope * slope
    power = tf.where(power > 0, _DECAY * power + (1 - _DECAY) * squared, squared)
    return bound * tf.exp(-_RATE * tf.tanh(slope * tf.math.rsqrt(power + _TINY))), power
