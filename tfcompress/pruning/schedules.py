"""How much of a layer is pruned at which optimizer step.

A schedule is any callable from the optimizer step (an int, 0 for the first) to a sparsity in [0, 1). The classes here are
the usual ones; a function of your own does as well. Schedule objects of TensorFlow's model optimization toolkit, which
answer with a pair ``(prune, sparsity)``, are accepted as they are. Nothing here touches a model.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Constant", "Cosine", "Join", "Polynomial", "Schedule", "resolve"]

Schedule = Callable[[int], float]


def _check_sparsity(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
        hint = f" Write {value / 100:g} for {value:g} %." if _is_percentage(value) else ""
        raise ValueError(f"{name} must be a fraction in [0, 1). Received: {name}={value!r}.{hint}")


def _is_percentage(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 < value < 100


def _check_step(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"{name} must be an optimizer step, a whole number from 0 on. Received: {name}={value!r}.")


@dataclass(frozen=True)
class Constant:
    """Returns ``sparsity`` from step ``begin`` on and 0 before.

    Args:
        sparsity: fraction of the weights that is zero, in [0, 1).
        begin: first optimizer step that prunes. Default: 0.

    Raises:
        ValueError: a fraction outside [0, 1) or a negative step.

    Examples:
        >>> half = Constant(0.5, begin=10)
        >>> half(9), half(10)
        (0.0, 0.5)
    """

    sparsity: float
    begin: int = 0

    def __post_init__(self) -> None:
        _check_sparsity("sparsity", self.sparsity)
        _check_step("begin", self.begin)

    def __call__(self, step: int) -> float:
        return float(self.sparsity) if step >= self.begin else 0.0


@dataclass(frozen=True)
class Polynomial:
    """Returns a sparsity that climbs from ``initial`` to ``final`` along a polynomial, fast first and slow at the end.

    With p = (step - begin) / (end - begin) clipped to [0, 1]:
    sparsity = final + (initial - final) * (1 - p) ** power, and 0 before ``begin``.

    Args:
        final: sparsity from step ``end`` on, in [0, 1).
        end: optimizer step at which ``final`` is reached.
        initial: sparsity at step ``begin``, in [0, 1). Default: 0.
        begin: first optimizer step that prunes. Default: 0.
        power: exponent, above 0. Default: 3, as in the paper.

    Raises:
        ValueError: a fraction outside [0, 1), a negative step, ``end`` not after ``begin`` or a power not above 0.

    Examples:
        >>> ramp = Polynomial(final=0.8, end=100)
        >>> ramp(0), round(ramp(50), 3), ramp(100), ramp(1000)
        (0.0, 0.7, 0.8, 0.8)

    Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
    https://arxiv.org/abs/1710.01878, equation 1.
    """

    final: float
    end: int
    initial: float = 0.0
    begin: int = 0
    power: float = 3.0

    def __post_init__(self) -> None:
        _check_sparsity("final", self.final)
        _check_sparsity("initial", self.initial)
        _check_step("begin", self.begin)
        _check_step("end", self.end)
        if self.end <= self.begin:
            raise ValueError(f"end must come after begin. Received: begin={self.begin}, end={self.end}.")
        if not self.power > 0:
            raise ValueError(f"power must be above 0. Received: power={self.power!r}.")

    def __call__(self, step: int) -> float:
        if step < self.begin:
            return 0.0
        progress = min(1.0, (step - self.begin) / (self.end - self.begin))
        return float(self.final + (self.initial - self.final) * (1.0 - progress) ** self.power)


@dataclass(frozen=True)
class Cosine:
    """Returns a sparsity that climbs from ``initial`` to ``final`` along half a cosine: slow, fast, slow.

    With p = (step - begin) / (end - begin) clipped to [0, 1]:
    sparsity = initial + (final - initial) * (1 - cos(pi * p)) / 2, and 0 before ``begin``.

    Args:
        final: sparsity from step ``end`` on, in [0, 1).
        end: optimizer step at which ``final`` is reached.
        initial: sparsity at step ``begin``, in [0, 1). Default: 0.
        begin: first optimizer step that prunes. Default: 0.

    Raises:
        ValueError: a fraction outside [0, 1), a negative step, or ``end`` not after ``begin``.

    Examples:
        >>> wave = Cosine(final=0.8, end=100)
        >>> wave(0), round(wave(50), 3), wave(100)
        (0.0, 0.4, 0.8)

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017,
    https://arxiv.org/abs/1608.03983, whose annealing this follows.
    """

    final: float
    end: int
    initial: float = 0.0
    begin: int = 0

    def __post_init__(self) -> None:
        _check_sparsity("final", self.final)
        _check_sparsity("initial", self.initial)
        _check_step("begin", self.begin)
        _check_step("end", self.end)
        if self.end <= self.begin:
            raise ValueError(f"end must come after begin. Received: begin={self.begin}, end={self.end}.")

    def __call__(self, step: int) -> float:
        if step < self.begin:
            return 0.0
        progress = min(1.0, (step - self.begin) / (self.end - self.begin))
        return float(self.initial + (self.final - self.initial) * (1.0 - math.cos(math.pi * progress)) / 2.0)


class Join:
    """Follows one schedule after the other; each counts its steps from where it takes over.

    Args:
        schedules: anything ``resolve`` takes, one more than boundaries.
        boundaries: optimizer steps, rising, at which the next schedule takes over.

    Raises:
        ValueError: a number of boundaries that does not fit, or boundaries that do not rise.

    Examples:
        >>> pause = Join([Polynomial(final=0.5, end=100), 0.5, Polynomial(initial=0.5, final=0.8, end=100)], [100, 300])
        >>> pause(50) < pause(100) == pause(299) < pause(400)
        True
    """

    def __init__(self, schedules: Sequence[Any], boundaries: Sequence[int]) -> None:
        self._schedules = [resolve(schedule) for schedule in schedules]
        self._boundaries = list(boundaries)
        for boundary in self._boundaries:
            _check_step("boundaries", boundary)
        rising = all(a < b for a, b in zip(self._boundaries, self._boundaries[1:], strict=False))
        if len(self._schedules) != len(self._boundaries) + 1 or not rising:
            raise ValueError(
                "A Join needs one rising boundary fewer than schedules. Received: "
                f"{len(self._schedules)} schedules and boundaries={self._boundaries}."
            )

    def __call__(self, step: int) -> float:
        index = sum(step >= boundary for boundary in self._boundaries)
        return self._schedules[index](step - (self._boundaries[index - 1] if index else 0))


def resolve(schedule: Any) -> Schedule:
    """Returns a plain schedule for a callable, a constant fraction, or an object that answers ``(prune, sparsity)``.

    The objects of TensorFlow's model optimization toolkit are recognised by what they return. While their first item
    says "do not prune now", the sparsity of the last step that pruned holds, which is what that toolkit does with them.

    Args:
        schedule: ``Callable[[int], float]``, a number in [0, 1), or a callable that returns ``(bool, float)``.

    Raises:
        TypeError: not callable and not a number.
        ValueError: a number, or a sparsity that the schedule answers with, outside [0, 1).

    Examples:
        >>> resolve(0.5)(0)
        0.5
    """
    if isinstance(schedule, numbers.Real) and not isinstance(schedule, bool):
        return Constant(float(schedule))
    if not callable(schedule):
        raise TypeError(
            f"A schedule must be a callable from step to sparsity or a fraction. Received: {type(schedule).__name__}. "
            "Try tfcompress.schedules.Polynomial(final=0.75, end=2000)."
        )
    return _Resolved(schedule)


class _Resolved:
    """A schedule whose answers are checked, and whose pauses keep the last sparsity.

    Attributes:
        paces_itself: whether it says at which steps to prune; known from its first answer on.
    """

    def __init__(self, schedule: Callable[[int], Any]) -> None:
        self._schedule = schedule
        self._held = 0.0
        self.paces_itself = False

    @property
    def memory(self) -> list[Any]:
        """What it remembers from earlier steps, as JSON has it: for a fit that goes on in another process."""
        inner = [each.memory for each in getattr(self._schedule, "_schedules", ()) if isinstance(each, _Resolved)]
        return [self._held, self.paces_itself, inner]

    def remember(self, memory: Sequence[Any]) -> None:
        """Takes what another one of the same schedule remembered."""
        self._held, self.paces_itself, inner = memory
        own = [each for each in getattr(self._schedule, "_schedules", ()) if isinstance(each, _Resolved)]
        for each, its in zip(own, inner, strict=True):
            each.remember(its)

    def __call__(self, step: int) -> float:
        answer = self._schedule(step)
        if isinstance(answer, tuple | list) and len(answer) == 2:
            self.paces_itself = True
            prune, answer = bool(answer[0]), answer[1]
            if not prune:
                return self._held
        try:
            sparsity = float(answer)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"A schedule must answer with a sparsity or (prune, sparsity). Received: {answer!r} at step {step}."
            ) from error
        _check_sparsity("sparsity", sparsity)
        self._held = sparsity
        return sparsity
