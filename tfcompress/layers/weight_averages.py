"""The moving averages of weights that an optimizer with ``use_ema=True`` keeps. Nothing here trains or swaps them."""

from collections.abc import Iterator
from typing import Any

__all__ = ["average_of", "pairs", "restart"]


def pairs(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (variable, its moving average) of an optimizer, also inside a loss scaling or a multi-optimizer.

    Examples:
        >>> import keras
        >>> list(pairs(keras.optimizers.SGD()))
        []
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for each in getattr(inner, "optimizers", [inner]):
        if getattr(each, "use_ema", False):
            averages = getattr(each, "_model_variables_moving_average", ())
            yield from (pair for pair in zip(each._trainable_variables, averages, strict=False) if pair[1] is not None)


def average_of(optimizer: Any, variable: Any) -> Any:
    """Returns the moving average of a variable, None where the optimizer keeps none."""
    return next((average for one, average in pairs(optimizer) if one is variable), None)


def restart(optimizer: Any) -> None:
    """Makes every average begin anew with the weights as they are."""
    from .interception import read

    for variable, average in pairs(optimizer):
        average.assign(read(variable))
