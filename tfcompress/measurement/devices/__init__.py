"""Where does a file run while it is measured?

In: one request with its files. Out: one answer. ``on_device`` is what runs there, ``remote`` how one gets there, ``modelled`` are
processors that are computed instead of run; ``local`` is this machine.
"""

from typing import TYPE_CHECKING

from ...system.lazy import lazy_exports

if TYPE_CHECKING:
    from .device import AnsweringDevice as AnsweringDevice
    from .device import Device as Device
    from .device import Request as Request
    from .local import LocalDevice as LocalDevice
    from .opening import open_cache as open_cache
    from .opening import open_device as open_device
    from .opening import resolve as resolve

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "device": ["AnsweringDevice", "Device", "Request"],
        "local": ["LocalDevice"],
        "opening": ["open_cache", "open_device", "resolve"],
    },
)
