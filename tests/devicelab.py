"""Stand-ins for target devices: real protocols and real ARM64 kernels without hardware.

The scripts in ``devicelab`` of the shared folder build a tree once, in a cache folder outside the project; every test
process starts its own servers on free ports of it and ends them. Where it cannot be built its tests are skipped with the
reason, or fail if ``TFCOMPRESS_DEVICELAB=required``.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("adb", "ssh", "ssh-keygen", "apt-get", "dpkg-deb", "unshare", "nsenter", "ip")
FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfcompress" / "devicelab"
BUILD_SECONDS = 900
END_SECONDS = 20
RESNET = "mlperf_resnet8/pretrainedResnet_quant.tflite"


def shared_folder() -> Path:
    return Path(os.environ.get("TFCOMPRESS_SHARED") or Path(__file__).resolve().parents[1].parent / "shared")


def skip(reason: str) -> None:
    if os.environ.get("TFCOMPRESS_DEVICELAB") == "required":
        pytest.fail(f"TFCOMPRESS_DEVICELAB=required, but {reason}", pytrace=False)
    pytest.skip(f"device lab: {reason}")


def free_port() -> int:
    """Returns a port on which adb would not look for emulators (5555 to 5585)."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if not 5555 <= port <= 5585:
            return port


class Lab:
    """The built trees.

    Attributes:
        folder: where they are.
        scripts: what builds and starts them.
        data: real models and data.
    """

    def __init__(self, folder: Path, scripts: Path, data: Path):
        self.folder, self.scripts, self.data = folder, scripts, data

    def call(self, *words: object) -> None:
        done = subprocess.run(
            [str(self.scripts / "lab.sh"), str(words[0]), str(self.folder), *map(str, words[1:])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise RuntimeError(f"lab.sh {words[0]} failed ({done.returncode}): {said}")


class Server:
    """A server of the lab, and everything that runs in its mount namespace."""

    def __init__(self, lab: Lab, kind: str, port: int):
        self.lab, self.kind, self.port = lab, kind, port
        self.pid_file = lab.folder / f"{kind}-{port}.pid"
        self.pid = int(self.pid_file.read_text())
        self.namespace = os.readlink(f"/proc/{self.inner_pid()}/ns/mnt")

    def inner_pid(self) -> int:
        """Returns the process that is inside: sshd itself, or adbd, the child of the forwarder."""
        if self.kind == "board":
            return self.pid
        return int((self.lab.folder / f"phone-{self.port}.log").read_text().split()[1])

    def processes(self, needle: str = "") -> dict[int, str]:
        """Returns the processes inside by number, those whose command line has the needle."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/mnt") == self.namespace:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if line and needle in line:
                        found[int(entry.name)] = line
        return found

    def kill(self, needle: str = "") -> list[int]:
        """Ends processes inside without a warning."""
        numbers = list(self.processes(needle))
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return numbers

    def inside(self, *words: object) -> None:
        """Runs a program of this machine in the server's mount namespace."""
        line = ["nsenter", "-t", str(self.inner_pid()), "-m", *map(str, words)]
        subprocess.run(line, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        until = time.monotonic() + END_SECONDS
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        for name in ("pid", "log"):
            self.pid_file.with_suffix(f".{name}").unlink(missing_ok=True)
        (self.lab.folder / f"board/etc/ssh/devicelab/{self.port}").unlink(missing_ok=True)


class BoardServer(Server):
    """A board with sshd."""

    def __init__(self, lab: Lab, cpu: str):
        port = free_port()
        lab.call("board", port, cpu)
        super().__init__(lab, "board", port)
        self.name = f"ssh://root@127.0.0.1:{port}"
        self.client = [
            *("ssh", "-F", "none", "-i", str(lab.folder / "key"), "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={lab.folder / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"),
        ]
        self.root = lab.folder / "board"

    @property
    def environment(self) -> dict[str, str]:
        return {"TFCOMPRESS_SSH": " ".join(self.client)}


class PhoneServer(Server):
    """A phone with adbd, which only a forwarder on this machine reaches."""

    def __init__(self, lab: Lab, cpu: str):
        port = free_port()
        lab.call("phone", port, cpu)
        super().__init__(lab, "phone", port)
        self.serial = f"127.0.0.1:{port}"
        self.name = f"adb://{self.serial}"
        # Another test process has a phone of the same tree: each keeps its files to itself.
        self.inside("mount", "-t", "tmpfs", "tmpfs", lab.folder / "phone/data/local/tmp")
        self.root = Path(f"/proc/{self.inner_pid()}/root")


def lab_folder() -> Path:
    return Path(os.environ.get("TFCOMPRESS_DEVICELAB_FOLDER") or FOLDER)


def sweep(folder: Path) -> None:
    """Ends the servers of a session that was killed before it could."""
    for path in folder.glob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            number = int(path.read_text())
            if b"devicelab" in Path(f"/proc/{number}/cmdline").read_bytes():  # the number may be another's by now
                os.kill(number, signal.SIGTERM)
        path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, built by the first test process; the last one that leaves takes its entry off the kernel's table."""
    scripts, data = shared_folder() / "devicelab", shared_folder() / "data"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not (scripts / "lab.sh").is_file() or not data.is_dir():
        skip(f"no folder devicelab in {shared_folder()}")
    elif platform.system() != "Linux" or platform.machine() != "x86_64":
        skip(f"it needs Linux on x86-64, this is {platform.system()} on {platform.machine()}")
    elif os.geteuid() != 0:
        skip("it needs root for mounts")
    elif missing:
        skip(f"these programs are missing: {', '.join(missing)}")
    folder = lab_folder()
    folder.mkdir(parents=True, exist_ok=True)
    here = Lab(folder, scripts, data)
    with open(folder / "build.lock", "w") as build, open(folder / "users.lock", "w") as users:
        fcntl.flock(build, fcntl.LOCK_EX)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep(folder)  # nobody else is here
        try:
            here.call("up")
        except RuntimeError as error:
            skip(str(error))
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(build, fcntl.LOCK_UN)
        yield here
        fcntl.flock(build, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_UN)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run([str(scripts / "binfmt.sh"), "off"], check=False, capture_output=True)


@contextlib.contextmanager
def board_server(lab: Lab, cpu: str) -> Iterator[BoardServer]:
    # lab.sh appends to known_hosts and reads its own ports: one start at a time.
    with open(lab.folder / "start.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = BoardServer(lab, cpu)
    with contextlib.closing(server):
        yield server


@pytest.fixture(scope="session")
def boards(lab: Lab) -> Iterator[dict[str, BoardServer]]:
    """A Raspberry Pi 4's and a Raspberry Pi 5's processor, by its name."""
    with contextlib.ExitStack() as stack:
        yield {cpu: stack.enter_context(board_server(lab, cpu)) for cpu in ("cortex-a72", "cortex-a76")}


@pytest.fixture
def spare_board(lab: Lab) -> Iterator[BoardServer]:
    """A board for one test, which may break it."""
    with board_server(lab, "cortex-a76") as server:
        yield server


@contextlib.contextmanager
def phone_server(lab: Lab) -> Iterator[PhoneServer]:
    with open(lab.folder / "start.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = PhoneServer(lab, "cortex-a76")
    with contextlib.closing(server):
        yield server


@pytest.fixture(scope="session")
def phone(lab: Lab) -> Iterator[PhoneServer]:
    with phone_server(lab) as server:
        yield server


@pytest.fixture(scope="module")
def adb_server(lab: Lab, tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of an adb server of its own, which knows none of the user's phones and ends with the module."""
    home = tmp_path_factory.mktemp("adb_home")
    variables = {"HOME": str(home), "ANDROID_ADB_SERVER_PORT": str(free_port())}
    yield variables
    subprocess.run(["adb", "kill-server"], env={**os.environ, **variables}, check=False, capture_output=True)


@pytest.fixture
def adb(adb_server: dict[str, str], monkeypatch) -> Iterator[None]:
    """Lets the tests' process use that server, with no phone connected before and after."""
    for name, value in adb_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    yield
    subprocess.run(["adb", "disconnect"], check=False, capture_output=True)
