"""What happens to the pixels 0..255 of a picture before the model sees them?

By name, as a text that a command line takes, or as a value. Nothing is read or resized here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DataError

__all__ = ["SCALINGS", "Scaling", "ScalingName", "resolve_scaling", "scale"]


@dataclass(frozen=True)
class Scaling:
    """What happens to pixels 0..255 of each channel: (p - mean) / std, after the channels were turned round for ``bgr``.

    Args:
        mean: one number for all channels, or one for each in the order of the result. Default: 0.
        std: as ``mean``, not zero. Default: 1.
        bgr: whether the result has its channels in the order blue, green, red. Default: False.

    Raises:
        ValueError: a number that is not finite, a std of zero, or mean and std for different numbers of channels.

    Examples:
        >>> Scaling(mean=(10.0,), std=(2.0,))(np.array([[10, 14]], np.uint8))
        array([[0., 2.]], dtype=float32)
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = tuple(float(n) for n in (value if isinstance(value, Iterable) else (value,)))
            if not numbers or not np.isfinite(numbers).all() or (name == "std" and 0.0 in numbers):
                rule = "finite" if name == "mean" else "finite and not zero"
                raise ValueError(f"{name} must be {rule} for each channel. Received: {name}={value!r}.")
            object.__setattr__(self, name, numbers)
        if len(self.mean) != len(self.std) and 1 not in (len(self.mean), len(self.std)):
            raise ValueError(
                f"mean and std must be of the same channels. Received: {len(self.mean)} means and {len(self.std)} stds."
            )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels, (..., channels), as float32.

        Raises:
            DataError: the pixels have other channels than mean and std.
        """
        channels = max(len(self.mean), len(self.std), 3 if self.bgr else 1)
        if channels > 1 and pixels.shape[-1] != channels:
            raise DataError(
                f"The scaling must be of the picture's channels. Received: {self} for {pixels.shape[-1]} channels. "
                "Name a scaling with one mean and std."
            )
        if self.bgr:
            pixels = pixels[..., ::-1]
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (pixels.astype(np.float32) - mean) / std

    def __str__(self) -> str:
        parts = {"mean": self.mean, "std": self.std}
        return ";".join(f"{name}={','.join(f'{n:g}' for n in numbers)}" for name, numbers in parts.items())


ScalingName = Literal["raw", "zero_one", "minus_one_one", "imagenet_torch", "imagenet_caffe"]
"""The names of ``SCALINGS``, which a type checker completes."""

SCALINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw": lambda pixels: pixels,
    "zero_one": lambda pixels: pixels.astype(np.float32) / np.float32(255),
    "minus_one_one": lambda pixels: pixels.astype(np.float32) / np.float32(127.5) - np.float32(1),
    "imagenet_torch": Scaling(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    "imagenet_caffe": Scaling(mean=(103.939, 116.779, 123.68), bgr=True),
}
"""What happens to pixels 0..255, by name: ``raw`` p, ``zero_one`` p / 255, ``minus_one_one`` p / 127.5 - 1,
``imagenet_torch`` (p / 255 - mean) / std of ImageNet, ``imagenet_caffe`` blue, green, red less their ImageNet mean."""

_SCALING_KEYS = ("mean", "std")


def resolve_scaling(scaling: "str | Scaling | None") -> "str | Scaling | None":
    """Returns a scaling's name or value, from a name, ``"mean=R,G,B;std=R,G,B"`` or a ``Scaling``; None stays None.

    Raises:
        ValueError: an unknown name, or text of another form.

    Examples:
        >>> resolve_scaling("mean=123.7,116.3,103.5;std=58.4,57.1,57.4").std
        (58.4, 57.1, 57.4)
        >>> resolve_scaling("zero_one")
        'zero_one'
    """
    if scaling is None or isinstance(scaling, Scaling) or (isinstance(scaling, str) and scaling in SCALINGS):
        return scaling
    wrong = f"scaling must be one of {', '.join(SCALINGS)}, or mean=R,G,B;std=R,G,B. Received: scaling={scaling!r}."
    if not isinstance(scaling, str) or "=" not in scaling:
        raise ValueError(wrong)
    parts = [part.partition("=") for part in scaling.split(";")]
    names = [name.strip() for name, _, _ in parts]
    if any(name not in _SCALING_KEYS for name in names) or len(set(names)) < len(names):
        raise ValueError(wrong)
    try:
        numbers = [tuple(float(number) for number in text.split(",")) for _, _, text in parts]
    except ValueError as error:
        raise ValueError(wrong) from error
    given = dict(zip(names, numbers, strict=True))
    return Scaling(given.get("mean", (0.0,)), given.get("std", (1.0,)))


def scale(pixels: np.ndarray, scaling: "str | Scaling") -> np.ndarray:
    """Returns pixels 0..255, (..., channels), scaled by name or value.

    Examples:
        >>> scale(np.array([[0, 255]], np.uint8), "minus_one_one")
        array([[-1.,  1.]], dtype=float32)
    """
    return (SCALINGS[scaling] if isinstance(scaling, str) else scaling)(pixels)
