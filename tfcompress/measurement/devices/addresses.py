"""Which device does a name such as ``ssh://pi@raspberrypi.local`` mean?

Names become values here, once; ``opening`` turns the values into devices. Nothing here opens a connection.
"""

import dataclasses
import difflib
import re
from urllib.parse import unquote, urlsplit

__all__ = ["ETHOS_U", "Adb", "Address", "EthosU", "Local", "Ssh", "Tflm", "parse"]

ETHOS_U = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
"""Arm's Ethos-U processors by their multiply-adds per cycle, as ``ethos-u-vela`` 5.2 names them."""

KNOWN = ("local", "ssh://user@host", "adb://", "adb://serial", "tflm", *ETHOS_U)
# A client reads a name that starts with a minus as an option, and a shell reads other signs in its own way.
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%+-]*")
MOST_PORTS = 65535


@dataclasses.dataclass(frozen=True)
class Local:
    """This machine."""

    def __str__(self) -> str:
        return "local"


@dataclasses.dataclass(frozen=True)
class Ssh:
    """A machine that a SSH client reaches.

    Attributes:
        host: name, address, or a ``Host`` of the user's own SSH configuration.
        user: None leaves it to that configuration. Default: None.
        port: likewise. Default: None.

    Examples:
        >>> print(Ssh("raspberrypi.local", user="pi"))
        ssh://pi@raspberrypi.local
    """

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


@dataclasses.dataclass(frozen=True)
class Adb:
    """A phone that the Android debug bridge reaches.

    Attributes:
        serial: which of several, as ``adb devices`` lists them. Default: None, the only one.
    """

    serial: str | None = None

    def __str__(self) -> str:
        return f"adb://{self.serial or ''}"


@dataclasses.dataclass(frozen=True)
class Tflm:
    """TensorFlow Lite Micro's interpreter on this machine."""

    def __str__(self) -> str:
        return "tflm"


@dataclasses.dataclass(frozen=True)
class EthosU:
    """Arm's compiler for one of its Ethos-U processors.

    Attributes:
        processor: one of ``ETHOS_U``.
    """

    processor: str

    def __str__(self) -> str:
        return self.processor


Address = Local | Ssh | Adb | Tflm | EthosU


def parse(name: str) -> Address:
    """Returns which device a name means.

    Args:
        name: "local", "ssh://user@host:port" (user and port may be left out), "adb://" for the only phone, "adb://serial",
            "tflm", or an Ethos-U such as "ethos-u55-128".

    Raises:
        ValueError: the name has another form.

    Examples:
        >>> parse("ssh://pi@192.168.0.7:2222")
        Ssh(host='192.168.0.7', user='pi', port=2222)
        >>> parse("ethos-u55-127")
        Traceback (most recent call last):
        ...
        ValueError: device must be one of: local, ssh://user@host, ... Did you mean 'ethos-u55-128'?
    """
    if name == "local":
        return Local()
    if name == "tflm":
        return Tflm()
    if name in ETHOS_U:
        return EthosU(name)
    if name.startswith("ssh://"):
        return _ssh(name)
    if name.startswith("adb://"):
        serial = name.removeprefix("adb://").rstrip("/")
        if serial and not PLAIN.fullmatch(serial):
            raise ValueError(f"A phone is named adb://SERIAL, as 'adb devices' lists it. Received: device={name!r}.")
        return Adb(serial or None)
    nearest = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"device must be one of: {', '.join(KNOWN)}. Received: device={name!r}.{hint}")


def _ssh(name: str) -> Ssh:
    wrong = f"A board is named ssh://user@host:port, where user and port may be left out. Received: device={name!r}."
    if not (
        name.isascii() and name.isprintable()
    ):  # urlsplit leaves line breaks out: another host than the one that is read
        raise ValueError(wrong)
    try:
        parts = urlsplit(name)
        port = parts.port
    except ValueError as error:
        raise ValueError(wrong) from error
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.password is not None or port == 0:
        raise ValueError(f"{wrong} Keys and passwords belong to ssh's own configuration.")
    # The host as written: urlsplit has it in lower case, and a Host of the configuration is told by its case.
    host = parts.netloc.rpartition("@")[2].removesuffix(f":{port}").removeprefix("[").removesuffix("]")
    user = unquote(parts.username) if parts.username else None
    if not PLAIN.fullmatch(host) or (user is not None and not PLAIN.fullmatch(user)):
        raise ValueError(wrong)
    return Ssh(host, user, port)
