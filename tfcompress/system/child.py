"""How code that may crash is kept out of this process: it runs in a child, which answers with one line of JSON.

Native libraries end the process on some damaged files. The child dies alone, and the caller gets an error that says so.
What runs there is named as "package.module:function"; it takes a dictionary and returns one, both plain JSON.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from .. import errors

__all__ = ["answer", "call", "last_json_line"]

CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tfcompress.system.child import answer; answer()"
TIMEOUT_SECONDS = 600.0
LONGEST_MESSAGE = 300


def call(
    function: str,
    request: Mapping[str, Any],
    *,
    place: str,
    runtime: str = "LiteRT",
    timeout_seconds: float = TIMEOUT_SECONDS,
    debug: bool = False,
) -> dict[str, Any]:
    """Returns what ``function`` answers to ``request`` in a new Python process.

    Args:
        function: "package.module:function", for instance "tfcompress.tflite.trial:attempt".
        request: what it is called with; plain JSON values.
        place: how messages name what it works on: a file, or several.
        runtime: how messages name what runs there. Default: "LiteRT".
        timeout_seconds: after which the child is ended. Default: 600.
        debug: whether the child's own lines on standard error are shown. Default: False.

    Raises:
        TfcompressError: what the function raised, of the same class.
        ValueError: likewise.
        DeviceError: the child ended by a signal, without an answer, or not in time.

    Examples:
        >>> call("tfcompress.system.child:echo", {"a": 1}, place="nothing")
        {'a': 1}
    """
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", CHILD, json.dumps(sys.path)],
            input=json.dumps({"function": function, "request": dict(request)}) + "\n",
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            timeout=timeout_seconds,
            check=False,  # how it ended is part of the messages below
        )
    except subprocess.TimeoutExpired as error:
        raise errors.DeviceError(
            f"{runtime} must be done with {place} within {timeout_seconds:.0f} s. Received: no answer. The file may loop "
            "for ever; convert it again."
        ) from error
    if child.returncode < 0:
        raise errors.DeviceError(
            f"{runtime} crashed on {place} ({_signal_name(-child.returncode)}), in a process of its own. The file is damaged "
            "or the memory too small: convert it again, or free memory."
        )
    reply = last_json_line(child.stdout)
    if reply is None or child.returncode:
        said = ((child.stderr or "").strip().splitlines() or ["no message"])[-1][:LONGEST_MESSAGE]
        raise errors.DeviceError(f"The process that ran {place} gave no answer (exit code {child.returncode}): {said}")
    if "error" in reply:
        raise (ValueError if reply["error"] == "ValueError" else getattr(errors, reply["error"]))(reply["message"])
    return reply["answer"]


def answer() -> None:
    """Runs in the child: reads the request from standard input and writes the answer; expected errors are answers."""
    order = json.loads(sys.stdin.readline())
    module, _, name = order["function"].partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
        reply = {"answer": found(order["request"])}
    except (errors.TfcompressError, ValueError) as error:
        kind = type(error).__name__ if isinstance(error, errors.TfcompressError) else "ValueError"
        reply = {"error": kind, "message": str(error)}
    sys.stdout.write("\n" + json.dumps(reply) + "\n")
    sys.stdout.flush()


def echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the request: what the example above calls.

    Examples:
        >>> echo({})
        {}
    """
    return request


def last_json_line(text: str) -> dict[str, Any] | None:
    """Returns the last line as JSON, or None; native libraries may have printed before it.

    Examples:
        >>> last_json_line('INFO: hello\\n{"a": 1}\\n')
        {'a': 1}
    """
    lines = text.strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
