"""Where does a file run while it is measured?

In: a device's name, then requests with their files. Out: a ``Device``, then its answers. ``local`` is this machine,
``remote`` how one gets to another, ``on_device`` what runs on either, ``modelled`` processors that are computed instead of run.

A new kind of device: its name in ``addresses.parse``, its branch in ``opening.resolve``, and a subclass of ``AnsweringDevice`` that
answers one request. One that can copy files and run a shell needs a ``Channel`` only.
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
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "device": ["AnsweringDevice", "Device", "Request"],
            "local": ["LocalDevice"],
            "opening": ["open_cache", "open_device", "resolve"],
        },
    )
