"""SSDLite on a MobileNet: where are the objects, and of which class? A small detector for the CPU and its anchors.

The model ends in codes of boxes and logits of classes; ``tfcompress.convert(..., detections=...)`` writes the choice among
them into the ``.tflite`` file. Training it takes ``detection.anchors.targets`` and ``detection.losses``.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from ..detection import Detections, anchor_grid, map_shapes

__all__ = ["DEFAULT_SIZES", "ssdlite", "ssdlite_anchors", "ssdlite_detections"]

Size = tuple[float, float]
DEFAULT_SIZES: tuple[tuple[Size, ...], ...] = (
    ((0.06, 0.06), (0.085, 0.085), (0.12, 0.12)),
    ((0.17, 0.17), (0.12, 0.24), (0.24, 0.12), (0.24, 0.24)),
    ((0.34, 0.34), (0.24, 0.48), (0.48, 0.24), (0.48, 0.48)),
    ((0.68, 0.68), (0.48, 0.96), (0.96, 0.48), (0.96, 0.96)),
)
"""(height, width) of the anchors on each level: doubling from level to level, with aspect ratios 1:2 and 2:1."""

STEM = (16, 32)  # filters of the two plain convolutions
BLOCKS = (
    (64, 64),
    (128, 128, 128),
    (256, 256),
)  # filters of the blocks at strides 8, 16 and 32; the first of each halves
EXTRA = 128  # filters of further levels
PRIOR = 0.01  # score of an untrained model: nearly all anchors are background
DIVISOR = 8  # filters are multiples of it, as in the MobileNet papers


def ssdlite(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 80,
    width: float = 1.0,
    sizes: Sequence[Sequence[Size]] = DEFAULT_SIZES,
    name: str = "ssdlite",
) -> keras.Model:
    """Returns an untrained detector with outputs "boxes" (n, anchors, 4), codes, and "logits" (n, anchors, classes).

    The backbone is MobileNet V1's depthwise separable blocks behind two plain convolutions with stride 2, as MobileNet V4
    begins: depthwise convolutions of large maps cost more time than arithmetic. Heads are SSDLite's: a depthwise convolution
    and a pointwise one for each of boxes and logits, on maps with strides 8, 16, 32 and further halvings. There is no class
    for the background: a sigmoid makes scores of logits.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018 (SSDLite),
    https://arxiv.org/abs/1801.04381; Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861; Qin et al.,
    "MobileNetV4", 2024, https://arxiv.org/abs/2404.10518.

    Args:
        input_shape: (height, width, channels) of the pictures, scaled to [-1, 1]. Default: (224, 224, 3).
        classes: how many kinds of objects there are. Default: 80.
        width: multiplies all filters of the backbone. Default: 1.0.
        sizes: (height, width) of the anchors of each level, as fractions of the picture. Default: ``DEFAULT_SIZES``.
        name: the model's name. Default: "ssdlite".

    Raises:
        ValueError: classes or width is not above 0, or there is no level.

    Examples:
        >>> model = ssdlite(input_shape=(64, 64, 3), classes=3, width=0.5)
        >>> {name: output.shape for name, output in model.output.items()}
        {'boxes': (None, 276, 4), 'logits': (None, 276, 3)}
    """
    if classes < 1 or width <= 0 or not sizes:
        raise ValueError(
            f"classes and width must be above 0, and there must be a level. Received: {classes}, {width}, {len(sizes)} levels."
        )
    x = image = keras.Input(input_shape, name="image")
    for number, filters in enumerate(STEM):
        x = _conv(x, _rounded(filters * width), 3, 2, name=f"stem{number}")
    maps = []
    for level in range(len(sizes)):
        if level < len(BLOCKS):
            for number, filters in enumerate(BLOCKS[level]):
                x = _separable(x, _rounded(filters * width), 1 if number else 2, name=f"block{level}_{number}")
        else:
            x = _conv(x, _rounded(EXTRA * width / 2), 1, 1, name=f"extra{level}")
            x = _separable(x, _rounded(EXTRA * width), 2, name=f"extra{level}_out")
        maps.append(x)
    bias = keras.initializers.Constant(-math.log((1 - PRIOR) / PRIOR))
    counts = [len(level) for level in sizes]
    outputs = {
        "boxes": _head(maps, counts, 4, "boxes", "zeros"),
        "logits": _head(maps, counts, classes, "logits", bias),
    }
    return keras.Model(image, outputs, name=name)


def ssdlite_anchors(*, input_shape: tuple[int, int, int], sizes: Sequence[Sequence[Size]] = DEFAULT_SIZES) -> Any:
    """Returns the anchors of an ``ssdlite`` of the same arguments, shape (n, 4), float32: see ``anchors.anchor_grid``.

    Examples:
        >>> ssdlite_anchors(input_shape=(64, 64, 3)).shape
        (276, 4)
    """
    return anchor_grid(map_shapes(*input_shape[:2], len(sizes)), sizes)


def ssdlite_detections(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 80,
    sizes: Sequence[Sequence[Size]] = DEFAULT_SIZES,
    **options: Any,
) -> Detections:
    """Returns what ``convert`` takes as ``detections`` for an ``ssdlite`` of the same arguments.

    Args:
        input_shape: of the pictures. Default: (224, 224, 3).
        classes: how many kinds of objects there are. Default: 80.
        sizes: of the anchors. Default: ``DEFAULT_SIZES``.
        **options: the rest of the model's arguments, which change nothing about the boxes.

    Examples:
        >>> ssdlite_detections(input_shape=(64, 64, 3), classes=3, width=0.5).anchors.shape
        (276, 4)
    """
    del options
    return Detections(ssdlite_anchors(input_shape=input_shape, sizes=sizes), classes=classes)


def _rounded(filters: float) -> int:
    return max(DIVISOR, int(filters + DIVISOR / 2) // DIVISOR * DIVISOR)


def _norm_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _conv(x: Any, filters: int, kernel: int, stride: int, *, name: str) -> Any:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return _norm_relu(x, name)


def _depthwise(x: Any, stride: int, *, name: str) -> Any:
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    return _norm_relu(x, f"{name}_depthwise")


def _separable(x: Any, filters: int, stride: int, *, name: str) -> Any:
    return _conv(_depthwise(x, stride, name=name), filters, 1, 1, name=f"{name}_pointwise")


def _head(maps: Sequence[Any], counts: Sequence[int], numbers: int, name: str, bias: Any) -> Any:
    parts = []
    for level, (x, count) in enumerate(zip(maps, counts, strict=True)):
        x = _depthwise(x, 1, name=f"{name}{level}")
        x = layers.Conv2D(count * numbers, 1, bias_initializer=bias, name=f"{name}{level}_out")(x)
        parts.append(layers.Reshape((-1, numbers), name=f"{name}{level}_flat")(x))
    return layers.Concatenate(axis=1, name=name)(parts) if len(parts) > 1 else parts[0]
