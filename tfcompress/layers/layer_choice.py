"""Which layers are meant: by name pattern, by type, several of these, or a predicate; the first and the last.

Does not know what for.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import keras

__all__ = ["End", "Layers", "check", "check_ends", "ends", "matching"]

End = Literal["first", "last"]
"""Which end of a model keeps all that it has."""

Layers = str | type | Sequence[str | type] | Callable[[str, Any], bool] | None


def check(layers: Layers) -> None:
    """Raises ``TypeError`` for anything but a pattern, a layer class, a list of these, a function or None."""
    if isinstance(layers, list | tuple):
        sound = bool(layers) and all(isinstance(each, str) or _is_layer_class(each) for each in layers)
    elif isinstance(layers, type):
        sound = _is_layer_class(layers)
    else:
        sound = layers is None or isinstance(layers, str) or callable(layers)
    if not sound:
        raise TypeError(
            "layers must be a pattern, a layer class, a list of these or a function. Received: "
            f"layers={layers!r}. Leave it out for all."
        )


def matching(known: Mapping[str, Any], layers: Layers) -> list[str]:
    """Returns the paths that ``layers`` means, in order.

    Args:
        known: layers by path.
        layers: a shell pattern of paths, a layer class (subclasses count), several of these, a predicate
            (path, layer) -> bool, or None for all.

    Raises:
        TypeError: something else.
        ValueError: a pattern, class or predicate without a match.

    Examples:
        >>> matching({"stem": None, "block_1": None, "block_2": None}, "block_*")
        ['block_1', 'block_2']
        >>> matching({"conv": keras.layers.Conv2D(8, 3), "head": keras.layers.Dense(3)}, keras.layers.Dense)
        ['head']
    """
    check(layers)
    if layers is None:
        return list(known)
    listed = ", ".join(known)
    if callable(layers) and not isinstance(layers, type):
        chosen = [path for path, layer in known.items() if layers(path, layer)]
        if not chosen:
            raise ValueError(f"layers must choose at least one layer. Known: {listed}.")
        return chosen
    chosen = []
    for wanted in [layers] if isinstance(layers, str | type) else list(layers):
        if isinstance(wanted, type):
            matched = [path for path, layer in known.items() if isinstance(layer, wanted)]
        else:
            matched = [path for path in known if fnmatch.fnmatchcase(path, wanted)]
        if not matched:
            what, name = ("class", wanted.__name__) if isinstance(wanted, type) else ("pattern", repr(wanted))
            raise ValueError(f"Each {what} must match a layer. Received: {name}. Known: {listed}.")
        chosen += [path for path in matched if path not in chosen]
    return chosen


def check_ends(protect: End | Sequence[End]) -> tuple[End, ...]:
    """Returns what ``protect`` names, "first", "last" or both, as a tuple; raises ``ValueError`` for anything else."""
    named = (protect,) if isinstance(protect, str) else tuple(protect)
    if not set(named) <= set(get_args(End)):
        raise ValueError(f"protect must be 'first', 'last' or both. Received: protect={protect!r}.")
    return named


def ends(known: Sequence[str], protect: Sequence[End]) -> list[str]:
    """Returns the first and the last of the ``known`` paths, as far as ``protect`` names them.

    Examples:
        >>> ends(["stem", "block", "head"], ("first", "last"))
        ['stem', 'head']
    """
    return [known[index] for end, index in (("first", 0), ("last", -1)) if known and end in protect]


def _is_layer_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, keras.layers.Layer)
