"""What can a process reach that opens a stranger's file? The wall around the children of the command line.

``enter`` gives up, for good, what opening and converting a model does not need: the network, other processes, every file but
Python, its packages and the files that were named, writing but to the process's own temporary folder, and more memory than
its share. Linux does the work: Landlock for files (Mickaël Salaün, "Landlock: unprivileged access control",
https://docs.kernel.org/userspace-api/landlock.html), seccomp for calls into the kernel (``syscalls``), resource limits for
memory. Not covered: that a file exists and how large it is can still be asked.
"""

import contextlib
import ctypes
import json
import os
import resource
import site
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import SandboxError
from .syscalls import filter_program

__all__ = ["Sandbox", "child_environment", "enter", "memory_share", "missing_parts"]

MEMORY_SHARE = 0.8
LIMIT_VARIABLE = "TFCOMPRESS_MEMORY_GIB"
GIB = 1 << 30
FILE_BYTES = 16 * GIB
PACKAGE = str(Path(__file__).resolve().parents[1])

# Landlock: the same three numbers on every machine, and linux/landlock.h.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = (
    1 << i for i in (0, 1, 2, 3, 4, 5, 7, 8)
)
REFER, TRUNCATE = 1 << 13, 1 << 14
RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # how many there are to deny; from 5 on 16, with those of devices
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
READ = READ_FILE | READ_DIR
WRITE = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
)  # no links, pipes, devices
TCP, SCOPES = 3, 3  # bind and connect, from version 4; abstract sockets and signals, from version 6

NO_NEW_PRIVS, SET_SECCOMP, GET_SECCOMP, FILTER = 38, 22, 21, 2  # linux/prctl.h
CAPABILITY_VERSION, CAPSET = 0x20080522, {"x86_64": 126, "aarch64": 91}
READS_ANY_FILE = (1 << 1) | (1 << 2)  # what root opens files by: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
MACHINE = (
    "/etc/localtime",
    "/dev/urandom",
    "/dev/random",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
)
# What of the environment a child behind the wall is told; keys and tokens are not.
VARIABLES = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DEBUG")
PREFIXES = (
    "LC_",
    "PYTHON",
    "TF_",
    "TFLITE_",
    "TFCOMPRESS_",
    "KERAS_",
    "XLA_",
    "OMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "TORCH_",
    "GLIBC_",
    "MALLOC_",
    "CUDA_",
    "ONEDNN_",
    "DNNL_",
)


@dataclass(frozen=True)
class Sandbox:
    """What a child process may reach besides Python, its packages and its own temporary folder.

    Args:
        readable: files and folders that it may read. Default: none.
        writable: folders that it may write to. Default: none.
        memory_bytes: how much memory it may allocate. Default: None, ``memory_share()``.
        required: whether it is an error that the kernel lacks a part of the wall. Default: False, the rest stands.

    Raises:
        ValueError: ``memory_bytes`` is not positive.

    Examples:
        >>> Sandbox(readable=("model.keras",), memory_bytes=2 << 30)
        Sandbox(readable=('model.keras',), writable=(), memory_bytes=2147483648, required=False)
    """

    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    memory_bytes: int | None = None
    required: bool = False

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ValueError(f"memory_bytes must be positive. Received: memory_bytes={self.memory_bytes}.")

    def to_json(self) -> str:
        """Returns it as text that ``enter`` takes, with absolute paths and a limit."""
        paths = {name: [os.path.abspath(path) for path in getattr(self, name)] for name in ("readable", "writable")}
        return json.dumps({**asdict(self), **paths, "memory_bytes": self.memory_bytes or memory_share()})


def memory_share() -> int:
    """Returns how many bytes a child may allocate: 80 % of the memory of machine or container, or the GiB of $TFCOMPRESS_MEMORY_GIB.

    Raises:
        ValueError: the variable is no positive number.

    Examples:
        >>> memory_share() > 0
        True
    """
    told = os.environ.get(LIMIT_VARIABLE)
    if told:
        try:
            gib = float(told)
        except ValueError:
            gib = 0.0
        if not 0 < gib < 1 << 20:
            raise ValueError(f"{LIMIT_VARIABLE} must be a positive number of GiB. Received: {told!r}.")
        return int(gib * GIB)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return int(total * MEMORY_SHARE)


def missing_parts() -> tuple[str, ...]:
    """Returns which parts of the wall this kernel does not offer.

    Examples:
        >>> set(missing_parts()) <= {"Landlock", "seccomp"}
        True
    """
    missing = [] if landlock_version() else ["Landlock"]
    has_seccomp = sys.platform == "linux" and filter_program(os.uname().machine) is not None
    if not has_seccomp or _libc().prctl(GET_SECCOMP, 0, 0, 0, 0) < 0:
        missing.append("seccomp")
    return tuple(missing)


def landlock_version() -> int:
    """Returns the version of Landlock's interface, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION))


def child_environment(environment: dict[str, str]) -> dict[str, str]:
    """Returns what of an environment a child behind the wall is told.

    Examples:
        >>> child_environment({"PATH": "/bin", "TF_CPP_MIN_LOG_LEVEL": "3", "API_KEY": "secret"})
        {'PATH': '/bin', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    """
    return {name: value for name, value in environment.items() if name in VARIABLES or name.startswith(PREFIXES)}


def enter(policy: str, folder: str) -> None:
    """Gives up everything that the policy does not name, for this process and for good; call it before threads start.

    Args:
        policy: of ``Sandbox.to_json``.
        folder: the process's own temporary folder, which it may write to.

    Raises:
        SandboxError: the kernel offers a part of the wall and then refuses to build it, or it lacks one that is required.
    """
    told = json.loads(policy)
    missing = missing_parts()
    if told["required"] and missing:
        raise SandboxError(missing_text(missing))
    try:
        _limit(told["memory_bytes"])
        libc = _libc()
        _checked(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
        if "Landlock" not in missing:
            readable = [*_of_python(), *told["readable"]]
            _close_files(readable, [folder, *told["writable"]])
        _drop_capabilities()
        if "seccomp" not in missing:
            _filter_calls()
    except OSError as error:
        raise SandboxError(
            f"The wall around the child process must be built. Received: {error.strerror}. Pass --sandbox=off for files of "
            "people you trust."
        ) from error


def missing_text(missing: Iterable[str]) -> str:
    """Returns the line that says what the kernel lacks.

    Examples:
        >>> missing_text(["seccomp"])
        'The kernel must offer Landlock and seccomp. Received: one without seccomp. Use Linux 5.13 or newer, or a container.'
    """
    return (
        f"The kernel must offer Landlock and seccomp. Received: one without {' and '.join(missing)}. Use Linux 5.13 or newer, "
        "or a container."
    )


def _limit(memory_bytes: int) -> None:
    """Sets the limits of memory, size of files and cores, where they are not lower already."""
    limits = {resource.RLIMIT_DATA: memory_bytes, resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_CORE: 0}
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _of_python() -> list[str]:
    """Returns what importing needs: the standard library, packages, this package, shared libraries, facts about the machine."""
    paths = sysconfig.get_paths()
    found = [*SYSTEM, *MACHINE, PACKAGE, *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))]
    found += [
        os.path.join(prefix, part)
        for prefix in (sys.prefix, sys.base_prefix)
        for part in ("lib", "lib64", "pyvenv.cfg")
    ]
    found += [*site.getsitepackages(), site.getusersitepackages(), sys.executable, os.path.realpath(sys.executable)]
    keras = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    found.append(os.path.join(keras, "keras.json"))
    # Packages may lie elsewhere; the folder that the user works in, and all that hold it or the home, are no packages.
    places = [Path(os.path.realpath(place)) for place in (os.getcwd(), os.path.expanduser("~"))]
    for entry in filter(None, sys.path):
        real = Path(os.path.realpath(entry))
        if not any(place.is_relative_to(real) for place in places):
            found.append(str(real))
    return found


def _close_files(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Denies every file but these, TCP, and sockets and signals that lead out of the process, by Landlock."""
    libc, version = _libc(), landlock_version()
    handled = (1 << RIGHTS_BY_VERSION.get(version, 16)) - 1
    attributes = [handled, *([TCP] if version >= 4 else []), *([SCOPES] if version >= 6 else [])]
    content = (ctypes.c_uint64 * len(attributes))(*attributes)
    ruleset = _checked(libc.syscall(CREATE_RULESET, content, ctypes.c_size_t(ctypes.sizeof(content)), 0))
    rules = [
        *((path, READ) for path in readable),
        *((path, WRITE) for path in writable),
        (os.devnull, READ | WRITE_FILE),
    ]
    for path, rights in rules:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not there: nothing to allow
        allowed = rights & handled & (-1 if os.path.isdir(path) else OF_A_FILE)
        rule = allowed.to_bytes(8, sys.byteorder) + descriptor.to_bytes(4, sys.byteorder)
        _checked(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
        os.close(descriptor)
    _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _drop_capabilities() -> None:
    """Leaves of root's rights only those to open files, which Landlock bounds."""
    number = CAPSET.get(os.uname().machine)
    if number is None or os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    kept = (ctypes.c_uint32 * 6)(READS_ANY_FILE, READS_ANY_FILE, 0, 0, 0, 0)
    held = (ctypes.c_uint32 * 6)()
    _checked(_libc().syscall(number - 1, header, held))  # capget stands before capset on x86_64 and aarch64
    for place in range(3):
        kept[place] &= held[place]
    _checked(_libc().syscall(number, header, kept))


def _filter_calls() -> None:
    program = filter_program(os.uname().machine) or b""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    content = Program(len(program) // 8, program)
    _checked(_libc().prctl(SET_SECCOMP, FILTER, ctypes.byref(content), 0, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
