"""Which reader takes which source? ``convert``, ``measure`` and training read their samples here.

Samples that calibrate are streamed as ``Samples``; those that accuracy is measured on are held in memory as ``Labelled``.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..system import call_function, names_a_function
from .labels import Labelled, labelled
from .readers import array_files, arrays_in_memory, image_folder, streams, tfrecords
from .readers.tfrecords import TFRecords
from .samples import Samples
from .scalings import Scaling
from .specs import InputSpec, LabelKind, SampleSpec

__all__ = ["load_labelled", "load_representative"]


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def _is_image_folder(source: Any) -> bool:
    return _is_path(source) and Path(source).is_dir() and not array_files.find_array_files(Path(source))


def _is_in_memory(source: Any) -> bool:
    return isinstance(source, Mapping | tuple | list) or hasattr(source, "__array__")


def _is_stream(source: Any) -> bool:
    return callable(source) or isinstance(source, Iterable)


READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, SampleSpec], Samples]], ...] = (
    (lambda source: isinstance(source, TFRecords), tfrecords.read),
    (_is_image_folder, image_folder.read),  # pictures, or folders of them by class
    (_is_path, array_files.read),  # .npy, .npz, a folder that holds one; paths to nothing are refused here
    (_is_in_memory, arrays_in_memory.read),  # an array, a dictionary, (x, y), one array per input, a list of samples
    (_is_stream, streams.read),  # tf.data, a generator, a function that returns one
)
"""Which reader takes which source: the first whose question is answered by yes."""


def load_representative(
    source: Any, inputs: Sequence[InputSpec], *, scaling: str | Scaling | None = None, allow_pickle: bool = False
) -> Samples:
    """Returns the samples of ``source``, ready to be read in batches; labels are dropped.

    Accepted are

    - a path: ``.npy`` (mapped into memory), ``.npz`` (arrays by input name; for one input also a lone array or one
      named x, images, input or samples), a folder of images at any depth, a folder that holds one ``.npy`` or ``.npz``;
    - ``TFRecords``: files of ``tf.train.Example`` with the feature of each input;
    - an array, a dictionary of arrays by input name, a list or tuple with one array per input, ``(x, y)``, or a list
      of single samples for a model with one input;
    - a ``tf.data.Dataset``, another iterable, a function that returns one, or a generator (read once), of elements
      that are each an array, a dictionary, one array per input, or ``(x, y)``;
    - ``path.py:function``, which is called and returns one of these.

    An array of the input's rank is a batch, an array of one axis less is a single sample.

    Args:
        source: where the samples are.
        inputs: what the model accepts.
        scaling: for images and uint8 arrays: ``zero_one`` (p / 255), ``minus_one_one`` (p / 127.5 - 1), ``raw``,
            ``imagenet_torch``, ``imagenet_caffe``, ``mean=R,G,B;std=R,G,B`` or a ``Scaling``. Default: None, which keeps
            arrays as they are and takes images as ``zero_one`` for a float input and ``raw`` for an integer one.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: the source is missing, unreadable, empty or does not fit the inputs.
        TypeError: ``source`` is none of the above.
        ValueError: ``scaling`` has an unknown name, or ``inputs`` is empty or names an input twice.

    Examples:
        >>> import numpy as np
        >>> spec = InputSpec("image", (None, 8, 8, 1), np.float32)
        >>> stream = ({"image": np.full((8, 8, 1), i)} for i in range(5))
        >>> [len(batch["image"]) for batch in load_representative(stream, [spec]).batches(4)]
        [4, 1]
    """
    spec = SampleSpec(inputs, scaling=scaling, allow_pickle=allow_pickle)
    return _read(_called(source), spec)


def load_labelled(
    source: Any,
    inputs: Sequence[InputSpec],
    *,
    kind: LabelKind = "classes",
    scaling: str | Scaling | None = None,
    allow_pickle: bool = False,
) -> Labelled:
    """Returns samples and their labels, read into memory.

    Accepted is whatever ``load_representative`` takes, where it has labels: a ``.npz`` file or a dictionary with ``y``,
    ``labels``, ``label`` or ``targets`` (for boxes with ``boxes`` and ``classes``), a folder of images with one sub-folder
    per class (class indices in sorted order, as Keras numbers them), a stream of ``(x, y)`` or of dictionaries,
    ``TFRecords`` whose feature map names them, and ``(x, y)`` with x from any source and y an array.

    Args:
        source: where the samples are.
        inputs: what the model accepts.
        kind: what the labels are. "classes": indices, of any integer dtype or whole floats, of shape (n,) or (n, 1), or
            one-hot rows of shape (n, classes). "values": of any shape (n, ...); without them the only input itself, as for
            an autoencoder. "boxes": "boxes" and "classes". "any": classes of a folder of images,
            otherwise values. Default: "classes".
        scaling: as in ``load_representative``. Default: None.
        allow_pickle: whether arrays of Python objects may be unpickled, which runs code. Default: False.

    Raises:
        DataError: the source is missing, unreadable, empty, does not fit the inputs, or its labels are missing or no
            classes.
        TypeError: ``source`` is none of the above.
        ValueError: ``scaling`` has an unknown name, or ``inputs`` is empty or names an input twice.

    Examples:
        >>> import numpy as np
        >>> spec = InputSpec("image", (None, 2), np.float32)
        >>> load_labelled({"x": np.zeros((2, 2)), "y": np.eye(2)}, [spec]).y
        array([0, 1])
        >>> load_labelled(np.ones((3, 2)), [spec], kind="values")
        Labelled(3 samples with y float32 (3, 2))
    """
    spec = SampleSpec(inputs, labels=kind, scaling=scaling, allow_pickle=allow_pickle)
    source, y = _called(source), None
    if isinstance(source, tuple | list) and len(source) == 2 and not _is_in_memory(source[0]):
        source, y = _called(source[0]), source[1]
    place = str(source) if _is_path(source) else "the data"
    return labelled(_read(source, spec), kind, y=y, place=place)


def _called(source: Any) -> Any:
    return call_function(source) if isinstance(source, str) and names_a_function(source) else source


def _read(source: Any, spec: SampleSpec) -> Samples:
    for takes, read in READERS:
        if takes(source):
            return read(source, spec)
    raise TypeError(
        f"Data must be a path, arrays, a tf.data.Dataset or a generator. Received: {type(source).__name__}."
    )
