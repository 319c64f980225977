"""Which observer does each tensor get, from names and patterns as a user writes them?

Strings are resolved here, once; the errors name what there is and the nearest to what was asked for.
"""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from .observers import OBSERVERS, Observer, ObserverName

__all__ = ["Overrides", "resolve_observer", "resolve_overrides"]

Overrides = Iterable[tuple[str, ObserverName | Observer]]
"""(pattern of tensor names, observer or its name) in order; the last match wins."""


def resolve_observer(observer: ObserverName | Observer) -> Observer:
    """Returns the observer of that name, or the value itself.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor an observer.

    Examples:
        >>> resolve_observer("min_max")
        MinMax()
    """
    if not isinstance(observer, str):
        if not all(hasattr(observer, method) for method in ("init", "update", "merge", "range")):
            raise TypeError(
                "An observer is a name or has init, update, merge and range. "
                f"Received: {type(observer).__name__}. Known names: {', '.join(OBSERVERS)}."
            )
        return observer
    if observer not in OBSERVERS:
        near = difflib.get_close_matches(observer, OBSERVERS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"Unknown observer {observer!r}. Known: {', '.join(OBSERVERS)}.{hint}")
    return OBSERVERS[observer]


def resolve_overrides(overrides: Overrides, names: Iterable[str]) -> dict[str, Observer]:
    """Returns the observer of each tensor that an override names.

    Args:
        overrides: (pattern, observer) in order; the last match wins. Patterns are those of ``fnmatch``: ``*``, ``?``, and
            ``[`` starts a choice of characters.
        names: the tensors there are.

    Raises:
        ValueError: a pattern matches no tensor, or an observer is unknown.

    Examples:
        >>> resolve_overrides([("*", "entropy"), ("head*", "min_max")], ["stem", "head/add"])["head/add"]
        MinMax()
        >>> resolve_overrides([("haed*", "min_max")], ["stem", "head/add"])
        Traceback (most recent call last):
        ...
        ValueError: Each override must match a tensor. Received: 'haed*', which matches none. Nearest: head/add, stem.
    """
    names = list(names)
    found: dict[str, Observer] = {}
    for pattern, observer in overrides:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            wanted = pattern.strip("*")
            nearest = sorted(names, key=lambda name: _likeness(wanted, name), reverse=True)[:3]
            raise ValueError(
                f"Each override must match a tensor. Received: {pattern!r}, which matches none. "
                f"Nearest: {', '.join(nearest)}."
            )
        found.update(dict.fromkeys(matches, resolve_observer(observer)))
    return found


def _likeness(wanted: str, name: str) -> float:
    parts = [name, *name.split("/")]
    return max(difflib.SequenceMatcher(None, wanted, part).ratio() for part in parts)
