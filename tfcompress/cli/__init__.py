"""The command line: one command, one function, one set of absl flags.

``tfcompress convert`` is ``tfcompress.convert`` and ``tfcompress measure`` is ``tfcompress.measure``; the files in
``tools/`` call the same functions. This module chooses the command and turns errors into one line and an exit code: 1
for failure, 2 for wrong usage, 130 after Ctrl-C.
"""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import TfcompressError
from ..system.printable import printable_lines
from . import compare, convert, devices, inspect, measure, reproduce, robustness, signing, zoo
from .parsing import UsageError, abandon_stdout, show
from .progress import say

__all__ = ["guarded", "main"]

_COMMANDS: dict[str, Any] = {  # modules with SUMMARY and run, or values with both
    "convert": convert,
    "measure": measure,
    "inspect": inspect,
    "compare": compare,
    "robustness": robustness,
    "devices": devices,
    "zoo": zoo,
    "scan": signing.SCAN,
    "keygen": signing.KEYGEN,
    "sign": signing.SIGN,
    "verify": signing.VERIFY,
    "reproduce": reproduce,
    "encrypt": signing.ENCRYPT,
    "decrypt": signing.DECRYPT,
}


def main(arguments: Sequence[str] | None = None, *, program: str = "tfcompress") -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: the command's name and its flags. Default: those of the process.
        program: how messages name the program. Default: "tfcompress".

    Examples:
        >>> main(["convrt"])
        2
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        return guarded(_show_overview, arguments, program=program)
    name, rest = arguments[0], arguments[1:]
    if name not in _COMMANDS:
        say(f"{program}: unknown command {name!r}. Known: {', '.join(_COMMANDS)}.")
        return 2
    return run(name, rest, program=f"{program} {name}")


def run(name: str, arguments: Sequence[str], *, program: str) -> int:
    """Runs the command ``name`` with its flags and returns the exit code."""
    return guarded(_COMMANDS[name].run, arguments, program=program)


def guarded(command: Callable[..., int], arguments: Sequence[str], *, program: str) -> int:
    """Returns the exit code of ``command(arguments, program=program)``, with every error as one line.

    Args:
        command: returns an exit code; may raise anything.
        arguments: its flags; ``--debug`` among them lets tracebacks through.
        program: how messages name the program.

    Examples:
        >>> guarded(lambda arguments, program: 0, [], program="example")
        0
    """
    debug = "--debug" in arguments or "--debug=true" in arguments
    # A user's import of TensorFlow's model optimization toolkit leaves this set; Keras 3 models need it unset.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "3")
    if sys.stdout is None:  # started without standard output
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        with _printable_warnings():
            return command(arguments, program=program)
    except UsageError as error:
        return _fail(program, error, 2)
    except KeyboardInterrupt:
        say(f"{program}: interrupted; no file was left half written.")
        return 130
    except BrokenPipeError:
        abandon_stdout()  # its reader went away
        return 1
    except (ValueError, TypeError, TfcompressError, OSError, MemoryError) as error:
        if debug:
            raise
        return _fail(program, error, 1)
    except Exception as error:  # the boundary to the user: never a traceback without --debug
        if debug:
            raise
        return _fail(program, f"unexpected {type(error).__name__}: {error} (--debug shows where)", 1)


@contextlib.contextmanager
def _printable_warnings() -> Iterator[None]:
    """Has warnings, which name what stands in files, written printable; who catches them gets them as they are."""
    plain = warnings.formatwarning

    def printed(*args: Any, **kwargs: Any) -> str:
        return printable_lines(plain(*args, **kwargs))

    warnings.formatwarning = printed
    try:
        yield
    finally:
        warnings.formatwarning = plain


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)  # leaves by way of every clean-up, so that no child lives on


def _fail(program: str, error: object, code: int) -> int:
    say(f"{program}: {str(error).strip() or type(error).__name__}")
    return code


def _show_overview(arguments: Sequence[str], *, program: str) -> int:
    show(_overview(program))
    return 0 if arguments else 2


def _overview(program: str) -> str:
    lines = [f"{program}: prune and quantize Keras models, convert them to TFLite, measure the files", ""]
    lines += [f"  {program} {name:10} {command.SUMMARY}" for name, command in _COMMANDS.items()]
    return "\n".join([*lines, "", f"'{program} COMMAND --help' lists a command's flags."])
