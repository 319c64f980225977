"""Where are the boxes?

In: a picture's size and a detector's heads. Out: anchors, losses, and the boxes that non-maximum suppression leaves, in
NumPy and as an op of the file.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .anchors import anchor_grid as anchor_grid
    from .anchors import corners as corners
    from .anchors import decode as decode
    from .anchors import encode as encode
    from .anchors import map_shapes as map_shapes
    from .anchors import overlaps as overlaps
    from .losses import box_loss as box_loss
    from .losses import focal_loss as focal_loss
    from .non_max_suppression import Detections as Detections
    from .non_max_suppression import detect as detect
    from .non_max_suppression import suppress as suppress
    from .postprocessing import attach_detections as attach_detections
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "anchors": ["anchor_grid", "corners", "decode", "encode", "map_shapes", "overlaps"],
            "losses": ["box_loss", "focal_loss"],
            "non_max_suppression": ["Detections", "detect", "suppress"],
            "postprocessing": ["attach_detections"],
        },
    )
