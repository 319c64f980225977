"""Which calls into the kernel may a walled process make? A list of what is allowed, as a seccomp filter.

What is not on the list is refused with EPERM: every kind of socket, other processes (no process is started, traced,
signalled or read), mounts, keys, kernel modules, io_uring, perf, BPF, and changes of the mode, owner or times of files.
Numbers are those of Linux's ``unistd.h`` for x86_64 and aarch64. ``sandbox`` says what may be read and written.
"""

import errno
import os
import struct

__all__ = ["filter_program", "number_of"]

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # linux/audit.h; the column of the table
LARGEST_KNOWN = 450
# Name, number on x86_64, number on aarch64, by kind.
ALLOWED = """
files: read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
preadv2 327 286, pwritev2 328 287, lseek 8 62, open 2 -, openat 257 56, openat2 437 437, creat 85 -, close 3 57,
close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, stat 4 -, lstat 6 -, fstat 5 80, newfstatat 262 79, statx 332 291,
statfs 137 43, fstatfs 138 44, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78,
getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, mkdir 83 -, mkdirat 258 34, rmdir 84 -,
unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, truncate 76 45, ftruncate 77 46,
fallocate 285 47, fsync 74 82, fdatasync 75 83, sync_file_range 277 84, fadvise64 221 223, flock 73 32, umask 95 166,
copy_file_range 326 285, sendfile 40 71, splice 275 76, readahead 187 213
pipes and events: pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, eventfd 284 -,
eventfd2 290 19, timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87
memory: brk 12 214, munmap 11 215, mprotect 10 226, mremap 25 216, msync 26 227, mincore 27 232,
madvise 28 233, mlock 149 228, mlock2 325 284, munlock 150 229, membarrier 324 283, get_mempolicy 239 236, mbind 237 235
time: time 201 -, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114, nanosleep 35 101,
clock_nanosleep 230 115, times 100 153, getitimer 36 102, setitimer 38 103, alarm 37 -, timer_create 222 107,
timer_settime 223 110, timer_gettime 224 108, timer_getoverrun 225 109, timer_delete 226 111
threads: futex 202 98, futex_waitv 449 449, set_robust_list 273 99, set_tid_address 218 96, gettid 186 178, rseq 334 293,
sched_yield 24 124, sched_getaffinity 204 123, sched_getparam 143 121, sched_getscheduler 145 120,
sched_get_priority_max 146 125, sched_get_priority_min 147 126, getcpu 309 168, exit 60 93, exit_group 231 94,
arch_prctl 158 -, restart_syscall 219 128, wait4 61 260, waitid 247 95
signals: rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -
about itself: getpid 39 172, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, capget 125 90,
getpriority 140 141, uname 63 160, sysinfo 99 179, getrusage 98 165, getrlimit 97 163, getrandom 318 278, prctl 157 167
by their arguments: clone 56 220, clone3 435 435, ioctl 16 29, fcntl 72 25, kill 62 129, tgkill 234 131,
sched_setaffinity 203 122, prlimit64 302 261, mmap 9 222
"""
BY_ARGUMENT = "by their arguments"
# Requests that ask about a descriptor: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# Copies, flags, locks and the size of a pipe; not the owner, who would be sent signals.
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
CLONE_THREAD, CLONE_NAMESPACES = 0x00010000, 0x7E020000
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20

LOAD, EQUAL, AT_LEAST, ABOVE, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06  # linux/bpf_common.h
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
Instruction = tuple[int, int, int, int]
REFUSE: Instruction = (RETURN, 0, 0, ERRNO | errno.EPERM)
PASS: Instruction = (RETURN, 0, 0, ALLOW)
UNKNOWN: Instruction = (
    RETURN,
    0,
    0,
    ERRNO | errno.ENOSYS,
)  # as an older kernel answers: libraries then take another way


def number_of(name: str, machine: str) -> int | None:
    """Returns the number of an allowed call, None where the machine has no such call.

    Examples:
        >>> number_of("openat", "x86_64"), number_of("openat", "aarch64"), number_of("open", "aarch64")
        (257, 56, None)
    """
    return {**_kinds(machine)["plain"], **_kinds(machine)[BY_ARGUMENT]}.get(name)


def filter_program(machine: str, *, pid: int | None = None) -> bytes | None:
    """Returns the filter as the kernel takes it, an array of ``struct sock_filter``; None for an unknown machine.

    Args:
        machine: as ``os.uname().machine``.
        pid: of the process that is to be filtered; it may send signals to itself and its group. Default: this one.

    Examples:
        >>> len(filter_program("x86_64")) % 8, filter_program("sparc")
        (0, None)
    """
    if machine not in ARCHITECTURES:
        return None
    kinds = _kinds(machine)
    special = kinds[BY_ARGUMENT]
    itself = os.getpid() if pid is None else pid
    blocks: dict[str, list[Instruction]] = {
        "clone": [
            _argument(0),
            (ANY_BIT, 0, 1, CLONE_NAMESPACES),
            REFUSE,
            (ANY_BIT, 0, 1, CLONE_THREAD),
            PASS,
            REFUSE,
        ],
        "clone3": [UNKNOWN],  # its flags lie in memory, out of the filter's reach; the C library then takes clone
        "ioctl": _one_of(1, IOCTL),
        "fcntl": _one_of(1, FCNTL),
        "kill": _one_of(0, (0, itself, -itself)),
        "tgkill": _one_of(0, (itself,)),
        "sched_setaffinity": _one_of(0, (0, itself)),
        # Memory that is shared without a file is not counted by the limit of memory, and nobody is there to share it with.
        "mmap": [_argument(3), (ANY_BIT, 0, 2, MAP_ANONYMOUS), (ANY_BIT, 0, 1, MAP_SHARED), REFUSE, PASS],
        # Limits may be read, not changed: both halves of the pointer to the new ones are zero.
        "prlimit64": [_argument(2), (EQUAL, 1, 0, 0), REFUSE, _argument(2, high=True), (EQUAL, 0, 1, 0), PASS, REFUSE],
    }
    program: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, ARCHITECTURES[machine][0]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    for name, block in blocks.items():
        program += [(EQUAL, 0, len(block), special[name]), *block]
    for first, last in _runs(sorted(kinds["plain"].values())):
        program += [(AT_LEAST, 0, 2, first), (ABOVE, 1, 0, last), PASS]
    program += [(ABOVE, 0, 1, LARGEST_KNOWN), UNKNOWN, REFUSE]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _kinds(machine: str) -> dict[str, dict[str, int]]:
    column = ARCHITECTURES[machine][1]
    found: dict[str, dict[str, int]] = {"plain": {}, BY_ARGUMENT: {}}
    kind = "plain"
    for entry in ALLOWED.replace("\n", ",").split(","):
        heading, colon, text = entry.rpartition(":")
        if colon:
            kind = BY_ARGUMENT if heading.strip() == BY_ARGUMENT else "plain"
        name, *numbers = text.split() or ["", "-", "-"]
        if numbers[column] != "-":
            found[kind][name] = int(numbers[column])
    return found


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Returns (first, last) of each run of consecutive numbers.

    Examples:
        >>> _runs([1, 2, 3, 7])
        [(1, 3), (7, 7)]
    """
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _argument(index: int, *, high: bool = False) -> Instruction:
    return LOAD, 0, 0, ARGUMENTS + 8 * index + 4 * high  # both machines are little-endian


def _one_of(index: int, values: tuple[int, ...]) -> list[Instruction]:
    """Returns instructions that allow the call if the lower half of an argument is one of ``values``."""
    tests = [part for value in values for part in ((EQUAL, 0, 1, value & 0xFFFFFFFF), PASS)]
    return [_argument(index), *tests, REFUSE]
