"""Which precision does each layer get, where one precision for the whole file is not wanted?

An ordered list of rules, the last match wins. Rules are values; reading them from JSON or YAML and finding the one for a
layer is all that happens here.
"""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import DataError
from ..system.documents import is_yaml_name, read_document

__all__ = ["PRECISIONS", "Precision", "Rule", "choose", "read_rules"]

Precision = Literal["int8", "int16x8", "int4"]
PRECISIONS = (*get_args(Precision), None)
"""int8 weights and activations; int8 weights with int16 activations; int4 weights with int8 activations; float."""


@dataclass(frozen=True)
class Rule:
    """One line of a mixed-precision list.

    Args:
        pattern: shell pattern over layer or tensor names: "conv_*", "block_3/*", "*logits*".
        op: shell pattern over operator names as the schema spells them. Default: "*".
        precision: "int8", "int16x8", "int4", or None, which leaves the layer in float. Default: None.

    Raises:
        ValueError: an unknown precision, or an empty pattern.

    Examples:
        >>> rule = Rule("stem*", op="CONV_2D", precision="int16x8")
        >>> rule.matches(["net/stem_conv/Conv2D;net/stem_relu/Relu"], "CONV_2D")
        True
        >>> rule.matches(["net/logits/MatMul"], "FULLY_CONNECTED")
        False
    """

    pattern: str
    op: str = "*"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = ", ".join(str(name) for name in PRECISIONS)
            raise ValueError(f"precision must be one of {known}. Received: precision={self.precision!r}.")
        if not isinstance(self.pattern, str) or not self.pattern or not isinstance(self.op, str) or not self.op:
            raise ValueError(f"pattern and op must be texts. Received: pattern={self.pattern!r}, op={self.op!r}.")

    def matches(self, names: Iterable[str], op: str) -> bool:
        """Returns whether the rule is for an operator of this kind with output tensors of these names.

        A tensor's name is compared whole, by each part between ";" (the layers fused into one operator), and by each
        part between "/" (the layer's own name).
        """
        if not fnmatchcase(op, self.op):
            return False
        return any(fnmatchcase(part, self.pattern) for name in names for part in _parts(name))


def _parts(name: str) -> list[str]:
    fused = name.split(";")
    return [name, *fused, *(part for whole in fused for part in whole.split("/"))]


def read_rules(source: Any) -> tuple[Rule, ...]:
    """Returns the rules of a ``.json`` or ``.yaml`` file, or of a list of ``Rule``, dictionaries or tuples.

    Args:
        source: a path, or a list whose items are a ``Rule``, ``{"pattern": ..., "op": ..., "precision": ...}`` or
            (pattern, op, precision). None is no rules.

    Raises:
        DataError: the file is missing or no list of rules.
        TypeError: the source is no list.
        ValueError: a rule is malformed.

    Examples:
        >>> read_rules([("*", "*", "int8"), {"pattern": "logits", "precision": None}])
        (Rule(pattern='*', op='*', precision='int8'), Rule(pattern='logits', op='*', precision=None))
    """
    if source is None:
        return ()
    if isinstance(source, str | os.PathLike):
        source = _read(Path(source))
    if isinstance(source, Rule | Mapping) or not isinstance(source, Sequence):
        raise TypeError(f"Precision rules must be a list. Received: {type(source).__name__}. Write [rule, ...].")
    return tuple(_rule(item) for item in source)


def _rule(item: Any) -> Rule:
    if isinstance(item, Rule):
        return item
    if isinstance(item, Mapping):
        unknown = sorted(set(item) - {"pattern", "op", "precision"})
        if unknown or "pattern" not in item or "precision" not in item:
            raise ValueError(
                f"A precision rule has pattern, op (optional) and precision. Received: {dict(item)!r}. "
                'Write {"pattern": "logits", "precision": null}.'
            )
        return Rule(item["pattern"], item.get("op", "*"), item["precision"])
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 3:
        return Rule(*item)
    raise ValueError(f"A precision rule is (pattern, op, precision). Received: {item!r}.")


def _read(path: Path) -> Any:
    try:
        return read_document(path)
    except OSError as error:
        raise DataError(
            f"The precision rules must be readable. Received: {path} ({error.strerror}). Check the path."
        ) from error
    except ValueError as error:
        form = "YAML" if is_yaml_name(path) else "JSON"
        hint = "" if is_yaml_name(path) else " Name it .yaml if it is."
        raise DataError(f"The precision rules must be {form}. Received: {path} ({error}).{hint}") from error


def choose(rules: Sequence[Rule], operators: Sequence[tuple[str, Sequence[str]]]) -> list[Rule | None]:
    """Returns for each operator the last rule that matches it, None where none does.

    Args:
        rules: in order.
        operators: (operator name, names of its output tensors).

    Raises:
        ValueError: a rule that no operator matches; the message has the nearest names.

    Examples:
        >>> rules = [Rule("*", precision="int8"), Rule("logits", precision=None)]
        >>> [rule.precision for rule in choose(rules, [("CONV_2D", ["stem"]), ("FULLY_CONNECTED", ["logits"])])]
        ['int8', None]
    """
    chosen: list[Rule | None] = [None] * len(operators)
    for rule in rules:
        hits = [i for i, (op, names) in enumerate(operators) if rule.matches(names, op)]
        if not hits:
            layers = {part for _, names in operators for name in names for part in _parts(name) if "/" not in part}
            near = difflib.get_close_matches(rule.pattern, layers, n=3, cutoff=0.3) or sorted(layers)[:3]
            raise ValueError(
                f"A precision rule must match a layer. Received: pattern={rule.pattern!r}, op={rule.op!r}, which none "
                f"does. Names like it: {', '.join(near)}."
            )
        for i in hits:
            chosen[i] = rule
    return chosen
