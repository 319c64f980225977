"""What must a way to a device be able to do? Push a file, run a script, pull a file, speak with an agent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..protocol import Ended, Exchange

__all__ = ["SHELL_SECONDS", "Channel"]

SHELL_SECONDS = 120.0


class Channel(Protocol):
    """What a way to a device can do; ``ssh`` and ``adb`` are two, a test may pass a third.

    Attributes:
        name: how the device was asked for.
        cache: a shell expression for the cache folder there.
        without_python: what to do about a device without Python, in place of the line that installs it; "" for that line.
    """

    name: str
    cache: str
    without_python: str

    def push(self, source: Path, destination: str) -> None:
        """Copies a local file there."""

    def run(self, script: str, *, timeout_seconds: float = SHELL_SECONDS) -> Ended:
        """Runs a POSIX shell script there to its end."""

    def pull(self, source: str, destination: Path) -> None:
        """Copies a file from there."""

    def exchange(self, script: str, request: Mapping[str, Any], *, debug: bool) -> Exchange:
        """Starts a script there that reads a request from its input and answers."""

    def details(self) -> Mapping[str, str]:
        """Returns what the device says about itself beyond what the agent finds, for the record."""

    def close(self) -> None:
        """Ends whatever the channel has started here."""

    def shell_line(self, command: str) -> str:
        """Returns what a user types on this machine to run a command there."""
