"""Where TFLite's integer kernels round, seen from a Keras model.

A *point* is a tensor that is stored as integers in the converted file: each model input and the end of each fused chain
such as convolution -> BatchNorm -> ReLU. ``plan`` runs the model once, watches which layer's output goes into which
other layer, and decides by ``rules.RULES`` where the points are and which weights are quantized. It works by tensor identity,
so Sequential, functional, nested and subclassed models are all the same to it. What a model or a layer computes between
its layers has no point: it is listed. Nothing here quantizes anything.
"""

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from . import interception, signatures
from .rules import RULES, Parts, Rule, WeightRule, activation_rule, register, rule_for

__all__ = ["RULES", "Plan", "Rule", "Site", "WeightRule", "plan", "register", "rule_for"]


@dataclass(frozen=True)
class Site:
    """What happens at one call of one layer.

    Args:
        name: path of the layer, with "#1", "#2", ... for the later calls of a shared one.
        weights: the weights that are quantized during the call.
        inner: whether the value before the layer's own activation is a point (named ``name + ":inner"``).
        output: whether the output is a point (named ``name``).
        fixed: the output range when the format prescribes it.
        follows: name of the point whose range the output takes over (average pooling), else None.
        non_negative: whether the output is known to be at least 0, as behind a ReLU.
        parts: how to compute the layer as its two operations, the tensor between them a point (named ``name +
            ":" + parts.between``), else None.
    """

    name: str
    weights: tuple[WeightRule, ...] = ()
    inner: bool = False
    output: bool = False
    fixed: tuple[float, float] | None = None
    follows: str | None = None
    non_negative: bool = False
    parts: Parts | None = None

    def run(
        self, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict, at: Callable[[str, Any], Any]
    ) -> Any:
        """Returns the outputs of the layer's call, whose inner points pass ``at(name, values)``; not yet the output's.

        Args:
            layer: the layer of this site.
            call: its own call.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            at: what becomes of the values at an inner point.
        """

        def around(activation: Callable[..., Any], values: Any) -> Any:
            return activation(at(f"{self.name}:inner", values))

        with interception.swapped_activation(layer, around if self.inner else None):
            if self.parts is None:
                return call(*args, **kwargs)
            between = functools.partial(at, f"{self.name}:{self.parts.between}")
            return self.parts.run(layer, between, args[0] if args else kwargs["inputs"])


@dataclass(frozen=True)
class Plan:
    """All sites of a model.

    Args:
        sites: by (layer path, index of the call).
        inputs: for each input tensor in order the name of its point, or None for integer inputs.
        skipped: what has inner tensors that no rule describes, with the reason.
    """

    sites: Mapping[tuple[str, int], Site]
    inputs: tuple[str | None, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def tracked(self) -> tuple[str, ...]:
        """Names of the points whose ranges are learned: no fixed range, no range of another point."""
        names = [name for name in self.inputs if name]
        for site in self.sites.values():
            if site.parts is not None:
                names.append(f"{site.name}:{site.parts.between}")
            if site.inner:
                names.append(f"{site.name}:inner")
            if site.output and site.fixed is None:
                names.append(site.name)
        return tuple(names)

    def __repr__(self) -> str:
        return f"Plan({len(self.sites)} sites, {len(self.tracked)} ranges to learn, {len(self.skipped)} skipped)"


@dataclass
class _Call:
    path: str
    index: int
    layer: Any
    rule: Rule | None
    inputs: list[Any]
    outputs: list[Any]
    consumed: dict[int, int]  # id of an input tensor -> graph operations inside the call that read it

    @property
    def name(self) -> str:
        return self.path if not self.index else f"{self.path}#{self.index}"


def plan(model: keras.Model) -> Plan:
    """Returns where ``model`` rounds once it is an integer file; the model is run symbolically once.

    Args:
        model: a built Keras 3 model on the TensorFlow backend.

    Raises:
        ModelError: the model is not built.

    Example:
        >>> import keras
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1), name="image"), keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
        ...     keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU(name="relu"),
        ...     keras.layers.Flatten(name="flat"), keras.layers.Dense(2, name="head")])
        >>> plan(model).tracked
        ('input:image', 'relu', 'head')
    """
    calls, inputs, outputs, parents = _trace(model)
    found = _decide(calls, inputs, outputs, signatures.input_tensors(model))
    return dataclasses.replace(found, skipped={**parents.reasons(inputs, outputs), **found.skipped})


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


def _trace(model: keras.Model) -> tuple[list[_Call], list[Any], list[Any], _Parents]:
    import tensorflow as tf

    calls: list[_Call] = []
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
        calls.append(_Call(path, index, layer, rule_for(layer), incoming, tensors(result), consumed))
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
    return calls, model_inputs, outputs, parents


def _outer_layers(model: keras.Model, watched: Mapping[str, Any]) -> dict[str, Any]:
    """Layers of layers that are not watched themselves, nor inside one that is."""
    inside = {id(layer) for each in watched.values() for layer in interception.layer_paths(each).values()}
    return {
        path: layer
        for path, layer in interception.layer_paths(model).items()
        if path not in watched and id(layer) not in inside and isinstance(layer, keras.layers.Layer)
    }


def _decide(calls: list[_Call], inputs: list[Any], outputs: list[Any], tensors: list[signatures.InputTensor]) -> Plan:
    producer: dict[int, _Call] = {}
    readers: dict[int, list[_Call]] = {}
    for call in calls:
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)
        for tensor in call.outputs:
            if not any(tensor is given for given in call.inputs):  # Dropout hands its input on
                producer.setdefault(id(tensor), call)

    def sole_reader(call: _Call) -> _Call | None:
        if len(call.outputs) != 1 or any(call.outputs[0] is output for output in outputs):
            return None
        tensor = call.outputs[0]
        reading = [reader for reader in readers.get(id(tensor), []) if reader.consumed.get(id(tensor))]
        inside = sum(reader.consumed[id(tensor)] for reader in reading)
        return reading[0] if len(reading) == 1 and inside == len(tensor.consumers()) else None

    sites: dict[tuple[str, int], Site] = {}
    skipped: dict[str, str] = {}
    point_of: dict[int, str] = {}  # id of a tensor -> the point whose grid its values lie on
    fused: set[int] = set()  # id of a call whose rounding happens further down its chain
    input_points: list[str | None] = []
    for tensor, spec in zip(inputs, tensors, strict=True):
        point = f"input:{spec.name}" if tensor.dtype.is_floating else None
        input_points.append(point)
        if point:
            point_of[id(tensor)] = point

    for call in calls:
        rule = call.rule
        if rule is None or rule.kind == "opaque":
            reason = rule.reason if rule else f"no rule for {type(call.layer).__name__}; see tfcompress.points.register"
            skipped[call.name] = reason
            if rule is not None and rule.weights:
                sites[call.path, call.index] = Site(call.name, _present(call.layer, rule.weights))
            continue
        floating = [tensor for tensor in call.outputs if tensor.dtype.is_floating]
        if len(floating) != 1:
            continue
        out = floating[0]
        if any(out is given for given in call.inputs):
            continue  # the same tensor: nothing happened
        if rule.kind in ("same", "average"):
            source = next((point_of[id(t)] for t in call.inputs if id(t) in point_of), None)
            if source is not None:
                point_of[id(out)] = source
                if rule.kind == "average":
                    sites[call.path, call.index] = Site(call.name, follows=source)
            continue

        inner, fixed, non_negative = False, rule.fixed, rule.kind == "clamp"
        fuses_clamp, fuses_norm = rule.fuses_clamp, rule.fuses_batch_norm
        if rule.kind == "linear":
            activation = activation_rule(call.layer)
            if activation.kind == "clamp":
                non_negative = True
                fuses_clamp = fuses_norm = False
            elif activation.kind == "compute":
                inner, fixed = True, activation.fixed
                fuses_clamp = fuses_norm = False
        elif rule.kind == "norm":
            before = next((producer.get(id(t)) for t in call.inputs), None)
            fuses_clamp = True  # folded or not, its last operation takes a ReLU
            if before is None or id(before) not in fused:
                skipped[call.name] = "stands alone: it becomes two operations with a tensor between them"
        reader = sole_reader(call)
        if reader is not None and reader.rule is not None:
            takes_norm = fuses_norm and reader.rule.kind == "norm"
            takes_clamp = fuses_clamp and reader.rule.kind == "clamp"
            if takes_norm or takes_clamp:
                fused.add(id(call))
        is_point = id(call) not in fused
        sites[call.path, call.index] = Site(
            call.name,
            _present(call.layer, rule.weights),
            inner=inner,
            output=is_point,
            fixed=fixed if is_point else None,
            non_negative=non_negative,
            parts=rule.parts,
        )
        if is_point:
            point_of[id(out)] = call.name
    return Plan(sites, tuple(input_points), skipped)


def _present(layer: Any, weights: tuple[WeightRule, ...]) -> tuple[WeightRule, ...]:
    return tuple(weight for weight in weights if getattr(layer, weight.attribute, None) is not None)
