"""What is between a measurement and the place where it is made? One request with its files goes in, one answer comes out.

``on_device.agent`` answers requests; its first lines say what they hold. ``local`` runs it in a child process, other devices
carry it to where they are.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

__all__ = ["TIMEOUT_SECONDS", "AnsweringDevice", "Device", "Progress", "Request"]

TIMEOUT_SECONDS = 3600.0  # after which a device that gives no sign of life is given up

Progress = Callable[[int, int], None]


class Device(Protocol):
    """Something that runs ``.tflite`` files. An object of your own with these members is a device too."""

    @property
    def name(self) -> str:
        """As the record shows it: "local", "ssh://pi@board"."""

    @property
    def kind(self) -> str:
        """What its times are: "measured", "modelled" or "emulated"."""

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns the answer to one request.

        Args:
            request: plain JSON values as ``agent`` takes them, without ``paths``.
            files: what the device needs, by key: "model", "inputs".
            results: where files of the device are to be fetched to afterwards, by key: "outputs".
            progress: called with (done, total) while samples are evaluated. Default: None.

        Raises:
            TfcompressError: the file cannot be opened, the device failed, or it has no such kind of request.
        """

    def interrupt(self) -> None:
        """Asks the running request, from another thread, to end early and to answer with what it has so far.

        In the main thread ``run`` does so by itself at the first Ctrl-C.
        """

    def close(self) -> None:
        """Ends what was started on the device."""


class Request(NamedTuple):
    """The arguments of ``Device.run`` as one value.

    Attributes:
        settings: plain JSON values as ``agent`` takes them, without ``paths``.
        files: what the device needs, by key.
        results: where files of the device go, by key.
        progress: called with (done, total). Default: None.

    Examples:
        >>> request = Request({"runs": 3}, {"model": Path("a/b.tflite")}, {})
        >>> request.kind, request.name
        ('latency', 'a/b.tflite')
    """

    settings: Mapping[str, Any]
    files: Mapping[str, Path]
    results: Mapping[str, Path]
    progress: Progress | None = None

    @property
    def kind(self) -> str:
        """What is asked for: "latency", "interleave", "outputs" or "profile"."""
        return str(self.settings.get("kind", "latency"))

    @property
    def model(self) -> Path:
        """The file of a request about one."""
        return self.files["model"]

    @property
    def name(self) -> str:
        """How messages call the file, or the files."""
        models = (str(path) for key, path in self.files.items() if key.startswith("model"))
        return self.settings.get("name") or ", ".join(models)


class AnsweringDevice(abc.ABC):
    """What this package's devices share: ``run``, and that there may be nothing to interrupt or to close.

    A device of its own defines ``name``, ``kind`` and ``answer``.
    """

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns the answer to one request: see ``Device.run``."""
        return self.answer(Request(request, files, results, progress))

    @abc.abstractmethod
    def answer(self, request: Request) -> dict[str, Any]:
        """Returns the answer to one request."""

    def interrupt(self) -> None:  # noqa: B027 - nothing to do is an answer
        """Asks for an early answer; does nothing where a request ends by itself within seconds."""

    def close(self) -> None:  # noqa: B027 - likewise
        """Ends what was started; does nothing where nothing outlives a request."""
