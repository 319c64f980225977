"""Does LiteRT take this file, and if not, why? Tried in a child process, as some damaged files end the process.

``try_file`` opens the file and runs it once on zeros. Nothing is measured and no answer of the model is looked at.
``run_interpreter`` does other work with an interpreter in such a child, and says in one line how it ended.
"""

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DeviceError, TfcompressError
from ..system import ChildExit, Sandbox, run_isolated

__all__ = ["Trial", "attempt", "run_interpreter", "try_file"]

TIMEOUT_SECONDS = 600.0
TRIAL_SECONDS = 120.0
BEGINNING = 12  # characters by which a repetition is recognised


@dataclass(frozen=True)
class Trial:
    """How LiteRT took a file.

    Args:
        runtime: name and version of the interpreter.
        refusal: why it does not run, in one line; None for a file that ran.
        delegate_nodes: how many parts of the graph XNNPACK took over; 0 for a file that did not run.

    Examples:
        >>> print(Trial("ai-edge-litert 2.3.0", None, 1))
        runs on ai-edge-litert 2.3.0, XNNPACK takes over 1 part
    """

    runtime: str
    refusal: str | None
    delegate_nodes: int = 0

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"does not run on {self.runtime}: {self.refusal}"
        parts = "1 part" if self.delegate_nodes == 1 else f"{self.delegate_nodes} parts"
        return f"runs on {self.runtime}, XNNPACK takes over {parts if self.delegate_nodes else 'nothing'}"


def try_file(path: str | os.PathLike, *, timeout_seconds: float = TRIAL_SECONDS, debug: bool = False) -> Trial:
    """Returns how LiteRT takes a file, tried in a child process.

    Args:
        path: the ``.tflite`` file.
        timeout_seconds: how long it may take. Default: 120.
        debug: whether the interpreter's log lines are shown. Default: False.
    """
    try:
        found = run_interpreter(
            "tfcompress.tflite.trial:attempt",
            {"model": str(path)},
            place="the file",
            timeout_seconds=timeout_seconds,
            debug=debug,
        )
    except DeviceError as error:
        return refused(str(error))
    return Trial(_runtime(), found["refusal"], found["delegate_nodes"])


def refused(reason: str) -> Trial:
    """Returns the trial of a file that did not run."""
    return Trial(_runtime(), reason)


def _runtime() -> str:
    return f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


def run_interpreter(
    function_path: str,
    request: Mapping[str, Any],
    *,
    place: str,
    runtime: str = "LiteRT",
    timeout_seconds: float = TIMEOUT_SECONDS,
    pieces: Iterable[Any] | None = None,
    sandbox: Sandbox | None = None,
    debug: bool = False,
) -> Any:
    """Returns what a function answers to ``request`` in a child process, where it works on a file with an interpreter.

    Args:
        function_path: "package.module:function", as ``system.run_isolated`` takes it.
        request: what it is called with.
        place: how messages name what it works on: a file, or several.
        runtime: how messages name the interpreter. Default: "LiteRT".
        timeout_seconds: after which the child is ended. Default: 600.
        pieces: as ``system.run_isolated`` takes them. Default: none.
        sandbox: likewise. Default: None.
        debug: whether the child's own lines are shown on standard error. Default: False.

    Raises:
        TfcompressError: what the function raised, of the same class.
        ValueError: likewise.
        DeviceError: another exception, an end by a signal, without an answer, or not in time.

    Examples:
        >>> run_interpreter("tfcompress.system.isolation:count_letters", "four", place="nothing")
        4
    """

    def explain(ended: ChildExit) -> DeviceError:
        if ended.is_late:
            return DeviceError(
                f"{runtime} must be done with {place} within {timeout_seconds:.0f} s. Received: no answer. The file may "
                "loop for ever; convert it again."
            )
        if ended.code < 0:
            return DeviceError(
                f"{runtime} crashed on {place} ({ended.how}), in a process of its own. The file is damaged or the memory "
                "too small: convert it again, or free memory."
            )
        said = f"{ended.raised}: {ended.said}" if ended.raised else ended.said or "no message"
        return DeviceError(f"The process that ran {place} gave no answer ({ended.how}): {said}")

    try:
        return run_isolated(
            function_path,
            request,
            pieces=pieces,
            timeout_seconds=timeout_seconds,
            sandbox=sandbox,
            explain=explain,
            debug=debug,
        )
    except (TypeError, OSError) as error:
        raise explain(ChildExit(1, said=str(error), raised=type(error).__name__)) from error


def attempt(request: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Opens and runs the file here and returns what was said; ``try_file`` calls this in the child.

    Args:
        request: ``model``, the path.
        report: not called.
    """
    from .interpreter import open_model

    try:
        model = open_model(request["model"], debug=True)
        model.feed({info.name: np.zeros([size or 1 for size in info.shape], info.dtype) for info in model.inputs})
        model.invoke()
    except (TfcompressError, TypeError) as error:  # TypeError: a tensor type that the interpreter cannot hand out
        text = str(error).replace(request["model"], "the file").removeprefix("LiteRT refuses the file: ")
        return {"refusal": first_reason(text.removesuffix(" Convert it again.")), "delegate_nodes": 0}
    return {"refusal": None, "delegate_nodes": model.delegate_nodes}


def first_reason(text: str) -> str:
    """Returns LiteRT's message up to where it repeats itself, which it does tensor by tensor, with spaces after stops.

    Examples:
        >>> first_reason("axis must be in range. Was 3.Tensor 33 is invalid.axis must be in range. Was 3.Tensor 36")
        'axis must be in range. Was 3. Tensor 33 is invalid.'
    """
    begins = text.find(": ") + 2 if ": " in text else 0
    again = text.find(text[begins : begins + BEGINNING], begins + BEGINNING)
    return re.sub(r"\.(?=[A-Z])", ". ", text if again < 0 else text[:again]).strip()
