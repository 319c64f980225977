"""Where TFLite's integer kernels round, seen from a Keras model.

A *point* is a tensor that is stored as integers in the converted file: each model input and the end of each fused chain
such as convolution -> BatchNorm -> ReLU. ``plan`` runs the model once, watches which layer's output goes into which
other layer, and decides by ``RULES`` where the points are and which weights are quantized. It works by tensor identity,
so Sequential, functional, nested and subclassed models are all the same to it. Nothing here quantizes anything.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from . import interception, signatures

__all__ = ["RULES", "Plan", "Rule", "Site", "WeightRule", "plan", "register", "rule_for"]

Kind = Literal["linear", "norm", "clamp", "compute", "same", "average", "opaque"]


@dataclass(frozen=True)
class WeightRule:
    """One quantized weight of a layer.

    Args:
        attribute: the layer's attribute that holds the variable, for instance "kernel".
        channel_axes: axes with a scale for each index; all others share it.
    """

    attribute: str
    channel_axes: tuple[int, ...] = (-1,)


@dataclass(frozen=True)
class Rule:
    """What a layer is to an integer file.

    Args:
        kind: "linear" (weights times inputs; BatchNorm and ReLU behind it fuse), "norm" (BatchNorm), "clamp" (ReLU,
            ReLU6: fuses into what is before it), "compute" (rounds its output to a range of its own), "same" (moves
            values without arithmetic: no rounding), "average" (rounds to its input's range) or "opaque" (has inner
            tensors that no rule describes: calibrated at conversion).
        weights: the weights that are quantized. Default: none.
        fixed: the output range when the format prescribes it, as 1/256 steps for a sigmoid. Default: None.
        fuses_batch_norm: whether the converter folds a BatchNorm behind it into the weights. Default: False.
        fuses_clamp: whether a ReLU behind it becomes part of it. Default: False.
        reason: why an opaque layer is opaque. Default: "".
    """

    kind: Kind
    weights: tuple[WeightRule, ...] = ()
    fixed: tuple[float, float] | None = None
    fuses_batch_norm: bool = False
    fuses_clamp: bool = False
    reason: str = ""


_LINEAR = Rule("linear", (WeightRule("kernel"),), fuses_batch_norm=True, fuses_clamp=True)
_SAME = Rule("same")
_COMPUTE = Rule("compute")
_FUSING_COMPUTE = Rule("compute", fuses_clamp=True)
_CLAMP = Rule("clamp")
# LOGISTIC and SOFTMAX store 0..255/256 and TANH -1..127/128: the quantization specification of TFLite prescribes them.
_UNIT = Rule("compute", fixed=(0.0, 255 / 256))
_SIGNED_UNIT = Rule("compute", fixed=(-1.0, 127 / 128))

_ACTIVATIONS: dict[str, Rule] = {
    "linear": _SAME,
    "relu": _CLAMP,
    "relu6": _CLAMP,
    "sigmoid": _UNIT,
    "softmax": _UNIT,
    "tanh": _SIGNED_UNIT,
}


def _relu_rule(layer: Any) -> Rule:
    plain = not float(layer.negative_slope) and not float(layer.threshold) and layer.max_value in (None, 6, 6.0)
    return _CLAMP if plain else _COMPUTE


def _activation_rule(layer: Any) -> Rule:
    return _ACTIVATIONS.get(getattr(layer.activation, "__name__", ""), _COMPUTE)


def _depthwise(layer: Any) -> Rule:
    # The converter folds a depthwise multiplier above 1 as well: one scale for each of input x multiplier channels.
    return dataclasses.replace(_LINEAR, weights=(WeightRule("kernel", (-2, -1)),))


def _upsampling(layer: Any) -> Rule:
    return _SAME if layer.interpolation == "nearest" else Rule("average")


RULES: dict[str, Rule | Callable[[Any], Rule]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Dense"), _LINEAR),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    "Conv2DTranspose": Rule("linear", (WeightRule("kernel", (-2,)),)),
    "SeparableConv1D": Rule(
        "opaque",
        (WeightRule("depthwise_kernel", (-2, -1)), WeightRule("pointwise_kernel")),
        reason="its depthwise half has no output in Keras",
    ),
    "SeparableConv2D": Rule(
        "opaque",
        (WeightRule("depthwise_kernel", (-2, -1)), WeightRule("pointwise_kernel")),
        reason="its depthwise half has no output in Keras",
    ),
    "BatchNormalization": Rule("norm"),
    "ReLU": _relu_rule,
    "Activation": _activation_rule,
    "Softmax": _UNIT,
    **dict.fromkeys(("LeakyReLU", "PReLU", "ELU"), _COMPUTE),
    **dict.fromkeys(("Add", "Subtract", "Multiply"), _FUSING_COMPUTE),
    **dict.fromkeys(("Maximum", "Minimum", "Concatenate"), _COMPUTE),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D"), _COMPUTE
    ),
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D"), Rule("average")),
    **dict.fromkeys(
        (
            *("MaxPooling1D", "MaxPooling2D", "Flatten", "Reshape", "Permute", "ZeroPadding1D", "ZeroPadding2D"),
            *("Cropping1D", "Cropping2D", "RepeatVector", "UpSampling1D", "InputLayer", "Identity"),
            *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
            *("ActivityRegularization", "Transpose", "Squeeze", "ExpandDims", "GetItem"),
        ),
        _SAME,
    ),
    "UpSampling2D": _upsampling,
    "Rescaling": Rule("compute"),
    "Relu": _CLAMP,
    "Relu6": _CLAMP,
    "Sigmoid": _UNIT,
    "Tanh": _SIGNED_UNIT,
    "Mean": _COMPUTE,
}
"""Rules by class name; a function computes the rule from the layer."""


def register(layer_class: type, rule: Rule | Callable[[Any], Rule]) -> None:
    """Adds a rule for a layer class of your own.

    Args:
        layer_class: the class; its name is the key.
        rule: the rule, or a function from the layer to its rule.

    Raises:
        TypeError: ``layer_class`` is not a class.

    Example:
        >>> class Doubled: ...
        >>> register(Doubled, Rule("compute"))
        >>> rule_for(Doubled()).kind
        'compute'
        >>> del RULES["Doubled"]
    """
    if not isinstance(layer_class, type):
        raise TypeError(f"layer_class must be a class. Received: {layer_class!r}.")
    RULES[layer_class.__name__] = rule


def rule_for(layer: Any) -> Rule | None:
    """Returns the rule for ``layer`` by its class or the nearest parent class with one; None where there is none."""
    for ancestor in type(layer).__mro__:
        rule = RULES.get(ancestor.__name__)
        if rule is not None and ancestor is not keras.layers.Layer:
            return rule if isinstance(rule, Rule) else rule(layer)
    return None


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
    """

    name: str
    weights: tuple[WeightRule, ...] = ()
    inner: bool = False
    output: bool = False
    fixed: tuple[float, float] | None = None
    follows: str | None = None


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
    calls, inputs, outputs = _trace(model)
    return _decide(calls, inputs, outputs, signatures.input_tensors(model))


def _leaf_layers(model: keras.Model) -> dict[str, Any]:
    """Layers whose call is watched: those with a rule, and those without one that have no layers inside."""
    return {
        path: layer
        for path, layer in interception.layer_paths(model).items()
        if rule_for(layer) is not None or not interception.layer_paths(layer)
    }


def _trace(model: keras.Model) -> tuple[list[_Call], list[Any], list[Any]]:
    import tensorflow as tf

    calls: list[_Call] = []
    model_inputs: list[Any] = []
    outputs: list[Any] = []

    def tensors(structure: Any) -> list[Any]:
        return [leaf for leaf in keras.tree.flatten(structure) if tf.is_tensor(leaf)]

    def on_layer(path: str, index: int, layer: Any, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        incoming = tensors((args, kwargs))
        before = {id(tensor): len(tensor.consumers()) for tensor in incoming}
        result = call(*args, **kwargs)
        consumed = {id(tensor): len(tensor.consumers()) - before[id(tensor)] for tensor in incoming}
        calls.append(_Call(path, index, layer, rule_for(layer), incoming, tensors(result), consumed))
        return result

    def on_model(call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        result = call(*args, **kwargs)
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
        interception.Interception(model, _leaf_layers(model), on_layer, on_model),
    ):
        tf.function(run, autograph=False).get_concrete_function(*specs)
    return calls, model_inputs, outputs


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

        inner, fixed = False, rule.fixed
        fuses_clamp, fuses_norm = rule.fuses_clamp, rule.fuses_batch_norm
        if rule.kind == "linear":
            activation = _ACTIVATIONS.get(getattr(call.layer.activation, "__name__", ""), _COMPUTE)
            if activation.kind == "clamp":
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
        )
        if is_point:
            point_of[id(out)] = call.name
    return Plan(sites, tuple(input_points), skipped)


def _present(layer: Any, weights: tuple[WeightRule, ...]) -> tuple[WeightRule, ...]:
    return tuple(weight for weight in weights if getattr(layer, weight.attribute, None) is not None)
