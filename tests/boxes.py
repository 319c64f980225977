"""Boxes and anchors that the tests of detectors share."""

import numpy as np

from tfcompress.detection.anchors import anchor_grid


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    center, size = rng.uniform(0.1, 0.9, (count, 2)), rng.uniform(0.02, 0.6, (count, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=1)


GRID = anchor_grid([(6, 8), (3, 4)], [[(0.1, 0.1), (0.2, 0.1)], [(0.4, 0.4), (0.3, 0.6), (0.6, 0.3)]])
