"""How does a request reach a device elsewhere?

In: an address, or a channel of one's own. Out: a device behind ssh or adb, and what this package keeps on it.
"""

from typing import TYPE_CHECKING

from ....system.lazy import lazy_exports

if TYPE_CHECKING:
    from .adb import listed_phones as listed_phones
    from .board import Board as Board
    from .cache import DeviceCache as DeviceCache
    from .channel import Channel as Channel
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "adb": ["listed_phones"],
            "board": ["Board"],
            "cache": ["DeviceCache"],
            "channel": ["Channel"],
        },
    )
