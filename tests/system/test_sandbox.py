"""What a process behind the wall still reaches: each attempt is made for real, in a child that tries and tells."""

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tfcompress import errors
from tfcompress.system import Sandbox, run_isolated
from tfcompress.system.sandbox import child_environment, landlock_version, memory_share, missing_parts, missing_text
from tfcompress.system.syscalls import filter_program, number_of

HERE = "test_sandbox"
MISSING = missing_parts()
walled = pytest.mark.skipif(bool(MISSING), reason=f"the kernel lacks {' and '.join(MISSING)}")
BIG = 1 << 30
SMALL = 4 << 30  # more than Python, NumPy and their threads need


# What the child tries. Each returns nothing if it came through.


def _connect(family):
    def attempt(request):
        socket.socket(family, socket.SOCK_STREAM)

    return attempt


def _socketpair(request):
    socket.socketpair()


def _read_outside(request):
    Path(request["secret"]).read_text()


def _read_through_a_link(request):
    link = Path(os.environ["TMPDIR"]) / "link"
    os.link(request["secret"], link)


def _read_by_a_symbolic_link(request):
    link = Path(os.environ["TMPDIR"]) / "symbolic"
    os.symlink(request["secret"], link)


def _list_outside(request):
    os.listdir(os.path.dirname(request["secret"]))


def _write_outside(request):
    Path(request["secret"]).write_text("overwritten")


def _create_outside(request):
    (Path(request["secret"]).parent / "new").write_text("new")


def _write_the_readable(request):
    Path(request["model"]).write_text("overwritten")


def _truncate_outside(request):
    os.truncate(request["secret"], 0)


def _remove_outside(request):
    os.unlink(request["secret"])


def _make_executable(request):
    os.chmod(request["secret"], 0o777)


def _change_times(request):
    os.utime(request["secret"], (0, 0))


def _environment_of_the_parent(request):
    Path(f"/proc/{os.getppid()}/environ").read_bytes()


def _memory_of_the_parent(request):
    Path(f"/proc/{os.getppid()}/mem").open("rb").close()


def _fork(request):
    if os.fork() == 0:
        os._exit(0)


def _execute(request):
    subprocess.run([sys.executable, "-c", ""], check=True)


def _become(request):
    os.execv("/bin/true", ["true"])


def _signal_the_parent(request):
    os.kill(os.getppid(), 0)


def _lift_the_limit(request):
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _allocate(request):
    bytearray(2 * SMALL)


def _map_shared(request):
    mmap.mmap(-1, 1 << 20)


def _call(number, *arguments):
    def attempt(request):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    return attempt


ATTEMPTS = {
    "internet": _connect(socket.AF_INET),
    "internet 6": _connect(socket.AF_INET6),
    "local socket": _connect(socket.AF_UNIX),
    "netlink": _connect(socket.AF_NETLINK) if hasattr(socket, "AF_NETLINK") else None,
    "socket pair": _socketpair,
    "read a file": _read_outside,
    "hard link": _read_through_a_link,
    "symbolic link": _read_by_a_symbolic_link,
    "list a folder": _list_outside,
    "overwrite a file": _write_outside,
    "create a file": _create_outside,
    "overwrite the model": _write_the_readable,
    "truncate a file": _truncate_outside,
    "remove a file": _remove_outside,
    "change a mode": _make_executable,
    "change times": _change_times,
    "environment of the parent": _environment_of_the_parent,
    "memory of the parent": _memory_of_the_parent,
    "fork": _fork,
    "start a program": _execute,
    "become a program": _become,
    "signal the parent": _signal_the_parent,
    "lift the limit": _lift_the_limit,
    "allocate": _allocate,
    "share memory": _map_shared,
}
# By number on x86_64: ptrace, process_vm_readv, mount, bpf, keyctl, io_uring_setup, perf_event_open, userfaultfd,
# open_by_handle_at, kexec_load, init_module, unshare, setns, memfd_create, shmget, pidfd_open, setuid.
NUMBERS = (101, 310, 165, 321, 250, 425, 298, 323, 304, 246, 175, 272, 308, 319, 29, 434, 105)
if os.uname().machine == "x86_64":
    ATTEMPTS |= {f"call {number}": _call(number, 0, 0, 0, 0, 0) for number in NUMBERS}


def try_everything(request, report):
    """Returns how each attempt ended: "refused", "out of memory" or "came through"."""
    found = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt(request)
        except MemoryError:
            found[name] = "out of memory"
        except OSError as error:
            found[name] = "refused" if error.errno in (errno.EACCES, errno.EPERM, errno.EXDEV) else str(error)
        except ValueError as error:  # setrlimit says "not allowed to raise maximum limit"
            found[name] = "refused" if "not allowed" in str(error) else str(error)
        else:
            found[name] = "came through"
    found["model"] = Path(request["model"]).read_text()
    own = Path(os.environ["TMPDIR"]) / "own"
    own.write_text("own")
    found["own folder"] = own.read_text()
    found["token"] = os.environ.get("MY_TOKEN", "none")
    found["inside"] = run_isolated("tfcompress.system.isolation:count_letters", "four", pieces=["and", "more"])
    thread = threading.Thread(target=lambda: found.update(thread="ran"))
    thread.start()
    thread.join()
    return found


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with a secret and a model."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o600)
    (folder / "model").write_text("the model")
    return folder


@pytest.fixture(scope="module")
def attempts(outside):
    """What came of each attempt, in one child."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_TOKEN", "secret")
        request = {"secret": str(outside / "secret"), "model": str(outside / "model")}
        sandbox = Sandbox(readable=(request["model"],), memory_bytes=SMALL, required=True)
        return run_isolated(f"{HERE}:try_everything", request, sandbox=sandbox)


@walled
@pytest.mark.parametrize("name", sorted(ATTEMPTS))
def test_the_wall_holds(attempts, name):
    assert attempts[name] == ("out of memory" if name == "allocate" else "refused")


@walled
def test_what_is_needed_is_there(attempts, outside):
    assert attempts["model"] == "the model"
    assert attempts["own folder"] == "own"
    assert attempts["thread"] == "ran"
    assert attempts["inside"] == 11
    assert attempts["token"] == "none"
    assert (outside / "secret").read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["model", "secret"]


def test_without_a_wall_the_attempts_come_through(outside):
    """The attempts are real: the same secret is read by a child without a wall."""
    assert run_isolated(f"{HERE}:read_it", str(outside / "secret")) == "secret"


def read_it(request, report):
    return Path(request).read_text()


def sleep_without_a_clock(request, report):
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(600)


@walled
def test_a_child_that_stops_its_clock_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr("tfcompress.system.isolation.SECONDS_AFTER", 0.5)
    with pytest.raises(errors.ConversionError, match="did not end in time. Received: SIGALRM"):
        run_isolated(f"{HERE}:sleep_without_a_clock", None, timeout_seconds=0.5, sandbox=Sandbox())


def crash_inside(request, report):
    return run_isolated(f"{HERE}:{request}", None, explain=lambda ended: errors.ModelError(f"x.h5: {ended.how}"))


def segfault(request, report):
    os.kill(os.getpid(), signal.SIGSEGV)


def divide(request, report):
    return 1 / 0


@walled
@pytest.mark.parametrize(("function", "message"), [("segfault", "x.h5: SIGSEGV"), ("divide", "x.h5: exit code 1")])
def test_work_inside_is_explained_by_who_asked_for_it(function, message):
    with pytest.raises(errors.ModelError, match=message):
        run_isolated(f"{HERE}:crash_inside", function, sandbox=Sandbox())


# The policy.


def test_a_policy_has_absolute_paths_and_a_limit(monkeypatch):
    monkeypatch.setenv("TFCOMPRESS_MEMORY_GIB", "1.5")
    told = json.loads(Sandbox(readable=("a.keras",)).to_json())
    assert told["readable"] == [os.path.abspath("a.keras")]
    assert told["memory_bytes"] == 1.5 * BIG == memory_share()


@pytest.mark.parametrize("text", ["-1", "0", "much", "nan"])
def test_a_limit_is_a_number(monkeypatch, text):
    monkeypatch.setenv("TFCOMPRESS_MEMORY_GIB", text)
    with pytest.raises(ValueError, match="must be a positive number of GiB. Received: "):
        memory_share()


def test_keys_and_tokens_stay_outside():
    told = child_environment({"PATH": "/bin", "PYTHONHASHSEED": "0", "AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "y"})
    assert told == {"PATH": "/bin", "PYTHONHASHSEED": "0"}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filters_allow_no_dangerous_call_by_name(machine):
    assert len(filter_program(machine)) // 8 < 4096  # BPF_MAXINSNS
    for name in (
        "socket",
        "connect",
        "execve",
        "fork",
        "ptrace",
        "chmod",
        "mount",
        "bpf",
        "io_uring_setup",
        "setrlimit",
    ):
        assert number_of(name, machine) is None
    assert number_of("openat", machine) is not None


def test_a_kernel_without_says_so():
    assert "Received: one without Landlock and seccomp." in missing_text(["Landlock", "seccomp"])
    assert landlock_version() >= 0
