"""In which phase quantization-aware training is: whether the model is float, observed or fake-quantized now, and who may change that.

::

      FLOAT ---> WAITING ---> OBSERVING ---> LEARNING <---> FROZEN     on_train_begin enters; on_epoch_begin and
      |   ^       |  |                        ^              ^         on_train_batch_begin lead on, past OBSERVING
      |   |       |  +------------------------+--------------+         without representative data
      v   |       |
    INFERENCE     +-- any of these four --> INTERRUPTED                remove: an exception, a conversion, the fit's end
                                              |     |
                      WAITING <---------------+     +--> FLOAT         the fit goes on, or it is over

FLOAT, WAITING and INTERRUPTED are float: the model computes as it does without the callback. OBSERVING is observed: ranges learn from
the representative data that passes. LEARNING, FROZEN and INFERENCE are fake-quantized: the model computes as its file will.
``TRANSITIONS`` is the whole table; any other step is refused. What a phase changes on the model is done by the callback, and when a
phase begins is said by ``Timetable``. BatchNormalization's statistics stand still from an epoch of their own on, which is no phase:
it goes with any of them.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..errors import TrainingError

__all__ = ["TRANSITIONS", "Phase", "PhaseState", "Timetable"]


class Phase(enum.Enum):
    """Where a ``QuantizationAwareTraining`` is.

    Examples:
        >>> Phase.FROZEN.computes, Phase.FROZEN.in_fit, Phase.FROZEN.learns
        ('fake-quantized', True, False)
    """

    FLOAT = "before, between and after fits and evaluations"
    WAITING = "in a fit, before its begin_epoch or begin_step"
    OBSERVING = "in a fit, while representative data gives activations their first ranges"
    LEARNING = "in a fit: ranges learn in its training steps"
    FROZEN = "in a fit, from its freeze_epoch on: ranges stand still"
    INTERRUPTED = "an exception, or a conversion in the middle of a fit, has made the model plain; the fit may go on"
    INFERENCE = "in an evaluation or a prediction outside of a fit"

    @property
    def computes(self) -> Literal["float", "observed", "fake-quantized"]:
        """What the model is now."""
        if self is Phase.OBSERVING:
            return "observed"
        return "fake-quantized" if self in (Phase.LEARNING, Phase.FROZEN, Phase.INFERENCE) else "float"

    @property
    def in_fit(self) -> bool:
        """Whether the callback is at work in a ``fit``."""
        return self in (Phase.WAITING, Phase.OBSERVING, Phase.LEARNING, Phase.FROZEN)

    @property
    def intercepts(self) -> bool:
        """Whether the model's calls go through the callback."""
        return self.computes != "float"

    @property
    def learns(self) -> bool:
        """Whether ranges move with the values that pass."""
        return self in (Phase.OBSERVING, Phase.LEARNING)


_NEXT_STEP = frozenset({"on_epoch_begin", "on_train_batch_begin", "on_test_begin"})  # a fit goes on
_REMOVE = frozenset({"remove"})

TRANSITIONS: Mapping[tuple[Phase, Phase], frozenset[str]] = {
    (Phase.FLOAT, Phase.WAITING): frozenset({"on_train_begin", "on_epoch_begin", "on_train_batch_begin"}),
    (Phase.WAITING, Phase.OBSERVING): _NEXT_STEP,
    (Phase.WAITING, Phase.LEARNING): _NEXT_STEP,
    (Phase.WAITING, Phase.FROZEN): _NEXT_STEP,
    (Phase.OBSERVING, Phase.LEARNING): _NEXT_STEP,
    (Phase.OBSERVING, Phase.FROZEN): _NEXT_STEP,
    (Phase.LEARNING, Phase.FROZEN): frozenset({"on_epoch_begin"}),
    (Phase.FROZEN, Phase.LEARNING): frozenset({"on_epoch_begin"}),  # a loop of one's own that counts its epochs anew
    (Phase.WAITING, Phase.INTERRUPTED): _REMOVE,
    (Phase.OBSERVING, Phase.INTERRUPTED): _REMOVE,
    (Phase.LEARNING, Phase.INTERRUPTED): _REMOVE,
    (Phase.FROZEN, Phase.INTERRUPTED): _REMOVE,
    (Phase.INTERRUPTED, Phase.WAITING): frozenset({"on_train_begin"}) | _NEXT_STEP,
    (Phase.INTERRUPTED, Phase.FLOAT): frozenset({"set_model", "on_train_end"}),
    (Phase.INTERRUPTED, Phase.INFERENCE): frozenset({"on_predict_begin", "points_of"}),
    (Phase.FLOAT, Phase.INFERENCE): frozenset({"on_test_begin", "on_predict_begin", "points_of"}),
    (Phase.INFERENCE, Phase.FLOAT): _REMOVE,
}
"""(before, after) -> the methods of ``QuantizationAwareTraining`` that may take this step.

``remove`` is called by ``set_model``, ``on_train_begin``, ``on_train_end``, ``on_test_end`` and ``on_predict_end``; by ``recovery``
for an exception in a step, and for a conversion; and by the user. A fit in whose middle another callback evaluates the model with this
one comes back from FLOAT at its next step.
"""


class PhaseState:
    """Holds the phase of one callback; moves only as ``TRANSITIONS`` has it.

    Attributes:
        now: the phase.

    Examples:
        >>> state = PhaseState()
        >>> state.move(Phase.WAITING, by="on_train_begin")
        >>> state.now.computes
        'float'
        >>> state.move(Phase.INFERENCE, by="on_predict_begin")
        Traceback (most recent call last):
        ...
        tfcompress.errors.TrainingError: From WAITING quantization-aware training goes to OBSERVING, LEARNING, FROZEN or INTERRUPTED. \
Received: INFERENCE by on_predict_begin. Call the callback's methods in the order in which Keras's fit, evaluate and predict do.
    """

    def __init__(self) -> None:
        self.now = Phase.FLOAT

    def move(self, after: Phase, *, by: str) -> None:
        """Goes to the phase ``after``; staying where it is, is no move.

        Args:
            after: the next phase.
            by: the callback's method that asks for it.

        Raises:
            TrainingError: this method may not take this step.
        """
        if after is self.now:
            return
        if by not in TRANSITIONS.get((self.now, after), ()):
            *first, last = (to.name for start, to in TRANSITIONS if start is self.now)
            raise TrainingError(
                f"From {self.now.name} quantization-aware training goes to {', '.join(first)}{' or ' if first else ''}{last}. "
                f"Received: {after.name} by {by}. Call the callback's methods in the order in which Keras's fit, evaluate and "
                "predict do."
            )
        self.now = after


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """When a fit is fake-quantized, when its ranges stand still, and when BatchNormalization's statistics do.

    Args:
        begin_epoch: first epoch that is fake-quantized. Default: 0.
        begin_step: first optimizer step that is, instead. Default: None.
        freeze_epoch: first epoch whose ranges stand still, or None for the last epoch of a fit that has at least three
            fake-quantized ones. Default: None.
        freeze_batch_norm_epoch: first epoch in which BatchNormalization keeps its statistics. Default: None, never.

    Raises:
        ValueError: a negative epoch or step, ``freeze_epoch`` not after ``begin_epoch``, both ``begin_epoch`` and
            ``begin_step``.

    Examples:
        >>> times = Timetable(begin_epoch=2)
        >>> [times.begins(epoch, step=0) for epoch in range(4)]
        [False, False, True, True]
        >>> [times.freezes(epoch, epochs=5, began=2) for epoch in range(2, 5)]
        [False, False, True]
    """

    begin_epoch: int = 0
    begin_step: int | None = None
    freeze_epoch: int | None = None
    freeze_batch_norm_epoch: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                unit = "a step" if name == "begin_step" else "an epoch"
                raise ValueError(f"{name} must be {unit}, a whole number from 0 on. Received: {name}={value!r}.")
        if self.begin_step is not None and self.begin_epoch:
            raise ValueError(
                f"Training begins to be quantized at an epoch or at a step. Received: begin_epoch={self.begin_epoch} and "
                f"begin_step={self.begin_step}. Leave one out."
            )
        if self.freeze_epoch is not None and self.begin_step is None and self.freeze_epoch <= self.begin_epoch:
            raise ValueError(
                "freeze_epoch must come after begin_epoch, or the ranges are never learned. "
                f"Received: begin_epoch={self.begin_epoch}, freeze_epoch={self.freeze_epoch}."
            )

    @property
    def begin(self) -> str:
        """When it begins, as the user wrote it."""
        return f"begin_epoch={self.begin_epoch}" if self.begin_step is None else f"begin_step={self.begin_step}"

    def begins(self, epoch: int, *, step: int) -> bool:
        """Returns whether an epoch, or an optimizer step in it, is fake-quantized."""
        return epoch >= self.begin_epoch if self.begin_step is None else step >= self.begin_step

    def freezes(self, epoch: int, *, epochs: int, began: int) -> bool:
        """Returns whether ranges stand still in an epoch.

        Args:
            epoch: the epoch.
            epochs: of the whole fit.
            began: the first epoch of this fit that was fake-quantized.
        """
        if self.freeze_epoch is not None:
            return epoch >= self.freeze_epoch
        return epoch == epochs - 1 and epoch - began >= 2

    def freezes_batch_norm(self, epoch: int) -> bool:
        """Returns whether BatchNormalization keeps its statistics in an epoch."""
        return self.freeze_batch_norm_epoch is not None and epoch >= self.freeze_batch_norm_epoch
