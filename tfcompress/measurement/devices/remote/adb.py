"""The way to an Android phone: the stock adb client, and what a phone says about itself.

``adb`` returns 0 when the phone's daemon dies in the middle, so every shell command brings an end marker of its own.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import DeviceError
from ..addresses import Adb
from ..protocol import Ended, Exchange, command
from .channel import SHELL_SECONDS

__all__ = ["AdbChannel", "Listed", "listed", "listed_phones"]

CLIENT = "adb"
SERVER_SECONDS = 30.0
TRANSFER_SECONDS = 1800.0
MARK = "tfcompress-ended"
FOLDER = "/data/local/tmp"
NETWORK = re.compile(r"[A-Za-z0-9_.-]+:\d+")

STATES = {
    "unauthorized": "does not let this computer in. Unlock it and accept the question about USB debugging",
    "authorizing": "does not let this computer in yet. Unlock it and accept the question about USB debugging",
    "offline": "is offline. Plug it in again, or restart its USB debugging",
    "no permissions": "may not be opened by this user. Add a udev rule for it, or restart adb as root",
    "bootloader": "is in its boot loader. Start Android",
    "recovery": "is in recovery mode. Start Android",
    "sideload": "is in sideload mode. Start Android",
}

PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "abi": "ro.product.cpu.abi",
}
SOC_PROPERTIES = ("ro.soc.model", "ro.board.platform", "ro.hardware")


class Listed(NamedTuple):
    """A phone that the adb server knows.

    Attributes:
        serial: its name there.
        state: "device" if it can be used, else why not.
        model: what it calls itself; "" if it does not say.
    """

    serial: str
    state: str
    model: str


def listed(text: str) -> list[Listed]:
    """Returns the phones in what ``adb devices -l`` prints.

    Examples:
        >>> listed("List of devices attached\\nemulator-5554  device product:sdk model:Pixel_7 transport_id:1\\nX1  offline\\n")
        [Listed(serial='emulator-5554', state='device', model='Pixel 7'), Listed(serial='X1', state='offline', model='')]
    """
    phones = []
    for line in text.splitlines():
        serial, _, rest = line.strip().partition(" ")
        if not rest or line.startswith(("List of", "*")):
            continue
        rest = rest.strip()
        state = "no permissions" if rest.startswith("no permissions") else rest.split()[0]
        model = re.search(r"model:(\S+)", rest)
        phones.append(Listed(serial, state, model[1].replace("_", " ") if model else ""))
    return phones


def listed_phones() -> list[Listed]:
    """Returns the phones that the adb server of this machine knows; starts the server if there is none.

    Raises:
        DeviceError: adb is not installed, or its server does not start.
    """
    ended = command([CLIENT, "devices", "-l"], timeout_seconds=SERVER_SECONDS)
    if ended.code != 0:
        raise DeviceError(f"The adb server must start on this machine. Received: {ended.last_words}.")
    return listed(ended.text)


class AdbChannel:
    """A connection to a phone.

    Args:
        address: which one.

    Raises:
        DeviceError: at the first use, there is no such phone, or it cannot be used as it is.
    """

    cache = f"{FOLDER}/tfcompress"
    without_python = (
        "Most phones have none: give the path of a benchmark_model for its processor (--benchmark_model=PATH), which "
        "measures latency, profile and outputs there"
    )

    def __init__(self, address: Adb):
        self.name = str(address)
        self._asked = address.serial or os.environ.get("ANDROID_SERIAL") or None
        self._serial = ""
        self._connected = False

    @property
    def serial(self) -> str:
        """The serial of the phone, found at the first use."""
        if not self._serial:
            self._serial = self._choose()
            self.name = f"adb://{self._serial}"
        return self._serial

    def _choose(self) -> str:
        phones = listed_phones()
        if self._asked and all(phone.serial != self._asked for phone in phones):
            if not NETWORK.fullmatch(self._asked):
                raise DeviceError(
                    f"adb knows no phone {self._asked}. Received: {_names(phones)}. Check the cable and the serial."
                )
            phones = self._connect(self._asked)
        chosen = [phone for phone in phones if self._asked in (None, phone.serial)]
        usable = [phone for phone in chosen if phone.state == "device"]
        if len(usable) == 1:
            return usable[0].serial
        if len(usable) > 1:
            raise DeviceError(
                f"adb:// means the only phone. Received: {_names(usable)}. Name one of them: adb://{usable[0].serial}"
            )
        if len(chosen) == 1:
            state = chosen[0].state
            raise DeviceError(f"The phone {chosen[0].serial} {STATES.get(state, f'is in the state {state}')}.")
        if chosen:
            raise DeviceError(
                f"None of the phones can be used. Received: {_names(chosen)}. Unlock them, plug them in again."
            )
        raise DeviceError("adb knows no phone. Plug one in and switch USB debugging on; 'adb devices' lists it then.")

    def _connect(self, serial: str) -> list[Listed]:
        """Asks the server for a phone on the network; it says on standard output whether that worked."""
        ended = command([CLIENT, "connect", serial], timeout_seconds=SERVER_SECONDS)
        self._connected = True
        phones = listed_phones()
        if all(phone.serial != serial for phone in phones):
            said = (ended.text or ended.said).strip().splitlines() or ["no answer"]
            raise DeviceError(f"adb cannot reach {serial}. Received: {said[-1]}. Check the phone's wireless debugging.")
        return phones

    def run(self, script: str, *, timeout_seconds: float = SHELL_SECONDS) -> Ended:
        """Runs a POSIX shell script there to its end.

        Args:
            script: the script.
            timeout_seconds: after which it is given up. Default: 120.

        Raises:
            DeviceError: the phone cannot be used, or the connection was lost.
        """
        marked = f'({script}\n)\necho "{MARK} $?"'
        ended = command([CLIENT, "-s", self.serial, "shell", marked], timeout_seconds=timeout_seconds)
        text, mark, code = ended.text.replace("\r\n", "\n").rpartition(f"{MARK} ")
        if not mark or not code.strip().isdigit():
            raise DeviceError(f"The connection to {self.name} was lost: {self._reason(ended)}.")
        return Ended(int(code), text.encode(), ended.said)

    def _reason(self, ended: Ended) -> str:
        if ended.code is None:
            return "no answer in time"
        for state, text in STATES.items():
            if f"device {state}" in ended.said or f"device still {state}" in ended.said:
                return f"the phone {text}"
        return ended.last_words

    def push(self, source: Path, destination: str) -> None:
        """Copies a local file there."""
        self._transfer("push", str(source), destination)

    def pull(self, source: str, destination: Path) -> None:
        """Copies a file from there."""
        self._transfer("pull", source, str(destination))

    def _transfer(self, verb: str, source: str, destination: str) -> None:
        ended = command([CLIENT, "-s", self.serial, verb, source, destination], timeout_seconds=TRANSFER_SECONDS)
        if ended.code != 0:
            said = ended.last_words if ended.said.strip() else (ended.text.strip().splitlines() or ["no message"])[-1]
            raise DeviceError(f"{self.name}: adb {verb} failed: {'no answer in time' if ended.code is None else said}")

    def exchange(self, script: str, request: Mapping[str, Any], *, debug: bool) -> Exchange:
        """Starts a script there that reads a request from its input and answers."""
        return Exchange([CLIENT, "-s", self.serial, "shell", script], request, debug=debug)

    def details(self) -> dict[str, str]:
        """Returns what a phone says about itself: model, Android version, SoC, ABI, battery, temperature."""
        names = {**PROPERTIES, **{name: name for name in SOC_PROPERTIES}}
        script = "".join(f'echo "{key}=$(getprop {name})"\n' for key, name in names.items())
        script += (
            "dumpsys battery 2>/dev/null | sed 's/^ */battery./'\n"
            "for zone in /sys/class/thermal/thermal_zone*; do "
            '[ -r $zone/temp ] && echo "thermal=$(cat $zone/temp 2>/dev/null)"; done; true'
        )
        text = self.run(script).text
        pairs = [line.replace(": ", "=", 1).partition("=") for line in text.splitlines()]
        fields = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
        heat = [int(value) for key, _, value in pairs if key == "thermal" and value.strip().lstrip("-").isdigit()]
        return described(fields, heat)

    def shell_line(self, command: str) -> str:
        """Returns what a user types on this machine to run a command there."""
        return f"adb -s {self.serial} shell {shlex.quote(command)}"

    def close(self) -> None:
        """Takes back a connection over the network that this channel has made; safe to call twice."""
        if self._connected and self._asked:
            self._connected = False
            command([CLIENT, "disconnect", self._asked], timeout_seconds=SERVER_SECONDS)


def described(fields: Mapping[str, str], heat: list[int]) -> dict[str, str]:
    """Returns the details of a phone for people.

    Args:
        fields: its properties, and the lines of ``dumpsys battery`` with "battery." before them.
        heat: of its thermal zones, in thousandths of a degree, or in degrees.

    Examples:
        >>> described({"model": "Pixel 7", "battery.level": "81", "battery.temperature": "284"}, [31000])
        {'model': 'Pixel 7', 'battery': '81 %', 'battery temperature': '28.4 °C', 'temperature': '31.0 °C'}
    """
    names = (fields.get("manufacturer", ""), fields.get("model", ""))
    details = {"model": " ".join(name for name in names if name)}
    details["Android"] = f"{fields['android']} (SDK {fields.get('sdk', '?')})" if "android" in fields else ""
    details["SoC"] = next((fields[name] for name in SOC_PROPERTIES if name in fields), "")
    details["ABI"] = fields.get("abi", "")
    if "battery.level" in fields:
        powered = [kind for kind in ("AC", "USB", "Wireless") if fields.get(f"battery.{kind} powered") == "true"]
        details["battery"] = f"{fields['battery.level']} %{', charging' if powered else ''}"
    if fields.get("battery.temperature", "").lstrip("-").isdigit():
        details["battery temperature"] = f"{int(fields['battery.temperature']) / 10:.1f} °C"
    if heat:
        hottest = max(value / 1000 if abs(value) > 1000 else float(value) for value in heat)
        details["temperature"] = f"{hottest:.1f} °C"
    return {key: value for key, value in details.items() if value}


def _names(phones: list[Listed]) -> str:
    return ", ".join(f"{phone.serial} ({phone.model or phone.state})" for phone in phones) or "none"
