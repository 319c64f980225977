"""The front end of speech models: from samples of sound to the logarithm of a mel spectrogram, frame by frame.

One definition for training and for the device. It imports NumPy alone, so that this file can be copied to a board as it is;
what it computes is written out in ``log_mel`` for every other language. It stays outside of the model because TFLite has
the Fourier transform (RFFT2D) in float only and microcontrollers' interpreters have none: the model itself then is
integer from end to end, on any target. Reading and resampling sound files is not done here.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["LogMel"]

_HIGHEST_16_BIT = 32_768
_MEL_FACTOR, _MEL_CORNER_HZ = 1127.0, 700.0  # of the formula by O'Shaughnessy, as HTK uses it


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return _MEL_FACTOR * np.log1p(np.asarray(hertz, np.float64) / _MEL_CORNER_HZ)


@dataclass(frozen=True)
class LogMel:
    """The settings of a front end, and the front end: call it with samples.

    For frame t = 0, 1, ... and band b, with s the samples in [-1, 1), N ``frame_length`` and H ``hop_length``:

    window[n] = 0.5 - 0.5 cos(2 pi n / N), for n = 0 .. N - 1 (periodic Hann)
    power[t, k] = |sum over n of window[n] s[t H + n] exp(-2 pi i k n / N)|**2, for k = 0 .. N / 2
    energy[t, b] = sum over k of weights[k, b] power[t, k]
    log_mel[t, b] = ln(energy[t, b] + ``floor``)

    ``weights`` are triangles on the scale mel(f) = 1127 ln(1 + f / 700): ``bands`` + 2 points at equal distances in mel
    from ``lowest_hz`` to ``highest_hz`` are the left ends, tops and right ends; bin k has f = k rate / N, and bin 0 is
    left out. Frames that would reach beyond the last sample do not exist. All is float32, but for the constants, which
    are computed in float64 and rounded once.

    Args:
        rate: samples per second. Default: 8000.
        frame_length: samples of a frame, N; even. Default: 256, 32 ms.
        hop_length: samples from one frame to the next, H. Default: 160, 20 ms.
        bands: number of triangles. Default: 20.
        lowest_hz: left end of the first triangle. Default: 60.
        highest_hz: right end of the last, at most half of ``rate``. Default: 3800.
        floor: added to every energy: what silence is. Default: 1e-4.

    Raises:
        ValueError: a number is out of range, or a band lies between two bins.

    Examples:
        >>> front_end = LogMel()
        >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
        >>> features = front_end(tone)
        >>> features.shape, features.dtype, int(features[0].argmax())
        ((49, 20), dtype('float32'), 9)

    Source: Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition in
    continuously spoken sentences", 1980, https://doi.org/10.1109/TASSP.1980.1163420; O'Shaughnessy, "Speech
    communication", 1987 (the scale). We stop before the cosine transform.
    """

    rate: int = 8000
    frame_length: int = 256
    hop_length: int = 160
    bands: int = 20
    lowest_hz: float = 60.0
    highest_hz: float = 3800.0
    floor: float = 1e-4

    def __post_init__(self) -> None:
        for name, is_sound, rule in (
            ("rate", self.rate > 0, "above 0"),
            ("frame_length", self.frame_length > 1 and self.frame_length % 2 == 0, "even and above 1"),
            ("hop_length", self.hop_length > 0, "above 0"),
            ("bands", self.bands > 0, "above 0"),
            ("lowest_hz", 0 <= self.lowest_hz < self.highest_hz, "from 0 up and below highest_hz"),
            ("highest_hz", self.highest_hz <= self.rate / 2, "at most half of rate"),
            ("floor", self.floor > 0, "above 0"),
        ):
            if not is_sound:
                raise ValueError(f"{name} must be {rule}. Received: {name}={getattr(self, name)!r}.")
        empty = np.flatnonzero(~self.weights.any(axis=0))
        if len(empty):
            raise ValueError(
                f"Every band needs a bin of {self.rate / self.frame_length:.1f} Hz. Received: {self.bands} bands, of which "
                f"number {empty[0]} has none. Take fewer bands or longer frames."
            )

    @cached_property
    def window(self) -> np.ndarray:
        """The periodic Hann window, (frame_length,) float32."""
        n = np.arange(self.frame_length)
        return (0.5 - 0.5 * np.cos(2 * np.pi * n / self.frame_length)).astype(np.float32)

    @cached_property
    def weights(self) -> np.ndarray:
        """The triangles, (frame_length / 2 + 1, bands) float32 in [0, 1]."""
        bins = _mel(np.arange(1, self.frame_length // 2 + 1) * self.rate / self.frame_length)[:, None]
        points = np.linspace(_mel(self.lowest_hz), _mel(self.highest_hz), self.bands + 2)
        left, top, right = points[:-2], points[1:-1], points[2:]
        triangles = np.maximum(0, np.minimum((bins - left) / (top - left), (right - bins) / (right - top)))
        return np.concatenate([np.zeros((1, self.bands)), triangles]).astype(np.float32)

    def frames(self, samples: int) -> int:
        """Returns how many frames lie within so many samples.

        Examples:
            >>> LogMel().frames(8000)
            49
        """
        return max(0, 1 + (samples - self.frame_length) // self.hop_length)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        """Returns the features, (..., frames, bands) float32.

        Args:
            sound: (..., samples), float in [-1, 1) or int16, which is divided by 32768.

        Raises:
            ValueError: fewer samples than one frame, or another dtype.
        """
        sound = np.asarray(sound)
        if sound.dtype == np.int16:
            sound = sound.astype(np.float32) / np.float32(_HIGHEST_16_BIT)
        elif sound.dtype.kind != "f":
            raise ValueError(f"sound must be float in [-1, 1) or int16. Received: {sound.dtype}.")
        if sound.ndim < 1 or not self.frames(sound.shape[-1]):
            raise ValueError(
                f"sound must have at least {self.frame_length} samples. Received: shape {sound.shape}. Add zeros behind it."
            )
        sound = sound.astype(np.float32, copy=False)
        windows = np.lib.stride_tricks.sliding_window_view(sound, self.frame_length, axis=-1)
        spectrum = np.fft.rfft(windows[..., :: self.hop_length, :] * self.window, axis=-1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        return np.log(power.astype(np.float32) @ self.weights + np.float32(self.floor))
