"""The seam between what is measured and where: a device takes one request with its files and returns one answer.

``agent`` answers requests; its first lines say what they hold. ``local`` runs it in a child process, other devices carry
it to where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Device", "Progress"]

Progress = Callable[[int, int], None]


class Device(Protocol):
    """Something that runs ``.tflite`` files. An object of your own with these members is a device too.

    Attributes:
        name: as the record shows it: "local", "ssh://pi@board".
        kind: what its times are: "measured", "modelled" or "emulated".
    """

    name: str
    kind: str

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
