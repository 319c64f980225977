"""Should a weight be rounded up or down? So that the errors of a layer's weights cancel at its outputs.

Layer by layer, each seeing the inputs that its already rounded predecessors give it. Only the direction of rounding is
chosen; scales are those that the quantizer will choose from the weights.

What a rounding costs at the outputs is a quadratic form, measured once. For weights W + D where W was meant, and inputs p'
where p was meant, the squared error of the outputs, summed over all patches, is D H D.T + 2 D B + c for each output
channel, with

    H = sum p' p'.T,   B = sum p' r,   c = sum r**2,   r = (p' - p) W.T

so that a search over D needs no sample any more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...quantization import Target
from ...tflite import flatbuffer, round_half_away
from .activations import capture, on_grid
from .linear_layers import Layer, assign, find_layers, is_per_channel, largest_integer, patches, scales_of, weights_of

__all__ = ["OutputError", "Rounded", "choose_rounding", "measure_output_error", "round_weights"]

_POSITIONS = 128
# On ResNet-8's layers nearest rounding with flips alone leaves 71, 77, 76 and 57 % of the error, with 300 iterations
# before them 69, 75, 74 and 54 %, with 2000 between 69 and 52 %.
_ITERATIONS = 300
_BUDGET = 2e11  # multiplications that one layer may cost: about 10 s on two cores
_LARGEST_PATCH = 8192  # inputs of one output: beyond this the quadratic form takes half a gigabyte
_STRETCH_LOW, _STRETCH_HIGH = -0.1, 1.1  # Nagel et al., equation 23
_SHARPNESS = (20.0, 2.0)  # beta at the start and at the end of the annealing, as in the authors' code
_WARM_UP = 0.2  # part of the iterations without regularizer, likewise
_REGULARIZATION = 0.3  # for a loss that is 1 at nearest rounding; the authors' 0.01 is for an unscaled loss
_RATE, _DECAY, _SQUARED_DECAY = 0.02, 0.9, 0.999  # Adam
_BLOCK = 16  # samples whose patches are in memory at the same time


@dataclass(frozen=True)
class Rounded:
    """A float file whose weights lie on the integers they will become.

    Args:
        content: the bytes of the file.
        ratios: by layer, its mean squared output error on the samples divided by that of nearest rounding, at most 1.
        skipped: by layer, why it keeps nearest rounding.
    """

    content: bytes
    ratios: Mapping[str, float]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class OutputError:
    """The quadratic form of a layer's output error.

    Args:
        gram: H, (G, K, K) float64, mean over patches.
        cross: B, (G, O, K) float64, likewise.
        constant: c, (G, O) float64, likewise.

    Examples:
        >>> output_error = OutputError(np.eye(2)[None], np.zeros((1, 1, 2)), np.zeros((1, 1)))
        >>> output_error.error(np.array([[[3.0, 4.0]]])).tolist()
        [[25.0]]
    """

    gram: np.ndarray
    cross: np.ndarray
    constant: np.ndarray

    def error(self, difference: np.ndarray) -> np.ndarray:
        """Returns the mean squared output error (G, O) of weights that differ by ``difference`` (G, O, K)."""
        return ((difference @ self.gram + 2 * self.cross) * difference).sum(axis=2) + self.constant

    def gradient(self, difference: np.ndarray) -> np.ndarray:
        """Returns the derivative of ``error`` by ``difference``, (G, O, K)."""
        return 2 * (difference @ self.gram + self.cross)


def measure_output_error(
    layer: Layer, weights: np.ndarray, meant: np.ndarray, received: np.ndarray, *, positions: int, seed: int = 0
) -> OutputError:
    """Returns the quadratic form of a layer on its inputs.

    Args:
        layer: the layer.
        weights: W, (G, O, K).
        meant: inputs of the float file, (n, ...).
        received: inputs of the repaired one, same shape.
        positions: largest number of output positions of a sample that count.
        seed: which positions. Default: 0.
    """
    groups, rows, columns = weights.shape
    gram = np.zeros((groups, columns, columns))
    cross = np.zeros(weights.shape)
    constant = np.zeros((groups, rows))
    count = 0
    plain = weights.astype(np.float32)
    for start in range(0, len(meant), _BLOCK):
        part = slice(start, start + _BLOCK)
        wanted = patches(layer, meant[part], positions=positions, seed=seed + start)
        got = patches(layer, received[part], positions=positions, seed=seed + start)
        residual = (got - wanted) @ plain.transpose(0, 2, 1)  # (G, M, O)
        gram += got.transpose(0, 2, 1) @ got
        cross += residual.transpose(0, 2, 1) @ got
        constant += (residual.astype(np.float64) ** 2).sum(axis=1)
        count += got.shape[1]
    return OutputError(gram / count, cross / count, constant / count)


def choose_rounding(
    weights: np.ndarray, scales: np.ndarray, output_error: OutputError, *, meant: np.ndarray, most: int = 127
) -> np.ndarray:
    """Returns integers next to weights / scales, chosen so that the layer's output error is small.

    First AdaRound's relaxation: h = clip(1.2 * sigmoid(v) - 0.1, 0, 1) is the part rounded up, and Adam minimises the
    output error plus sum 1 - |2 h - 1|**beta, with beta falling from 20 to 2. Then, for each output channel, single
    flips that lower the error most until none does, from the better of the relaxation and nearest rounding: the result
    is never worse than nearest.

    Args:
        weights: (G, O, K) float; what is rounded.
        scales: (G, O, 1), the size of a step.
        output_error: the output error as a quadratic form around ``meant``.
        meant: (G, O, K), the weights whose outputs are wanted; those before clipping.
        most: the largest integer of the weights. Default: 127.

    Returns:
        (G, O, K) float64 of whole numbers in [-most, most].

    Examples:
        >>> gram = np.full((1, 2, 2), 1.0)  # both inputs always equal: the errors of both weights should cancel
        >>> output_error = OutputError(gram, np.zeros((1, 1, 2)), np.zeros((1, 1)))
        >>> weights = np.array([[[3.4, 5.4]]])
        >>> choose_rounding(weights, np.ones((1, 1, 1)), output_error, meant=weights).sum().item()
        9.0

    Source: Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020,
    https://arxiv.org/abs/2004.10568. Ours takes the error before the activation function, as a quadratic form over all
    samples instead of batches of them, and adds the flips.
    """
    ratio = weights / scales
    # The largest weight sets the scale: it must stay where it is, at ``most``, whatever float arithmetic makes of it.
    whole = round_half_away(ratio)
    floor = np.where(np.abs(ratio - whole) < 1e-4, whole, np.floor(ratio))
    free = np.abs(ratio - whole) >= 1e-4
    nearest = np.clip(whole, -most, most)
    relaxed = np.clip(np.where(free, floor + _relax(ratio, floor, scales, output_error, meant), floor), -most, most)
    wins = output_error.error(relaxed * scales - meant) < output_error.error(nearest * scales - meant)
    start = np.where(wins[..., None], relaxed, nearest)
    return _flip(start, floor, free, scales, output_error, meant, most)


def _relax(
    ratio: np.ndarray, floor: np.ndarray, scales: np.ndarray, output_error: OutputError, meant: np.ndarray
) -> np.ndarray:
    """Returns 1 where AdaRound's relaxation rounds up, else 0."""
    groups, rows, columns = ratio.shape
    steps = int(np.clip(_BUDGET / (groups * rows * columns**2), 50, _ITERATIONS))
    part = np.clip((ratio - floor - _STRETCH_LOW) / (_STRETCH_HIGH - _STRETCH_LOW), 1e-3, 1 - 1e-3)
    v = np.log(part / (1 - part)).astype(np.float32)
    gram, cross = output_error.gram.astype(np.float32), output_error.cross.astype(np.float32)
    step, wanted, low = scales.astype(np.float32), meant.astype(np.float32), (floor * scales).astype(np.float32)
    loss = np.maximum(output_error.error(round_half_away(ratio) * scales - meant), 1e-30)[..., None].astype(np.float32)
    first, second = np.zeros_like(v), np.zeros_like(v)
    warm = int(_WARM_UP * steps)
    for i in range(steps):
        sigmoid = 1 / (1 + np.exp(-v))
        stretched = sigmoid * (_STRETCH_HIGH - _STRETCH_LOW) + _STRETCH_LOW
        h = np.clip(stretched, 0, 1)
        slope = 2 * ((low + h * step - wanted) @ gram + cross) * step / loss
        if i >= warm:
            done = (i - warm) / max(steps - warm, 1)
            beta = _SHARPNESS[1] + 0.5 * (_SHARPNESS[0] - _SHARPNESS[1]) * (1 + np.cos(np.pi * done))
            away = 2 * h - 1
            slope -= _REGULARIZATION / columns * 2 * beta * np.sign(away) * np.abs(away) ** (beta - 1)
        slope *= np.where((stretched > 0) & (stretched < 1), sigmoid * (1 - sigmoid), 0)
        first += (1 - _DECAY) * (slope - first)
        second += (1 - _SQUARED_DECAY) * (slope**2 - second)
        corrected = second / (1 - _SQUARED_DECAY ** (i + 1))
        v -= _RATE * first / (1 - _DECAY ** (i + 1)) / (np.sqrt(corrected) + 1e-12)
    return (1 / (1 + np.exp(-v)) >= 0.5).astype(np.float64)


def _flip(
    integers: np.ndarray,
    floor: np.ndarray,
    free: np.ndarray,
    scales: np.ndarray,
    output_error: OutputError,
    meant: np.ndarray,
    most: int,
) -> np.ndarray:
    """Returns the integers after the best single flips of each output channel, until none lowers its error."""
    integers = integers.copy()
    groups, rows, columns = integers.shape
    slope = output_error.gradient(integers * scales - meant)
    bend = np.einsum("gkk->gk", output_error.gram)[:, None, :] * scales**2
    g, o = np.mgrid[:groups, :rows]
    for _ in range(2 * columns):
        up = np.where(integers > floor, -1.0, 1.0)
        up = np.where(free & (np.abs(integers + up) <= most), up, 0.0)
        gains = -(up * scales * slope + np.abs(up) * bend)
        best = gains.argmax(axis=2)
        gain = np.take_along_axis(gains, best[..., None], axis=2)[..., 0]
        moves = gain > 1e-12 * np.abs(slope).max(initial=0.0) * scales[..., 0]
        if not moves.any():
            break
        change = np.where(moves, np.take_along_axis(up, best[..., None], axis=2)[..., 0], 0.0)
        integers[g, o, best] += change
        slope += 2 * (change * scales[..., 0])[..., None] * output_error.gram[g, best]
    return integers


def round_weights(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]],
    target: Target,
    samples: Mapping[str, np.ndarray],
    *,
    reference: bytes | None = None,
    seed: int = 0,
    on_layer: Callable[[str], None] | None = None,
    debug: bool = False,
) -> Rounded:
    """Returns the file with every weight on one of the two integers next to it, chosen by reconstruction.

    Args:
        content: bytes of a float file with a signature.
        ranges: (lowest, highest) by tensor name: the grid of the activations.
        target: what the file will be quantized for.
        samples: by input name, (n, ...), real numbers.
        reference: the float file whose outputs are reconstructed, of the same graph. Default: ``content``.
        seed: decides which output positions of a sample count. Default: 0.
        on_layer: called with each layer's name before its turn. Default: nothing.
        debug: whether the interpreter's log lines are shown. Default: False.
    """
    model = flatbuffer.parse(content)
    original = flatbuffer.parse(reference or content)
    ratios: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for layer, twin in zip(find_layers(model), find_layers(original), strict=True):
        if on_layer is not None:
            on_layer(layer.name)
        weights, meant = weights_of(model, layer), weights_of(original, twin)
        if weights.shape[2] > _LARGEST_PATCH:
            skipped[layer.name] = f"{weights.shape[2]} inputs to one output, more than {_LARGEST_PATCH}"
            continue
        source = flatbuffer.tensor_name(model.subgraphs[0].tensors[layer.source])
        wanted = capture(original, samples, [twin.source], debug=debug)[twin.source]
        got = on_grid(capture(model, samples, [layer.source], debug=debug)[layer.source], ranges.get(source))
        output_error = measure_output_error(layer, meant, wanted, got, positions=_POSITIONS, seed=seed)
        most = largest_integer(layer, target)
        scales = scales_of(weights, per_channel=is_per_channel(layer, target), largest=most)
        integers = choose_rounding(weights, scales, output_error, meant=meant, most=most)
        nearest = np.clip(round_half_away(weights / scales), -most, most)
        before = float(output_error.error(nearest * scales - meant).sum())
        after = float(output_error.error(integers * scales - meant).sum())
        ratios[layer.name] = min(after / before, 1.0) if before > 0 else 1.0
        assign(model, layer, 1, layer.stored(integers * scales).astype(np.float32))
    return Rounded(flatbuffer.pack(model), ratios, skipped)
