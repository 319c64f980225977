"""Between which values do a model's inputs lie? Attacks and corruptions work on pictures in [0, 1] and are mapped there."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import Scaling
from ...data.scalings import resolve_scaling, scale

__all__ = ["PixelRange"]

_KNOWN = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_PIXELS = np.array([0, 255], np.uint8)


@dataclass(frozen=True)
class PixelRange:
    """What stands for black and for white in a model's input: one value, or one for each channel.

    Args:
        low: what 0 of [0, 1] is.
        high: what 1 of [0, 1] is.

    Raises:
        ValueError: both are the same, not finite, or of different channels.

    Examples:
        >>> pixels = PixelRange((-1.0,), (1.0,))
        >>> pixels.from_unit(np.array([0.0, 0.5, 1.0])), pixels.to_unit(np.array([0.0]))
        (array([-1.,  0.,  1.], dtype=float32), array([0.5], dtype=float32))
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, tuple(float(each) for each in getattr(self, name)))
        ends = np.array([self.low, self.high]) if len(self.low) == len(self.high) else np.zeros((2, 1))
        if not ends.size or not np.isfinite(ends).all() or (ends[0] == ends[1]).any():
            raise ValueError(
                f"input_range must be two different numbers for each channel. Received: {self.low} and {self.high}. "
                "Write (0, 1) for pixels in [0, 1]."
            )

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        *,
        input_range: tuple[float, float] | None = None,
        scaling: str | Scaling | None = None,
    ) -> "PixelRange":
        """Returns the range that is given, that a scaling leads to, or that samples lie in: [0, 1], [-1, 1] or [0, 255].

        Args:
            x: samples as the model takes them.
            input_range: the lowest and the highest value. Default: None.
            scaling: of pixels, as ``data.resolve_scaling`` takes it. Default: None.

        Raises:
            ValueError: nothing says it, or samples lie outside of ``input_range``.

        Examples:
            >>> print(PixelRange.of(np.array([0.0, 0.9])))
            0 to 1
            >>> print(PixelRange.of(np.array([0.0]), scaling="mean=127.5;std=127.5"))
            -1 to 1
        """
        lowest, highest = float(np.min(x)), float(np.max(x))
        if input_range is not None:
            low, high = input_range
            if lowest < min(low, high) or highest > max(low, high):
                raise ValueError(
                    f"input_range must hold every sample. Received: {low:g} to {high:g}, and samples from {lowest:g} to "
                    f"{highest:g}."
                )
            return cls((low,), (high,))
        resolved = resolve_scaling(scaling)
        if resolved is not None:
            channels = x.shape[-1] if isinstance(resolved, Scaling) or resolved.startswith("imagenet") else 1
            ends = scale(np.repeat(_PIXELS[:, None], channels, axis=1), resolved)  # (2, channels)
            one = len(np.unique(ends, axis=1).T) == 1
            return cls(tuple(ends[0][:1] if one else ends[0]), tuple(ends[1][:1] if one else ends[1]))
        for low, high in _KNOWN:
            if low <= lowest and highest <= high:
                return cls((low,), (high,))
        raise ValueError(
            f"The lowest and the highest value of a pixel must be known. Received: samples from {lowest:g} to "
            f"{highest:g}. Give input_range (--input_range=LOW,HIGH), or the scaling of 8-bit pixels."
        )

    def to_unit(self, x: np.ndarray) -> np.ndarray:
        """Returns inputs (..., channels) as values in [0, 1], float32."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        return np.clip((x.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)

    def from_unit(self, pictures: Any) -> Any:
        """Returns values in [0, 1] as the model's input; arrays become float32, tensors stay tensors."""
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        return low + pictures * (high - low) if not isinstance(pictures, np.ndarray) else self._of_array(pictures)

    def _of_array(self, pictures: np.ndarray) -> np.ndarray:
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        return (low + pictures.astype(np.float64) * (high - low)).astype(np.float32)

    def __str__(self) -> str:
        low, high = (", ".join(f"{each:.4g}" for each in ends) for ends in (self.low, self.high))
        return f"{low} to {high}"
