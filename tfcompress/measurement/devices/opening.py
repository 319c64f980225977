"""How does a device's name become a device that can be measured on, and is closed afterwards?

``addresses`` reads the name. Modules of far devices are loaded only when one is named.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...system import Sandbox
from ..options import ConnectionOptions
from .addresses import Adb, EthosU, Local, Ssh, Tflm, parse
from .device import Device
from .local import LocalDevice

if TYPE_CHECKING:
    from .remote.cache import DeviceCache

__all__ = ["open_cache", "open_device", "resolve", "same_machine"]


def resolve(
    name: str,
    *,
    install: bool = False,
    benchmark_model: str | os.PathLike | None = None,
    timeout_seconds: float | None = None,
    sandbox: Sandbox | None = None,
    debug: bool = False,
) -> Any:
    """Returns the device of a name; no connection is made before its first use.

    Args:
        name: as ``addresses.parse`` takes it.
        install: whether a missing Python environment is made on a board. Default: False.
        benchmark_model: path of a ``benchmark_model`` for the phone's processor; it then measures there. Default: None.
        timeout_seconds: after which a device that gives no sign of life is given up. Default: an hour.
        sandbox: what the process may reach that runs files on this machine. Default: None, everything.
        debug: lets the far end's own lines through. Default: False.

    Raises:
        ValueError: the name is unknown, or the device has no use for ``benchmark_model``.

    Examples:
        >>> resolve("ssh://pi@raspberrypi.local").name
        'ssh://pi@raspberrypi.local'
    """
    address = parse(name)
    if benchmark_model is not None and not isinstance(address, Adb):
        raise ValueError(f"benchmark_model runs on Android phones (adb://). Received: device={name!r}.")
    settings: dict[str, Any] = {"timeout_seconds": timeout_seconds, "debug": debug}
    if isinstance(address, Local):
        return LocalDevice(sandbox=sandbox, timeout_seconds=timeout_seconds)
    if isinstance(address, Ssh):
        from .remote.board import Board
        from .remote.ssh import SshChannel

        return Board(SshChannel(address), install=install, **settings)
    if isinstance(address, Adb):
        from .remote.adb import AdbChannel
        from .remote.benchmark_model import BenchmarkModel
        from .remote.board import Board

        if benchmark_model is not None:
            return BenchmarkModel(address, Path(benchmark_model), **settings)
        return Board(AdbChannel(address), **settings)
    if isinstance(address, Tflm):
        from .modelled.tflm import TflmDevice

        return TflmDevice(**settings)
    assert isinstance(address, EthosU)
    from .modelled.ethos_u import EthosUDevice

    return EthosUDevice(address.processor, **settings)


def same_machine(name: str) -> str:
    """Returns a key that two names share if their devices are one machine, which then measures one after the other.

    Examples:
        >>> same_machine("tflm") == same_machine("local"), same_machine("ssh://a") == same_machine("ssh://b")
        (True, False)
    """
    address = parse(name)
    if isinstance(address, Ssh):
        return f"ssh {address.host.lower()} {address.port or ''}"
    return str(address) if isinstance(address, Adb) else "local"


@contextlib.contextmanager
def open_device(
    device: str | Device, *, connection: ConnectionOptions | None = None, debug: bool = False
) -> Iterator[tuple[Device, str]]:
    """Gives a device with the key of its machine; one that was named is closed after the block.

    Args:
        device: a name, or a device.
        connection: how it is prepared and waited for. Default: ``ConnectionOptions()``.
        debug: lets the far end's own lines through. Default: False.

    Raises:
        ValueError: the name is unknown.

    Examples:
        >>> with open_device("local") as (device, machine):
        ...     print(device.name, device.kind, machine)
        local measured local
    """
    if not isinstance(device, str):
        yield device, device.name
        return
    options = connection or ConnectionOptions()
    if parse(device) == Local():  # beside others it is a device too, and has no use for benchmark_model
        opened: Any = LocalDevice(sandbox=options.sandbox, timeout_seconds=options.timeout_seconds)
    else:
        opened = resolve(
            device,
            install=options.install,
            benchmark_model=options.benchmark_model,
            timeout_seconds=options.timeout_seconds,
            sandbox=options.sandbox,
            debug=debug,
        )
    with contextlib.closing(opened):
        yield opened, same_machine(device)


@contextlib.contextmanager
def open_cache(name: str) -> "Iterator[DeviceCache]":
    """Gives the cache of a board or phone, to list or clear it; needs no Python there.

    Args:
        name: of a board or a phone.

    Raises:
        ValueError: the name is unknown, or the device keeps no files.

    Examples:
        >>> with open_cache("local"):
        ...     pass
        Traceback (most recent call last):
        ...
        ValueError: Boards (ssh://) and phones (adb://) keep files. Received: device='local'.
    """
    from .remote.adb import AdbChannel
    from .remote.cache import DeviceCache
    from .remote.channel import Channel
    from .remote.ssh import SshChannel

    address = parse(name)
    channel: Channel
    if isinstance(address, Ssh):
        channel = SshChannel(address)
    elif isinstance(address, Adb):
        channel = AdbChannel(address)
    else:
        raise ValueError(  # noqa: TRY004 - a name, not a type
            f"Boards (ssh://) and phones (adb://) keep files. Received: device={name!r}."
        )
    with contextlib.closing(DeviceCache(channel)) as cache:
        yield cache
