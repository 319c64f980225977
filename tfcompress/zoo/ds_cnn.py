"""DS-CNN: depthwise-separable convolutions over a spectrogram, for keyword spotting."""

from typing import NamedTuple

import keras
from keras import layers

__all__ = ["SIZES", "Size", "ds_cnn"]


class Size(NamedTuple):
    """One row of the paper's table of architectures.

    Attributes:
        filters: of every convolution.
        stem_strides: of the first convolution, in time and frequency.
        strides: of each depthwise convolution, the same in time and frequency.
    """

    filters: int
    stem_strides: tuple[int, int]
    strides: tuple[int, ...]


SIZES = {
    "small": Size(64, (2, 2), (1, 1, 1, 1)),
    "medium": Size(172, (2, 1), (2, 1, 1, 1)),
    "large": Size(276, (2, 1), (2, 1, 1, 1, 1)),
}
STEM_KERNEL = (10, 4)
STEM_DROPOUT, HEAD_DROPOUT = 0.2, 0.4  # MLPerf Tiny's; the paper names none


def ds_cnn(
    *,
    input_shape: tuple[int, int, int] = (49, 10, 1),
    classes: int = 12,
    size: str = "small",
    dropout: bool = True,
    momentum: float = 0.99,
    name: str = "ds_cnn",
) -> keras.Model:
    """Returns a DS-CNN from (n, frames, features, 1) float32 to (n, classes) logits.

    A convolution of 10 x 4, then blocks of a depthwise 3 x 3 and a pointwise convolution, each with BatchNorm and ReLU,
    an average over time and frequency, and a dense layer. With the defaults these are MLPerf Tiny's 24,908 parameters.

    Args:
        input_shape: (frames, features, 1). Default: (49, 10, 1), the paper's 10 cepstral coefficients of 1 s.
        classes: number of logits. Default: 12.
        size: "small", "medium" or "large", as the paper has them. Default: "small".
        dropout: whether 0.2 of the stem's and 0.4 of the last block's values are dropped in training, as MLPerf Tiny
            does. Default: True.
        momentum: of BatchNorm; lower for data sets of few steps an epoch. Default: 0.99.
        name: of the model. Default: "ds_cnn".

    Raises:
        ValueError: an unknown size.

    Examples:
        >>> ds_cnn().count_params()
        24908

    Source: Zhang, Suda, Lai and Chandra, "Hello Edge: keyword spotting on microcontrollers", 2017,
    https://arxiv.org/abs/1711.07128; Banbury et al., "MLPerf Tiny benchmark", 2021, https://arxiv.org/abs/2106.07597.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}. Received: size={size!r}.")
    filters, stem_strides, strides = SIZES[size]

    def norm_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = layers.BatchNormalization(momentum=momentum, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    spectrogram = keras.Input(input_shape, name="spectrogram")
    x = layers.Conv2D(filters, STEM_KERNEL, stem_strides, padding="same", name="stem")(spectrogram)
    x = norm_relu(x, "stem")
    x = layers.Dropout(STEM_DROPOUT, name="stem_dropout")(x) if dropout else x
    for number, stride in enumerate(strides, start=1):
        x = layers.DepthwiseConv2D(3, stride, padding="same", name=f"block{number}_depthwise")(x)
        x = norm_relu(x, f"block{number}_depthwise")
        x = layers.Conv2D(filters, 1, name=f"block{number}_pointwise")(x)
        x = norm_relu(x, f"block{number}_pointwise")
    x = layers.Dropout(HEAD_DROPOUT, name="dropout")(x) if dropout else x
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(spectrogram, layers.Dense(classes, name="logits")(x), name=name)
