"""Where TFLite's integer kernels round, seen from a Keras model.

A *point* is a tensor that is stored as integers in the converted file: each model input and the end of each fused chain
such as convolution -> BatchNorm -> ReLU. ``plan`` decides by ``rules.RULES`` where the points of a ``call_graph`` are and
which weights and biases are quantized. What a model or a layer computes between its layers has no point: it is listed.
Nothing here quantizes anything.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from . import call_graph, interception, signatures
from .layer_rules import RULES, Parts, Rule, WeightRule, activation_rule, register, rule_for

__all__ = ["RULES", "Bias", "Plan", "Rule", "Site", "WeightRule", "plan", "register", "rule_for"]


@dataclass(frozen=True)
class Bias:
    """Where the 32-bit bias of an operation in the file comes from.

    It lies on the grid whose steps are those of the input times those of the weight.

    Args:
        path: path of the layer that has the weight.
        weight: the weight.
        reads: the point on whose grid the operation's input lies.
        norm: path of the BatchNorm that the converter folds into the weight, at whose call the bias comes in, else None.
    """

    path: str
    weight: WeightRule
    reads: str
    norm: str | None = None


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
        activation: how to compute the layer's own activation as its two operations, else None.
        bias: the bias of the operation that this call is, or is folded into, else None.
        clamps: whether the call is a ReLU, which may be fused into what is before it.
    """

    name: str
    weights: tuple[WeightRule, ...] = ()
    inner: bool = False
    output: bool = False
    fixed: tuple[float, float] | None = None
    follows: str | None = None
    non_negative: bool = False
    parts: Parts | None = None
    activation: Parts | None = None
    bias: Bias | None = None
    clamps: bool = False

    @property
    def inside(self) -> dict[str, tuple[float, float] | None]:
        """Names of the tensors between two operations of this call, with their range when the format prescribes it."""
        return {f"{self.name}:{each.between}": each.fixed for each in (self.parts, self.activation) if each is not None}

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
            return self.activated(layer, activation, at(f"{self.name}:inner", values), at)

        with interception.swapped_activation(layer, around if self.inner else None):
            if self.parts is None:
                return call(*args, **kwargs)
            between = functools.partial(at, f"{self.name}:{self.parts.between}")
            return self.parts.run(layer, between, args[0] if args else kwargs["inputs"])

    def activated(self, layer: Any, activation: Callable[..., Any], inner: Any, at: Callable[[str, Any], Any]) -> Any:
        """Returns what the layer's own ``activation`` makes of the values at its inner point."""
        if self.activation is None:
            return activation(inner)
        return self.activation.run(layer, functools.partial(at, f"{self.name}:{self.activation.between}"), inner)


@dataclass(frozen=True)
class Plan:
    """All sites of a model.

    Args:
        sites: by (layer path, index of the call).
        inputs: for each input tensor in order the name of its point, or None for integer inputs.
        skipped: what has inner tensors that no rule describes, with the reason.
        tied: groups of points that share one grid in the file: what goes into a concatenation and what comes out.
    """

    sites: Mapping[tuple[str, int], Site]
    inputs: tuple[str | None, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    tied: tuple[tuple[str, ...], ...] = ()

    @property
    def tracked(self) -> tuple[str, ...]:
        """Names of the points whose ranges are learned: no fixed range, no range of another point."""
        names = [name for name in self.inputs if name]
        for site in self.sites.values():
            names += [name for name, fixed in site.inside.items() if fixed is None]
            if site.inner:
                names.append(f"{site.name}:inner")
            if site.output and site.fixed is None:
                names.append(site.name)
        return tuple(names)

    def __repr__(self) -> str:
        return f"Plan({len(self.sites)} sites, {len(self.tracked)} ranges to learn, {len(self.skipped)} skipped)"


def plan(model: keras.Model) -> Plan:
    """Returns where ``model`` rounds once it is an integer file; the model is run symbolically once.

    Args:
        model: a built Keras 3 model on the TensorFlow backend.

    Raises:
        ModelError: the model is not built.

    Examples:
        >>> import keras
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1), name="image"), keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
        ...     keras.layers.BatchNormalization(name="norm"), keras.layers.ReLU(name="relu"),
        ...     keras.layers.Flatten(name="flat"), keras.layers.Dense(2, name="head")])
        >>> plan(model).tracked
        ('input:image', 'relu', 'head')
    """
    graph = call_graph.watch(model)
    found = _decide(graph, signatures.input_tensors(model))
    return dataclasses.replace(found, skipped={**graph.between, **found.skipped})


def _decide(graph: call_graph.CallGraph, tensors: list[signatures.InputTensor]) -> Plan:
    from scipy.cluster.hierarchy import DisjointSet

    producer = graph.producers()
    ties = DisjointSet()
    sites: dict[tuple[str, int], Site] = {}
    skipped: dict[str, str] = {}
    point_of: dict[int, str] = {}  # id of a tensor -> the point whose grid its values lie on
    fused: set[int] = set()  # id of a call whose rounding happens further down its chain
    folded: dict[int, Bias | None] = {}  # id of a call that a BatchNorm is folded into -> the bias that comes in there
    input_points: list[str | None] = []
    for tensor, spec in zip(graph.inputs, tensors, strict=True):
        point = f"input:{spec.name}" if tensor.dtype.is_floating else None
        input_points.append(point)
        if point:
            point_of[id(tensor)] = point

    for call in graph.calls:
        rule = call.rule
        if rule is None or rule.kind == "opaque":
            reason = (
                rule.reason
                if rule
                else f"no rule for {type(call.layer).__name__}; see tfcompress.quantization_points.register"
            )
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

        if rule.reason:
            skipped[call.name] = rule.reason
        inner, fixed, non_negative = False, rule.fixed, rule.kind == "clamp"
        own_parts = None
        fuses_clamp, fuses_norm = rule.fuses_clamp, rule.fuses_batch_norm
        if rule.kind == "linear":
            activation = activation_rule(call.layer)
            if activation.kind == "clamp":
                non_negative = True
                fuses_clamp = fuses_norm = False
            elif activation.kind == "compute":
                inner, fixed, own_parts = True, activation.fixed, activation.parts
                if activation.reason:
                    skipped[call.name] = f"its activation: {activation.reason}"
                fuses_clamp = fuses_norm = False
        elif rule.kind == "norm":
            before = next((producer.get(id(t)) for t in call.inputs), None)
            fuses_clamp = True  # folded or not, its last operation takes a ReLU
            if before is None or id(before) not in fused:
                skipped[call.name] = "stands alone: it becomes two operations with a tensor between them"
        bias = _bias(call, rule, point_of) if rule.kind == "linear" else None
        reader = graph.sole_reader(call)
        if reader is not None and reader.rule is not None:
            takes_norm = fuses_norm and reader.rule.kind == "norm"
            takes_clamp = fuses_clamp and reader.rule.kind == "clamp"
            if takes_norm or takes_clamp:
                fused.add(id(call))
            if takes_norm and bias is not None:
                last = reader.layer.axis in (-1, len(out.shape) - 1)  # on another axis nothing is folded
                bias = dataclasses.replace(bias, norm=reader.path) if last else None
                folded[id(call)] = bias
        if rule.kind == "norm" and before is not None:
            bias = folded.get(id(before))
        is_point = id(call) not in fused
        sites[call.path, call.index] = Site(
            call.name,
            _present(call.layer, rule.weights),
            inner=inner,
            output=is_point,
            fixed=fixed if is_point else None,
            non_negative=non_negative,
            parts=rule.parts,
            activation=own_parts,
            bias=bias,
            clamps=rule.kind == "clamp",
        )
        if is_point:
            point_of[id(out)] = call.name
        if rule.kind == "joint":
            for point in (point_of[id(tensor)] for tensor in call.inputs if id(tensor) in point_of):
                ties.add(point)
                ties.add(call.name)
                ties.merge(point, call.name)
    prescribed = {site.name for site in sites.values() if site.fixed}  # their values are rounded anew on the way in
    free = [[point for point in group if point not in prescribed] for group in ties.subsets()]
    tied = tuple(tuple(sorted(group)) for group in free if len(group) > 1)
    return Plan(sites, tuple(input_points), skipped, tied)


def _bias(call: call_graph.Call, rule: Rule, point_of: Mapping[int, str]) -> Bias | None:
    """Returns where the bias of a linear layer comes in, None where its grid is not known or it is an operation of its own."""
    weights = _present(call.layer, rule.weights)
    reads = next((point_of[id(tensor)] for tensor in call.inputs if id(tensor) in point_of), None)
    if rule.parts is not None:
        reads = f"{call.name}:{rule.parts.between}"
    if reads is None or not weights or (rule.parts is not None and len(weights) < 2):
        return None
    bias, kernel = getattr(call.layer, "bias", None), getattr(call.layer, weights[-1].attribute)
    channels = math.prod(int(kernel.shape[axis]) for axis in weights[-1].channel_axes)
    if bias is not None and tuple(getattr(bias, "shape", ())) != (channels,):
        return None  # no bias of the operation: it has other axes, or the attribute is something else
    return Bias(call.path, weights[-1], reads)


def _present(layer: Any, weights: tuple[WeightRule, ...]) -> tuple[WeightRule, ...]:
    return tuple(weight for weight in weights if getattr(layer, weight.attribute, None) is not None)
