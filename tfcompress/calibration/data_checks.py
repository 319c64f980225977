"""Does the representative data look like what the model was trained on?

``Evidence`` watches the samples pass; ``doubts`` says in one text what speaks against them, or nothing. What is looked at:
the number of samples, whether they differ, whether pictures are noise, and how the model's first layers take them: the
statistics of the first BatchNormalization against the stored ones, or, for a file without it, a first layer that hardly
reacts or saturates. A wrong scaling that a model without BatchNormalization takes without strain cannot be seen, and a
mere factor of two neither. Nothing is printed or warned about here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..system import native_stderr_silenced
from ..tflite import flatbuffer

__all__ = ["Evidence", "doubts"]

FEWEST_SAMPLES = 32
_LOOKED_AT = 32  # samples whose neighbouring values are compared and which the first layers see
_REMEMBERED = 4096  # hashes at most: bounded memory on endless streams
_SMALLEST_PICTURE = 8  # pixels along each side below which neighbours say nothing
_UNCORRELATED = 0.05  # photographs and spectrograms are above 0.5, white noise is below 0.01
# Between the training data's statistics and those of 32 honest samples lie factors below 2 and shifts below 1 deviation.
_FACTOR, _SHIFT = 4.0, 3.0
_STILL = 0.02  # a channel whose deviation is below this part of its largest value hardly reacts
_MOST = 0.9
_BETWEEN = 0.05  # share of values strictly inside (0, 6) below which a ReLU6 is saturated
_FIRST_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class Evidence:
    """What was seen of the samples while they passed; a few kB whatever their number.

    Attributes:
        samples: how many passed.
        low: lowest value by input name.
        high: highest value by input name.

    Examples:
        >>> evidence = Evidence()
        >>> evidence.add({"x": np.zeros((40, 3), np.float32)})
        >>> evidence.samples, evidence.distinct, evidence.high
        (40, 1, {'x': 0.0})
    """

    def __init__(self) -> None:
        self.samples = 0
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}
        self._hashes: set[tuple[int, ...]] = set()
        self._multipliers = np.zeros(0, np.uint64)
        self._hashed = 0
        self._varied: set[str] = set()  # inputs with a sample that holds two different values
        self._wide: set[str] = set()  # inputs whose samples hold more than one value each
        self._correlations: dict[str, list[float]] = {}

    @property
    def distinct(self) -> int:
        """Number of different samples among the first 4096."""
        return len(self._hashes)

    def add(self, batch: Mapping[str, np.ndarray]) -> None:
        """Takes note of a batch, arrays (samples, ...) by input name; keeps no array."""
        count = len(next(iter(batch.values())))
        for name, array in batch.items():
            if not array.size:
                continue
            self.low[name] = min(self.low.get(name, np.inf), float(array.min()))
            self.high[name] = max(self.high.get(name, -np.inf), float(array.max()))
            rows = array.reshape(count, -1)
            if rows.shape[1] > 1:
                self._wide.add(name)
                if name not in self._varied and bool((rows != rows[:, :1]).any()):
                    self._varied.add(name)
            known = self._correlations.setdefault(name, [])
            if _is_picture(array) and len(known) < _LOOKED_AT:
                known += [_neighbours(sample) for sample in array[: _LOOKED_AT - len(known)].astype(np.float32)]
        for i in range(min(count, _REMEMBERED - self._hashed)):
            self._hashes.add(tuple(self._hash(array[i]) for array in batch.values()))
            self._hashed += 1
        self.samples += count

    def _hash(self, sample: np.ndarray) -> int:
        """Returns the scalar product of the sample's bytes, eight to a word, with seeded numbers, modulo 2**64.

        Two different samples share it by chance only (Carter and Wegman, "Universal classes of hash functions", 1979). A
        cryptographic hash, as the data's own is, would cost as much as observing the sample.
        """
        data = np.ascontiguousarray(sample).reshape(-1).view(np.uint8)
        whole = len(data) // 8 * 8
        words = data[:whole].view(np.uint64)
        if len(self._multipliers) < len(words):
            random = np.random.default_rng(0)
            self._multipliers = random.integers(0, 2**64, len(words), dtype=np.uint64) | np.uint64(1)
        rest = int.from_bytes(data[whole:].tobytes(), "little")
        return hash((int(words @ self._multipliers[: len(words)]), rest))

    def _doubts(self) -> list[str]:
        found = []
        flat = sorted(self._wide - self._varied)
        constant = sorted(name for name in self.low if self.low[name] == self.high[name])
        if constant:
            found.append(f"every value of {', '.join(constant)} is {self.low[constant[0]]:g}")
        elif flat:
            found.append(f"each sample of {', '.join(flat)} holds a single value")
        if self.distinct == 1 and self.samples > 1:
            found.append(f"all {self.samples} samples are the same")
        elif self._hashed >= 4 and self.distinct < self._hashed / 2:
            found.append(f"only {self.distinct} of {self._hashed} samples are different")
        if self.samples < FEWEST_SAMPLES:
            found.append(f"there are {self.samples} samples, fewer than {FEWEST_SAMPLES}")
        for name, correlations in self._correlations.items():
            sound = [value for value in correlations if np.isfinite(value)]
            if sound and abs(np.mean(sound)) < _UNCORRELATED:
                found.append(f"neighbouring pixels of {name} have nothing to do with each other, as in random noise")
        return found


def doubts(
    evidence: Evidence,
    *,
    first: Mapping[str, np.ndarray] | None = None,
    model: Any = None,
    content: bytes | None = None,
) -> str | None:
    """Returns one line that says what is suspicious about the data and what to do, None if nothing is.

    Args:
        evidence: what was seen of all samples.
        first: the first samples, (samples, ...) by input name, as the model gets them; 32 are looked at. Default: none,
            the model is not asked.
        model: the Keras model, whose first BatchNormalization is asked. Default: none.
        content: bytes of the float ``.tflite`` file, whose first layer is asked where the model has no BatchNormalization.
            Default: none.

    Examples:
        >>> evidence = Evidence()
        >>> evidence.add({"x": np.ones((2, 3), np.float32)})
        >>> print(doubts(evidence))
        Representative data must look like what the model will see. Received: every value of x is 1; all 2 samples are the
        same; there are 2 samples, fewer than 32. Pass about 100 different, typical samples, prepared as in training.
    """
    found = evidence._doubts()
    if first is not None:
        first = {name: array[:_LOOKED_AT] for name, array in first.items()}
        seen = _norm_statistics(model, first) if model is not None else None
        strange = _unlike_training(*seen) if seen is not None else None
        if seen is None and content is not None:
            strange = _strained(content, first)
        if strange:
            ranges = ", ".join(f"{name} [{evidence.low[name]:g}, {evidence.high[name]:g}]" for name in evidence.low)
            found.append(f"{strange}, with values in {ranges}: is the scaling the one of training?")
    if not found:
        return None
    return (
        f"Representative data must look like what the model will see. Received: {'; '.join(found)}. "
        "Pass about 100 different, typical samples, prepared as in training."
    ).replace("?. Pass", "? Pass")


def _is_picture(array: np.ndarray) -> bool:
    return array.ndim == 4 and min(array.shape[1:3]) >= _SMALLEST_PICTURE


def _neighbours(sample: np.ndarray) -> float:
    """Returns the larger correlation of values with their neighbours below and beside them, NaN for a constant sample."""
    centred = sample - sample.mean(axis=(0, 1))  # (height, width, channels)
    power = (centred**2).mean()
    if not power > 0:
        return float("nan")
    below, beside = (centred[1:] * centred[:-1]).mean(), (centred[:, 1:] * centred[:, :-1]).mean()
    return float(max(below, beside) / power)


class _Reached(BaseException):
    """Ends a forward pass once its first normalization was seen; Keras rewrites what derives from Exception."""


def _norm_statistics(
    model: Any, first: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns mean, deviation here and those stored in the first trained BatchNormalization, (channels,) each, or None."""
    import keras

    from ..layers import interception, signatures

    norms = {
        path: layer
        for path, layer in interception.layer_paths(model).items()
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    seen: list[Any] = []

    def look(path: str, index: int, layer: Any, call: Any, args: tuple, kwargs: dict) -> Any:
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        if not mean.any() and (variance == 1).all():
            return call(*args, **kwargs)  # never trained: its statistics are the initial ones
        values = np.asarray(args[0] if args else kwargs["inputs"], np.float64)
        values = np.moveaxis(values, layer.axis, -1).reshape(-1, len(mean))
        seen.append((values.mean(axis=0), values.std(axis=0), mean, np.sqrt(variance + layer.epsilon)))
        raise _Reached

    if not norms:
        return None
    arrays = [first[tensor.name] for tensor in signatures.input_tensors(model)]
    packed = signatures.pack(signatures.input_structure(model), [keras.ops.convert_to_tensor(a) for a in arrays])
    try:
        with interception.in_float32(model), interception.Interception(model, norms, look):
            model(packed, training=False)
    except _Reached:
        pass
    return seen[0] if seen else None


def _unlike_training(mean: np.ndarray, deviation: np.ndarray, usual: np.ndarray, spread: np.ndarray) -> str | None:
    factor = float(np.median(deviation / spread))
    shift = float(np.median(np.abs(mean - usual) / spread))
    if 1 / _FACTOR <= factor <= _FACTOR and shift <= _SHIFT:
        return None
    if factor > _FACTOR:
        return f"the first BatchNormalization sees {factor:.3g} times the spread it was trained on"
    if factor < 1 / _FACTOR:
        return f"the first BatchNormalization sees 1/{1 / max(factor, 1e-9):.3g} of the spread it was trained on"
    return f"the first BatchNormalization sees values {shift:.3g} standard deviations off those it was trained on"


def _strained(content: bytes, first: Mapping[str, np.ndarray]) -> str | None:
    """Returns what is wrong with the first layer's answers: it hardly reacts, or its ReLU6 is always at an end."""
    from ai_edge_litert.interpreter import Interpreter

    model = flatbuffer.parse(content)
    graph, signature = model.subgraphs[0], (model.signatureDefs or [None])[0]
    names = [flatbuffer.op_name(model, operator) for operator in graph.operators]
    place = next((i for i, name in enumerate(names) if name in _FIRST_LAYERS), None)
    if place is None or signature is None:
        return None
    layer = graph.operators[place]
    inputs = {_text(entry.name): int(entry.tensorIndex) for entry in signature.inputs}
    graph.operators = graph.operators[: place + 1]
    with native_stderr_silenced():
        interpreter = Interpreter(model_content=flatbuffer.expose(model, [int(layer.outputs[0])]), num_threads=1)
        blocks = []
        for i in range(len(next(iter(first.values())))):
            for name, index in inputs.items():
                interpreter.resize_tensor_input(index, first[name][i : i + 1].shape)
            interpreter.allocate_tensors()
            for name, index in inputs.items():
                interpreter.set_tensor(index, first[name][i : i + 1])
            interpreter.invoke()
            values = interpreter.get_tensor(int(layer.outputs[0]))
            blocks.append(values.reshape(-1, values.shape[-1]))
    answers = np.concatenate(blocks)  # (samples * places, channels)
    largest = np.abs(answers).max(axis=0)
    if (answers.std(axis=0) <= _STILL * largest).mean() >= _MOST:
        return "the first layer answers nearly the same for all samples"
    is_relu6 = getattr(layer.builtinOptions, "fusedActivationFunction", 0) == 3  # schema.fbs: ActivationFunctionType
    if is_relu6 and ((answers > 0) & (answers < 6)).mean() < _BETWEEN:
        return "the first layer is saturated: nearly all its answers are 0 or 6"
    return None


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name
