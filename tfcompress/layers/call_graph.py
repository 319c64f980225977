"""Which layer's output goes into which other layer: the calls of a model, watched in one symbolic run.

It works by tensor identity, so Sequential, functional, nested and subclassed models are all the same to it. What a model
or a layer of layers computes between its layers belongs to no call: it is named. What the calls mean to an integer file
is decided by ``quantization_points``.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from . import interception, signatures
from .layer_rules import Rule, rule_for

__all__ = ["Call", "CallGraph", "watch"]


@dataclass
class Call:
    """One call of one layer.

    Args:
        path: path of the layer.
        index: 0 for its first call, 1, 2, ... for the later calls of a shared one.
        layer: the layer.
        rule: what it is to an integer file, None for an unknown layer.
        inputs: symbolic tensors that went in.
        outputs: symbolic tensors that came out.
        consumed: by id of an input tensor how many graph operations inside the call read it.
    """

    path: str
    index: int
    layer: Any
    rule: Rule | None
    inputs: list[Any]
    outputs: list[Any]
    consumed: dict[int, int]

    @property
    def name(self) -> str:
        """Path of the layer, with "#1", "#2", ... for its later calls."""
        return self.path if not self.index else f"{self.path}#{self.index}"


@dataclass(frozen=True)
class CallGraph:
    """All calls of a model.

    Args:
        calls: in the order of the run.
        inputs: the model's input tensors.
        outputs: its output tensors.
        between: by name of the model or layer what it computes outside of its layers' calls, with the reason why that
            has no rounding of its own.
    """

    calls: list[Call]
    inputs: list[Any]
    outputs: list[Any]
    between: Mapping[str, str]

    def producers(self) -> dict[int, Call]:
        """Returns by id of a tensor which call made it; one that hands its input on, as Dropout does, made nothing."""
        found: dict[int, Call] = {}
        for call in self.calls:
            for tensor in call.outputs:
                if not any(tensor is given for given in call.inputs):
                    found.setdefault(id(tensor), call)
        return found

    def sole_reader(self, call: Call) -> Call | None:
        """Returns the one call that reads the one output of ``call``, None if there are more, or something unseen does."""
        if len(call.outputs) != 1 or any(call.outputs[0] is output for output in self.outputs):
            return None
        tensor = call.outputs[0]
        reading = [reader for reader in self._readers.get(id(tensor), ()) if reader.consumed.get(id(tensor))]
        inside = sum(reader.consumed[id(tensor)] for reader in reading)
        return reading[0] if len(reading) == 1 and inside == len(tensor.consumers()) else None

    @functools.cached_property
    def _readers(self) -> dict[int, list[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for tensor in call.inputs:
                found.setdefault(id(tensor), []).append(call)
        return found


def _leaf_layers(model: keras.Model) -> dict[str, Any]:
    """Layers whose call is watched: those with a rule, and those without one that have no layers inside."""
    return {
        path: layer
        for path, layer in interception.layer_paths(model).items()
        if rule_for(layer) is not None or not interception.layer_paths(layer)
    }


class _Parents:
    """Notes which operations of a trace belong to no watched layer: those of the model and of layers of layers."""

    def __init__(self, name: str) -> None:
        self._inside: list[str | None] = [name]
        self._seen: Counter[int] = Counter()  # operations by id of their graph: a loop's body is one of its own
        self._owners: dict[int, str] = {}

    @contextlib.contextmanager
    def inside(self, name: str | None) -> Iterator[None]:
        """Runs the body as the call of a parent, or of a watched layer, None."""
        self._note()
        self._inside.append(name)
        try:
            yield
        finally:
            self._note()
            self._inside.pop()

    def _note(self) -> None:
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        made = graph.get_operations()
        if self._inside[-1] is not None:
            self._owners |= {id(each): self._inside[-1] for each in made[self._seen[id(graph)] :]}
        self._seen[id(graph)] = len(made)

    def reasons(self, inputs: list[Any], outputs: list[Any]) -> dict[str, str]:
        """Returns why each parent that computes on the way from the inputs to the outputs is calibrated, by name."""
        computed = {id(tensor) for tensor in inputs}
        on_the_way = {id(tensor.op): tensor.op for tensor in outputs}
        waiting = list(on_the_way.values())
        while waiting:
            before = {id(tensor.op): tensor.op for tensor in waiting.pop().inputs if id(tensor.op) not in on_the_way}
            on_the_way |= before
            waiting += before.values()
        found: dict[str, str] = {}
        for each in outputs[0].graph.get_operations():  # in the order of their making
            if each.type == "Shape" or not any(id(tensor) in computed for tensor in each.inputs):
                continue
            computed |= {id(tensor) for tensor in each.outputs}
            owner = self._owners.get(id(each)) if id(each) in on_the_way else None
            if owner is None or each.type in _MOVING or not any(tensor.dtype.is_floating for tensor in each.outputs):
                continue
            if each.type in ("While", "StatelessWhile"):
                found[owner] = "a loop stays in float in TFLite: build it with unroll=True"
            else:
                found.setdefault(owner, "what it computes between its layers has no output in Keras")
        return found


_MOVING = {
    "BroadcastTo", "Cast", "ConjugateTranspose", "DepthToSpace", "EnsureShape", "ExpandDims", "Fill", "GatherV2", "Identity",
    "IdentityN", "MirrorPad", "OnesLike", "Pack", "Pad", "PadV2", "PreventGradient", "Reshape", "ReverseV2", "Slice",
    "SpaceToDepth", "Split", "SplitV", "Squeeze", "StopGradient", "StridedSlice", "Tile", "Transpose", "Unpack", "ZerosLike",
}  # fmt: skip
"""TensorFlow operations that move values and compute nothing: no rounding of their own."""


def watch(model: keras.Model) -> CallGraph:
    """Returns the calls of ``model``, run symbolically once outside of training.

    Args:
        model: a built Keras 3 model on the TensorFlow backend.

    Raises:
        ModelError: the model is not built.

    Examples:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a"), keras.layers.ReLU(name="b")])
        >>> graph = watch(model)
        >>> [call.name for call in graph.calls], graph.sole_reader(graph.calls[0]).name
        (['a', 'b'], 'b')
    """
    import tensorflow as tf

    calls: list[Call] = []
    watched = _leaf_layers(model)
    parents = _Parents(model.name)
    model_inputs: list[Any] = []
    outputs: list[Any] = []

    def tensors(structure: Any) -> list[Any]:
        return [leaf for leaf in keras.tree.flatten(structure) if tf.is_tensor(leaf)]

    def on_layer(path: str, index: int, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        incoming = tensors((args, kwargs))
        before = {id(tensor): len(tensor.consumers()) for tensor in incoming}
        with parents.inside(None):
            result = call(*args, **kwargs)
        consumed = {id(tensor): len(tensor.consumers()) - before[id(tensor)] for tensor in incoming}
        calls.append(Call(path, index, layer, rule_for(layer), incoming, tensors(result), consumed))
        return result

    def on_parent(path: str, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        with parents.inside(path):
            return call(*args, **kwargs)

    def on_model(call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        result = on_parent(model.name, call, args, kwargs)
        if not model_inputs:
            model_inputs.extend(tensors(args))
            outputs.extend(tensors(result))
        return result

    structure = signatures.input_structure(model)
    leaves = signatures.input_tensors(model)
    specs = [tf.TensorSpec(leaf.shape, leaf.dtype, name=leaf.name) for leaf in leaves]

    def run(*tensors: Any) -> Any:
        return model(signatures.pack(structure, list(tensors)), training=False)

    with (
        interception.in_float32(model),
        interception.Interception(model, watched, on_layer, on_model),
        interception.surrounded(_outer_layers(model, watched), on_parent),
    ):
        tf.function(run, autograph=False).get_concrete_function(*specs)
    return CallGraph(calls, model_inputs, outputs, parents.reasons(model_inputs, outputs))


def _outer_layers(model: keras.Model, watched: Mapping[str, Any]) -> dict[str, Any]:
    """Layers of layers that are not watched themselves, nor inside one that is."""
    inside = {id(layer) for each in watched.values() for layer in interception.layer_paths(each).values()}
    return {
        path: layer
        for path, layer in interception.layer_paths(model).items()
        if path not in watched and id(layer) not in inside and isinstance(layer, keras.layers.Layer)
    }
