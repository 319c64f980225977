"""Samples from a folder of pictures, labelled by the sub-folders of their classes.

One picture is decoded at a time, nothing is kept. How it becomes a sample is decided by ``images``.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..images import ImageReader
from ..samples import Block, Samples
from ..specs import SampleSpec
from .names import LABEL

__all__ = ["SUFFIXES", "find_images", "read"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def read(source: str | os.PathLike, spec: SampleSpec) -> Samples:
    """Returns the pictures of a folder, at any depth, in the order of their paths.

    Args:
        source: the folder. Where classes are wanted, each has a sub-folder; they are numbered in sorted order, as Keras
            numbers them. No other labels are in a folder.
        spec: what is read.

    Raises:
        DataError: there is no picture, one lies outside of the classes, the model has several inputs or none of pictures.
        DataError: when it is read: a picture is damaged.
    """
    folder = Path(source)
    files = _images(folder)
    names = None
    classes = [-1] * len(files)
    if spec.labels in ("classes", "any"):
        files, classes, names = _by_class(folder, files)
    if len(spec.inputs) > 1:
        raise DataError(
            f"A folder of images can feed one input. Received: a model with {len(spec.inputs)} inputs. "
            f"Store a .npz file with {', '.join(each.name for each in spec.inputs)}."
        )
    only = spec.inputs[0]
    reader = ImageReader(only, spec.scaling)

    def blocks(size: int) -> Iterator[Block]:
        for file, number in zip(files, classes, strict=True):
            labels = {} if names is None else {LABEL: np.array([number])}
            yield Block({only.name: reader.read(file)}, labels)

    return Samples(blocks, spec, count=len(files), is_scaled=True, class_names=names)


def find_images(folder: Path) -> list[Path]:
    """Returns the pictures below ``folder``, at any depth, in the order of their paths; hidden names are left out.

    Examples:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ["b.png", "a.JPG", ".c.png", "d.txt"]:
        ...     folder.joinpath(name).touch()
        >>> [path.name for path in find_images(folder)]
        ['a.JPG', 'b.png']
    """
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _images(folder: Path) -> list[Path]:
    files = find_images(folder)
    if not files:
        others = sorted({p.suffix or p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")})
        found = f"only {', '.join(others[:5])}" if others else "it is empty"
        raise DataError(
            f"The folder must hold images ({' '.join(sorted(SUFFIXES))}) or one .npy or .npz file. "
            f"Received: {folder} ({found}). Check the path."
        )
    return files


def _by_class(folder: Path, images: list[Path]) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Returns the pictures class by class, the number of each one's class, and the names of the classes."""
    loose = [path for path in images if path.parent == folder]
    if loose:
        raise DataError(
            f"Labelled images must lie in one sub-folder per class. Received: {loose[0]}. Move it into its class."
        )
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    groups = [find_images(folder / name) for name in names]
    return [file for group in groups for file in group], [n for n, group in enumerate(groups) for _ in group], names
