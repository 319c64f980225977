"""How a Keras model or a SavedModel becomes a float ``.tflite`` flatbuffer, the hub of every conversion.

Variables are frozen into constants first, which is several times faster than the converter's own path from Keras; the
signature that this loses is written back. Trained ranges go in as fake-quantization nodes and come out as ranges of
tensors. Integer arithmetic is decided elsewhere. Only this module and ``quantization`` touch ``tf.lite``.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import flatbuffer
from .arrays import InputSpec
from .errors import ConversionError, ModelError
from .quiet import native_stderr_silenced

__all__ = ["Lowered", "converter_silenced", "lower_flatbuffer", "lower_keras", "lower_saved_model"]


@dataclass(frozen=True)
class Lowered:
    """A float flatbuffer and what is known about it.

    Args:
        content: the bytes of the float ``.tflite`` file.
        inputs: name, shape and dtype of each input, in the file's order.
        outputs: signature name of each output, in the file's order.
        reference: the source model as a function from arrays by input name to its outputs as a list of arrays.
        trained: (lowest, highest) by tensor name, from trained ranges. Default: none.
        skipped: layers whose inner tensors have no trained range, with the reason. Default: none.
    """

    content: bytes
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    reference: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
    trained: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def converter_silenced(*, debug: bool = False) -> Iterator[None]:
    """Runs the body without the log lines of TensorFlow, its converter and absl; ``debug`` lets them through."""
    if debug:
        yield
        return
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with native_stderr_silenced(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def lower_keras(
    model: Any,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    weights: str = "float32",
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of a Keras 3 model, computed in float32 whatever the model's dtype policy.

    Args:
        model: a built Keras 3 model on the TensorFlow backend.
        ranges: trained (lowest, highest) by point name; they come back as ranges of tensors. Default: none.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ModelError: the model is not built.
        ConversionError: the model cannot be expressed in TFLite's ops, or a weight is not finite.
    """
    import tensorflow as tf

    from . import interception, signatures

    interception.restore(model)  # what an exception in fit may have left
    _check_finite(model)
    tensors = signatures.input_tensors(model)
    structure = signatures.input_structure(model)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in tensors]

    def run(*values: Any) -> list[Any]:
        outputs = model(signatures.pack(structure, list(values)), training=False)
        return _flat(outputs)

    with interception.in_float32(model), converter_silenced(debug=debug):
        if ranges:
            from . import points

            plan = points.plan(model)
            with _marks(model, plan, ranges):
                function = tf.function(run, autograph=False).get_concrete_function(*specs)
            skipped = dict(plan.skipped)
        else:
            function = tf.function(run, autograph=False).get_concrete_function(*specs)
            skipped = {}
    content = _convert(function, weights=weights, name=model.name, debug=debug)
    names = signatures.output_names(model, len(function.outputs))
    parsed = flatbuffer.parse(content)
    trained = flatbuffer.take_marks(parsed) if ranges else {}
    return _finish(
        parsed,
        [(tensor.name, tensor.shape) for tensor in tensors],
        names,
        _reference(None if ranges else function, model, run, specs, [tensor.name for tensor in tensors]),
        trained,
        skipped,
    )


def lower_saved_model(path: str, *, weights: str = "float32", debug: bool = False) -> Lowered:
    """Returns the float flatbuffer of a SavedModel folder's signature "serving_default", or of its only one.

    Args:
        path: the folder that holds ``saved_model.pb``.
        weights: as in ``lower_keras``.
        debug: as in ``lower_keras``.

    Raises:
        ModelError: the folder cannot be read or has no signature to choose.
        ConversionError: as in ``lower_keras``.
    """
    import tensorflow as tf

    with converter_silenced(debug=debug):
        try:
            loaded = tf.saved_model.load(path)
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            raise ModelError(
                f"The SavedModel cannot be read: {path} ({_first_line(error)}). Export it again."
            ) from error
    signatures = dict(loaded.signatures)
    key = "serving_default" if "serving_default" in signatures else next(iter(signatures), None)
    if key is None or (key != "serving_default" and len(signatures) > 1):
        raise ModelError(
            f"A SavedModel needs the signature serving_default or a single one. Received: {sorted(signatures) or 'none'} "
            f"in {path}."
        )
    function = signatures[key]
    content = _convert(function, weights=weights, name=path, debug=debug)
    specs = function.structured_input_signature[1]
    by_tensor = {tensor.name.split(":")[0]: tensor for tensor in function.inputs}
    names = [name for name in specs if specs[name].name in by_tensor] or sorted(specs)
    order = [name for tensor in function.inputs for name in names if specs[name].name == tensor.name.split(":")[0]]
    inputs = [(name, tuple(specs[name].shape)) for name in order or names]
    outputs = sorted(function.structured_outputs)

    def reference(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        results = function(**{name: tf.constant(array) for name, array in arrays.items()})
        return [np.asarray(results[name]) for name in outputs]

    return _finish(flatbuffer.parse(content), inputs, outputs, reference, {}, {}, keep=loaded)


def lower_flatbuffer(content: bytes, *, place: str) -> Lowered:
    """Returns an existing float ``.tflite`` file as the hub; its signature is kept, or made from its tensor names.

    Args:
        content: the bytes of the file.
        place: how messages name it.

    Raises:
        ModelError: damaged, or quantized already.
    """
    parsed = flatbuffer.parse(content, place=place)
    graph = parsed.subgraphs[0]
    fed = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    if "QUANTIZE" in flatbuffer.op_counts(parsed) or any(
        flatbuffer.type_name(tensor) in ("INT8", "UINT8", "INT16") for tensor in fed
    ):
        raise ModelError(
            f"A model to convert must be float. Received: {place}, quantized already. Use its float source."
        )
    signature = (parsed.signatureDefs or [None])[0]

    def named(indices: Any, maps: Any) -> list[str]:
        known = {int(entry.tensorIndex): entry.name.decode() for entry in maps or []}
        return [known.get(int(index), flatbuffer.tensor_name(graph.tensors[index])) for index in indices]

    inputs = named(graph.inputs, signature and signature.inputs)
    outputs = named(graph.outputs, signature and signature.outputs)
    shapes = [_shape(graph.tensors[index]) for index in graph.inputs]

    def reference(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        from .interpreter import open_model

        results = open_model(content).run(dict(arrays))
        return [results[name] for name in outputs]

    return _finish(parsed, list(zip(inputs, shapes, strict=True)), outputs, reference, {}, {})


def _shape(tensor: Any) -> tuple[int | None, ...]:
    signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return tuple(None if size < 0 else int(size) for size in ([] if signature is None else signature))


def _flat(outputs: Any) -> list[Any]:
    import keras

    return keras.tree.flatten(outputs)


def _marks(model: Any, plan: Any, ranges: Mapping[str, tuple[float, float]]) -> Any:
    """Returns an interception that puts every trained range behind its point as a fake-quantization node."""
    import keras

    from . import fake_quantization, interception

    def mark(name: str, values: Any) -> Any:
        return fake_quantization.as_constants(values, *ranges[name]) if name in ranges else values

    def on_layer(path: str, index: int, layer: Any, call: Any, args: tuple, kwargs: dict) -> Any:
        site = plan.sites[path, index]

        def around(activation: Any, values: Any) -> Any:
            return activation(mark(f"{site.name}:inner", values))

        with interception.swapped_activation(layer, around if site.inner else None):
            outputs = call(*args, **kwargs)
        return mark(site.name, outputs) if site.output and site.fixed is None else outputs

    def on_model(call: Any, args: tuple, kwargs: dict) -> Any:
        remaining = iter(plan.inputs)

        def mark_input(tensor: Any) -> Any:
            name = next(remaining, None)
            return tensor if name is None else mark(name, tensor)

        return call(keras.tree.map_structure(mark_input, args[0]), *args[1:], **kwargs)

    layers = interception.layer_paths(model)
    watched = {path: layers[path] for path, _ in plan.sites}
    return interception.Interception(model, watched, on_layer, on_model)


def _check_finite(model: Any) -> None:
    for variable in model.weights:
        values = np.asarray(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ConversionError(
                f"All weights must be finite. Received: NaN or infinity in {variable.path} of {model.name!r}. "
                "Train again with a lower learning rate."
            )


def _convert(function: Any, *, weights: str, name: str, debug: bool) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert import ConverterError
    from tensorflow.lite.python.lite import TFLiteConverterBaseV2

    with converter_silenced(debug=debug):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        if weights != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if weights == "float16":
            converter.target_spec.supported_types = [tf.float16]
        inputs = [tensor for tensor in function.inputs if tensor.dtype != tf.resource]
        try:
            # The converter's own entry goes by a SavedModel on disk and builds the frozen function twice; its base class
            # takes the frozen graph as it is.
            return TFLiteConverterBaseV2.convert(converter, _freeze(function), inputs, function.outputs)
        except (ConverterError, ValueError, RuntimeError, tf.errors.OpError) as error:
            raise ConversionError(
                f"The model cannot be expressed in TFLite's ops: {name} ({_first_line(error)}). "
                "Replace the layer that is named, or run with --debug for the converter's own log."
            ) from error


def _freeze(function: Any) -> Any:
    """Returns the graph of ``function`` with its variables as constants; its tensors keep their names."""
    from tensorflow.python.framework import convert_to_constants

    # The public convert_variables_to_constants_v2 does these two steps and then builds a function that nobody calls,
    # which takes as long as all the rest of the lowering.
    data = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=False, aggressive_inlining=False
    )
    return convert_to_constants._replace_variables_by_constants(converter_data=data)[0]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error:" in line or "op is neither" in line), lines[0] if lines else "")
    return telling[:300] or type(error).__name__


_REFERENCE_BATCH = 4  # a large model's tensors for more samples at a time would cost gigabytes


def _reference(
    traced: Any, model: Any, run: Callable[..., list[Any]], specs: list[Any], names: list[str]
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """Returns the float Keras model as a function from arrays to arrays; traces it unless ``traced`` is its graph."""

    def answer(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        import tensorflow as tf

        from . import interception

        function = traced
        if function is None:
            with interception.in_float32(model):
                function = tf.function(run, autograph=False).get_concrete_function(*specs)
        size = 1 if any(spec.shape[0] is not None for spec in specs) else _REFERENCE_BATCH
        count = len(arrays[names[0]])
        blocks = [
            [np.asarray(output) for output in function(*(tf.constant(arrays[name][i : i + size]) for name in names))]
            for i in range(0, count, size)
        ]
        return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    return answer


def _finish(
    parsed: Any,
    inputs: list[tuple[str, tuple[int | None, ...]]],
    outputs: list[str],
    reference: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]],
    trained: Mapping[str, tuple[float, float]],
    skipped: Mapping[str, str],
    keep: Any = None,
) -> Lowered:
    flatbuffer.fold_dynamic_reshapes(parsed)
    graph = parsed.subgraphs[0]
    if not trained:
        flatbuffer.unique_names(parsed)
    flatbuffer.set_signature(parsed, [name for name, _ in inputs], list(outputs))
    specs = []
    for (name, shape), index in zip(inputs, graph.inputs, strict=True):
        dtype = flatbuffer.dtype_of(graph.tensors[index])
        if dtype is None:
            raise ConversionError(
                f"Inputs must be numbers. Received: {name} of type {flatbuffer.type_name(graph.tensors[index])}. "
                "Move text preprocessing out of the model."
            )
        specs.append(InputSpec(name, tuple(shape), dtype))
    kept = (reference, keep)  # a SavedModel's variables live as long as the object that loaded them
    return Lowered(flatbuffer.pack(parsed), tuple(specs), tuple(outputs), kept[0], trained, skipped)
