"""Where TFLite's integer kernels round, seen from a Keras model.

A *point* is a tensor that is stored as integers in the converted file: each model input and the end of each fused chain
such as convolution -> BatchNorm -> ReLU. ``plan`` decides by ``layer_rules.RULES`` where the points of a ``call_graph`` are and
which weights and biases are quantized. What a model or a layer computes between its layers has no point: it is listed.
Nothing here quantizes anything.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    deciding = _Deciding(graph)
    inputs = [deciding.on_input(tensor, spec.name) for tensor, spec in zip(graph.inputs, tensors, strict=True)]
    for call in graph.calls:
        deciding.on_call(call)
    return Plan(deciding.sites, tuple(inputs), deciding.skipped, deciding.tied())


class _Ending(NamedTuple):
    """How a call ends: by the layer's own activation, and by what behind it becomes part of it in the file."""

    inner: bool = False
    fixed: tuple[float, float] | None = None
    non_negative: bool = False
    activation: Parts | None = None
    fuses_norm: bool = False
    fuses_clamp: bool = False
    reason: str = ""


class _Deciding:
    """Goes along the calls of a model in their order; each method is one rule of what a call is to an integer file.

    Args:
        graph: the calls.

    Attributes:
        sites: see ``Plan``.
        skipped: see there.
    """

    def __init__(self, graph: call_graph.CallGraph) -> None:
        from scipy.cluster.hierarchy import DisjointSet

        self.sites: dict[tuple[str, int], Site] = {}
        self.skipped: dict[str, str] = {}
        self._graph = graph
        self._producers = graph.producers()
        self._points: dict[int, str] = {}  # id of a tensor -> the point whose grid its values lie on
        self._fused: set[int] = set()  # id of a call whose rounding happens further down its chain
        self._folded: dict[
            int, Bias | None
        ] = {}  # id of a call with a BatchNorm folded in -> the bias that comes in there
        self._ties = DisjointSet()

    def on_input(self, tensor: Any, name: str) -> str | None:
        """An input of the model is a point, unless it holds integers already."""
        if not tensor.dtype.is_floating:
            return None
        self._points[id(tensor)] = f"input:{name}"
        return self._points[id(tensor)]

    def on_call(self, call: call_graph.Call) -> None:
        """A call is left to calibration, hands its input's grid on, or computes something that has a grid of its own."""
        rule = call.rule
        if rule is None or rule.kind == "opaque":
            self._leave_to_calibration(call, rule)
            return
        floating = [tensor for tensor in call.outputs if tensor.dtype.is_floating]
        if len(floating) != 1 or any(floating[0] is given for given in call.inputs):
            return  # no values, several, or the same tensor: nothing happened
        if rule.kind in ("same", "average"):
            self._hand_on(call, rule, floating[0])
        else:
            self._compute(call, rule, floating[0])

    def _leave_to_calibration(self, call: call_graph.Call, rule: Rule | None) -> None:
        """What has inner tensors that Keras does not show has rounded weights at most."""
        unknown = f"no rule for {type(call.layer).__name__}; see tfcompress.quantization_points.register"
        self.skipped[call.name] = unknown if rule is None else rule.reason
        if rule is not None and rule.weights:
            self.sites[call.path, call.index] = Site(call.name, _present(call.layer, rule.weights))

    def _hand_on(self, call: call_graph.Call, rule: Rule, out: Any) -> None:
        """What moves values, or averages them, stays on the grid of its input."""
        source = next((self._points[id(each)] for each in call.inputs if id(each) in self._points), None)
        if source is not None:
            self._points[id(out)] = source
            if rule.kind == "average":
                self.sites[call.path, call.index] = Site(call.name, follows=source)

    def _compute(self, call: call_graph.Call, rule: Rule, out: Any) -> None:
        """What computes is a point, unless the rounding happens behind it, in what fuses into it."""
        ending = _ending(call, rule)
        for reason in (rule.reason, ending.reason, self._reason_alone(call, rule)):
            if reason:
                self.skipped[call.name] = reason
        behind = self._fused_behind(call, ending)
        if behind is not None:
            self._fused.add(id(call))
        else:
            self._points[id(out)] = call.name
        bias = self._bias(call, rule, behind, rank=len(out.shape))
        self.sites[call.path, call.index] = Site(
            call.name,
            _present(call.layer, rule.weights),
            inner=ending.inner,
            output=behind is None,
            fixed=ending.fixed if behind is None else None,
            non_negative=ending.non_negative,
            parts=rule.parts,
            activation=ending.activation,
            bias=bias,
            clamps=rule.kind == "clamp",
        )
        if rule.kind == "joint":
            self._tie(call)

    def _reason_alone(self, call: call_graph.Call, rule: Rule) -> str:
        """A BatchNorm that is folded into nothing is a multiplication and an addition."""
        before = self._before(call)
        if rule.kind != "norm" or (before is not None and id(before) in self._fused):
            return ""
        return "stands alone: it becomes two operations with a tensor between them"

    def _before(self, call: call_graph.Call) -> call_graph.Call | None:
        return next((self._producers.get(id(tensor)) for tensor in call.inputs), None)

    def _fused_behind(self, call: call_graph.Call, ending: _Ending) -> call_graph.Call | None:
        """Returns the BatchNorm or ReLU that alone reads a call's output and becomes part of its operation in the file."""
        reader = self._graph.sole_reader(call)
        if reader is None or reader.rule is None:
            return None
        takes_norm = ending.fuses_norm and reader.rule.kind == "norm"
        takes_clamp = ending.fuses_clamp and reader.rule.kind == "clamp"
        return reader if takes_norm or takes_clamp else None

    def _bias(self, call: call_graph.Call, rule: Rule, behind: call_graph.Call | None, *, rank: int) -> Bias | None:
        """The bias of a linear call comes in there, or at the BatchNorm that is folded into it."""
        if rule.kind == "norm":
            return self._folded.get(id(self._before(call)))
        bias = _own_bias(call, rule, self._points) if rule.kind == "linear" else None
        if bias is None or behind is None or behind.rule is None or behind.rule.kind != "norm":
            return bias
        last = behind.layer.axis in (-1, rank - 1)  # on another axis nothing is folded
        self._folded[id(call)] = bias = dataclasses.replace(bias, norm=behind.path) if last else None
        return bias

    def _tie(self, call: call_graph.Call) -> None:
        """What picks values of several inputs shares one grid with all of them."""
        for point in (self._points[id(tensor)] for tensor in call.inputs if id(tensor) in self._points):
            self._ties.add(point)
            self._ties.add(call.name)
            self._ties.merge(point, call.name)

    def tied(self) -> tuple[tuple[str, ...], ...]:
        """Points that share one grid stay apart from prescribed ones: values are rounded anew on their way in there."""
        prescribed = {site.name for site in self.sites.values() if site.fixed}
        free = [[point for point in group if point not in prescribed] for group in self._ties.subsets()]
        return tuple(tuple(sorted(group)) for group in free if len(group) > 1)


def _ending(call: call_graph.Call, rule: Rule) -> _Ending:
    """An activation of the layer's own is computed on a point inside it, unless it is a ReLU; nothing behind it fuses then."""
    if rule.kind == "linear":
        activation = activation_rule(call.layer)
        if activation.kind == "clamp":
            return _Ending(fixed=rule.fixed, non_negative=True)
        if activation.kind == "compute":
            reason = f"its activation: {activation.reason}" if activation.reason else ""
            return _Ending(inner=True, fixed=activation.fixed, activation=activation.parts, reason=reason)
    return _Ending(
        fixed=rule.fixed,
        non_negative=rule.kind == "clamp",
        fuses_norm=rule.fuses_batch_norm,
        fuses_clamp=rule.fuses_clamp
        or rule.kind == "norm",  # folded or not, the last operation of a BatchNorm takes a ReLU
    )


def _own_bias(call: call_graph.Call, rule: Rule, point_of: Mapping[int, str]) -> Bias | None:
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
