"""ShuffleNet V1: group convolutions, and a channel shuffle between them."""

from typing import Any

import keras
from keras import layers

from .layers import channel_shuffle, convolution, depthwise

__all__ = ["GROUPS", "shufflenet_v1"]

GROUPS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Output channels of the first stage by number of groups (table 1 of the paper), all of about the same complexity."""

WIDTHS = (0.25, 0.5, 1.0, 1.5, 2.0)
UNITS = (4, 8, 4)
STEM, LEAST_STEM = 24, 12


def shufflenet_v1(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    groups: int = 3,
    units: tuple[int, ...] = UNITS,
    name: str = "shufflenet_v1",
) -> keras.Model:
    """Returns ShuffleNet V1.

    Multiply-adds at 224 x 224, in millions: width 1.0 with 1, 2, 3, 4, 8 groups 143, 140, 137, 133, 137 (table 1 of the paper);
    width 0.25, 0.5, 1.5 and 2.0 with 3 groups 13, 38, 292 and 524 (tables 2 and 5).

    Args:
        input_shape: height, width and channels. Default: (224, 224, 3).
        classes: how many logits. Default: 1000.
        width: factor of the channels, "s x" of the paper: 0.25, 0.5, 1.0, 1.5, 2.0 or any that keeps the channels divisible.
            Default: 1.0.
        groups: of the pointwise convolutions: 1, 2, 3, 4 or 8. Default: 3.
        units: how many units each stage has. Default: (4, 8, 4).
        name: of the model. Default: "shufflenet_v1".

    Returns:
        A model from (n, height, width, channels) float32 to (n, classes) float32 logits.

    Raises:
        ValueError: a number of groups that the paper does not have, or a width that leaves channels that cannot be divided.

    Examples:
        >>> shufflenet_v1(input_shape=(32, 32, 3), classes=10, width=0.25, groups=2).output_shape
        (None, 10)

    Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices",
    2018, https://arxiv.org/abs/1707.01083.
    """
    if groups not in GROUPS:
        raise ValueError(f"groups must be one of {', '.join(map(str, GROUPS))}. Received: groups={groups!r}.")
    channels = round(GROUPS[groups] * width)
    if channels < 4 * groups or channels % groups or channels != GROUPS[groups] * width:
        raise ValueError(
            f"width must leave channels that groups divides. Received: width={width!r}, which makes "
            f"{GROUPS[groups] * width:g} channels of {GROUPS[groups]} with groups={groups}. Write 0.5 or 1.0."
        )
    # As in the authors' code, which has no width of 0.25; there 12 give the complexity that the paper prints.
    stem = STEM if width == 1.5 else max(LEAST_STEM, round(STEM * width))
    stem += (channels - stem) % groups
    image = keras.Input(input_shape, name="image")
    x = convolution(image, stem, 3, strides=2, name="stem")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(x)
    for stage, count in enumerate(units, 2):
        for unit in range(1, count + 1):
            # The first of all sees so few channels that the paper does not divide its pointwise convolution.
            first = 1 if stage == 2 and unit == 1 else groups
            x = _unit(x, channels, groups, first, strides=2 if unit == 1 else 1, name=f"stage{stage}_unit{unit}")
        channels *= 2
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name=name)


def _unit(x: Any, channels: int, groups: int, first: int, *, strides: int, name: str) -> Any:
    made = channels - x.shape[-1] if strides == 2 else channels
    y = convolution(x, channels // 4 // groups * groups, groups=first, name=f"{name}_squeeze")
    if groups > 1:
        y = channel_shuffle(y, groups, name=f"{name}_shuffle")
    y = depthwise(y, strides=strides, name=f"{name}_depthwise")
    y = convolution(y, made, groups=groups, relu=strides == 2, name=f"{name}_expand")
    if strides == 1:
        return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
    # The paper's ReLU stands behind the concatenation. Averages of what a ReLU made are not negative, so that it may
    # stand before it, where it costs nothing.
    x = layers.AveragePooling2D(3, strides=2, padding="same", name=f"{name}_shortcut")(x)
    return layers.Concatenate(name=f"{name}_concat")([x, y])
