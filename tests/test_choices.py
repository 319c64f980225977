"""Names of observers, targets, metrics and so on: their table, their type, their flag and their guide have the same ones."""

from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from tfcompress.calibration.observers import OBSERVERS, ObserverName
from tfcompress.cli.convert_flags import convert_flags
from tfcompress.cli.measure_flags import measure_flags
from tfcompress.conversion.repair import METHODS, RepairMethod
from tfcompress.data.scalings import SCALINGS, ScalingName
from tfcompress.metrics import METRICS, MetricName
from tfcompress.quantization.targets import BACKENDS, TARGETS, Backend, TargetName
from tfcompress.zoo.registry import MODELS

ROOT = Path(__file__).resolve().parents[1]


class Choice(NamedTuple):
    """One choice by name.

    Args:
        table: the names that there are.
        type: the ``Literal`` that a type checker completes.
        flags: (flags of a command, name of the flag) where it can be chosen.
        guide: the page that says what each is for. Default: None, the flag's help is all there is.
    """

    table: Any
    type: Any
    flags: tuple[tuple[Any, str], ...]
    guide: str | None = None


CHOICES = {
    "observers": Choice(OBSERVERS, ObserverName, ((convert_flags, "observer"),), "docs/conversion.md"),
    "targets": Choice(TARGETS, TargetName, ((convert_flags, "target"),), "README.md"),
    "backends": Choice(BACKENDS, Backend, ((convert_flags, "backend"),)),
    "repairs": Choice(METHODS, RepairMethod, ((convert_flags, "repair"),)),
    "scalings": Choice(SCALINGS, ScalingName, ((convert_flags, "scaling"), (measure_flags, "scaling"))),
    "metrics": Choice(METRICS, MetricName, ((measure_flags, "metric"),), "docs/measurement.md"),
}
each_choice = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)


@each_choice
def test_the_type_has_the_names_of_the_table(choice):
    assert list(get_args(choice.type)) == list(choice.table)


@each_choice
def test_the_flag_has_them_too(choice):
    for flags, name in choice.flags:
        flag = flags()[name]
        listed = getattr(flag.parser, "enum_values", None) or [each for each in choice.table if each in flag.help]
        assert listed == list(choice.table)


@pytest.mark.parametrize(
    "choice", [c for c in CHOICES.values() if c.guide], ids=[n for n, c in CHOICES.items() if c.guide]
)
def test_the_guide_names_each(choice):
    text = (ROOT / choice.guide).read_text()
    missing = [name for name in choice.table if f"`{name}`" not in text]
    assert not missing, f"{choice.guide} does not say what {missing} are for"


@pytest.mark.parametrize("name", MODELS)
def test_the_guide_of_the_zoo_has_a_row_for_the_model(name):
    (row,) = [line for line in (ROOT / "docs" / "zoo.md").read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert f" {MODELS[name].parameters:,} | {MODELS[name].multiply_adds:,} |" in row
