"""Small Keras models that the tests convert and train."""

import keras
import numpy as np
from keras import layers


def tiny_cnn(seed: int = 0, classes: int = 3) -> keras.Model:
    """Conv + BN + ReLU, depthwise, residual, pooling, Dense: one of each fused chain. Input (8, 8, 2)."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(momentum=0.8, name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.BatchNormalization(momentum=0.8, name="depthwise_norm")(y)
    y = layers.ReLU(6.0, name="depthwise_relu")(y)
    y = layers.Conv2D(8, 1, activation="relu", name="pointwise")(y)
    x = layers.Add(name="residual")([x, y])
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.AveragePooling2D(2, name="average")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name="tiny")


def striped_pictures(count: int = 256, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three kinds of noisy stripes: pictures (count, 8, 8, 2) float32 in about [-2, 2] and labels (count,)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    rows, columns = np.mgrid[0:8, 0:8]
    patterns = np.stack([np.sin(rows * 1.5), np.sin(columns * 1.5), np.sin((rows + columns) * 1.2)])
    pictures = patterns[labels][..., None] * random.uniform(0.5, 1.5, (count, 1, 1, 2))
    return (pictures + random.normal(0, 0.3, pictures.shape)).astype(np.float32), labels


def compiled(model: keras.Model, **options) -> keras.Model:
    """The model, ready to fit on ``striped_pictures``."""
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    return model
