"""What is wrong with a model file? One value per thing found, for `open_source` and for reports alike."""

from typing import Literal, NamedTuple

__all__ = ["Finding"]


class Finding(NamedTuple):
    """One thing in a model file that keeps it from being opened, or that one should know of.

    Attributes:
        severity: "refused": the file is not opened unless it is trusted with ``--allow_unsafe``. "note": the file is opened;
            whoever reads a report should know of it.
        what: what it is, as ``"a Lambda (secret)"``.
        where: the place in the file, as ``"config.json: config/layers/3"``; "" for the file as a whole.
        reason: the whole line that a message shows: the rule, what was received, and the way out.

    Examples:
        >>> Finding("refused", "a Lambda (secret)", "", "A model file must not bring code along.").what
        'a Lambda (secret)'
    """

    severity: Literal["refused", "note"]
    what: str
    where: str
    reason: str
