"""How TensorFlow's own models become a float ``.tflite`` flatbuffer: functions, modules, SavedModels and tf_keras models.

A model of many functions is lowered by one signature. TFMOT's fake quantization comes out as trained ranges of tensors.
A SavedModel of TensorFlow 1 is frozen by a session.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ModelError
from ..layers import signatures
from ..system import converter_silenced
from . import keras2
from .keras_models import check_finite
from .lowered import Lowered
from .tracing import lower_call

__all__ = ["choose", "lower_function", "lower_legacy", "lower_saved_model"]

DEFAULT_SIGNATURE = "serving_default"
_REFERENCE_VARIABLES = ("Variable", "VariableV2")


def choose(names: Sequence[str], wanted: str | None, *, place: str) -> str:
    """Returns the signature that is meant: the one wanted, "serving_default", or the only one.

    Args:
        names: the signatures there are.
        wanted: the caller's choice, None for none.
        place: how messages name the model.

    Raises:
        ValueError: ``wanted`` is not among them.
        ModelError: there is none, or several and no choice.

    Examples:
        >>> choose(["encode", "decode"], None, place="saved")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: A model with several signatures needs a choice. Received: saved with 'decode', ...
    """
    known = ", ".join(map(repr, sorted(names)))
    if wanted is not None and wanted not in names:
        raise ValueError(
            f"signature must be one of {place}'s: {known or 'none'}. Received: {wanted!r}. Use one of these."
        )
    if wanted is not None or DEFAULT_SIGNATURE in names or len(names) == 1:
        return wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0])
    if not names:
        raise ModelError(
            f"A model needs a function with an input signature. Received: {place} without any. Save it with "
            "signatures=, or give tf.function an input_signature."
        )
    raise ModelError(
        f"A model with several signatures needs a choice. Received: {place} with {known}. "
        f"Pass --signature=NAME (signature={min(names)!r} in Python)."
    )


def lower_function(
    function: Any,
    *,
    signature: str | None = None,
    weights: str = "float32",
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    name: str | None = None,
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of a TensorFlow function.

    Args:
        function: a concrete function, a ``tf.function`` with an input signature (or called once), or a ``tf.Module``
            that has one as an attribute.
        signature: which function of a module. Default: ``__call__``, or its only one.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        name: how messages name it. Default: its own name.
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ValueError: ``signature`` or ``input_shapes`` does not fit.
        ModelError: no function with known inputs, or several and no choice.
        ConversionError: the function cannot be expressed in TFLite's ops.

    Examples:
        >>> import tensorflow as tf
        >>> double = tf.function(lambda x: {"twice": 2 * x}, input_signature=[tf.TensorSpec((None, 4), name="x")])
        >>> lower_function(double).outputs
        ('twice',)
    """
    import tensorflow as tf

    name = name or getattr(function, "name", None) or getattr(function, "__name__", None) or type(function).__name__
    name = name.decode() if isinstance(name, bytes) else str(name)
    owner = function  # methods hold on to their module weakly
    if isinstance(function, tf.Module):
        functions = _functions_of(function)
        wanted = signature or ("__call__" if "__call__" in functions else None)
        function = functions[choose(list(functions), wanted, place=name)]
    elif signature is not None:
        raise ValueError(
            f"signature chooses among several functions. Received: {signature!r} for {name}. Leave it out."
        )
    return _lower(function, name, owner=owner, weights=weights, input_shapes=input_shapes, debug=debug)


def _lower(function: Any, name: str, *, owner: Any = None, **options: Any) -> Lowered:
    """Returns the flatbuffer of one function; variables live as long as ``owner``, which the reference holds on to."""
    import tensorflow as tf

    concrete = _concrete(function, name)
    structure = concrete.structured_input_signature
    leaves = [leaf for leaf in tf.nest.flatten(structure) if isinstance(leaf, tf.TensorSpec)]
    inputs = [
        signatures.InputTensor(_name(leaf, i), _shape(leaf, name), leaf.dtype.name) for i, leaf in enumerate(leaves)
    ]

    def call(*values: Any, _owner: Any = owner) -> Any:
        remaining = iter(values)
        args, kwargs = tf.nest.map_structure(
            lambda leaf: next(remaining) if isinstance(leaf, tf.TensorSpec) else leaf, structure
        )
        return concrete(*args, **kwargs)

    return lower_call(call, signatures.named_leaves(inputs), name=name, marked=_is_marked(concrete), **options)


def _functions_of(module: Any) -> dict[str, Any]:
    import tensorflow as tf

    kind = tf.types.experimental.PolymorphicFunction
    names = sorted({*vars(module), *(name for cls in type(module).__mro__ for name in vars(cls))})
    candidates = {name: getattr(module, name, None) for name in names if name == "__call__" or not name.startswith("_")}
    return {
        name: value
        for name, value in candidates.items()
        if isinstance(value, tf.types.experimental.ConcreteFunction)
        or (isinstance(value, kind) and (value.input_signature is not None or _traced(value)))
    }


def _traced(function: Any) -> list[Any]:
    """Returns the concrete functions that a ``tf.function``, or one restored from a SavedModel, has so far."""
    restored = getattr(function, "concrete_functions", None)
    return list(restored) if restored is not None else function._list_all_concrete_functions()


def _concrete(function: Any, name: str) -> Any:
    import tensorflow as tf

    if isinstance(function, tf.types.experimental.ConcreteFunction):
        return function
    traced = _traced(function)
    if function.input_signature is not None and not hasattr(function, "concrete_functions"):
        return function.get_concrete_function()
    if len(traced) != 1:
        raise ModelError(
            f"A function to convert must have one input signature. Received: {name} with {len(traced)} traces. "
            "Give tf.function an input_signature, or pass function.get_concrete_function(...)."
        )
    return traced[0]


def _name(spec: Any, position: int) -> str:
    return spec.name or f"input_{position}"


def _shape(spec: Any, place: str) -> tuple[int | None, ...]:
    if spec.shape.rank is None:
        raise ModelError(
            f"Inputs must have a known number of axes. Received: {spec.name} of {place} without a shape. "
            "Export it with an input signature."
        )
    return tuple(spec.shape)


def _is_marked(concrete: Any) -> bool:
    graph = concrete.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return any(node.op.startswith("FakeQuantWithMinMax") for node in nodes)


def lower_saved_model(
    path: str,
    *,
    signature: str | None = None,
    weights: str = "float32",
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    place: str | None = None,
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of one signature of a SavedModel folder.

    Args:
        path: the folder that holds ``saved_model.pb``.
        signature: which one. Default: "serving_default", or its only one.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        place: how messages name it. Default: the path.
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ValueError: ``signature`` or ``input_shapes`` does not fit.
        ModelError: the folder cannot be read, or has no signature or several to choose from.
        ConversionError: the signature cannot be expressed in TFLite's ops.
    """
    import tensorflow as tf

    place = place or path
    with converter_silenced(debug=debug):
        try:
            loaded = tf.saved_model.load(path)
        except (OSError, ValueError, RuntimeError, KeyError, tf.errors.OpError) as error:
            loaded = _load_serving(path, error, place)
    functions: dict[str, Any] = dict(loaded.signatures)
    if not functions:
        functions = _functions_of(loaded)
        signature = signature or ("__call__" if "__call__" in functions else None)
    key = choose(list(functions), signature, place=place)
    function = functions[key]
    if key in loaded.signatures and _has_reference_variables(function):
        with converter_silenced(debug=debug), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TensorFlow 1 is deprecated, which is no news to who saved with it
            call, inputs = _freeze_v1(path, key)
        return lower_call(
            call, signatures.named_leaves(inputs), name=place, weights=weights, input_shapes=input_shapes, debug=debug
        )
    return _lower(function, place, owner=loaded, weights=weights, input_shapes=input_shapes, debug=debug)


def _load_serving(path: str, first: BaseException, place: str) -> Any:
    """Returns the graph tagged "serve": files of TensorFlow 1 hold one for training beside it."""
    import tensorflow as tf

    try:
        return tf.saved_model.load(path, tags=["serve"])
    except (OSError, ValueError, RuntimeError, KeyError, tf.errors.OpError):
        reason = next((line.strip() for line in str(first).splitlines() if line.strip()), type(first).__name__)
        raise ModelError(f"The SavedModel cannot be read: {place} ({reason[:300]}). Export it again.") from first


def _has_reference_variables(function: Any) -> bool:
    """Returns whether a restored signature, a concrete function, reads variables of TensorFlow 1."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return any(node.op in _REFERENCE_VARIABLES for node in nodes)


def _freeze_v1(path: str, signature: str) -> tuple[Callable[..., Any], list[signatures.InputTensor]]:
    """Returns the signature as a function of tensors without variables, and its inputs in the order it takes them.

    Reference variables of TensorFlow 1 are no resources, so a session reads them.

    Args:
        path: the folder that holds ``saved_model.pb``, with a graph tagged "serve".
        signature: the signature's key.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        loaded = v1.saved_model.load(session, ["serve"], path)
        definition = loaded.signature_def[signature]
        fed = {name: entry.name for name, entry in definition.inputs.items()}
        fetched = {name: entry.name for name, entry in definition.outputs.items()}
        nodes = [tensor.split(":")[0] for tensor in fetched.values()]
        graph = v1.graph_util.convert_variables_to_constants(session, session.graph_def, nodes)
        tensors = {name: session.graph.get_tensor_by_name(tensor) for name, tensor in fed.items()}
        inputs = [
            signatures.InputTensor(name, tuple(tensor.shape), tensor.dtype.name) for name, tensor in tensors.items()
        ]

    def call(*values: Any) -> dict[str, Any]:
        feeds = dict(zip(fed.values(), values, strict=True))
        results = tf.graph_util.import_graph_def(graph, feeds, list(fetched.values()), name="")
        return dict(zip(fetched, results, strict=True))

    return call, inputs


def lower_legacy(
    model: Any,
    *,
    weights: str = "float32",
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of a tf_keras model, without the wrappers of TFMOT's pruning and clustering.

    Fake quantization of TFMOT's quantization-aware training becomes ``Lowered.trained``; the weights that it rounded are
    stored rounded. With weights other than "float32" it is left out.

    Args:
        model: a built tf_keras model.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ValueError: ``input_shapes`` does not fit.
        ModelError: the model is not built or cannot be called on its inputs.
        ConversionError: the model cannot be expressed in TFLite's ops, or a weight is not finite.
    """
    model = keras2.strip(model)
    check_finite(model, [(variable.name, variable) for variable in model.weights])
    structure = keras2.input_structure(model)

    def call(*values: Any) -> Any:
        return model(signatures.pack(structure, list(values)), training=False)

    return lower_call(
        call,
        signatures.named_leaves(structure),
        name=model.name,
        output_names=functools.partial(signatures.output_names, model),
        marked=keras2.has_fake_quantization(model),
        weights=weights,
        input_shapes=input_shapes,
        layers={layer.name for layer in keras2.layers(model)},
        debug=debug,
    )
