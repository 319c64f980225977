"""Several files on several devices: different machines work at once, one that fails is a row with its reason.

``sessions`` measures on each; Ctrl-C ends all of them and keeps what is known.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from ..errors import TfcompressError
from .devices.device import Device
from .records import Failure, Result
from .sessions import Job, Plan, Session

__all__ = ["Interrupted", "measure_all"]

SECONDS_TO_STOP = 30.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a measurement; what was measured until then is kept.

    Attributes:
        records: as ``measure`` returns them; the last ones may be marked ``interrupted`` or be missing.
    """

    def __init__(self, records: list[Result]):
        super().__init__("interrupted")
        self.records = records


def measure_all(
    devices: Sequence[tuple[Device, str]], plan: Plan, jobs: Sequence[Job], interleave: bool, *, lone: bool
) -> dict[tuple[int, int], Result]:
    """Returns a result for each device and job, by their numbers; devices that are different machines work at once.

    Args:
        devices: each with the key of its machine.
        plan: what to measure.
        jobs: the files.
        interleave: whether files run in turns.
        lone: whether an error is raised instead of becoming a row.

    Raises:
        TfcompressError: the lone measurement failed.
        Interrupted: Ctrl-C.
    """
    table: dict[tuple[int, int], Result] = {}
    sessions = [Session(device, plan) for device, _ in devices]
    groups: dict[str, list[int]] = {}
    for number, (_, machine) in enumerate(devices):
        groups.setdefault(machine, []).append(number)
    stop = threading.Event()
    raised: list[BaseException] = []

    def work(group: Sequence[int]) -> None:
        for number in group:
            try:
                for row, result in results_of(sessions[number], jobs, interleave, lone=lone, stop=stop):
                    table[number, row] = result
            except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
                raised.append(error)
                return

    if len(groups) == 1:
        work(next(iter(groups.values())))
    else:
        ends: list[threading.Event] = []  # of those that were begun: Ctrl-C may come before the last is
        try:
            for group in groups.values():
                ends.append(threading.Event())
                threading.Thread(target=run_and_tell, args=(work, group, ends[-1]), daemon=True).start()
            wait_for(ends)
        except KeyboardInterrupt as error:
            stop.set()
            raised.append(error)
            for device, _ in devices:
                device.interrupt()
            with contextlib.suppress(KeyboardInterrupt):  # the second Ctrl-C
                wait_for(ends, SECONDS_TO_STOP)
    for reason in raised:
        if isinstance(reason, KeyboardInterrupt):
            raise Interrupted(with_partial(table, sessions, jobs)) from reason
        raise reason
    return table


def results_of(
    session: Session, jobs: Sequence[Job], interleave: bool, *, lone: bool, stop: threading.Event
) -> Iterator[tuple[int, Result]]:
    """Yields the number and the result of each job on one device; one that fails is a row with its reason."""
    if interleave:
        yield from results_in_turns(session, jobs)
        return
    for number, each in enumerate(jobs):
        if stop.is_set():
            return
        try:
            yield number, session.measure(each)
        except (TfcompressError, OSError) as error:
            if lone:
                raise
            yield number, failure(session, each, error)
        session.begun.clear()


def results_in_turns(session: Session, jobs: Sequence[Job]) -> Iterator[tuple[int, Result]]:
    """Yields the same of files that run in turns; one that cannot be opened is left out of the turns."""
    alone = {}
    for number, each in enumerate(jobs):
        try:
            alone[number] = session.alone(each)
        except (TfcompressError, OSError) as error:
            yield number, failure(session, each, error)
    left = list(alone)
    try:
        for record in session.measure_in_turns([jobs[number] for number in left], list(alone.values())) if left else ():
            yield left.pop(0), record
    except (TfcompressError, OSError) as error:
        for number in left:
            yield number, failure(session, jobs[number], error)


def failure(session: Session, job: Job, error: Exception) -> Failure:
    """Returns the row of a file that could not be measured."""
    return Failure(job.name, session.device.name, " ".join(str(error).split()) or type(error).__name__, job.label)


def with_partial(
    table: dict[tuple[int, int], Result], sessions: Sequence[Session], jobs: Sequence[Job]
) -> list[Result]:
    """Returns all rows that are known, by model and then by device, with what sessions had begun."""
    known = [table[d, m] for m in range(len(jobs)) for d in range(len(sessions)) if (d, m) in table]
    begun = [record for session in sessions for record in session.begun.values()]
    return [*known, *(dataclasses.replace(record, interrupted=True) for record in begun if record not in known)]


def run_and_tell(work: Callable[[Sequence[int]], None], group: Sequence[int], end: threading.Event) -> None:
    """Works on a group of devices, and tells that it is through, however it ends."""
    try:
        work(group)
    finally:
        end.set()


def wait_for(ends: Sequence[threading.Event], seconds: float | None = None) -> None:
    """Waits in pieces, so that Ctrl-C is heard meanwhile.

    Not by ``Thread.join``: where Ctrl-C falls into it, Python takes a living thread for a dead one from then on (CPython's
    issue 45274).
    """
    until = None if seconds is None else time.monotonic() + seconds
    for end in ends:
        while not end.wait(0.1):
            if until is not None and time.monotonic() >= until:
                return
