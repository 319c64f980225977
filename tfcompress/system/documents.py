"""How is JSON or YAML that somebody else wrote read? Within bounds of size, depth and number of parts.

Python's JSON reader ends with ``RecursionError`` on deep nesting, and so does whoever walks the result; a YAML alias makes a
file of a kilobyte a billion parts. What a document means is decided by who reads it. Raises ``ValueError`` alone, with a text that is
a part of a sentence, so that each caller says what the document should have been.
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["MOST_BYTES", "MOST_DEPTH", "is_yaml_name", "parse_json", "parse_yaml", "read_document"]

MOST_BYTES = 64 << 20
MOST_DEPTH = 100
MOST_YAML_BYTES = 1 << 20  # Python reads some 100 kB of YAML a second
MOST_DIGITS = 1000  # numbers to the base 60 take quadratic time
YAML_SUFFIXES = (".yaml", ".yml")
_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def is_yaml_name(path: str | os.PathLike) -> bool:
    """Returns whether a file's name says that it is YAML.

    Examples:
        >>> is_yaml_name("rules.yaml"), is_yaml_name("rules.json")
        (True, False)
    """
    return os.fspath(path).lower().endswith(YAML_SUFFIXES)


def read_document(path: str | os.PathLike, *, most_bytes: int = MOST_BYTES) -> Any:
    """Returns what a JSON file says, or a YAML file where its name ends so.

    Args:
        path: of the file.
        most_bytes: refused above. Default: 64 MB; of YAML 1 MB.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, no text, not JSON or YAML, or nested too deeply.
    """
    if not os.path.isfile(path) and os.path.exists(path):
        raise ValueError("no regular file")
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    return parse_yaml(content) if is_yaml_name(path) else parse_json(content, most_bytes=most_bytes)


def parse_json(
    text: str | bytes,
    *,
    most_bytes: int = MOST_BYTES,
    most_depth: int = MOST_DEPTH,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Returns the value of a JSON text.

    Args:
        text: the text, bytes as UTF-8.
        most_bytes: refused above. Default: 64 MB.
        most_depth: lists and objects inside each other. Default: 100.
        object_pairs_hook: as for ``json.loads``. Default: None.

    Raises:
        ValueError: it is too large, no text, not JSON, or nested too deeply.

    Examples:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
        >>> parse_json("[" * 3000)
        Traceback (most recent call last):
        ...
        ValueError: nested more than 100 deep
    """
    text = _text(text, most_bytes)
    if _depth(text.encode("utf-8", "surrogatepass")) > most_depth:
        raise ValueError(f"nested more than {most_depth} deep")
    return json.loads(text, object_pairs_hook=object_pairs_hook)


def parse_yaml(text: str | bytes) -> Any:
    """Returns the value of a YAML text: plain lists, mappings, texts and numbers, without aliases and tags.

    Args:
        text: the text, bytes as UTF-8, at most 1 MB.

    Raises:
        ValueError: it is too large, no text, not YAML, has aliases or tags, or is nested more than 100 deep.

    Examples:
        >>> parse_yaml("- pattern: logits\\n  precision: null")
        [{'pattern': 'logits', 'precision': None}]
        >>> parse_yaml("a: &x [1]\\nb: [*x, *x]")
        Traceback (most recent call last):
        ...
        ValueError: it repeats a part by an alias, *x
    """
    import yaml

    text = _text(text, MOST_YAML_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise ValueError(f"nested more than {MOST_DEPTH} deep")
            _check_event(event)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (TypeError, LookupError, OverflowError, AttributeError, RecursionError) as error:
        # PyYAML's own, on odd keys, dates and numbers.
        raise ValueError(f"no YAML ({type(error).__name__})") from error


def _check_event(event: Any) -> None:
    import yaml

    if isinstance(event, yaml.AliasEvent):
        raise ValueError(f"it repeats a part by an alias, *{event.anchor}")  # noqa: TRY004 - not of an argument
    if getattr(event, "tag", None) is not None:
        raise ValueError(f"it gives a part a type by a tag, {event.tag}")
    is_plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
    if is_plain and len(event.value) > MOST_DIGITS and event.value[0] in "+-.0123456789":
        raise ValueError(f"a number of more than {MOST_DIGITS} digits")


def _text(text: str | bytes, most_bytes: int) -> str:
    if len(text) > most_bytes:
        raise ValueError(f"larger than {most_bytes / 1e6:.0f} MB")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("no text") from error


def _depth(text: bytes) -> int:
    """Returns how deep brackets outside of quoted texts are nested."""
    plain = np.frombuffer(_QUOTED.sub(b"", text), np.uint8)
    steps = np.isin(plain, (ord("["), ord("{"))).astype(np.int8)
    steps[np.isin(plain, (ord("]"), ord("}")))] = -1
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))
