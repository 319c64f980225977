"""Which Python on a device can run the agent, what to type when there is none, and how ``--install`` makes one.

An environment is made without pip and without the network there: the wheels come through this machine's own pip.
"""

import shlex
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ....errors import DeviceError
from ..protocol import command
from .channel import Channel

__all__ = ["Python", "describe", "find", "install_line", "make"]

NEWEST = 14
LITERT = "ai-edge-litert"
TFLITE = "tflite-runtime"
LITERT_FROM = (3, 10)
TFLITE_FROM, TFLITE_UNTIL = (3, 9), (3, 11)
PIP_SECONDS = 900.0
UNPACK_SECONDS = 1800.0

PROBE = """import importlib.util as u, platform, sys
have = lambda n: int(u.find_spec(n) is not None)
libc = "-".join(platform.libc_ver()) or "-"
packages = have("numpy"), have("ai_edge_litert"), have("tflite_runtime")
print("python", sys.executable, "%d.%d" % sys.version_info[:2], *packages, platform.machine(), libc)
sys.exit(0 if packages[0] and any(packages[1:]) else 1)"""


class Python(NamedTuple):
    """A Python on a device.

    Attributes:
        path: of the interpreter there.
        version: major and minor number.
        packages: which of NumPy and the runtimes it has.
        machine: its processor, as ``platform.machine`` tells it.
        libc: name and version of its C library.
    """

    path: str
    version: tuple[int, int]
    packages: frozenset[str]
    machine: str
    libc: str

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The packages with an interpreter that exist for this version of Python, the newer one first."""
        wanted = [LITERT] if self.version >= LITERT_FROM else []
        return (*wanted, *([TFLITE] if TFLITE_FROM <= self.version <= TFLITE_UNTIL else []))

    @property
    def is_fit(self) -> bool:
        """Whether the agent runs there."""
        return "numpy" in self.packages and any(name in self.packages for name in self.runtimes)


def find(channel: Channel, folder: str) -> list[Python]:
    """Returns the Pythons on a device, the one in its cache first, then by name, until one has all that the agent needs.

    Args:
        channel: the way there.
        folder: its cache folder.
    """
    names = " ".join(["python3", *(f"python3.{minor}" for minor in range(NEWEST, 8, -1))])
    script = (
        f"for name in {shlex.quote(folder)}/venv/bin/python {names}; do "
        f'command -v "$name" >/dev/null 2>&1 && "$name" -c {shlex.quote(PROBE)} 2>/dev/null && break; done; true'
    )
    found: dict[str, Python] = {}
    for line in channel.run(script).text.replace("\r", "").splitlines():
        words = line.split(" ")
        if len(words) == 8 and words[0] == "python":
            major, minor = words[2].split(".")
            has = zip(("numpy", LITERT, TFLITE), words[3:6], strict=True)
            packages = frozenset(name for name, there in has if there == "1")
            found.setdefault(words[1], Python(words[1], (int(major), int(minor)), packages, words[6], words[7]))
    return list(found.values())


def describe(channel: Channel, folder: str, found: Sequence[Python]) -> str:
    """Returns the one line for a device where no Python is fit, with the exact line that installs what is missing.

    Args:
        channel: the way there.
        folder: its cache folder.
        found: the Pythons there.
    """
    usable = best(found)
    if channel.without_python:
        has = ", ".join(f"{python.path} without LiteRT" for python in found) or "none"
        return f"{channel.name} must have Python with LiteRT. Received: {has}. {channel.without_python}."
    if usable is None:
        has = ", ".join(f"{python.path} ({python.version[0]}.{python.version[1]})" for python in found) or "no Python"
        line = channel.shell_line("sudo apt-get install -y python3 python3-venv")
        return (
            f"{channel.name} must have Python 3.10 or newer (3.9 with {TFLITE}). Received: {has}. Install it, on Debian: "
            f"{line}"
        )
    missing = [name for name in ("numpy",) if name not in usable.packages]
    if not any(name in usable.packages for name in usable.runtimes):
        missing.insert(0, usable.runtimes[0])
    line = channel.shell_line(install_line(usable, folder))
    return (
        f"{channel.name} must have {' and '.join(missing)} for {usable.path} (Python {usable.version[0]}."
        f"{usable.version[1]}). Received: none. Install with --install, or type: {line}"
    )


def best(found: Sequence[Python]) -> Python | None:
    """Returns the newest Python that a runtime exists for; None without one.

    Examples:
        >>> best([Python("/usr/bin/python3", (3, 8), frozenset(), "aarch64", "glibc-2.31")]) is None
        True
    """
    return max((python for python in found if python.runtimes), key=lambda python: python.version, default=None)


def install_line(python: Python, folder: str) -> str:
    """Returns the shell command for the device that makes an environment in its cache folder.

    Args:
        python: which one there.
        folder: the cache folder.

    Examples:
        >>> install_line(Python("/usr/bin/python3", (3, 9), frozenset(), "armv7l", "glibc-2.31"), "/home/pi/.cache/tfcompress")
        '/usr/bin/python3 -m venv /home/pi/.cache/tfcompress/venv && /home/pi/.cache/tfcompress/venv/bin/pip install tflite-runtime "numpy<2"'
    """
    venv = f"{folder}/venv"
    packages = f"{LITERT} numpy" if python.runtimes[0] == LITERT else f'{TFLITE} "numpy<2"'
    return f"{shlex.quote(python.path)} -m venv {shlex.quote(venv)} && {shlex.quote(venv)}/bin/pip install {packages}"


def make(channel: Channel, folder: str, found: Sequence[Python]) -> None:
    """Makes an environment with all that the agent needs in the cache folder of a device.

    Args:
        channel: the way there.
        folder: its cache folder.
        found: the Pythons there.

    Raises:
        DeviceError: there is no Python that a runtime exists for, no wheels for it, or the device cannot unpack them.
    """
    python = best(found)
    if python is None:
        raise DeviceError(describe(channel, folder, found))
    venv = f"{folder}/venv"
    with tempfile.TemporaryDirectory(prefix="tfcompress-") as scratch:
        wheels = download(python, Path(scratch))
        channel.run(f"rm -rf {shlex.quote(venv)}")
        _checked(
            channel, f"{shlex.quote(python.path)} -m venv --without-pip {shlex.quote(venv)}", "make an environment"
        )
        site = f"{venv}/lib/python{python.version[0]}.{python.version[1]}/site-packages"
        bundle = merge(wheels, Path(scratch) / "packages.zip")
        target = f"{venv}/{bundle.name}"
        try:
            channel.push(bundle, target)
        except DeviceError as error:
            raise DeviceError(f"{channel.name} did not take the packages: {error}.") from error
        unpack = f"{shlex.quote(python.path)} -m zipfile -e {shlex.quote(target)} {shlex.quote(site)}"
        _checked(channel, f"{unpack} && rm {shlex.quote(target)}", "unpack the packages")


def merge(wheels: Sequence[Path], target: Path) -> Path:
    """Returns one archive with the files of all wheels: a slow board starts one process for it instead of ten.

    Args:
        wheels: of packages without scripts or data to be installed elsewhere.
        target: the archive to write.
    """
    seen: set[str] = set()
    with zipfile.ZipFile(target, "w") as bundle:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as source:
                for info in source.infolist():
                    if info.filename not in seen and not info.is_dir():
                        seen.add(info.filename)
                        bundle.writestr(info.filename, source.read(info))
    return target


def download(python: Python, folder: Path) -> list[Path]:
    """Returns the wheels of NumPy and a runtime for a device's Python, fetched by this machine's pip.

    Args:
        python: the one on the device.
        folder: where they go.

    Raises:
        DeviceError: pip failed.
    """
    number = f"{python.version[0]}.{python.version[1]}"
    tag = f"cp{python.version[0]}{python.version[1]}"
    packages = [LITERT, "numpy"] if python.runtimes[0] == LITERT else [TFLITE, "numpy<2"]
    ended = command(
        [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
        + ["--dest", str(folder), "--python-version", number, "--implementation", "cp", "--abi", tag]
        + [f"--platform={platform}" for platform in platforms(python)]
        + packages,
        timeout_seconds=PIP_SECONDS,
    )
    if ended.code != 0:
        said = "no answer in time" if ended.code is None else ended.last_words
        raise DeviceError(
            f"pip on this machine must find {' and '.join(packages)} for Python {number} on {python.machine} "
            f"({python.libc}). Received: {said}. Install them on the device by hand."
        )
    return sorted(folder.glob("*.whl"))


def platforms(python: Python) -> list[str]:
    """Returns the platform tags of wheels that run on a device, the newest first.

    Examples:
        >>> platforms(Python("python3", (3, 11), frozenset(), "aarch64", "glibc-2.28"))[:2]
        ['manylinux_2_28_aarch64', 'manylinux_2_27_aarch64']
    """
    minor = python.libc.partition("glibc-2.")[2]
    tags = [f"manylinux_2_{number}_{python.machine}" for number in range(int(minor), 16, -1)] if minor.isdigit() else []
    return [*tags, f"manylinux2014_{python.machine}", f"linux_{python.machine}"]


def _checked(channel: Channel, script: str, doing: str) -> None:
    ended = channel.run(script, timeout_seconds=UNPACK_SECONDS)
    if ended.code != 0:
        raise DeviceError(f"{channel.name} could not {doing}: {ended.last_words}.")
