"""What do public calls do with their arguments? A misspelt one is an error with the nearest name; options show what was chosen.

Python's own message for ``convert(modle, representive_data=x)`` names the word and no other. Values are checked by the functions
themselves.
"""

import dataclasses
import difflib
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

__all__ = ["checked_arguments", "checked_fields", "option_or_default", "repr_without_defaults"]

P = ParamSpec("P")
R = TypeVar("R")
Option = TypeVar("Option")


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function, which answers an unknown keyword with the nearest name that it has.

    Known are its own arguments, and the fields of its option values: frozen dataclasses in its signature whose fields all have
    defaults. A type checker sees the function as it is.

    Args:
        function: a public function, or the ``__init__`` of a public class. Its option values stand in its annotations
            unquoted.

    Raises:
        TypeError: when it is called, for a keyword that it does not have.

    Examples:
        >>> @dataclasses.dataclass(frozen=True)
        ... class LatencyOptions:
        ...     runs: int = 50
        >>> @checked_arguments
        ... def measure(model: str, *, threads: int = 1, latency: LatencyOptions = LatencyOptions()) -> str:
        ...     return f"{model} in {latency.runs} runs"
        >>> measure("a.tflite", latency=LatencyOptions(runs=5))
        'a.tflite in 5 runs'
        >>> measure("a.tflite", thread=2)
        Traceback (most recent call last):
        ...
        TypeError: measure() has no argument 'thread'. Did you mean 'threads'?
        >>> measure("a.tflite", num_runs=5)
        Traceback (most recent call last):
        ...
        TypeError: measure() has no argument 'num_runs'. Did you mean latency=LatencyOptions(runs=...)?
    """
    known = frozenset(
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not known.issuperset(kwargs):
            raise TypeError(_message(function, next(name for name in kwargs if name not in known)))
        return function(*args, **kwargs)

    return checked


def checked_fields(kind: type[Option]) -> type[Option]:
    """Returns the class of an option value, a dataclass, which answers an unknown field with the nearest name that it has.

    Args:
        kind: the dataclass; it is changed in place.

    Raises:
        TypeError: when a value is made, for a field that it does not have.

    Examples:
        >>> @checked_fields
        ... @dataclasses.dataclass(frozen=True)
        ... class LatencyOptions:
        ...     runs: int = 50
        >>> LatencyOptions(run=5)
        Traceback (most recent call last):
        ...
        TypeError: LatencyOptions() has no argument 'run'. Did you mean 'runs'?
    """
    kind.__init__ = checked_arguments(kind.__init__)  # type: ignore[misc, method-assign]
    return kind


def option_or_default(name: str, value: Option | None, kind: type[Option]) -> Option:
    """Returns an option value as it is, its defaults for None, and refuses anything else.

    Args:
        name: the argument's name.
        value: what was passed.
        kind: the option value's class, whose fields all have defaults.

    Raises:
        TypeError: another type.

    Examples:
        >>> option_or_default("date", "yesterday", dict)
        Traceback (most recent call last):
        ...
        TypeError: date must be a dict. Received: str. Write date=dict(...).
    """
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be a {kind.__name__}. Received: {type(value).__name__}. Write {name}={kind.__name__}(...)."
        )
    return value


def repr_without_defaults(value: Any) -> str:
    """Returns the ``repr`` of a dataclass with the fields that differ from their defaults; ``__repr__`` of option values.

    Examples:
        >>> @dataclasses.dataclass(frozen=True)
        ... class LatencyOptions:
        ...     runs: int = 50
        ...     warmup: int = 5
        ...     __repr__ = repr_without_defaults
        >>> LatencyOptions(), LatencyOptions(runs=5)
        (LatencyOptions(), LatencyOptions(runs=5))
    """
    shown = []
    for field in dataclasses.fields(value):
        text = repr(getattr(value, field.name))
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if text != repr(default):
            shown.append(f"{field.name}={text if field.repr else '...'}")
    return f"{type(value).__name__}({', '.join(shown)})"


def _message(function: Callable[..., Any], received: str) -> str:
    parameters = inspect.signature(function).parameters
    suggestions = {name: repr(name) for name in parameters if name != "self"}
    for name, parameter in parameters.items():
        for option in _option_types(parameter.annotation):
            for field in dataclasses.fields(option):
                suggestions.setdefault(field.name, f"{name}={option.__name__}({field.name}=...)")
    name = function.__qualname__.removesuffix(".__init__")
    near = difflib.get_close_matches(received, suggestions, n=1)
    way_out = (
        f"Did you mean {suggestions[near[0]]}?"
        if near
        else f"It has: {', '.join(p for p in parameters if p != 'self')}."
    )
    return f"{name}() has no argument {received!r}. {way_out}"


def _option_types(annotation: Any) -> list[Any]:
    """Returns the dataclasses among the alternatives of an annotation that can be made without any argument."""
    union = get_origin(annotation) in (Union, types.UnionType)
    return [
        kind
        for kind in (get_args(annotation) if union else (annotation,))
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and all(
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            for field in dataclasses.fields(kind)
        )
    ]
