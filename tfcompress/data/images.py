"""How does an encoded picture become a sample of a model's input?

Decodes, converts and resizes, one picture at a time. Which scaling the model was trained with
cannot be seen in a picture: the caller names it.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np

from ..errors import DataError, reason
from ..system import check_regular
from .scalings import Scaling, resolve_scaling, scale
from .specs import InputSpec

__all__ = ["ImageReader"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class ImageReader:
    """Decodes pictures into the shape of one input.

    A picture is converted to the input's number of channels (1 grey, 3 RGB, 4 RGBA; alpha is dropped, not blended) and
    resized to its height and width by Pillow's bilinear filter without keeping the aspect ratio; EXIF rotation is not
    applied, as in ``keras.utils.image_dataset_from_directory``. Of 16-bit pictures the upper 8 bits are kept, of
    animations the first frame.

    Attributes:
        spec: (batch, height, width, channels) or (batch, height, width); a dynamic height and width keep the
            picture's own size.
        scaling: a name of ``scalings.SCALINGS``, ``mean=R,G,B;std=R,G,B`` or a ``Scaling``; None is ``raw`` for an
            integer input and ``zero_one`` for a float one. Default: None.

    Raises:
        DataError: the input is not a picture, or scaled pixels are asked for an integer input.

    Examples:
        >>> ImageReader(InputSpec("image", (None, 8, 8, 1), np.float32)).scaling_name
        'zero_one'
    """

    spec: InputSpec
    scaling: str | Scaling | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scaling", resolve_scaling(self.scaling))
        shape = self.spec.shape[1:]
        is_picture = len(shape) in (2, 3) and (len(shape) == 2 or shape[2] in (None, *_MODES))
        if not is_picture or (shape[0] is None) != (shape[1] is None):
            raise DataError(
                "A folder of images needs an input of shape (batch, height, width, 1, 3 or 4). "
                f"Received: input {self.spec}. Pass a .npy or .npz file of samples instead."
            )
        if self.spec.dtype.kind in "iu" and self.scaling not in (None, "raw"):
            raise DataError(
                f"An integer input takes raw pixels. Received: scaling={self.scaling!r} for input {self.spec}. "
                "Leave scaling out."
            )

    @property
    def scaling_name(self) -> str | Scaling:
        """The scaling that is applied: the one asked for, or the default for the input's dtype."""
        return self.scaling or ("zero_one" if self.spec.dtype.kind == "f" else "raw")

    def read(self, path: Path | BinaryIO, *, place: str | None = None) -> np.ndarray:
        """Returns one picture, shape ``(1, *spec.shape[1:])``, uint8 when raw and float32 when scaled.

        Args:
            path: a file, or an open one.
            place: how messages name it. Default: its path.

        Raises:
            DataError: the file is missing, corrupt, or unpacks to more pixels than Pillow holds safe.
        """
        place = place or str(path)
        if isinstance(path, str | os.PathLike):
            check_regular(path, "A picture", DataError)
        pillow = _pillow()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", pillow.DecompressionBombWarning)
                with pillow.open(path) as image:
                    pixels = self._pixels(image, pillow)
        except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
            raise DataError(
                f"A picture must have at most {pillow.MAX_IMAGE_PIXELS} pixels. Received: {place}. Resize or remove it."
            ) from error
        except (
            Exception
        ) as error:  # broken files end Pillow in many ways: SyntaxError, struct.error, OverflowError, ...
            why = "not an image" if isinstance(error, pillow.UnidentifiedImageError) else reason(error)
            raise DataError(
                f"The picture must be readable. Received: {place} ({why}). Replace or remove it."
            ) from error
        return scale(pixels, self.scaling_name)[None]

    def _pixels(self, image, pillow: ModuleType) -> np.ndarray:
        height, width, *channels = self.spec.shape[1:]
        mode = _MODES[(channels[0] or 3) if channels else 1]
        if image.mode in _16_BIT:
            image = pillow.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("32-bit float pixels")
        elif "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow does not convert such palettes to RGB in one step
        if image.mode != mode:
            image = image.convert(mode)
        if height is not None and image.size != (width, height):
            image = image.resize((width, height), pillow.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[..., None] if channels and pixels.ndim == 2 else pixels


def _pillow() -> ModuleType:
    from PIL import Image  # lazily: the board that measures a model on arrays needs no Pillow

    return Image
