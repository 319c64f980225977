"""Models that compress well, to start from: plain functional Keras 3 models that end in logits, untrained.

``build`` makes one by name, ``MODELS`` has a row for each; ``tfcompress zoo`` prints them.
"""

from .registry import MODELS, Entry, build, find

__all__ = ["MODELS", "Entry", "build", "find"]
