"""Chains of layers that the families of the zoo share; each is one fused operation in an integer file."""

from typing import Any

from keras import layers

__all__ = ["channel_shuffle", "convolution", "depthwise"]


def convolution(
    x: Any, filters: int, size: int = 1, *, strides: int = 1, groups: int = 1, relu: bool = True, name: str
) -> Any:
    """Returns convolution -> BatchNorm -> ReLU with "same" padding.

    Args:
        x: the input, (n, height, width, channels).
        filters: output channels.
        size: height and width of the kernel. Default: 1.
        strides: step of the window. Default: 1.
        groups: of the channels; each output sees the inputs of its own group. Default: 1.
        relu: whether a ReLU ends the chain. Default: True.
        name: of the convolution; the other layers are called after it.
    """
    x = layers.Conv2D(filters, size, strides=strides, padding="same", groups=groups, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def depthwise(x: Any, *, strides: int = 1, name: str) -> Any:
    """Returns 3x3 depthwise convolution -> BatchNorm with "same" padding.

    Args:
        x: the input, (n, height, width, channels).
        strides: step of the window. Default: 1.
        name: of the convolution.
    """
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def channel_shuffle(x: Any, groups: int, *, name: str) -> Any:
    """Returns ``x`` with its channels dealt out: channel ``g * n + k`` of ``groups * n`` goes to ``k * groups + g``.

    Reshape, transpose, reshape: the file has RESHAPE, TRANSPOSE, RESHAPE, which move integers without rounding.

    Args:
        x: the input, (n, height, width, channels), height and width fixed.
        groups: how many groups; their number divides the channels.
        name: of the layers.

    Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: an extremely efficient convolutional neural network for mobile devices",
    2018, https://arxiv.org/abs/1707.01083, section 3.1.
    """
    height, width, channels = x.shape[1:]
    x = layers.Reshape((height, width, groups, channels // groups), name=f"{name}_split")(x)
    x = layers.Permute((1, 2, 4, 3), name=f"{name}_swap")(x)  # (height, width, channels // groups, groups)
    return layers.Reshape((height, width, channels), name=f"{name}_join")(x)
