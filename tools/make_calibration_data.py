"""Makes calibration_data/digits: samples of the training part of the digits, for calibration without labels.

python tools/make_calibration_data.py
"""

import io
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tfcompress.data import load_digits
from tfcompress.system import write_atomically

SAMPLES = 100
SEED = 0


def digits_samples() -> np.ndarray:
    """Returns the samples, shape (100, 8, 8, 1), float32 in [0, 1]."""
    train = load_digits(seed=SEED).x_train
    chosen = np.random.default_rng(SEED).choice(len(train), SAMPLES, replace=False)
    return train[np.sort(chosen)]


def main() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=digits_samples())
    path = write_atomically(ROOT / "calibration_data" / "digits" / "digits.npz", buffer.getvalue(), overwrite=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
