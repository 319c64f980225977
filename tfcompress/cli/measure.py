"""``tfcompress measure``: accuracy, latency, memory and size of ``.tflite`` files on devices, in one table."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ..system import check_distinct, check_writable, write_atomically
from .measure_flags import FILES, arguments_of, measure_flags
from .parsing import UsageError, help_text, parse, show
from .progress import Progress, say

__all__ = ["SUMMARY", "run"]

SUMMARY = "measure accuracy, latency, memory and size of .tflite files"
_EXAMPLE = "{program} --model=float.tflite,int8.tflite --data=test.npz"


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code: 1 if a file could not be measured, 130 after Ctrl-C."""
    values = measure_flags()
    if parse(values, arguments, required=()):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    if not values.model and not values.like:
        raise UsageError("--model must be given. --help lists the flags.")
    _check_outputs(values)
    from ..measurement import Interrupted, measure

    asked, earlier = arguments_of(values)
    models, devices = asked.pop("model"), asked.pop("device")
    several = len(models) > 1 or len(devices) > 1
    names = dict.fromkeys(getattr(model, "name", model) for model in models)
    check_distinct(**{f"model {path}": path for path in names})
    code = 0
    try:
        with _bars() as bars:
            found: Any = measure(
                models if several else models[0],
                device=devices if len(devices) > 1 else devices[0],
                progress=bars,
                **asked,
            )
        results = found if several else [found]
    except Interrupted as error:
        say(f"{program}: interrupted; {len(error.records)} of {len(models) * len(devices)} measurements are kept.")
        results, code = error.records, 130
    if results:
        _write(values, results)
        _show(values, results, earlier)
    if any(hasattr(result, "reason") for result in results):
        code = code or 1
    return code


def _check_outputs(values: flags.FlagValues) -> None:
    """Refuses files to write that clash, exist or cannot be written, before anything is measured."""
    if values.report == "-":
        raise UsageError("--report must name a file. Received: '-'. --help lists the flags.")
    paths = {name: values[name].value for name in FILES}
    to_stdout = [name for name, path in paths.items() if path == "-"]
    if len(to_stdout) > 1:
        raise UsageError(f"One of --{', --'.join(to_stdout)} can be '-'. Received: {len(to_stdout)} of them.")
    check_distinct(**paths)
    for path in values.model or ():
        check_distinct(model=path, **paths)
    for path in paths.values():
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)


@contextlib.contextmanager
def _bars() -> Iterator[Any]:
    """Gives a function that shows how many samples of which file are evaluated, one bar after the other."""
    lock = threading.Lock()
    stack = contextlib.ExitStack()
    shown: dict[str, Progress] = {}

    def call(name: str, done: int, total: int) -> None:
        with lock:
            if name not in shown:
                stack.close()
                shown.clear()
                shown[name] = stack.enter_context(Progress(f"evaluating {Path(name).name}", "samples"))
            shown[name](done, total)

    with stack:
        yield call


def _write(values: flags.FlagValues, results: list[Any]) -> None:
    from ..measurement import csv_text, json_lines, json_text

    for name, text in (("json", json_text), ("json_lines", json_lines), ("csv", csv_text)):
        path = values[name].value
        if path and path != "-":
            write_atomically(path, text(results), overwrite=values.overwrite)
    if values.report:
        from ..reporting import report

        report(results, values.report, overwrite=values.overwrite)


def _show(values: flags.FlagValues, results: list[Any], earlier: list[Any]) -> None:
    from ..measurement import compare_profiles, csv_text, json_lines, json_text, measurement_table

    for name, write in (("json", json_text), ("json_lines", json_lines), ("csv", csv_text)):
        if values[name].value == "-":
            show(write(results))
            return
    parts = [measurement_table(results)]
    measured = [result for result in results if not hasattr(result, "reason")]
    for record in measured:
        if record.confusion is not None:
            parts.append(_confusion_text(record))
    profiled = [record for record in measured if record.profile is not None]
    parts += [f"{record.name} on {record.device.name}:\n{record.profile}" for record in profiled]
    for record in profiled[1:]:
        text = compare_profiles(record.name, record.profile, profiled[0].name, profiled[0].profile)
        instruction = record.device.details.get("int8 dot product")
        parts.append(
            f"{text}\n  the processor's instruction for int8 dot products: {instruction}" if instruction else text
        )
    parts += [_earlier_text(record, earlier) for record in measured if earlier]
    show("\n\n".join(part for part in parts if part))


def _confusion_text(record: Any) -> str:
    """Returns the confusion matrix as text: a row per label, a column per answer."""
    width = max(len(str(number)) for row in record.confusion for number in row)
    width = max(width, len(str(len(record.confusion) - 1)))
    head = " ".join([" " * 6, *(f"{i:>{width}}" for i in range(len(record.confusion)))])
    rows = [
        " ".join([f"{label:>6}", *(f"{number:>{width}}" for number in row)])
        for label, row in enumerate(record.confusion)
    ]
    return "\n".join([f"{record.name}: labels (rows) by answers (columns)", head, *rows])


def _earlier_text(record: Any, earlier: list[Any]) -> str:
    """Returns how a repeated measurement compares with the record that it repeats."""
    same = [old for old in earlier if old.model_sha256 == record.model_sha256 and old.device.name == record.device.name]
    if not same or record.latency is None or same[0].latency is None:
        return ""
    old = same[0]
    ratio = record.latency.median_ms / old.latency.median_ms if old.latency.median_ms else float("nan")
    text = f"{record.name}: median {record.latency.median_ms:.3f} ms, was {old.latency.median_ms:.3f} ms ({ratio:.2f} times)"
    if old.accuracy is not None and record.accuracy is not None:
        data = "the same data" if old.data_sha256 == record.data_sha256 else "other data"
        text += f"; accuracy {100 * record.accuracy:.1f} %, was {100 * old.accuracy:.1f} % on {data}"
    return text
