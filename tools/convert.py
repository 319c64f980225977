"""Makes a .tflite file from a Keras model: ``python tools/convert.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tfcompress.cli import run

if __name__ == "__main__":
    sys.exit(run("convert", sys.argv[1:], program="convert.py"))
