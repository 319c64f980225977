"""Does a value that came out of JSON have the type that a dataclass declares for it?

``from_plain`` makes the dataclass, field by field, and says which field is of another type. It knows the types that records are made
of and no others, so that whoever reads a record needs no doubt about what a field holds. Runs no code of the value.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["from_plain"]

T = TypeVar("T")
MOST_WHOLE = 1 << 63  # what a database takes, and what float holds without surprise
LONGEST_SHOWN = 40
NAMES = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", type(None): "null"}


def from_plain(kind: type[T], value: Any, *, place: str = "the record") -> T:
    """Returns a plain JSON value as a value of the declared type.

    Args:
        kind: a dataclass, ``TypedDict``, ``Mapping[str, X]``, ``tuple[X, ...]``, ``Sequence[X]``, ``X | None``, ``int``, ``float``
            (whole numbers too), ``str``, ``bool`` or ``Any``.
        value: out of JSON.
        place: which value it is, for the message. Default: "the record".

    Raises:
        ValueError: it is of another type, a field is missing or unknown, or a number is not finite; also what the dataclass says.

    Examples:
        >>> @dataclasses.dataclass
        ... class Point:
        ...     x: float
        ...     tags: tuple[str, ...] = ()
        >>> from_plain(Point, {"x": 1, "tags": ["a"]})
        Point(x=1, tags=('a',))
        >>> from_plain(Point, {"x": "1"})
        Traceback (most recent call last):
        ...
        ValueError: x must be a finite number, and is '1'
    """
    return typing.cast(T, _checked(kind, value, place))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _checked(kind: Any, value: Any, place: str) -> Any:
    if kind is Any:
        return value
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, value, place)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        known = {field.name: _hints(kind)[field.name] for field in dataclasses.fields(kind)}
        return kind(**_fields(known, needed, value, place))
    if typing.is_typeddict(kind):
        return _fields(_hints(kind), set(kind.__required_keys__), value, place)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _refusal("an object", value, place)
        return {key: _checked(inner[1], each, f"{place}.{key[:LONGEST_SHOWN]}") for key, each in value.items()}
    if origin is not None and issubclass(origin, Sequence):
        return _items(inner, value, place)
    return _scalar(kind, value, place)


def _scalar(kind: Any, value: Any, place: str) -> Any:
    if kind is float:
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
        is_right = is_right and abs(value) < (MOST_WHOLE if isinstance(value, int) else math.inf)
    elif kind is int:
        is_right = isinstance(value, int) and not isinstance(value, bool) and abs(value) < MOST_WHOLE
    elif kind in NAMES:
        is_right = isinstance(value, kind)
    else:
        raise TypeError(f"A declared type must be one that JSON has. Received: {kind}.")
    if not is_right:
        raise _refusal(NAMES[kind], value, place)
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            return _checked(kind, value, place)
        except ValueError:
            continue
    return _checked(others[-1], value, place)


def _fields(known: Mapping[str, Any], needed: set[str], value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refusal("an object", value, place)
    unknown, missing = sorted(set(value) - set(known)), sorted(needed - set(value))
    if missing or unknown:
        what, names = ("lacks", missing) if missing else ("has the unknown", unknown)
        raise ValueError(f"{place} {what} {', '.join(repr(name[:LONGEST_SHOWN]) for name in names[:3])}")
    inside = "" if place == "the record" else f"{place}."
    return {name: _checked(known[name], each, f"{inside}{name}") for name, each in value.items()}


def _items(inner: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _refusal("a list", value, place)
    if len(inner) > 1 and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise ValueError(f"{place} must have {len(inner)} parts, and has {len(value)}")
        return tuple(_checked(kind, each, place) for kind, each in zip(inner, value, strict=True))
    return tuple(_checked(inner[0], each, place) for each in value)


def _refusal(rule: str, value: Any, place: str) -> ValueError:
    kinds = {dict: "an object", list: "a list", type(None): "null", bool: str(value).lower()}
    try:
        shown = kinds.get(type(value)) or repr(value)[:LONGEST_SHOWN]
    except ValueError:  # a whole number of more digits than Python prints
        shown = "a number of thousands of digits"
    return ValueError(f"{place} must be {rule}, and is {shown}")
