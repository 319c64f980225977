"""The way to a board: the stock OpenSSH client, with the user's own configuration, agent and known hosts.

One connection carries everything (``ControlMaster``); it ends with the channel. Nothing is asked at the terminal.
"""

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import DeviceError
from ..addresses import Ssh
from ..protocol import Ended, Exchange, command
from .channel import SHELL_SECONDS

__all__ = ["SshChannel", "client_command", "reason"]

CONNECT_SECONDS = 15
TRANSFER_SECONDS = 1800.0
KEEP_ALIVE = ("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3")
LINGER_SECONDS = 60  # of the shared connection, should this process be ended without a word
FAILED = 255
VARIABLE = "TFCOMPRESS_SSH"

REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one in known_hosts. If the board was set up anew, forget the old key: {forget}",
    ),
    ("Host key verification failed", "its host key is not in known_hosts yet. Log in by hand once: {login}"),
    ("Permission denied", "it accepts none of your keys ({said}). Bring one there: {copy}"),
    ("Too many authentication failures", "it accepts none of your keys ({said}). Bring one there: {copy}"),
    ("Could not resolve hostname", "no machine of that name is known ({said}). Check the name"),
    ("Connection refused", "no SSH server listens there ({said}). Check that it runs, and the port"),
    ("timed out", "it does not answer ({said}). Check that it is switched on, and the network"),
    ("No route to host", "it does not answer ({said}). Check that it is switched on, and the network"),
    ("Network is unreachable", "it does not answer ({said}). Check the network"),
)


def client_command() -> list[str]:
    """Returns the client with its first arguments: the variable ``TFCOMPRESS_SSH``, or plain ``ssh``.

    Examples:
        >>> client_command()
        ['ssh']
    """
    return shlex.split(os.environ.get(VARIABLE, "")) or ["ssh"]


class SshChannel:
    """A connection to a board.

    Args:
        address: which one.
        client: program and first arguments. Default: ``client_command()``.
        connect_seconds: after which a board that does not answer is given up. Default: 15.

    Raises:
        DeviceError: at the first use, the board is out of reach or lets nobody in.
    """

    cache = '"${XDG_CACHE_HOME:-$HOME/.cache}/tfcompress"'
    without_python = ""

    def __init__(self, address: Ssh, *, client: Sequence[str] | None = None, connect_seconds: int = CONNECT_SECONDS):
        self.name = str(address)
        self._address = address
        self._client = list(client or client_command())
        self._connect_seconds = connect_seconds
        self._sockets = ""

    def _arguments(self, *options: str) -> list[str]:
        address = self._address
        user = ["-l", address.user] if address.user else []
        port = ["-p", str(address.port)] if address.port else []
        socket = ["-o", f"ControlPath={self._sockets}/s", "-o", "BatchMode=yes", "-o", "EscapeChar=none"]
        timeout = ["-o", f"ConnectTimeout={self._connect_seconds}"]
        return [*self._client, "-T", *socket, *timeout, *KEEP_ALIVE, *options, *user, *port, "--", address.host]

    def _connect(self) -> None:
        if self._sockets:
            return
        self._sockets = tempfile.mkdtemp(prefix="tfc-")  # short: the path of a socket has at most 108 characters
        master = ("-o", "ControlMaster=yes", "-o", f"ControlPersist={LINGER_SECONDS}")
        seconds = self._connect_seconds * 2.0
        ended = command([*self._arguments(*master), "true"], timeout_seconds=seconds)
        if ended.code != 0:
            self.close()
            raise DeviceError(f"{self.name} cannot be reached: {self._reason(ended)}.")

    def _reason(self, ended: Ended) -> str:
        if ended.code is None:
            return "it does not answer (no answer in time). Check that it is switched on, and the network"
        return reason(ended, self._address)

    def _ssh(self, remote: str, *, timeout_seconds: float, **streams: Any) -> Ended:
        self._connect()
        return command([*self._arguments("-o", "ControlMaster=no"), remote], timeout_seconds=timeout_seconds, **streams)

    def run(self, script: str, *, timeout_seconds: float = SHELL_SECONDS) -> Ended:
        """Runs a POSIX shell script there to its end.

        Args:
            script: the script.
            timeout_seconds: after which it is given up. Default: 120.

        Raises:
            DeviceError: the connection could not be made, or was lost.
        """
        # The user's own shell there may be another one, with other rules.
        ended = self._ssh(f"exec sh -c {shlex.quote(script)}", timeout_seconds=timeout_seconds)
        if ended.code in (FAILED, None):
            raise DeviceError(f"The connection to {self.name} was lost: {self._reason(ended)}.")
        return ended

    def push(self, source: Path, destination: str) -> None:
        """Copies a local file there."""
        with open(source, "rb") as file:
            remote = f"exec sh -c {shlex.quote(f'cat > {shlex.quote(destination)}')}"
            ended = self._ssh(remote, content=file, timeout_seconds=TRANSFER_SECONDS)
        if ended.code != 0:
            raise DeviceError(self._reason(ended) if ended.code in (FAILED, None) else ended.last_words)

    def pull(self, source: str, destination: Path) -> None:
        """Copies a file from there."""
        with open(destination, "wb") as file:
            ended = self._ssh(f"exec cat {shlex.quote(source)}", output=file, timeout_seconds=TRANSFER_SECONDS)
        if ended.code != 0:
            raise DeviceError(f"{self.name} did not give its results: {self._reason(ended)}.")

    def exchange(self, script: str, request: Mapping[str, Any], *, debug: bool) -> Exchange:
        """Starts a script there that reads a request from its input and answers."""
        self._connect()
        remote = f"exec sh -c {shlex.quote(script)}"
        return Exchange([*self._arguments("-o", "ControlMaster=no"), remote], request, debug=debug)

    def details(self) -> dict[str, str]:
        """Returns nothing: the agent finds what there is to say about a board."""
        return {}

    def shell_line(self, command: str) -> str:
        """Returns what a user types on this machine to run a command there."""
        return f"{login_line(self._address)} {shlex.quote(command)}"

    def close(self) -> None:
        """Ends the shared connection; safe to call twice."""
        if self._sockets:
            if os.path.exists(f"{self._sockets}/s"):
                with contextlib.suppress(DeviceError):
                    command(self._arguments("-O", "exit"), timeout_seconds=SHELL_SECONDS)
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = ""


def login_line(address: Ssh, program: str = "ssh") -> str:
    """Returns the line that logs in there.

    Examples:
        >>> login_line(Ssh("board", user="pi", port=2222))
        'ssh -p 2222 pi@board'
    """
    port = f" -p {address.port}" if address.port else ""
    return f"{program}{port} {address.user + '@' if address.user else ''}{address.host}"


def reason(ended: Ended, address: Ssh) -> str:
    """Returns why a client failed and what to do, without a full stop at the end.

    Args:
        ended: how it ended.
        address: where it should have gone.

    Examples:
        >>> reason(Ended(255, b"", "pi@board: Permission denied (publickey)."), Ssh("board", user="pi"))
        'it accepts none of your keys (pi@board: Permission denied (publickey)). Bring one there: ssh-copy-id pi@board'
    """
    host = f"[{address.host}]:{address.port}" if address.port else address.host
    lines = {
        "forget": f"ssh-keygen -R {shlex.quote(host)}",
        "login": login_line(address),
        "copy": login_line(address, "ssh-copy-id"),
        "said": ended.last_words,
    }
    for needle, text in REASONS:
        if needle in ended.said:
            return text.format(**lines)
    return f"ssh gave up with exit code {ended.code} ({ended.last_words})"
