"""Compares two .tflite files: ``python tools/compare.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tfcompress.cli import run

if __name__ == "__main__":
    sys.exit(run("compare", sys.argv[1:], program="compare.py"))
