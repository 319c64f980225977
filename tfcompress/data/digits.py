"""Which handwritten digits does the demo learn, and which are held back?

The 1,797 pictures of 8 x 8 pixels that scikit-learn brings along, so that nothing is downloaded. Only the split is made
here; the network and its training belong to the demo.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Digits", "load_digits"]

_HELD_BACK = 540
_BRIGHTEST = 16  # the pictures count ink in 4 x 4 blocks of the scanned 32 x 32 bitmap


@dataclass(frozen=True, eq=False, repr=False)
class Digits:
    """Handwritten digits, split into a part to learn from and a part that is held back.

    Attributes:
        x_train: shape (1257, 8, 8, 1), float32 in [0, 1], 1 is ink.
        y_train: shape (1257,), int64 in 0..9.
        x_test: shape (540, 8, 8, 1), as ``x_train``.
        y_test: shape (540,), as ``y_train``.

    Raises:
        ValueError: pictures and labels differ in number.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __post_init__(self) -> None:
        for part, x, y in [("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)]:
            if len(x) != len(y):
                raise ValueError(
                    f"Each picture needs one label. Received: {len(x)} pictures and {len(y)} labels for {part}."
                )

    def __repr__(self) -> str:
        return f"Digits({len(self.y_train)} to train, {len(self.y_test)} to test)"


def load_digits(seed: int = 0) -> Digits:
    """Returns the digits of scikit-learn, split with the same share of each class in both parts.

    Reference: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998, https://doi.org/10.24432/C50P49. The test part is not UCI's own (which is all that scikit-learn ships).

    Args:
        seed: decides the split. Default: 0.

    Examples:
        >>> digits = load_digits()
        >>> digits
        Digits(1257 to train, 540 to test)
        >>> digits.x_test.shape, digits.x_test.dtype, float(digits.x_test.max())
        ((540, 8, 8, 1), dtype('float32'), 1.0)
    """
    from sklearn.datasets import load_digits as load_bundled  # lazily: only the demo needs scikit-learn
    from sklearn.model_selection import train_test_split

    bundled = load_bundled()
    x = (bundled.images / _BRIGHTEST).astype(np.float32)[..., None]  # (1797, 8, 8, 1)
    y = bundled.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=_HELD_BACK, random_state=seed, stratify=y)
    return Digits(x_train, y_train, x_test, y_test)
