"""How a model is measured on a machine with a shell: push its files, run the agent, pull the results.

``channel`` is the way there. Files lie in a cache folder there under their
SHA-256, so that a second run sends nothing; each run has a folder of its own, which goes at the end.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shlex
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import DeviceError
from . import archive, environments
from .channel import Channel
from .protocol import Conversation, Ended, Progress, checked_answer

__all__ = ["Board", "CachedFile", "sha256_of"]

TIMEOUT_SECONDS = 3600.0
BLOCK = 1 << 20
SIGNALS = {
    129: "SIGHUP",
    130: "SIGINT",
    134: "SIGABRT",
    135: "SIGBUS",
    136: "SIGFPE",
    137: "SIGKILL",
    139: "SIGSEGV",
    143: "SIGTERM",
}
FULL = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)


class CachedFile(NamedTuple):
    """A file in a device's cache.

    Attributes:
        sha256: what it holds, and its name.
        size_bytes: its size.
    """

    sha256: str
    size_bytes: int


class Board:
    """A device behind a channel, with Python and LiteRT on it.

    Args:
        channel: the way there.
        install: whether a missing Python environment is made there. Default: False.
        timeout_seconds: after which a request without a sign of life is given up. Default: 3600.
        debug: lets the far end's standard error through. Default: False.
    """

    def __init__(
        self, channel: Channel, *, install: bool = False, timeout_seconds: float | None = None, debug: bool = False
    ):
        self.kind = "measured"
        self.channel = channel
        self._install = install
        self._timeout_seconds = timeout_seconds or TIMEOUT_SECONDS
        self._debug = debug
        self._job = f"job-{secrets.token_hex(8)}"
        self._folder = ""
        self._python = ""
        self._present: set[str] = set()
        self._talk: Conversation | None = None
        self._digests: dict[Path, str] = {}
        self.kind = "measured"
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """How the device was asked for; a phone's serial is in it as soon as it is known."""
        return self.channel.name

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns the agent's answer to one request.

        Args:
            request: as ``agent`` takes it, without paths.
            files: local files by the key under which the request means them.
            results: where the files that the agent writes go, by key.
            progress: called with what is done and what is to do. Default: None.

        Raises:
            DeviceError: the device is out of reach, lacks what the agent needs, is full, or gave no answer.
            TfcompressError: what the agent raised.
        """
        self._prepare()
        sent = {key: sha256_of(path) for key, path in files.items()}
        paths = {key: self._place(path, sent[key]) for key, path in files.items()}
        paths |= {key: f"{self._folder}/{self._job}/{key}{path.suffix}" for key, path in results.items()}
        runner = self._place_archive()
        script = f"cd {shlex.quote(f'{self._folder}/{self._job}')} && {shlex.quote(self._python)} {shlex.quote(runner)}"
        with self._lock:
            self._talk = self.channel.converse(script, {**request, "paths": paths}, debug=self._debug)
        try:
            answer, ended = self._talk.answer(timeout_seconds=self._timeout_seconds, progress=progress)
        finally:
            self._talk = None
        if answer is None:
            raise DeviceError(self._obituary(ended))
        models = {key: digest for key, digest in sent.items() if key.startswith("model")}
        answer = checked_answer(answer, models, place=self.name)
        for key, path in results.items():
            self.channel.pull(paths[key], path)
        return answer

    def interrupt(self) -> None:
        """Asks the request that runs to answer with what it has; from any thread."""
        with self._lock:
            if self._talk is not None:
                self._talk.interrupt()

    def close(self) -> None:
        """Removes the job's folder there and ends the channel; safe to call twice."""
        try:
            if self._folder:
                with contextlib.suppress(DeviceError):  # a device that is gone keeps nothing that a process would use
                    self.channel.run(f"rm -rf {shlex.quote(f'{self._folder}/{self._job}')}")
                self._folder = ""
        finally:
            self.channel.close()

    def cached(self) -> list[CachedFile]:
        """Returns the files in the device's cache, the largest first."""
        listing = self._checked(f"cd {self.channel.cache}/files 2>/dev/null && wc -c * 2>/dev/null; true")
        rows = re.findall(r"^\s*(\d+) ([0-9a-f]{64})$", listing.text.replace("\r", ""), re.MULTILINE)
        return sorted((CachedFile(name, int(size)) for size, name in rows), key=lambda file: -file.size_bytes)

    def clear(self) -> None:
        """Removes everything that this package has left on the device: cached files, environments, jobs."""
        self._checked(f"rm -rf {self.channel.cache}")
        self._folder, self._present = "", set()

    @property
    def job(self) -> str:
        """The folder there that goes at the end."""
        self._prepare(with_python=False)
        return f"{self._folder}/{self._job}"

    def place(self, path: Path) -> str:
        """Returns where a local file lies there, having sent it unless it was there."""
        self._prepare(with_python=False)
        return self._place(path, self.sha256(path))

    def sha256(self, path: Path) -> str:
        """Returns the SHA-256 of a local file; computed once."""
        if path not in self._digests:
            self._digests[path] = sha256_of(path)
        return self._digests[path]

    def _checked(self, script: str) -> Ended:
        ended = self.channel.run(script)
        if ended.code != 0:
            raise DeviceError(f"{self.name} could not run a shell command: {self._reason(ended)}.")
        return ended

    def _reason(self, ended: Ended) -> str:
        if FULL.search(ended.said):
            return f"its disk is full (No space left on device). Free space there, or clear the cache: tfcompress devices --device={self.name} --clear"
        return ended.last_words if ended.code is not None else "no answer in time"

    def _prepare(self, *, with_python: bool = True) -> None:
        """Makes the folders and finds Python there, once."""
        if not self._folder:
            self._make_folders()
        if with_python and not self._python:
            self._python = self._find_python()

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
        self._python = self._find_python()

    def _find_python(self) -> str:
        """Returns the Python on the device that has all the agent needs."""
        found = environments.find(self.channel, self._folder)
        if self._install and not any(python.is_fit for python in found):
            environments.make(self.channel, self._folder, found)
            found = environments.find(self.channel, self._folder)
        for python in found:
            if python.is_fit:
                return python.path
        raise DeviceError(environments.describe(self.channel, self._folder, found))

    def _place_archive(self) -> str:
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            path = Path(folder) / "agent.zip"
            path.write_bytes(archive.build())
            return self._place(path, archive.sha256())

    def _place(self, path: Path, digest: str) -> str:
        """Returns where the file lies on the device, having sent it unless it was there."""
        place = f"{self._folder}/files/{digest}"
        if digest in self._present:
            return place
        partial = f"{self._folder}/{self._job}/{digest}"
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

    def _full(self, said: str) -> str:
        ended = Ended(1, b"", said)
        return self._reason(ended) + "."

    def _obituary(self, ended: Ended) -> str:
        """Returns the one line for an agent that left no answer."""
        if ended.code is None:
            return (
                f"{self.name} must answer within {self._timeout_seconds:g} s. Received: nothing. The model may be too slow "
                "for this device: fewer runs, or a longer --timeout_seconds."
            )
        if ended.code in SIGNALS:
            return (
                f"The process that measured on {self.name} was ended by {SIGNALS[ended.code]}. The memory may be too "
                "small there, or the file damaged: use a smaller model, or convert it again."
            )
        if ended.code in (0, 255):
            return (
                f"The connection to {self.name} was lost in the middle of a run ({ended.last_words}). Nothing of it "
                "counts: check the device and run it again."
            )
        return f"The process that measured on {self.name} gave no answer (exit code {ended.code}): {ended.last_words}."


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
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
