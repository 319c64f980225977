"""Which shape does each input of a model get, when the caller fixes axes that the model leaves open?

Pure arithmetic on names and shapes; knows nothing of graphs or files.
"""

from collections.abc import Mapping, Sequence

__all__ = ["Shape", "fix_shapes"]

Shape = tuple[int | None, ...]
"""Sizes of the axes, the batch axis first; None is a dynamic axis."""


def fix_shapes(
    known: Mapping[str, Shape], wanted: Mapping[str, Sequence[int | None]] | None, *, place: str
) -> dict[str, Shape]:
    """Returns the shapes ``known`` with the dynamic axes that ``wanted`` fixes.

    Args:
        known: shape by input name, None for a dynamic axis.
        wanted: whole shapes by input name, the batch axis first; None leaves an axis as it is. Default: nothing.
        place: how messages name the model.

    Raises:
        ValueError: an unknown name, another number of axes, a size below 1, or another size than the model's own.

    Examples:
        >>> fix_shapes({"image": (None, None, None, 3)}, {"image": (1, 96, None, 3)}, place="m.keras")
        {'image': (1, 96, None, 3)}
        >>> fix_shapes({"image": (None, 8)}, {"picture": (1, 8)}, place="m.keras")
        Traceback (most recent call last):
        ...
        ValueError: input_shapes must name inputs of m.keras: 'image'. Received: 'picture'. Use one of these names.
    """
    fixed = dict(known)
    for name, shape in (wanted or {}).items():
        if name not in known:
            raise ValueError(
                f"input_shapes must name inputs of {place}: {', '.join(map(repr, known))}. Received: {name!r}. "
                "Use one of these names."
            )
        fixed[name] = _fixed(name, known[name], shape, place)
    return fixed


def _fixed(name: str, known: Shape, shape: Sequence[int | None], place: str) -> Shape:
    sizes = tuple(None if size is None else int(size) for size in shape)
    if len(sizes) != len(known):
        raise ValueError(
            f"The shape of input {name!r} of {place} must have {len(known)} axes like {known}. Received: {sizes}. "
            "Give the whole shape, the batch axis first."
        )
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"Sizes must be at least 1. Received: {sizes} for {name!r}. Write None for a dynamic axis.")
    if any(own is not None and size not in (None, own) for own, size in zip(known, sizes, strict=True)):
        raise ValueError(
            f"A shape must keep the sizes that {place} has fixed: {name!r} is {known}. Received: {sizes}. "
            "Fix dynamic axes (None) only, or build the model with another size."
        )
    return tuple(own if size is None else size for own, size in zip(known, sizes, strict=True))
