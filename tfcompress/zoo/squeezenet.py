"""SqueezeNet 1.1: few parameters by squeezing the channels in front of every 3x3 kernel."""

from typing import Any

import keras
from keras import layers

__all__ = ["squeezenet"]

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOLED_AFTER = (1, 3)  # indices of the fire modules that a pooling follows
STEM = 64
DROPOUT = 0.5


def squeezenet(
    *,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    name: str = "squeezenet",
) -> keras.Model:
    """Returns SqueezeNet 1.1; with 1000 classes it has 1,235,496 parameters, as torchvision's.

    It has no BatchNorm: train it with a small learning rate. As in the original a ReLU stands before the average that makes
    the logits, so that none is negative.

    Args:
        input_shape: height, width and channels, at least (32, 32, 1). Default: (224, 224, 3).
        classes: how many logits. Default: 1000.
        width: factor of the channels. Default: 1.0.
        name: of the model. Default: "squeezenet".

    Returns:
        A model from (n, height, width, channels) float32 to (n, classes) float32 logits.

    Examples:
        >>> squeezenet(input_shape=(32, 32, 3), classes=10, width=0.25).output_shape
        (None, 10)

    Source: Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
    and <0.5MB model size", 2016, https://arxiv.org/abs/1602.07360; version 1.1: https://github.com/forresti/SqueezeNet.
    """

    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    image = keras.Input(input_shape, name="image")
    x = layers.Conv2D(scaled(STEM), 3, strides=2, activation="relu", name="stem")(image)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for index, (squeezed, expanded) in enumerate(FIRES):
        x = _fire(x, scaled(squeezed), scaled(expanded), name=f"fire{index + 2}")  # numbered as in the paper
        if index in POOLED_AFTER:
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{index + 2}")(x)
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    x = layers.Conv2D(classes, 1, activation="relu", name="classes")(x)
    return keras.Model(image, layers.GlobalAveragePooling2D(name="logits")(x), name=name)


def _fire(x: Any, squeezed: int, expanded: int, *, name: str) -> Any:
    x = layers.Conv2D(squeezed, 1, activation="relu", name=f"{name}_squeeze")(x)
    small = layers.Conv2D(expanded, 1, activation="relu", name=f"{name}_expand1")(x)
    large = layers.Conv2D(expanded, 3, padding="same", activation="relu", name=f"{name}_expand3")(x)
    return layers.Concatenate(name=f"{name}_concat")([small, large])
