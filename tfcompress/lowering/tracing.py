"""How a callable of tensors is lowered: traced with the shapes that are wanted, frozen, and given its signature.

Keras models, tf_keras models, SavedModels and TensorFlow functions all end here; each has a module that knows how it is
called and what its inputs and outputs are named.
"""

import contextlib
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ModelError
from ..layers import signatures
from ..system import converter_silenced
from ..tflite import flatbuffer, qdq, static_shapes
from .freezing import DynamicListError, to_flatbuffer
from .lowered import Lowered, Reference, finish

__all__ = ["lower_call"]

Scope = Callable[[], contextlib.AbstractContextManager]

_REFERENCE_BATCH = 4  # a large model's tensors for more samples at a time would cost gigabytes


def lower_call(
    call: Callable[..., Any],
    inputs: Sequence[signatures.InputTensor],
    *,
    name: str,
    output_names: Callable[[Any], list[str]] = signatures.structure_names,
    scope: Scope = contextlib.nullcontext,
    marking: Scope | None = None,
    marked: bool = False,
    skipped: Callable[[], Mapping[str, str]] = dict,
    weights: str = "float32",
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    layers: Collection[str] = (),
    infer_integers: bool = False,
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of ``call``.

    Args:
        call: from one tensor for each input, by position, to a structure of tensors.
        inputs: name, shape and dtype of each input.
        name: how messages name the model.
        output_names: from what ``call`` returned to one name for each tensor in it. Default: keys and positions.
        scope: a context in which the model computes in float32. Default: nothing.
        marking: a context inside which the trace holds fake quantization of trained ranges. Default: none.
        marked: whether the model itself holds fake quantization, whose ranges count as trained. Default: False.
        skipped: what is reported as skipped, asked for after the trace. Default: nothing.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        layers: names of the model's layers, for messages. Default: none.
        infer_integers: whether a float input that is only ever read as integers becomes an int32 one. Default: False.
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ValueError: ``input_shapes`` does not fit.
        ModelError: the model cannot be called on its inputs.
        ConversionError: the model cannot be expressed in TFLite's ops.
    """
    fixed = static_shapes.fix_shapes({tensor.name: tensor.shape for tensor in inputs}, input_shapes, place=name)
    tensors = [tensor._replace(shape=fixed[tensor.name]) for tensor in inputs]
    found: list[Any] = []

    def run(*values: Any) -> list[Any]:
        outputs = call(*values)
        found[:] = [outputs]
        return _flat(outputs)

    with scope(), converter_silenced(debug=debug), (marking or contextlib.nullcontext)():
        function = _trace(run, tensors, name)
        if infer_integers and (integers := _read_as_integers(function, tensors)):
            tensors = [tensor._replace(dtype="int32") if tensor.name in integers else tensor for tensor in tensors]
            function = _trace(run, tensors, name)
    convert = functools.partial(
        to_flatbuffer,
        weights=weights,
        name=name,
        layers=layers,
        keep_fake_quantization=weights == "float32",
        debug=debug,
    )
    notes = []
    try:
        content = convert(function)
    except DynamicListError:
        if any(tensor.shape[:1] == (None,) for tensor in tensors):
            tensors = [tensor._replace(shape=(tensor.shape[0] or 1, *tensor.shape[1:])) for tensor in tensors]
            with scope(), converter_silenced(debug=debug), (marking or contextlib.nullcontext)():
                function = _trace(run, tensors, name)
            notes.append(
                "The batch was fixed to 1: a recurrent layer's loop needs a fixed one. unroll=True keeps it dynamic."
            )
        content = convert(function, batch=tensors[0].shape[0])
    parsed = flatbuffer.parse(content)
    trained: dict[str, tuple[float, float]] = {}
    if weights == "float32" and (marked or marking is not None):
        qdq.bake_weights(parsed)
        trained = qdq.take_ranges(parsed)
    return finish(
        parsed,
        [(tensor.name, tensor.shape) for tensor in tensors],
        output_names(found[0]),
        _reference(function if marking is None else None, run, scope, tensors, name),
        trained=trained,
        skipped=skipped(),
        notes=notes,
    )


def _flat(outputs: Any) -> list[Any]:
    """Returns the tensors of a structure, dictionaries by sorted keys, as ``signatures.structure_names`` names them."""
    if isinstance(outputs, dict):
        return [leaf for key in sorted(outputs) for leaf in _flat(outputs[key])]
    if isinstance(outputs, list | tuple):
        return [leaf for item in outputs for leaf in _flat(item)]
    return [outputs]


def _trace(run: Callable[..., list[Any]], tensors: Sequence[signatures.InputTensor], name: str) -> Any:
    import tensorflow as tf

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in tensors]
    try:
        return tf.function(run, autograph=False).get_concrete_function(*specs)
    except (TypeError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        called = ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in tensors)
        raise ModelError(
            f"The model must be callable on its inputs. Received: {name}, called with {called}: {reason[:200]} "
            "Call a subclassed model on one tensor, list or dictionary, and give shapes that its layers accept."
        ) from error


def _read_as_integers(function: Any, tensors: Sequence[signatures.InputTensor]) -> set[str]:
    """Returns the float inputs that every reader casts to integers first, as Embedding does."""
    import tensorflow as tf

    names = set()
    for tensor, placeholder in zip(tensors, function.inputs, strict=False):  # captured variables follow
        readers = placeholder.consumers()
        casts = [reader.type == "Cast" and reader.outputs[0].dtype in (tf.int32, tf.int64) for reader in readers]
        if tensor.dtype.startswith("float") and casts and all(casts):
            names.add(tensor.name)
    return names


def _reference(
    traced: Any,
    run: Callable[..., list[Any]],
    scope: Scope,
    tensors: Sequence[signatures.InputTensor],
    name: str,
) -> Reference:
    """Returns the float model as a function from arrays to arrays; traces it unless ``traced`` is its graph."""
    batch = next((tensor.shape[0] for tensor in tensors if tensor.shape and tensor.shape[0] is not None), None)
    size = batch or _REFERENCE_BATCH

    def answer(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        import tensorflow as tf

        function = traced
        if function is None:
            with scope():
                function = _trace(run, tensors, name)
        count = len(arrays[tensors[0].name])
        blocks = []
        for start in range(0, count, size):
            block = [np.asarray(arrays[tensor.name])[start : start + size] for tensor in tensors]
            present = len(block[0])
            if batch is not None and present < batch:  # the last samples fill a fixed batch up
                block = [np.concatenate([part, np.repeat(part[-1:], batch - present, axis=0)]) for part in block]
            values = [tf.constant(part, tensor.dtype) for part, tensor in zip(block, tensors, strict=True)]
            outputs = [np.asarray(output) for output in function(*values)]
            blocks.append(
                [output[:present] if output.ndim and len(block[0]) > present else output for output in outputs]
            )
        return [np.concatenate(parts) if parts[0].ndim else parts[0] for parts in zip(*blocks, strict=True)]

    return answer
