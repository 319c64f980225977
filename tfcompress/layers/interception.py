"""How layer calls are watched or changed in place, and put back.

``Interception`` shadows the ``call`` of a model's layers with an attribute of the instance; removing it deletes the
attribute, and the model is again exactly what it was. No wrapper layers, no clone. This is the only module that assigns
to attributes of somebody else's Keras objects. It does not decide what a layer's call should become.
"""

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import keras
import numpy as np

__all__ = [
    "COMPILED",
    "Interception",
    "around_training_step",
    "attach_asset",
    "call_with_weights",
    "forget_functions",
    "in_float32",
    "layer_paths",
    "level_replicas",
    "read",
    "recorded",
    "restore",
    "subject",
    "surrounded",
    "suspended",
    "swapped_activation",
]

Handler = Callable[[str, int, Any, Callable[..., Any], tuple, dict], Any]
"""(layer path, index of this call in the model's call, layer, original call, args, kwargs) -> outputs."""

COMPILED = ("train_function", "test_function", "predict_function")
"""Attributes of a model that hold what Keras has compiled from its calls."""

_MARK = "_tfcompress_original"


def layer_paths(model: keras.Model) -> dict[str, Any]:
    """Returns every layer and operation below ``model`` by a path that survives saving and loading.

    Layers of Sequential and functional models go by their names, which are saved; those of subclassed models and layers
    by the attribute that holds them. A shared layer is listed once, under the first path.

    Args:
        model: a built Keras 3 model.

    Returns:
        ``{"block/conv": layer, ...}`` in order of definition; the model itself is not in it.

    Examples:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
        >>> list(layer_paths(model))
        ['head']
    """
    found: dict[str, Any] = {}
    seen = {id(model)}

    def walk(parent: Any, prefix: str) -> None:
        for name, child in _children(parent):
            if id(child) in seen:
                continue
            seen.add(id(child))
            path = f"{prefix}{name}"
            while path in found:
                path += "'"
            found[path] = child
            walk(child, f"{path}/")

    walk(model, "")
    return found


def _children(parent: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(parent, keras.Sequential):
        for layer in parent.layers:
            yield layer.name, layer
        return
    if hasattr(parent, "operations"):  # functional: operations such as x + y are nodes beside the layers
        for operation in parent.operations:
            yield operation.name, operation
        return
    if not isinstance(parent, keras.layers.Layer):
        return
    owned = {id(layer): layer for layer in getattr(parent, "_layers", [])}
    # TensorFlow's and Keras's own bookkeeping holds the layers too; the author's attributes are those without "_".
    for name, value in sorted(vars(parent).items(), key=lambda item: item[0].startswith("_")):
        if name == "_layers" or name.startswith("_self_"):
            continue
        for suffix, item in _flatten(value):
            if id(item) in owned:
                yield name + suffix, owned.pop(id(item))
    for layer in owned.values():
        yield layer.name, layer


def _flatten(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.layers.Layer):
        yield "", value
    elif depth < 3 and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from ((f"/{index}{rest}", layer) for rest, layer in _flatten(item, depth + 1))
    elif depth < 3 and isinstance(value, Mapping):
        for key, item in value.items():
            yield from ((f"/{key}{rest}", layer) for rest, layer in _flatten(item, depth + 1))


class Interception:
    """Sends the calls of a model's layers, and of the model itself, through handlers until it is removed.

    Calls inside an intercepted layer's own call are not reported again, so a handler sees each leaf once. The index of
    a call counts from 0 in each call of the model, which tells the uses of a shared layer apart.

    Args:
        model: a built Keras 3 model.
        layers: the layers to intercept, by path (a part of ``layer_paths(model)``).
        on_layer: called in place of each of these layers' ``call``.
        on_model: called in place of the model's ``call``: (original call, args, kwargs) -> outputs. Default: the
            original.

    Examples:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
        >>> calls = []
        >>> def watch(path, index, layer, call, args, kwargs):
        ...     calls.append(path)
        ...     return call(*args, **kwargs)
        >>> with Interception(model, layer_paths(model), watch):
        ...     y = model(np.ones((1, 4), "float32"))
        >>> y = model(np.ones((1, 4), "float32"))
        >>> calls
        ['head']
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Mapping[str, Any],
        on_layer: Handler,
        on_model: Callable[[Callable[..., Any], tuple, dict], Any] | None = None,
    ) -> None:
        self._model = model
        self._layers = dict(layers)
        self._on_layer = on_layer
        self._on_model = on_model or (lambda call, args, kwargs: call(*args, **kwargs))
        self._here = _Here()
        self._kept: dict[str, Any] = {}

    @property
    def installed(self) -> bool:
        """Whether calls go through the handlers now."""
        return getattr(vars(self._model).get("call"), _MARK, None) is not None

    def install(self) -> None:
        """Starts intercepting; what another interception of this package left on the model is removed first."""
        restore(self._model)
        for path, layer in self._layers.items():
            _shadow(layer, self._layer_call(path, layer, layer.call))
        _shadow(self._model, self._model_call(self._model.call))

    def remove(self) -> None:
        """Puts every call back; does nothing when nothing is installed."""
        restore(self._model)

    def __enter__(self) -> Self:
        """Intercepts for a while; what Keras has compiled from the plain calls is kept, as a ``fit`` may be running."""
        kept = {name: getattr(self._model, name, None) for name in COMPILED}
        self._kept = {} if restore(self._model) else kept
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
        for name, function in self._kept.items():
            if function is not None:
                setattr(self._model, name, function)

    def _layer_call(self, path: str, layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def intercepted(*args: Any, **kwargs: Any) -> Any:
            here = self._here
            if here.depth:
                return call(*args, **kwargs)
            index = here.counts[path]
            here.counts[path] += 1
            here.depth += 1
            try:
                return self._on_layer(path, index, layer, call, args, kwargs)
            finally:
                here.depth -= 1

        return intercepted

    def _model_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def intercepted(*args: Any, **kwargs: Any) -> Any:
            self._here.counts.clear()
            self._here.depth = 0
            return self._on_model(call, args, kwargs)

        return intercepted


class _Here(threading.local):
    """Where a call of the model is: replicas under a distribution strategy take turns in threads of their own."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.depth = 0


def _shadow(layer: Any, call: Callable[..., Any]) -> None:
    original = vars(layer).get("call")  # an instance attribute of the user's own, or None
    setattr(call, _MARK, (original,))
    vars(layer)["call"] = call


def restore(model: keras.Model) -> bool:
    """Removes whatever an interception left on ``model``; returns whether there was anything.

    Keras does not tell callbacks about an exception in ``fit``; this is how the next user of the model cleans up.

    Examples:
        >>> import keras
        >>> restore(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False
    """
    found = bool(_bared(model))
    if found:
        forget_functions(model)
    return found


def _bared(model: keras.Model) -> list[tuple[Any, Callable[..., Any]]]:
    """Gives the model and its layers their own calls; returns which had others, and those."""
    calls = [(layer, vars(layer).get("call")) for layer in (model, *layer_paths(model).values())]
    found = [(layer, call) for layer, call in calls if call is not None and hasattr(call, _MARK)]
    for layer, call in found:
        _set_call(layer, getattr(call, _MARK)[0])
    return found


def _set_call(layer: Any, call: Callable[..., Any] | None) -> None:
    if call is None:
        del vars(layer)["call"]
    else:
        vars(layer)["call"] = call


@contextlib.contextmanager
def suspended(model: keras.Model) -> Iterator[None]:
    """Runs the body while the calls of ``model`` and its layers are their own; interceptions are back afterwards."""
    held = _bared(model)
    try:
        yield
    finally:
        for layer, call in held:
            vars(layer)["call"] = call


def around_training_step(model: keras.Model, around: Callable[[Callable[[Any], Any], Any], Any] | None) -> None:
    """Makes ``model.train_step(data)`` call ``around(train step, data)``; None takes it off. What was compiled is dropped."""
    vars(model).pop("train_step", None)
    if around is not None:
        vars(model)["train_step"] = functools.partial(around, model.train_step)
    model.train_function = None


def forget_functions(model: keras.Model) -> None:
    """Drops what Keras compiled from ``model``'s calls as they were; it is made again when it is next needed."""
    for name in COMPILED:
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


def call_with_weights(call: Callable[..., Any], mapping: list[tuple[Any, Any]], args: tuple, kwargs: dict) -> Any:
    """Calls ``call`` while each variable of ``mapping`` reads as the tensor beside it; gradients flow through.

    Args:
        call: a layer's own call.
        mapping: (Keras variable, tensor of its shape and dtype) pairs.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
    """
    if not mapping:
        return call(*args, **kwargs)
    with keras.StatelessScope(state_mapping=mapping):
        return call(*args, **kwargs)


@contextlib.contextmanager
def swapped_activation(layer: Any, around: Callable[[Callable[..., Any], Any], Any] | None) -> Iterator[None]:
    """Runs the body while ``layer.activation(x)`` is ``around(activation, x)``; None leaves it alone."""
    if around is None:
        yield
        return
    activation = layer.activation
    vars(layer)["activation"] = lambda x: around(activation, x)
    try:
        yield
    finally:
        vars(layer)["activation"] = activation


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[None]:
    """Runs the body while every layer of ``model`` computes in float32, whatever its dtype policy.

    TFLite has no kernels for half-precision arithmetic, and its converter fails on mixed-precision graphs.
    """
    changed = []
    for layer in (model, *layer_paths(model).values()):
        policy = getattr(layer, "dtype_policy", None)
        if policy is not None and policy.compute_dtype in ("float16", "bfloat16"):
            changed.append((layer, policy))
            vars(layer)["_dtype_policy"] = keras.DTypePolicy("float32")
    try:
        yield
    finally:
        for layer, policy in changed:
            vars(layer)["_dtype_policy"] = policy


def recorded(layers: Mapping[str, Any], into: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Runs the body while each layer's outputs are noted in ``into`` under its name; other interceptions go on."""

    def noted(name: str, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        into[name] = call(*args, **kwargs)
        return into[name]

    return surrounded(layers, noted)


@contextlib.contextmanager
def surrounded(
    layers: Mapping[str, Any], around: Callable[[str, Callable[..., Any], tuple, dict], Any]
) -> Iterator[None]:
    """Runs the body while each layer's call is ``around(name, call, args, kwargs)``; other interceptions go on."""
    before = {name: vars(layer).get("call") for name, layer in layers.items()}
    for name, layer in layers.items():
        call = functools.partial(around, name, layer.call)
        vars(layer)["call"] = lambda *args, _call=call, **kwargs: _call(args, kwargs)
    try:
        yield
    finally:
        for name, layer in layers.items():
            _set_call(layer, before[name])


def read(variable: Any) -> np.ndarray:
    """Returns the values of a Keras or TensorFlow variable; under a distribution strategy one value for all replicas."""
    inner = getattr(variable, "_value", variable)
    return np.asarray(inner.read_value() if isinstance(getattr(inner, "values", None), tuple) else inner)


def level_replicas(model: keras.Model) -> None:
    """Gives what training does not level itself, the statistics of BatchNormalization, one value on all replicas: their mean.

    Under a distribution strategy each replica keeps its own, computes with it, and only the first one's is saved.

    Examples:
        >>> import keras
        >>> level_replicas(keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()]))
    """
    for variable in model.non_trainable_weights:
        replicas = getattr(getattr(variable, "_value", variable), "values", None)
        if not isinstance(replicas, tuple) or not variable.dtype.startswith(("float", "bfloat")):
            continue
        values = [np.asarray(replica) for replica in replicas]
        if any(not np.array_equal(value, values[0]) for value in values[1:]):
            mean = np.mean(values, axis=0, dtype=np.float64)
            for replica in replicas:
                replica.assign(mean.astype(values[0].dtype))


def subject(model: keras.Model) -> keras.Model:
    """Returns the model that callbacks work on: the student of a distiller, any other model itself."""
    return model.student if isinstance(model, keras.distillation.Distiller) else model


def attach_asset(model: keras.Model, writer: Callable[[str], None] | None) -> None:
    """Makes ``model.save`` call ``writer(folder)`` for the model's assets; None takes the writer off.

    Keras calls ``save_assets`` on every object it saves and ignores assets that nothing loads: a plain Keras opens them.
    """
    vars(model).pop("save_assets", None)
    if writer is not None:
        vars(model)["save_assets"] = writer
