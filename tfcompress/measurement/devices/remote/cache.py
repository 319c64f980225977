"""What does this package keep on a device? Files under their SHA-256, so that a second run sends nothing, and a job's folder.

``channel`` is the way there. Needs a shell on the device and no Python.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shlex
from pathlib import Path
from typing import NamedTuple

from ....errors import DeviceError
from ..device import TIMEOUT_SECONDS, AnsweringDevice
from ..protocol import Ended
from .channel import Channel

__all__ = ["CachedFile", "DeviceCache", "RemoteDevice", "sha256_of"]

FULL = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)


class CachedFile(NamedTuple):
    """A file in a device's cache.

    Attributes:
        sha256: what it holds, and its name.
        size_bytes: its size.
    """

    sha256: str
    size_bytes: int


class DeviceCache:
    """The cache folder of this package on a device, and a folder in it for one job, which goes at the end.

    Args:
        channel: the way there.

    Attributes:
        channel: the way there.
        kind: what times there are, "measured" or "emulated"; known once the folders are there.
    """

    def __init__(self, channel: Channel):
        self.channel = channel
        self.kind = "measured"
        self._job = f"job-{secrets.token_hex(8)}"
        self._folder = ""
        self._present: set[str] = set()

    @property
    def name(self) -> str:
        """How the device was asked for; a phone's serial is in it as soon as it is known."""
        return self.channel.name

    @property
    def is_there(self) -> bool:
        """Whether this object has made the folders and not cleared them."""
        return bool(self._folder)

    @property
    def folder(self) -> str:
        """The cache folder there, made at the first use.

        Raises:
            DeviceError: the device is out of reach or full.
        """
        if not self._folder:
            self._make_folders()
        return self._folder

    @property
    def job(self) -> str:
        """The folder there that goes at the end."""
        return f"{self.folder}/{self._job}"

    def place(self, path: Path, sha256: str | None = None) -> str:
        """Returns where a local file lies there, having sent it unless it was there.

        Args:
            path: the local file.
            sha256: its hash. Default: found by reading it.

        Raises:
            DeviceError: the device is out of reach or full.
        """
        digest = sha256 or sha256_of(path)
        place = f"{self.folder}/files/{digest}"
        if digest in self._present:
            return place
        partial = f"{self.job}/{digest}"
        try:
            self.channel.push(path, partial)
            ended = self.channel.run(f"sha256sum {shlex.quote(partial)}")
        except DeviceError as error:
            raise DeviceError(f"{self.name} did not take {path.name}: {self._full(str(error))}") from error
        if ended.text.split()[:1] != [digest]:
            self.channel.run(f"rm -f {shlex.quote(partial)}")
            size = os.path.getsize(path)
            raise DeviceError(f"{self.name} did not take {path.name} ({size} bytes) as it is: {self._full(ended.said)}")
        self._checked(f"mv {shlex.quote(partial)} {shlex.quote(place)}")
        self._present.add(digest)
        return place

    def cached(self) -> list[CachedFile]:
        """Returns the files in the device's cache, the largest first."""
        listing = self._checked(f"cd {self.channel.cache}/files 2>/dev/null && wc -c * 2>/dev/null; true")
        rows = re.findall(r"^\s*(\d+) ([0-9a-f]{64})$", listing.text.replace("\r", ""), re.MULTILINE)
        return sorted((CachedFile(name, int(size)) for size, name in rows), key=lambda file: -file.size_bytes)

    def clear(self) -> None:
        """Removes everything that this package has left on the device: cached files, environments, jobs."""
        self._checked(f"rm -rf {self.channel.cache}")
        self._folder, self._present = "", set()

    def close(self) -> None:
        """Removes the job's folder there and ends the channel; safe to call twice."""
        try:
            if self._folder:
                with contextlib.suppress(DeviceError):  # a device that is gone keeps nothing that a process would use
                    self.channel.run(f"rm -rf {shlex.quote(self.job)}")
                self._folder = ""
        finally:
            self.channel.close()

    def _checked(self, script: str) -> Ended:
        ended = self.channel.run(script)
        if ended.code != 0:
            raise DeviceError(f"{self.name} could not run a shell command: {self._reason(ended)}.")
        return ended

    def _reason(self, ended: Ended) -> str:
        if FULL.search(ended.said):
            return f"its disk is full (No space left on device). Free space there, or clear the cache: tfcompress devices --device={self.name} --clear"
        return ended.last_words if ended.code is not None else "no answer in time"

    def _make_folders(self) -> None:
        script = (
            f'cache={self.channel.cache} && mkdir -p "$cache/files" "$cache/{self._job}" && '
            f'cd "$cache" && echo "folder $(pwd)" && ls files | sed \'s/^/file /\'; '
            'echo "machine $(uname -m) $(cat /proc/sys/kernel/arch 2>/dev/null)"; [ -d files ]'
        )
        lines = self._checked(script).text.replace("\r", "").splitlines()
        self._folder = next((line[7:] for line in lines if line.startswith("folder ")), "")
        self._present = {line[5:] for line in lines if line.startswith("file ")}
        self.kind = next((kind_of(line) for line in lines if line.startswith("machine ")), self.kind)

    def _full(self, said: str) -> str:
        return f"{self._reason(Ended(1, b'', said))}."


class RemoteDevice(AnsweringDevice):
    """What devices behind a channel share: their names, what their times are, and that nothing of a job stays there.

    Args:
        channel: the way there.
        timeout_seconds: after which a request without a sign of life is given up. Default: 3600.

    Attributes:
        cache: what lies on the device.
    """

    def __init__(self, channel: Channel, *, timeout_seconds: float | None = None):
        self.cache = DeviceCache(channel)
        self._channel = channel
        self._timeout_seconds = timeout_seconds or TIMEOUT_SECONDS

    @property
    def name(self) -> str:
        """How the device was asked for; a phone's serial is in it as soon as it is known."""
        return self.cache.name

    @property
    def kind(self) -> str:
        """What its times are: "measured", or "emulated" where the processor there is; known after a request."""
        return self.cache.kind

    def close(self) -> None:
        """Removes the job's folder there and ends the channel; safe to call twice."""
        self.cache.close()


def kind_of(line: str) -> str:
    """Returns "emulated" where the kernel is one for another processor than programs see, else "measured".

    Args:
        line: "machine", what ``uname -m`` says, and what the kernel says of itself (Linux 6.1 and later).

    Examples:
        >>> kind_of("machine aarch64 aarch64"), kind_of("machine aarch64 x86_64"), kind_of("machine armv7l")
        ('measured', 'emulated', 'measured')
    """
    families = ["arm" if word.startswith(("arm", "aarch")) else word for word in line.split()[1:]]
    families = ["x86" if re.fullmatch(r"i\d86|x86_64", word) else word for word in families]
    return "emulated" if len(set(families)) > 1 else "measured"


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits.

    Examples:
        >>> sha256_of(Path("/dev/null"))[:8]
        'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
