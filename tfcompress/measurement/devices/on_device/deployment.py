"""What a board starts: it runs the agent in a child and leaves nothing behind, however the connection ends.

One process reads standard input for as long as the other side is there. The first line is the request, "stop" asks the
agent to answer early, and the end of the input means that nobody waits any more: the agent is ended then and the job's
folder removed. Python 3.9 runs this, without NumPy.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading

__all__ = ["main", "run_agent"]

AGENT = (
    "import io, json, signal, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " sys.stdin = io.StringIO(sys.stdin.readline()); from tfcompress.measurement.devices.on_device.agent import STOP, main; STOP.listen();"
    " signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT]); main()"
)
STOP = b"stop\n"


def main() -> None:
    """Serves one request in the present folder, which belongs to the job, and exits as the agent did."""
    folder = os.getcwd()
    stream = os.fdopen(0, "rb", buffering=0, closefd=False)
    line = stream.readline()
    agent = run_agent(line)
    is_left = threading.Event()
    watcher = threading.Thread(target=watch, args=(stream, agent, folder, is_left), daemon=True)
    watcher.start()
    code = agent.wait()
    if is_left.is_set():
        watcher.join()  # it removes the folder
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)


def run_agent(line: bytes) -> "subprocess.Popen[bytes]":
    """Starts the agent in a group of its own and gives it the request.

    Args:
        line: the request as one line of JSON.
    """
    import json

    # A request to stop that comes while the agent starts, which takes long on a small board, waits until it listens.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # so that its own children can be ended with it
    )
    try:
        agent.stdin.write(line)  # type: ignore[union-attr]
        agent.stdin.close()  # type: ignore[union-attr]
    except BrokenPipeError:
        pass  # it ended at once; its exit code says so
    return agent


def watch(stream, agent: "subprocess.Popen[bytes]", folder: str, is_left: threading.Event) -> None:
    """Passes "stop" on as SIGINT; at the end of the input ends everything and removes the job's folder.

    Args:
        stream: standard input behind the request.
        agent: the process that works.
        folder: the job's folder, of which nothing stays.
        is_left: set when nobody waits for the answer any more.
    """
    while True:
        line = stream.readline()
        if line == STOP:
            signal_group(agent, signal.SIGINT)
        elif not line:
            is_left.set()
            signal_group(agent, signal.SIGKILL)
            os.chdir("/")
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(128 + signal.SIGHUP)


def signal_group(agent: "subprocess.Popen[bytes]", number: int) -> None:
    """Sends a signal to the agent and what it started.

    Args:
        agent: the process that works.
        number: SIGINT reaches the agent alone, which stops its own children; others reach the group.
    """
    try:
        if number == signal.SIGINT:
            os.kill(agent.pid, number)
        else:
            os.killpg(agent.pid, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()
