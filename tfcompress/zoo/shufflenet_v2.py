"""ShuffleNet V2: half of the channels pass each unit untouched, and a channel shuffle mixes the halves."""

from typing import Any

import keras
from keras import layers

from .layers import channel_shuffle, convolution, depthwise

__all__ = ["WIDTHS", "shufflenet_v2"]

WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
"""Channels of the three stages and of the last convolution by width multiplier (table 5 of the paper)."""

UNITS = (4, 8, 4)
STEM = 24


def shufflenet_v2(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    units: tuple[int, ...] = UNITS,
    even: bool = True,
    name: str = "shufflenet_v2",
) -> keras.Model:
    """Returns ShuffleNet V2.

    With 1000 classes it has 1,366,792, 2,278,604, 3,503,624 and 7,393,996 parameters for the four widths, as torchvision's.

    Args:
        input_shape: height, width and channels. Default: (224, 224, 3).
        classes: how many logits. Default: 1000.
        width: 0.5, 1.0, 1.5 or 2.0, the widths of the paper. Default: 1.0.
        units: how many units each stage has. Default: (4, 8, 4).
        even: whether the first unit of all makes half of its channels in each branch, as torchvision does. False: its left
            branch makes as many as it gets (24), as in the authors' code, whose multiply-adds are those that the paper prints:
            41, 146, 299 and 591 million. The other units are the same. Default: True.
        name: of the model. Default: "shufflenet_v2".

    Returns:
        A model from (n, height, width, channels) float32 to (n, classes) float32 logits.

    Raises:
        ValueError: another width.

    Examples:
        >>> shufflenet_v2(input_shape=(32, 32, 3), classes=10, width=0.5).output_shape
        (None, 10)

    Source: Ma, Zhang, Zheng and Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture design", 2018,
    https://arxiv.org/abs/1807.11164.
    """
    if width not in WIDTHS:
        raise ValueError(f"width must be one of {', '.join(map(str, WIDTHS))}. Received: width={width!r}.")
    *stages, last = WIDTHS[width]
    image = keras.Input(input_shape, name="image")
    x = convolution(image, STEM, 3, strides=2, name="stem")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(x)
    for stage, (channels, count) in enumerate(zip(stages, units, strict=False), 2):
        for unit in range(1, count + 1):
            left = STEM if stage == 2 and unit == 1 and not even else channels // 2
            x = _unit(x, channels, left, strides=2 if unit == 1 else 1, name=f"stage{stage}_unit{unit}")
    x = convolution(x, last, name="last")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name=name)


def _unit(x: Any, channels: int, made: int, *, strides: int, name: str) -> Any:
    half = channels // 2
    if strides == 1:
        left, right = x[..., :half], x[..., half:]
    else:
        left, right = depthwise(x, strides=2, name=f"{name}_left_depthwise"), x
        left = convolution(left, made, name=f"{name}_left")
    right = convolution(right, half, name=f"{name}_squeeze")
    right = depthwise(right, strides=strides, name=f"{name}_depthwise")
    right = convolution(right, channels - made, name=f"{name}_expand")
    x = layers.Concatenate(name=f"{name}_concat")([left, right])
    return channel_shuffle(x, 2, name=f"{name}_shuffle")
