"""The image models of keras.applications become full int8 files: no float tensor is left."""

import keras
import numpy as np
import pytest

import tfcompress as tfc
from tfcompress.tflite.interpreter import open_model

SIZE, CLASSES, SAMPLES = 64, 10, 32
RAW_PIXELS = {"MobileNetV3Small", "EfficientNetB0"}  # these scale 0..255 inside
NAMES = ["MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "DenseNet121", "NASNetMobile"]


def pictures(name: str) -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.uniform(0, 1, (SAMPLES, SIZE // 8, SIZE // 8, 3))
    pixels = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2) + random.normal(0, 0.05, (SAMPLES, SIZE, SIZE, 3))
    return (np.clip(pixels, 0, 1) * (255 if name in RAW_PIXELS else 1)).astype(np.float32)


def untrained(name: str, images: np.ndarray) -> keras.Model:
    """Random weights with the BatchNorm statistics of real activations: without them int8 answers one constant."""
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES, classifier_activation=None)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(images[:16], training=True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_application_becomes_full_int8(name):
    images = pictures(name)
    model = untrained(name, images)
    result = tfc.convert(model, target="cpu-int8", representative_data=images)
    assert result.float_tensors == ()
    file = open_model(result.tflite)
    answers = next(iter(file.run_raw(_integers(images, file.inputs[0])).values()))
    assert len({tuple(row) for row in answers}) > SAMPLES // 2  # it tells its inputs apart
    # Random weights amplify every rounding; what must hold is that the answers belong to the same pictures.
    floats = model.predict(images, verbose=0)
    real = next(iter(file.run(images).values()))
    correlation = np.corrcoef(floats.reshape(-1), real.reshape(-1))[0, 1]
    assert correlation > 0.8


def _integers(images: np.ndarray, info) -> np.ndarray:
    from tfcompress.tflite.tensors import to_raw

    return to_raw(images, info)
