"""A phone with Python on it: a board behind adb that says more about itself.

Real phones have none; ``benchmark_model`` measures on those.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..addresses import Adb
from .adb import AdbChannel, phone_details
from .board import Board
from .protocol import Progress

__all__ = ["Phone"]


class Phone(Board):
    """A phone with Python and LiteRT.

    Args:
        address: which one.
        timeout_seconds: after which a request without a sign of life is given up. Default: 3600.
        debug: lets the far end's standard error through. Default: False.
    """

    channel: AdbChannel

    def __init__(self, address: Adb, *, timeout_seconds: float | None = None, debug: bool = False):
        super().__init__(AdbChannel(address), timeout_seconds=timeout_seconds, debug=debug)

    def run(
        self,
        request: Mapping[str, Any],
        files: Mapping[str, Path],
        results: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Returns the agent's answer to one request, with the phone's model, Android version, SoC, ABI and battery.

        Args:
            request: as ``agent`` takes it, without paths.
            files: local files by the key under which the request means them.
            results: where the files that the agent writes go, by key.
            progress: called with what is done and what is to do. Default: None.

        Raises:
            DeviceError: the phone is out of reach, lacks what the agent needs, is full, or gave no answer.
            TfcompressError: what the agent raised.
        """
        answer = super().run(request, files, results, progress=progress)
        if "device" in answer:
            device = answer["device"]
            answer["device"] = {**device, "details": {**device.get("details", {}), **phone_details(self.channel)}}
        return answer
