"""``tfcompress zoo``: the models to start from, what they cost and which targets each converts to."""

import inspect
import json
import tempfile
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from ..quantization import TARGETS
from ..system import write_atomically
from ..system.text_tables import WIDTH, columns, count_text
from .parsing import UsageError, help_text, new_flags, parse, show

if TYPE_CHECKING:
    from ..zoo import Entry

__all__ = ["SUMMARY", "run"]

SUMMARY = "list the models to start from, what they cost and what they convert to"
_EXAMPLE = "{program} --model=shufflenet_v2 --check"
_INDENT = 17
_SAMPLES = 8  # of noise; whether a file can be made does not depend on them


def _flags() -> flags.FlagValues:
    values = new_flags()
    flags.DEFINE_string("model", None, "show this model's arguments, paper and targets", flag_values=values)
    flags.DEFINE_bool(
        "check", False, "with --model: convert a small variant to every target now, on noise", flag_values=values
    )
    flags.DEFINE_string("json", None, "also write the table as JSON; - is stdout", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "replace existing output files", flag_values=values)
    return values


def run(arguments: Sequence[str], *, program: str) -> int:
    """Runs the command; returns its exit code."""
    values = _flags()
    if parse(values, arguments, required=()):
        show(help_text(values, program=program, summary=SUMMARY, example=_EXAMPLE.format(program=program)))
        return 0
    if values.check and values.model is None:
        raise UsageError("--check needs a --model. --help lists the flags.")
    from ..system import native_stderr_silenced
    from ..zoo import MODELS, find

    entries = list(MODELS.values()) if values.model is None else [find(values.model)]
    if values.model is not None:  # whose arguments are in a module that imports Keras
        with native_stderr_silenced(debug=values.debug):
            import keras  # noqa: F401
    record = json.dumps([_record(entry) for entry in entries], indent=2) + "\n"
    if values.json == "-":
        show(record)
        return 0
    show(_table(entries) if values.model is None else _details(entries[0]))
    if values.json:
        write_atomically(values.json, record, overwrite=values.overwrite)
    return _check(entries[0]) if values.check else 0


def _record(entry: "Entry") -> dict[str, Any]:
    return {
        "name": entry.name,
        "task": entry.task,
        "input_shape": list(entry.input_shape),
        "parameters": entry.parameters,
        "multiply_adds": entry.multiply_adds,
        "paper": entry.paper,
        "float_ops": list(entry.float_ops),
        "targets": [name for name in TARGETS if name not in entry.refused],
        "refused": dict(entry.refused),
        "note": entry.note,
    }


def _targets(entry: "Entry") -> str:
    return f"all but {', '.join(entry.refused)}" if entry.refused else "all"


def _table(entries: "Sequence[Entry]") -> str:
    rows = [
        (
            entry.name,
            "x".join(map(str, entry.input_shape)),
            count_text(entry.parameters),
            count_text(entry.multiply_adds),
        )
        for entry in entries
    ]
    heading, _, *lines = columns(("model", "input", "params", "MAdds"), rows)
    start = len(heading) + 1
    texts = [f"{heading} targets", "─" * WIDTH]
    for line, entry in zip(lines, entries, strict=True):
        texts += textwrap.wrap(
            f"{line} {_targets(entry)}", WIDTH, subsequent_indent=" " * start, break_on_hyphens=False
        )
    notes = f"Targets: {', '.join(TARGETS)}. MAdds: multiply-adds of one sample. --model=NAME says more."
    return "\n".join([*texts, *textwrap.wrap(notes, WIDTH, break_on_hyphens=False)])


def _details(entry: "Entry") -> str:
    parameters = inspect.signature(entry.function).parameters.values()
    options = {p.name: entry.arguments.get(p.name, p.default) for p in parameters}
    lines = [
        f"{entry.name}: {entry.task}",
        f"  paper          {entry.paper}",
        f"  input          {'x'.join(map(str, entry.input_shape))}",
        f"  parameters     {entry.parameters:,}",
        f"  multiply-adds  {entry.multiply_adds:,}",
        f"  arguments      {', '.join(f'{name}={value!r}' for name, value in options.items())}",
        f"  targets        {', '.join(name for name in TARGETS if name not in entry.refused)}",
    ]
    lines += [f"  not {name}: {reason}" for name, reason in entry.refused.items()]
    lines += [f"  in float32     {', '.join(entry.float_ops)}"] if entry.float_ops else []
    lines += [f"  note           {entry.note}"] if entry.note else []
    return "\n".join(part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent=" " * _INDENT))


def _check(entry: "Entry") -> int:
    """Prints what each target says to a small variant; returns 1 where the table says something else."""
    wrong = 0
    for name, refusal in verdicts(entry).items():
        expected = name in entry.refused
        wrong += bool(refusal) != expected
        show(f"  {name:18} {refusal or 'converts'}{'' if bool(refusal) == expected else '  (the table differs)'}")
    return 1 if wrong else 0


def verdicts(entry: "Entry", targets: Iterable[str] = TARGETS) -> dict[str, str]:
    """Returns by target why a small variant of a model does not convert, "" where it does.

    Args:
        entry: the model's row.
        targets: names of the targets that are tried. Default: all.
    """
    import numpy as np

    from ..conversion import convert
    from ..errors import TfcompressError
    from ..zoo import build

    model = build(entry.name, **entry.small)
    random = np.random.default_rng(0)
    given = model.inputs[0]
    shape = (_SAMPLES, *given.shape[1:])
    whole = "int" in str(given.dtype)
    samples = random.integers(0, 2, shape) if whole else random.uniform(-1, 1, shape)
    samples = samples.astype(given.dtype)
    _settle(model, samples)
    settings = entry.settings(**entry.small)
    found = {}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # that noise is no representative data
        path = Path(folder, f"{entry.name}.tflite")
        convert(model, target="float32").save(path)
        for name in targets:
            target = TARGETS[name]
            data = samples if target.integer else None
            try:
                convert(path, target=target, representative_data=data, **settings)
                found[name] = ""
            except TfcompressError as error:
                found[name] = " ".join(str(error).split())
    return found


def _settle(model: Any, samples: Any) -> None:
    """Gives BatchNorm the statistics of the samples: without them values grow or fade from layer to layer."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(samples, training=True)
