"""How is a file measured on a machine with a shell and Python? Push its files and the agent, run it, pull the results.

The agent travels as one zip archive that Python runs as it is: NumPy and LiteRT are all that it imports besides.
``agent.MODULES`` says what it holds, ``deployment`` is where it starts.
"""

import functools
import io
import shlex
import tempfile
import threading
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ....errors import DeviceError
from ..device import Request
from ..on_device.agent import MODULES
from ..protocol import Ended, Exchange, checked_answer
from . import environments
from .cache import RemoteDevice, sha256_of
from .channel import Channel

__all__ = ["Board", "agent_archive", "agent_sources"]

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
PACKAGE = Path(__file__).resolve().parents[3]
START = "from tfcompress.measurement.devices.on_device.deployment import main\n\nmain()\n"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # a zip archive knows no earlier time; a fixed one gives equal bytes
DEPLOYMENT = "measurement/devices/on_device/deployment.py"
PACKAGE_DOC = '"""The part of tfcompress that runs on a board."""\n'


class Board(RemoteDevice):
    """A device behind a channel, with Python and LiteRT on it.

    Args:
        channel: the way there.
        install: whether a missing Python environment is made there. Default: False.
        timeout_seconds: after which a request without a sign of life is given up. Default: 3600.
        debug: lets the far end's standard error through. Default: False.

    Attributes:
        cache: what lies on the device.
    """

    def __init__(
        self, channel: Channel, *, install: bool = False, timeout_seconds: float | None = None, debug: bool = False
    ):
        super().__init__(channel, timeout_seconds=timeout_seconds)
        self._install = install
        self._debug = debug
        self._python = ""
        self._exchange: Exchange | None = None
        self._lock = threading.Lock()

    def answer(self, request: Request) -> dict[str, Any]:
        """Returns the agent's answer to one request, with what the device says of itself.

        Args:
            request: what is asked for.

        Raises:
            DeviceError: the device is out of reach, lacks what the agent needs, is full, or gave no answer.
            TfcompressError: what the agent raised.
        """
        cache = self.cache
        if not self._python or not cache.is_there:  # an environment is cleared with the cache
            self._python = self._find_python()
        sent = {key: sha256_of(path) for key, path in request.files.items()}
        paths = {key: cache.place(path, sent[key]) for key, path in request.files.items()}
        paths |= {key: f"{cache.job}/{key}{path.suffix}" for key, path in request.results.items()}
        runner = self._place_archive()
        script = f"cd {shlex.quote(cache.job)} && {shlex.quote(self._python)} {shlex.quote(runner)}"
        with self._lock:
            self._exchange = self._channel.exchange(script, {**request.settings, "paths": paths}, debug=self._debug)
        try:
            reply, ended = self._exchange.answer(timeout_seconds=self._timeout_seconds, progress=request.progress)
        finally:
            self._exchange = None
        if reply is None:
            raise DeviceError(self._explain(ended))
        models = {key: digest for key, digest in sent.items() if key.startswith("model")}
        answer = checked_answer(reply, models, place=self.name)
        for key, path in request.results.items():
            self._channel.pull(paths[key], path)
        if "device" in answer:
            device = answer["device"]
            answer["device"] = {**device, "details": {**device.get("details", {}), **self._channel.details()}}
        return answer

    def interrupt(self) -> None:
        """Asks the request that runs to answer with what it has; from any thread."""
        with self._lock:
            if self._exchange is not None:
                self._exchange.interrupt()

    def _find_python(self) -> str:
        """Returns the Python on the device that has all the agent needs."""
        found = environments.find(self._channel, self.cache.folder)
        if self._install and not any(python.is_fit for python in found):
            environments.make(self._channel, self.cache.folder, found)
            found = environments.find(self._channel, self.cache.folder)
        for python in found:
            if python.is_fit:
                return python.path
        raise DeviceError(environments.describe(self._channel, self.cache.folder, found))

    def _place_archive(self) -> str:
        with tempfile.TemporaryDirectory(prefix="tfcompress-") as folder:
            path = Path(folder) / "agent.zip"
            path.write_bytes(agent_archive())
            return self.cache.place(path)

    def _explain(self, ended: Ended) -> str:
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


def agent_sources() -> dict[str, str]:
    """Returns the source of every file in the archive by its name.

    Examples:
        >>> sorted(agent_sources())[:2]
        ['__main__.py', 'tfcompress/__init__.py']
    """
    names = sorted({*MODULES, DEPLOYMENT})
    sources = {f"tfcompress/{name}": (PACKAGE / name).read_text(encoding="utf-8") for name in names}
    # A package's own __init__ offers names of modules that a board does not get.
    folders = sorted({str(folder) for name in sources for folder in PurePosixPath(name).parents if folder.name})
    return {"__main__.py": START, **{f"{folder}/__init__.py": PACKAGE_DOC for folder in folders}, **sources}


@functools.cache
def agent_archive() -> bytes:
    """Returns the archive; the same sources give the same bytes.

    Examples:
        >>> agent_archive()[:2], agent_archive() == agent_archive()
        (b'PK', True)
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in agent_sources().items():
            archive.writestr(zipfile.ZipInfo(name, EARLIEST), source, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
