"""What does bad weather do to a picture? Noise, blur, JPEG, brightness and contrast at five strengths.

The formulas and strengths of CIFAR-10-C for pictures below 64 pixels, those of ImageNet-C from there on.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019,
https://arxiv.org/abs/1903.12261. Brightness of theirs is the V of HSV; grey pictures are V themselves.
"""

import io
from collections.abc import Callable

import numpy as np

__all__ = ["CORRUPTIONS", "STRENGTHS", "corrupt", "unsuited"]

STRENGTHS = 5
_SMALL = 64  # pixels
_PICTURE_AXES = 4
_COLOURS = 3

Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def gaussian_noise(pictures: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Returns pictures with noise of this standard deviation."""
    return pictures + random.normal(0, strength, pictures.shape)


def shot_noise(pictures: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Returns pictures of which so many photons at white were counted."""
    return random.poisson(pictures.astype(np.float64) * strength) / strength


def gaussian_blur(pictures: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Returns pictures blurred by this standard deviation, in pixels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(pictures, (0, strength, strength, 0))


def jpeg(pictures: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Returns pictures stored at this JPEG quality."""
    from PIL import Image

    stored = []
    for picture in np.round(pictures * 255).astype(np.uint8):
        content = io.BytesIO()
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(
            content, "JPEG", quality=int(strength)
        )
        stored.append(np.asarray(Image.open(content)).reshape(picture.shape))
    return np.stack(stored) / 255


def brightness(pictures: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Returns pictures whose V of HSV is higher by this much; hue and saturation stay."""
    value = pictures.max(axis=-1, keepdims=True)
    raised = np.clip(value + strength, 0, 1)
    grey = np.broadcast_to(raised, pictures.shape)
    return np.where(value > 0, pictures * (raised / np.maximum(value, 1e-9)), grey)


def contrast(pictures: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Returns pictures whose distance from their mean colour is this share of what it was."""
    mean = pictures.mean(axis=(1, 2), keepdims=True)
    return (pictures - mean) * strength + mean


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...], tuple[float, ...]]] = {
    "gaussian noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot noise": (shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "blur": (gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)),
    "JPEG": (jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
}
"""By name: the function, and its five strengths for pictures below and from 64 pixels."""


def corrupt(name: str, pictures: np.ndarray, *, strength: int, seed: int = 0) -> np.ndarray:
    """Returns corrupted pictures, float32 in [0, 1].

    Args:
        name: of ``CORRUPTIONS``.
        pictures: shape (n, height, width, channels), float32 in [0, 1]; noise takes any shape.
        strength: 1 to 5.
        seed: of noise. Default: 0.

    Raises:
        ValueError: an unknown name, a strength that there is not, or pictures that the corruption does not suit.

    Examples:
        >>> corrupt("contrast", np.array([[[[0.0], [1.0]]]], np.float32), strength=2).ravel()
        array([0.25, 0.75], dtype=float32)
    """
    if name not in CORRUPTIONS or strength not in range(1, STRENGTHS + 1):
        raise ValueError(
            f"A corruption is one of {', '.join(CORRUPTIONS)}, of a strength from 1 to {STRENGTHS}. "
            f"Received: {name!r}, strength={strength}."
        )
    reason = unsuited(name, pictures.shape)
    if reason is not None:
        raise ValueError(f"{name}: {reason}. Received: shape {pictures.shape}.")
    function, small, large = CORRUPTIONS[name]
    is_small = pictures.ndim != _PICTURE_AXES or min(pictures.shape[1:3]) < _SMALL
    changed = function(pictures, (small if is_small else large)[strength - 1], np.random.default_rng(seed))
    return np.clip(changed, 0, 1).astype(np.float32)


def unsuited(name: str, shape: tuple[int, ...]) -> str | None:
    """Returns why a corruption does not suit samples of this shape, None where it does.

    Examples:
        >>> unsuited("JPEG", (1, 8, 8, 2))
        'it takes pictures of 1 or 3 channels'
    """
    if name.endswith("noise"):
        return None
    if len(shape) != _PICTURE_AXES:
        return "it takes pictures of shape (height, width, channels)"
    return "it takes pictures of 1 or 3 channels" if shape[-1] not in (1, _COLOURS) else None
