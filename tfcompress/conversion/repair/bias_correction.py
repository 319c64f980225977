"""How far has the mean of each layer's outputs moved, and which bias brings it back?

The integer file itself is run, layer by layer in order, so that each correction sees the ones before it. The outputs
are taken before the fused activation, as products of the mean input patch: exact, and a RELU hides nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ConversionError
from ...tflite import flatbuffer, round_half_away
from .activations import capture
from .linear_layers import Layer, assign, bias_of, find_layers, mean_patch, weights_of

__all__ = ["Corrected", "correct_bias", "mean_outputs"]

_SAMPLES = 128


@dataclass(frozen=True)
class Corrected:
    """A float file with biases that bring the integer file's means back.

    Args:
        content: the bytes of the float file.
        integer: the bytes of the integer file with the same corrections.
        shifts: by layer, the root mean square over channels of the mean error that was corrected.
    """

    content: bytes
    integer: bytes
    shifts: Mapping[str, float]


def mean_outputs(model: Any, layer: Layer, inputs: np.ndarray) -> np.ndarray:
    """Returns the mean of each output channel before the activation: mean patch @ weights.T + bias, (channels,).

    Args:
        model: a parsed float or integer file.
        layer: one of its layers.
        inputs: the layer's inputs in real numbers, (n, ...).
    """
    products = np.einsum("gok,gk->go", weights_of(model, layer), mean_patch(layer, inputs))
    return products.ravel() + bias_of(model, layer)


def correct_bias(
    content: bytes,
    integer: bytes,
    samples: Mapping[str, np.ndarray],
    *,
    reference: bytes | None = None,
    on_layer: Callable[[str], None] | None = None,
    debug: bool = False,
) -> Corrected:
    """Returns the files with corrected biases.

    Args:
        content: bytes of the float file that ``integer`` was made from.
        integer: bytes of the integer file.
        samples: by input name, (n, ...), real numbers; at most 128 of them count.
        reference: the float file whose means are wanted, of the same graph. Default: ``content``.
        on_layer: called with each layer's name before its turn. Default: nothing.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ConversionError: the integer file does not have the float file's layers.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019,
    https://arxiv.org/abs/1906.04721, section 4.2 and appendix D (empirical correction).
    """
    model, original, finished = (
        flatbuffer.parse(content),
        flatbuffer.parse(reference or content),
        flatbuffer.parse(integer),
    )
    few = {name: values[:_SAMPLES] for name, values in samples.items()}
    layers, twins, quantized = find_layers(model), find_layers(original), find_layers(finished)
    if [(layer.op, layer.shape) for layer in layers] != [(layer.op, layer.shape) for layer in quantized]:
        raise ConversionError(
            f"Bias correction needs the same layers in the float and the integer file. Received: {len(layers)} and "
            f"{len(quantized)}. Leave bias out of the repairs."
        )
    shifts = {}
    for layer, twin, small in zip(layers, twins, quantized, strict=True):
        if on_layer is not None:
            on_layer(layer.name)
        step = _bias_step(finished, small)
        if step is None:
            continue
        wanted = mean_outputs(original, twin, capture(original, few, [twin.source], debug=debug)[twin.source])
        got = mean_outputs(finished, small, capture(finished, few, [small.source], debug=debug)[small.source])
        shift = wanted - got
        shifts[layer.name] = float(np.sqrt(np.mean(shift**2)))
        stored = round_half_away((bias_of(finished, small) + shift) / step)
        limits = np.iinfo(np.int32)
        assign(finished, small, 2, np.clip(stored, limits.min, limits.max).astype(np.int32))
        assign(model, layer, 2, (bias_of(model, layer) + shift).astype(np.float32))
    return Corrected(flatbuffer.pack(model), flatbuffer.pack(finished), shifts)


def _bias_step(model: Any, layer: Layer) -> np.ndarray | None:
    """Returns the real size of one step of an int32 bias, None for a layer without one."""
    if layer.bias is None:
        return None
    tensor = model.subgraphs[0].tensors[layer.bias]
    scale = getattr(tensor.quantization, "scale", None)
    if flatbuffer.type_name(tensor) != "INT32" or scale is None or not len(scale):
        return None
    return np.asarray(scale, np.float64)
