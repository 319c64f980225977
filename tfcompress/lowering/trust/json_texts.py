"""How is JSON of a stranger read? Within bounds that are checked before anything is built from it."""

import json
import re
from typing import Any

__all__ = ["LARGEST_TEXT", "parse_json"]

LARGEST_TEXT = 1 << 26  # bytes; EfficientNetV2-L has 1.5 MB
MOST_VALUES = 1_000_000
DEEPEST = 400  # C's own scanner gives up near 1000; a nested model adds about ten
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_NESTING = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(content: bytes) -> Any:
    """Returns the value of a JSON text.

    Args:
        content: UTF-8.

    Raises:
        ValueError: not JSON, too large, too many values, nested too deeply, or an object with a key twice, which two
            readers would read as two things.

    Examples:
        >>> parse_json(b'{"a": [1, 2]}')
        {'a': [1, 2]}
        >>> parse_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: it has the key 'a' twice in one object
    """
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"it has {len(content)} bytes, more than {LARGEST_TEXT}")
    values = sum(content.count(sign) for sign in (b",", b"[", b"{", b":"))
    if values > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES} values")
    depth = 0
    for sign in _STRING.sub(b"", content).translate(None, _NOT_NESTING):
        depth += 1 if sign in b"[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return found
