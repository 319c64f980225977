"""``tfcompress measure``: accuracy, latency, memory and size of ``.tflite`` files in one table."""

from collections.abc import Sequence

from absl import flags

from ..files import check_distinct, check_writable, write_atomically
from .parsing import UsageError, help_text, new_flags, parse, show
from .progress import Progress

__all__ = ["SUMMARY", "run"]

SUMMARY = "measure accuracy, latency, memory and size of .tflite files"
_EXAMPLE = "{program} --model=float.tflite,int8.tflite --data=test.npz"


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_list("model", None, "one or several .tflite files", flag_values=values)
    flags.DEFINE_string(
        "data",
        None,
        "labelled data: .npz with x and y, or a folder with one sub-folder of images per class",
        flag_values=values,
    )
    flags.DEFINE_integer("threads", 1, "threads for one inference", lower_bound=1, upper_bound=256, flag_values=values)
    flags.DEFINE_integer(
        "warmup", 10, "untimed runs before the timed ones", lower_bound=0, upper_bound=1_000_000, flag_values=values
    )
    flags.DEFINE_integer("runs", 100, "timed runs", lower_bound=1, upper_bound=1_000_000, flag_values=values)
    flags.DEFINE_string(
        "scaling",
        None,
        "how pixels of images become inputs: zero_one, minus_one_one, raw, imagenet_torch, imagenet_caffe, or "
        "mean=R,G,B;std=R,G,B",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "reset_state",
        False,
        "start each labelled sample from a zero state in models that keep one (LSTM)",
        flag_values=values,
    )
    flags.DEFINE_enum("device", "local", ["local"], "where to run", flag_values=values)
    flags.DEFINE_bool(
        "allow_unsafe", False, "load arrays that bring pickles along; only from people you trust", flag_values=values
    )
    flags.DEFINE_string("json", None, "also write the records as a JSON array; - is stdout", flag_values=values)
    flags.DEFINE_string("report", None, "also write a self-contained HTML page with plots", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = _flags()
    if parse(values, arguments, required=("model",)):
        print(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    if values.report == "-":
        raise UsageError("--report must name a file. Received: '-'. --help lists the flags.")
    check_distinct(json=values.json, report=values.report)
    for path in values.model:
        check_distinct(model=path, json=values.json, report=values.report)
    for path in (values.json, values.report):
        if path and path != "-":
            check_writable(path, overwrite=values.overwrite)
    from ..interpreter import read_model
    from ..measurement import measure
    from ..records import json_text
    from ..tables import measurement_table

    for path in values.model:  # a wrong name in the list is found before the first file is measured
        read_model(path)
    measurements = []
    with Progress("measuring", "models") as progress:
        for done, path in enumerate(values.model, start=1):
            measurements.append(
                measure(
                    path,
                    values.data,
                    threads=values.threads,
                    warmup=values.warmup,
                    runs=values.runs,
                    scaling=values.scaling,
                    reset_state=values.reset_state,
                    device=values.device,
                    allow_pickle=values.allow_unsafe,
                    debug=values.debug,
                )
            )
            if len(values.model) > 1:
                progress(done, len(values.model))
    if values.json and values.json != "-":
        write_atomically(values.json, json_text(measurements), overwrite=values.overwrite)
    if values.report:
        from ..reporting import report

        report(measurements, values.report, overwrite=values.overwrite)
    show(json_text(measurements) if values.json == "-" else measurement_table(measurements))
    return 0
