"""The autoencoder of MLPerf Tiny: what it cannot restore is an anomaly."""

import keras
from keras import layers

__all__ = ["autoencoder"]

DEPTH = 4  # layers before and behind the bottleneck


def autoencoder(
    *, input_shape: tuple[int] = (640,), units: int = 128, bottleneck: int = 8, name: str = "autoencoder"
) -> keras.Model:
    """Returns the dense autoencoder of MLPerf Tiny's anomaly detection; it ends in the restored values.

    Args:
        input_shape: number of values. Default: (640,), 5 frames of 128 log-mel features.
        units: of the hidden layers. Default: 128.
        bottleneck: units of the layer in the middle. Default: 8.
        name: of the model. Default: "autoencoder".

    Returns:
        A model from (n, values) float32 to the same shape; the mean squared difference is the anomaly's score.

    Examples:
        >>> autoencoder().output_shape
        (None, 640)

    Source: Banbury et al., "MLPerf Tiny benchmark", 2021, https://arxiv.org/abs/2106.07597;
    https://github.com/mlcommons/tiny, anomaly detection.
    """
    given = keras.Input(input_shape, name="features")
    x = given
    for index, size in enumerate([units] * DEPTH + [bottleneck] + [units] * DEPTH, 1):
        x = layers.Dense(size, name=f"dense{index}")(x)
        x = layers.BatchNormalization(name=f"dense{index}_norm")(x)
        x = layers.ReLU(name=f"dense{index}_relu")(x)
    return keras.Model(given, layers.Dense(input_shape[0], name="restored")(x), name=name)
