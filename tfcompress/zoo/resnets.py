"""ResNets for pictures of 32 x 32: ResNet-8 of MLPerf Tiny, and ResNet-20 and its deeper sisters."""

from typing import Any

import keras
from keras import layers

from .layers import convolution

__all__ = ["resnet_8", "resnet_cifar"]

WIDTHS = (16, 32, 64)
DECAY = 1e-4


def resnet_8(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    name: str = "resnet_8",
) -> keras.Model:
    """Returns the ResNet-8 of MLPerf Tiny layer by layer, ending in logits where the original has a softmax.

    Args:
        input_shape: height, width and channels. Default: (32, 32, 3).
        classes: how many logits. Default: 10.
        width: factor of the channels. Default: 1.0, the benchmark's.
        name: of the model. Default: "resnet_8".

    Returns:
        A model from (n, height, width, channels) float32, in the benchmark pixels in 0..255, to (n, classes) float32 logits.

    Examples:
        >>> resnet_8().count_params()
        78666

    Source: Banbury et al., "MLPerf Tiny benchmark", 2021, https://arxiv.org/abs/2106.07597;
    https://github.com/mlcommons/tiny, image classification.
    """
    image = keras.Input(input_shape, name="image")
    first, *others = (max(1, round(channels * width)) for channels in WIDTHS)
    x = layers.ReLU(name="stem_relu")(_conv_norm(image, first, 3, 1, "stem"))
    x = layers.ReLU(name="stack1_relu")(layers.Add(name="stack1_add")([x, _two(x, first, 1, "stack1")]))
    for stack, channels in enumerate(others, 2):
        shortcut = _conv(x, channels, 1, 2, f"stack{stack}_shortcut")
        x = layers.Add(name=f"stack{stack}_add")([shortcut, _two(x, channels, 2, f"stack{stack}")])
        x = layers.ReLU(name=f"stack{stack}_relu")(x)
    x = layers.AveragePooling2D(x.shape[1:3], name="average")(x)
    x = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(layers.Flatten(name="flat")(x))
    return keras.Model(image, x, name=name)


def _conv(x: Any, channels: int, size: int, strides: int, name: str) -> Any:
    return layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding="same",
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(DECAY),
        name=name,
    )(x)


def _conv_norm(x: Any, channels: int, size: int, strides: int, name: str) -> Any:
    return layers.BatchNormalization(name=f"{name}_norm")(_conv(x, channels, size, strides, name))


def _two(x: Any, channels: int, strides: int, name: str) -> Any:
    x = layers.ReLU(name=f"{name}_first_relu")(_conv_norm(x, channels, 3, strides, f"{name}_first"))
    return _conv_norm(x, channels, 3, 1, f"{name}_second")


def resnet_cifar(
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    depth: int = 20,
    width: float = 1.0,
    name: str = "resnet",
) -> keras.Model:
    """Returns the residual network of the paper's section 4.2 with 6n + 2 layers: ResNet-20, -32, -44, -56.

    Where the channels double, the shortcut is a 1x1 convolution (the paper's option B; for these networks it pads with
    zeros, option A). So ResNet-20 has 272,474 parameters instead of 269,722.

    Args:
        input_shape: height, width and channels. Default: (32, 32, 3).
        classes: how many logits. Default: 10.
        depth: number of layers with weights, 6n + 2. Default: 20.
        width: factor of the channels. Default: 1.0.
        name: of the model. Default: "resnet".

    Returns:
        A model from (n, height, width, channels) float32 to (n, classes) float32 logits.

    Raises:
        ValueError: a depth that is not 6n + 2.

    Examples:
        >>> resnet_cifar(depth=8, width=0.5).output_shape
        (None, 10)

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, https://arxiv.org/abs/1512.03385.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth must be 6n + 2. Received: depth={depth!r}. Write 20, 32, 44 or 56.")
    image = keras.Input(input_shape, name="image")
    x = convolution(image, max(1, round(WIDTHS[0] * width)), 3, name="stem")
    for stage, base in enumerate(WIDTHS, 1):
        channels = max(1, round(base * width))
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            prefix = f"stage{stage}_block{block}"
            y = convolution(x, channels, 3, strides=strides, name=f"{prefix}_first")
            y = convolution(y, channels, 3, relu=False, name=f"{prefix}_second")
            if strides == 2:
                x = convolution(x, channels, strides=2, relu=False, name=f"{prefix}_shortcut")
            x = layers.ReLU(name=f"{prefix}_relu")(layers.Add(name=f"{prefix}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name=name)
