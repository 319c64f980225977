"""Which weights and channels go, when, and how does the model get smaller?

In: a Keras model in ``fit``. Out: the same model with zeros by a schedule, few distinct values or removed channels; it stays
plain.
"""

from typing import TYPE_CHECKING

from ..system.lazy import lazy_exports

if TYPE_CHECKING:
    from .channel_pruning import ChannelPruning as ChannelPruning
    from .channel_removal import latency_ratio as latency_ratio
    from .channel_removal import remove_channels as remove_channels
    from .l1_penalty import L1Penalty as L1Penalty
    from .magnitude_pruning import MagnitudePruning as MagnitudePruning
    from .weight_clustering import WeightClustering as WeightClustering
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "channel_pruning": ["ChannelPruning"],
            "channel_removal": ["latency_ratio", "remove_channels"],
            "l1_penalty": ["L1Penalty"],
            "magnitude_pruning": ["MagnitudePruning"],
            "weight_clustering": ["WeightClustering"],
        },
    )
