"""Which weights are better cut off, so that all others get a finer step?

For each scale a grid of clip values is tried, and the one kept whose weights, rounded to int8, cost least at the
layer's outputs. Quantizing takes the step from the largest weight, so that clamped weights carry the choice with them.
"""

from collections.abc import Mapping

import numpy as np

from ...quantization import Target
from ...tflite import flatbuffer, round_half_away
from .activations import capture
from .linear_layers import assign, find_layers, is_per_channel, largest_integer, patches, scales_of, weights_of

__all__ = ["clip_weights", "search_clips"]

FRACTIONS = tuple(1.0 - 0.02 * i for i in range(26))  # of the largest weight: 1.0 down to 0.5
_POSITIONS = 256
_SAMPLES = 64


def search_clips(
    matrix: np.ndarray, importance: np.ndarray | None = None, *, per_channel: bool = True, most: int = 127
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the clip value of each output channel that makes the integer weights' error least.

    The error of a clip value is sum importance * (w - w')**2, where w' is w clamped and rounded to steps of
    clip / most. 26 values from the largest weight down to half of it are tried.

    Args:
        matrix: weights (G, O, K), float.
        importance: of each weight, (G, K): the mean square of the input that it meets. Default: all 1.
        per_channel: whether each output channel has a step of its own. Default: True.
        most: the largest integer of the weights. Default: 127.

    Returns:
        The clip values and their errors relative to the error without clipping, each (G, O), float64.

    Examples:
        >>> weights = np.array([[[1.0] + [0.004] * 500]])  # one outlier; 0.004 lies halfway between two steps
        >>> clips, ratios = search_clips(weights, np.array([[0.001] + [1.0] * 500]))
        >>> bool(clips[0, 0] < 1.0), bool(ratios[0, 0] < 1.0)
        (True, True)
    """
    matrix = matrix.astype(np.float64)
    weight = np.ones((matrix.shape[0], 1, matrix.shape[2])) if importance is None else importance[:, None, :]
    largest = most * scales_of(matrix, per_channel=per_channel, largest=most)
    errors = []
    for fraction in FRACTIONS:
        step = largest * fraction / most
        rounded = np.clip(round_half_away(matrix / step), -most, most) * step
        error = (weight * (rounded - matrix) ** 2).sum(axis=2, keepdims=True)
        errors.append(error if per_channel else np.broadcast_to(error.sum(), error.shape))
    stacked = np.stack(errors)  # (26, G, O, 1)
    plain, best = stacked[0], stacked.min(axis=0)
    clips = largest * np.array(FRACTIONS)[stacked.argmin(axis=0)]
    ratios = np.where(plain > 0, best / np.where(plain > 0, plain, 1.0), 1.0)
    return clips[..., 0], ratios[..., 0]


def clip_weights(
    content: bytes, target: Target, samples: Mapping[str, np.ndarray], *, debug: bool = False
) -> tuple[bytes, float]:
    """Returns the file with clipped weights, and the fraction of its output channels that were clipped.

    Args:
        content: bytes of a float file with a signature.
        target: what the file will be quantized for.
        samples: by input name, (n, ...), real numbers; at most 64 of them count.
        debug: whether the interpreter's log lines are shown. Default: False.
    """
    model = flatbuffer.parse(content)
    few = {name: values[:_SAMPLES] for name, values in samples.items()}
    clipped = total = 0
    for layer in find_layers(model):
        matrix = weights_of(model, layer)
        inputs = capture(model, few, [layer.source], debug=debug)[layer.source]
        importance = (patches(layer, inputs, positions=_POSITIONS).astype(np.float64) ** 2).mean(axis=1)
        most = largest_integer(layer, target)
        clips, _ = search_clips(matrix, importance, per_channel=is_per_channel(layer, target), most=most)
        shortened = np.clip(matrix, -clips[..., None], clips[..., None])
        clipped += int((shortened != matrix).any(axis=2).sum())
        total += layer.channels
        assign(model, layer, 1, layer.stored(shortened).astype(np.float32))
    return flatbuffer.pack(model), clipped / max(total, 1)
