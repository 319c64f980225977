"""How far is a detector's answer from what its anchors should say? The losses of boxes and of classes.

Both are means over the anchors that have a box, so that pictures with few objects count like those with many; what the
anchors should say comes from ``anchors.targets``.
"""

from typing import Any

import keras
from keras import ops

__all__ = ["box_loss", "focal_loss"]

SHARE_OF_OBJECTS, FOCUS = 0.25, 2.0  # alpha and gamma of the paper


@keras.saving.register_keras_serializable("tfcompress")
def box_loss(targets: Any, codes: Any) -> Any:
    """Returns the smooth L1 distance of the codes, summed over the four, as a mean over the anchors with a box.

    With a difference d of one code: d^2 / 2 where |d| < 1, else |d| - 1/2.

    Source: Girshick, "Fast R-CNN", 2015, https://arxiv.org/abs/1504.08083.

    Args:
        targets: (n, anchors, 5), codes and 1 where there is a box, else 0.
        codes: (n, anchors, 4).

    Examples:
        >>> import numpy as np
        >>> float(box_loss(np.array([[[0.0, 0, 0, 0, 1], [9, 9, 9, 9, 0]]], "float32"), np.full((1, 2, 4), 0.5, "float32")))
        0.5
    """
    weight = targets[..., 4]
    distance = ops.abs(codes - targets[..., :4])
    each = ops.sum(ops.where(distance < 1, 0.5 * ops.square(distance), distance - 0.5), axis=-1)
    return ops.sum(each * weight) / ops.maximum(ops.sum(weight), 1)


@keras.saving.register_keras_serializable("tfcompress")
def focal_loss(targets: Any, logits: Any) -> Any:
    """Returns the focal loss of the classes, summed over classes and anchors and divided by the number of objects' ones.

    With p the sigmoid of a logit, or 1 minus it where the target is 0: -a (1 - p)^2 log p, a = 0.25 where the target is 1,
    0.75 where it is 0. Undecided anchors (-1) count nothing.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, https://arxiv.org/abs/1708.02002.

    Args:
        targets: (n, anchors, classes): 1, 0, or -1 for undecided.
        logits: (n, anchors, classes).

    Examples:
        >>> import numpy as np
        >>> round(float(focal_loss(np.array([[[1.0], [-1.0]]], "float32"), np.zeros((1, 2, 1), "float32"))), 4)
        0.0433
    """
    is_object = ops.cast(targets > 0.5, logits.dtype)
    decided = ops.cast(targets > -0.5, logits.dtype)
    signed = ops.where(targets > 0.5, logits, -logits)
    cross_entropy = ops.softplus(-signed)  # -log p
    weight = is_object * SHARE_OF_OBJECTS + (1 - is_object) * (1 - SHARE_OF_OBJECTS)
    each = weight * ops.power(ops.sigmoid(-signed), FOCUS) * cross_entropy * decided
    return ops.sum(each) / ops.maximum(ops.sum(is_object), 1)
