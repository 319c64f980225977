"""Runs ``agent`` in a child process of this machine: clean numbers, and a crash stays in the child."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from .. import errors

__all__ = ["run_agent"]

AGENT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tfcompress.devices.agent import main; main()"


def run_agent(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the agent's answer to ``request``, from a new Python process.

    The child imports from where this process does. Its native log lines are dropped unless ``request["debug"]``.

    Args:
        request: as ``agent.run_request`` takes it; ``model`` and ``debug`` are read here too.

    Raises:
        ModelError: the file cannot be opened.
        DeviceError: the interpreter failed, or the process ended by a signal or without an answer.
    """
    environment = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    child = subprocess.run(
        [sys.executable, "-P", "-c", AGENT, json.dumps(sys.path)],
        input=json.dumps(dict(request)) + "\n",
        stdout=subprocess.PIPE,
        stderr=None if request["debug"] else subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        check=False,  # how it ended is part of the message below
    )
    if child.returncode < 0:
        raise errors.DeviceError(
            f"The process that ran {request['model']} was ended by {signal.Signals(-child.returncode).name}. "
            "The file is damaged or the memory too small: convert it again, or free memory."
        )
    answer = last_json_line(child.stdout)
    if child.returncode or answer is None:
        said = ((child.stderr or "").strip().splitlines() or ["no message"])[-1]
        raise errors.DeviceError(
            f"The process that ran {request['model']} gave no answer (exit code {child.returncode}): {said}"
        )
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return answer


def last_json_line(text: str) -> dict[str, Any] | None:
    """Returns the last line as JSON, or None; native libraries may have printed before it.

    Example:
        >>> last_json_line('INFO: hello\\n{"a": 1}\\n')
        {'a': 1}
    """
    lines = text.strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
