"""How long does one inference take? Warm-up until the times settle, then timed runs, of one file or of several in turns."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

from ...latency import is_steady

__all__ = ["STOP", "Stop", "time_in_turns", "warm_up"]

NANOSECONDS_PER_MILLISECOND = 1e6
MOST_WARMUP_RUNS = 1000
MOST_WARMUP_MS = 5000.0


class Stop:
    """Whether the process was asked to end early, and to answer with what it has so far."""

    def __init__(self):
        self.requested = False

    def listen(self) -> None:
        """Takes the first SIGINT or SIGTERM as such a request; the next one ends the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)


STOP = Stop()

Run = Callable[[], object]


def time_once(run: Run) -> float:
    """Returns how long one call takes, in milliseconds.

    Examples:
        >>> time_once(list) >= 0
        True
    """
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / NANOSECONDS_PER_MILLISECOND


def warm_up(runs: Sequence[Run], count: int | None) -> tuple[int, bool | None]:
    """Runs everything in turns before it is timed.

    Args:
        runs: what to run.
        count: how often; None until the times of all have settled (``latency.is_steady``), at most 1000 times and 5
            seconds long.

    Returns:
        How often each ran, and whether the times had settled; None where a number was asked for.

    Examples:
        >>> warm_up([list], 3)
        (3, None)
    """
    times: list[list[float]] = [[] for _ in runs]
    most = MOST_WARMUP_RUNS if count is None else count
    spent = 0.0
    for done in range(most):
        if STOP.requested:
            return done, None if count is not None else False
        if count is None and (spent > MOST_WARMUP_MS or all(is_steady(each) for each in times)):
            return done, all(is_steady(each) for each in times)
        for run, each in zip(runs, times):
            each.append(time_once(run))
            spent += each[-1]
    return most, None if count is not None else all(is_steady(each) for each in times)


def time_in_turns(runs: Sequence[Run], count: int) -> list[list[float]]:
    """Returns the times of ``count`` rounds of A B A B, in milliseconds, one list for each; fewer rounds after a stop.

    Args:
        runs: what to run.
        count: rounds, at least 1; the first is finished whatever happens.

    Examples:
        >>> [len(times) for times in time_in_turns([list, dict], 3)]
        [3, 3]
    """
    times: list[list[float]] = [[] for _ in runs]
    for done in range(count):
        if STOP.requested and done:
            break
        for run, each in zip(runs, times):
            each.append(time_once(run))
    return times
