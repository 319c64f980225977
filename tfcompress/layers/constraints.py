"""Constraints on weights that stack on those already there and come off in any order.

Keras applies a variable's constraint inside the compiled step, right after the optimizer. This is the only module that
sets one. What a constraint does is decided elsewhere.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["Stacked", "attach", "detach"]


class Stacked:
    """A constraint that applies the former one first; subclasses say what comes then.

    Args:
        former: the constraint that was there, or None.
    """

    def __init__(self, former: Callable[[Any], Any] | None = None) -> None:
        self.former = former

    def __call__(self, variable: Any) -> Any:
        """Returns what the variable becomes."""
        return self.apply(variable if self.former is None else self.former(variable))

    def apply(self, value: Any) -> Any:
        """Returns what a value becomes by this constraint alone."""
        raise NotImplementedError


def attach(variable: Any, constraint: Stacked) -> None:
    """Puts ``constraint`` on top of what is there; another of its very kind, left by an exception, goes."""
    detach(variable, type(constraint))
    constraint.former = variable.constraint
    variable.constraint = constraint


def detach(variable: Any, kind: type[Stacked]) -> None:
    """Takes the constraints of a kind off, from wherever they lie in the stack.

    Examples:
        >>> class Variable: constraint = None
        >>> class First(Stacked): ...
        >>> class Second(Stacked): ...
        >>> variable = Variable()
        >>> attach(variable, First())
        >>> attach(variable, Second())
        >>> detach(variable, First)
        >>> type(variable.constraint).__name__, variable.constraint.former
        ('Second', None)
    """
    kept = []
    current = variable.constraint
    while isinstance(current, Stacked):
        if not isinstance(current, kind):
            kept.append(current)
        current = current.former
    for constraint in reversed(kept):
        constraint.former = current
        current = constraint
    variable.constraint = current
