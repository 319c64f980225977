"""Which array of a source is which input of the model, and which are its labels? By name alone.

Files, dictionaries and feature maps hold arrays under names; this module says what each is for. It reads none of them.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ...errors import DataError
from ..specs import SampleSpec

__all__ = ["LABEL", "LABEL_NAMES", "Chosen", "choose", "choose_labels"]

_SAMPLE_NAMES = ("x", "images", "input", "samples")
_USUAL_NAMES = ("y", "labels", "label", "targets")
_BOX_NAMES = ("boxes", "classes")
LABEL = _USUAL_NAMES[0]
"""The name under which labels go that are one array."""
LABEL_NAMES = (*_USUAL_NAMES, *_BOX_NAMES)
"""All names under which labels are found."""


class Chosen(NamedTuple):
    """The source's name of each input, and of each array of labels that is wanted."""

    inputs: dict[str, str]
    labels: dict[str, str]


def choose(names: Iterable[str], spec: SampleSpec, *, place: str) -> Chosen:
    """Returns which names of a source are read, and what for.

    An input's array has its name; for a model with one input it may also be the only one that is no label, or x, images,
    input or samples.

    Args:
        names: of all arrays of the source.
        spec: what is read.
        place: where the arrays are, for the message.

    Raises:
        DataError: an input's name is not there.

    Examples:
        >>> from ..specs import InputSpec
        >>> spec = SampleSpec([InputSpec("image", (None, 2), "float32")], labels="values")
        >>> choose(["x", "weights", "targets"], spec, place="the file")
        Chosen(inputs={'image': 'x'}, labels={'y': 'targets'})
    """
    names = list(names)
    wanted = [each.name for each in spec.inputs]
    labels = choose_labels(names, spec)
    if all(name in names for name in wanted):
        return Chosen({name: name for name in wanted}, labels)
    no_samples = {*_USUAL_NAMES, *labels.values()}
    candidates = [name for name in names if name not in no_samples]
    usual = [name for name in candidates if name in _SAMPLE_NAMES]
    if len(wanted) == 1 and 1 in (len(candidates), len(usual)):
        return Chosen({wanted[0]: (usual if len(usual) == 1 else candidates)[0]}, labels)
    expected = f"{wanted[0]!r} or one of {', '.join(_SAMPLE_NAMES)}" if len(wanted) == 1 else ", ".join(wanted)
    raise DataError(
        f"Arrays are found by input name: {expected}. Received: {', '.join(map(str, names)) or 'none'} in {place}. "
        "Rename the arrays."
    )


def choose_labels(names: Collection[str], spec: SampleSpec) -> dict[str, str]:
    """Returns the source's name of each array of labels that is wanted: of "boxes" and "classes", or of "y".

    An array that has an input's name belongs to that input.

    Args:
        names: of all arrays of the source.
        spec: what is read.

    Examples:
        >>> from ..specs import InputSpec
        >>> choose_labels(["x", "label"], SampleSpec([InputSpec("x", (None, 2), "float32")], labels="classes"))
        {'y': 'label'}
    """
    left = set(names) - {each.name for each in spec.inputs}
    if spec.labels == "boxes":
        return {name: name for name in _BOX_NAMES if name in left}
    found = [name for name in _USUAL_NAMES if spec.labels and name in left]
    return dict(zip([LABEL], found, strict=False))
