"""What does a model answer to many samples? In batches, on all cores at once, the same answers as one by one.

Each worker is a thread with an interpreter of its own (LiteRT lets go of Python's lock while it runs); they take blocks of
samples from one list, so that what is done when somebody asks for an early end is the beginning of the list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .machine import usable_cores
from .timing import STOP

__all__ = ["evaluate", "worker_count"]

SECONDS_BETWEEN_REPORTS = 0.2

Arrays = Mapping[str, np.ndarray]


def worker_count(workers: int, threads: int, blocks: int) -> int:
    """Returns how many workers share the blocks: as many as cores hold their threads, unless a number was asked for.

    Examples:
        >>> worker_count(3, 1, 100), worker_count(3, 1, 2)
        (3, 2)
    """
    return max(1, min(workers or usable_cores() // threads, blocks))


def evaluate(
    make: Callable[[], Any],
    feeds: Arrays,
    *,
    batch: int,
    threads: int = 1,
    workers: int = 0,
    in_order: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, np.ndarray], int, float]:
    """Returns the answers to all samples, how many there are, and how long they took in seconds.

    Args:
        make: opens the model; called once per worker.
        feeds: for each input name an array (n, ...) in the input's own dtype.
        batch: samples per block.
        threads: that each worker's interpreter uses. Default: 1.
        workers: how many; 0 for as many as the cores hold. Default: 0.
        in_order: whether one worker does it all, in one piece, because each sample leaves traces in the next.
            Default: False.
        report: called with (done, total) now and then. Default: None.

    Raises:
        TfcompressError: what a worker raised.
    """
    samples = len(next(iter(feeds.values())))
    starts = list(range(0, samples, batch))
    count = 1 if in_order else worker_count(workers, threads, len(starts))
    models = [make() for _ in range(count)]
    answers: dict[int, dict[str, np.ndarray]] = {}
    errors: list[BaseException] = []
    places = iter(starts)
    lock = threading.Lock()
    began = time.perf_counter()
    spoke = began

    def work(model: Any) -> None:
        nonlocal spoke
        try:
            while not errors and not (STOP.requested and answers):
                with lock:
                    start = next(places, None)
                if start is None:
                    return
                block = {name: array[start : start + batch] for name, array in feeds.items()}
                answer = model.run_raw(block, batch=batch)
                with lock:
                    answers[start] = answer
                    now = time.perf_counter()
                    if report is not None and now - spoke > SECONDS_BETWEEN_REPORTS:
                        spoke = now
                        report(min(len(answers) * batch, samples), samples)
        except BaseException as error:  # noqa: BLE001 - carried to the thread that asked
            errors.append(error)

    workers_alive = [threading.Thread(target=work, args=(model,), daemon=True) for model in models]
    for worker in workers_alive:
        worker.start()
    for worker in workers_alive:
        while worker.is_alive():
            worker.join(1.0)  # in pieces, so that signals are heard
    if errors:
        raise errors[0]
    seconds = time.perf_counter() - began
    done = [answers[start] for start in starts if start in answers]
    found = {name: np.concatenate([answer[name] for answer in done]) for name in done[0]}
    return found, len(next(iter(found.values()))), seconds
