"""Which layers are meant: by a name pattern, several, or a predicate. Does not know what for."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Layers", "check", "matching"]

Layers = str | Sequence[str] | Callable[[str, Any], bool] | None


def check(layers: Layers) -> None:
    """Raises ``TypeError`` for anything but a pattern, a list of patterns, a function or None."""
    if not (layers is None or callable(layers) or isinstance(layers, str | list | tuple) and len(layers)):
        raise TypeError(
            f"layers must be a pattern, a list of patterns or a function. Received: layers={layers!r}. Leave it out "
            "for all."
        )


def matching(known: Mapping[str, Any], layers: Layers) -> list[str]:
    """Returns the paths that ``layers`` means, in order.

    Args:
        known: layers by path.
        layers: a shell pattern of paths, several, a predicate (path, layer) -> bool, or None for all.

    Raises:
        ValueError: a pattern or predicate without a match.

    Example:
        >>> matching({"stem": None, "block_1": None, "block_2": None}, "block_*")
        ['block_1', 'block_2']
    """
    if layers is None:
        return list(known)
    listed = ", ".join(known)
    if callable(layers):
        chosen = [path for path, layer in known.items() if layers(path, layer)]
        if not chosen:
            raise ValueError(f"layers must choose at least one layer. Known: {listed}.")
        return chosen
    chosen = []
    for pattern in [layers] if isinstance(layers, str) else list(layers):
        matched = [path for path in known if fnmatch.fnmatchcase(path, pattern)]
        if not matched:
            raise ValueError(f"Each pattern must match a layer. Received: {pattern!r}. Known: {listed}.")
        chosen += [path for path in matched if path not in chosen]
    return chosen
