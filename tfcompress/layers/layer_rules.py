"""What each kind of layer is to an integer file: where it rounds, what fuses into it, which weights it has.

``RULES`` goes by class name; ``register`` adds a layer of your own. ``quantization_points`` applies the rules to a model.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

__all__ = ["RULES", "Parts", "Rule", "WeightRule", "activation_rule", "register", "rule_for"]

Kind = Literal["linear", "norm", "clamp", "compute", "joint", "same", "average", "opaque"]


class Parts(NamedTuple):
    """How a layer, or its activation, is computed as the two operations that it is in the file.

    Args:
        between: what the tensor between them is called.
        run: (layer, what that tensor passes, inputs) -> outputs.
        fixed: the range of that tensor when the format prescribes it. Default: None, it learns one.
    """

    between: str
    run: Callable[[Any, Callable[[Any], Any], Any], Any]
    fixed: tuple[float, float] | None = None


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
            ReLU6: fuses into what is before it), "compute" (rounds its output to a range of its own), "joint" (picks values
            of several inputs, which share one range with the output), "same" (moves values without arithmetic: no
            rounding), "average" (rounds to its input's range) or "opaque" (has inner
            tensors that no rule describes: calibrated at conversion).
        weights: the weights that are quantized. Default: none.
        fixed: the output range when the format prescribes it, as 1/256 steps for a sigmoid. Default: None.
        fuses_batch_norm: whether the converter folds a BatchNorm behind it into the weights. Default: False.
        fuses_clamp: whether a ReLU behind it becomes part of it. Default: False.
        parts: for a layer that is two operations in the file, how to compute it as two. Default: None, one operation.
        reason: why an opaque layer is opaque, or which tensors inside another have no range. Default: "".
    """

    kind: Kind
    weights: tuple[WeightRule, ...] = ()
    fixed: tuple[float, float] | None = None
    fuses_batch_norm: bool = False
    fuses_clamp: bool = False
    parts: Parts | None = None
    reason: str = ""


_LINEAR = Rule("linear", (WeightRule("kernel"),), fuses_batch_norm=True, fuses_clamp=True)
_SAME = Rule("same")
_COMPUTE = Rule("compute")
_FUSING_COMPUTE = Rule("compute", fuses_clamp=True)
_CLAMP = Rule("clamp")
# LOGISTIC and SOFTMAX store 0..255/256 and TANH -1..127/128: the quantization specification of TFLite prescribes them.
_UNIT_RANGE = (0.0, 255 / 256)
_UNIT = Rule("compute", fixed=_UNIT_RANGE)
_SIGNED_UNIT = Rule("compute", fixed=(-1.0, 127 / 128))

_SEVERAL = Rule("compute", reason="it becomes several operations with tensors between them")


def _gated(layer: Any, between: Callable[[Any], Any], inputs: Any) -> Any:
    """Computes swish as the file does: x times a sigmoid that lies on the grid of all sigmoids."""
    return keras.ops.multiply(inputs, between(keras.ops.sigmoid(inputs)))


def _clamped(layer: Any, between: Callable[[Any], Any], inputs: Any) -> Any:
    """Computes a hard sigmoid as the file does: an addition with a ReLU6 fused into it, and a sixth of that."""
    return keras.ops.divide(between(keras.ops.relu6(keras.ops.add(inputs, 3.0))), 6.0)


_HARD_SIGMOID = Rule("compute", parts=Parts("clamped", _clamped))
_SWISH = Rule("compute", parts=Parts("gate", _gated, fixed=_UNIT_RANGE))

_ACTIVATIONS: dict[str, Rule] = {
    **dict.fromkeys(("elu", "exponential", "gelu", "hard_silu", "hard_swish", "leaky_relu"), _COMPUTE),
    **dict.fromkeys(("silu", "swish"), _SWISH),
    "hard_sigmoid": _HARD_SIGMOID,
    "linear": _SAME,
    "relu": _CLAMP,
    "relu6": _CLAMP,
    "sigmoid": _UNIT,
    "softmax": _UNIT,
    "tanh": _SIGNED_UNIT,
}


def _relu_rule(layer: Any) -> Rule:
    if float(layer.threshold) or layer.max_value not in (None, 6, 6.0):
        return _SEVERAL
    if not float(layer.negative_slope):
        return _CLAMP
    return _COMPUTE if layer.max_value is None else _SEVERAL


def _product_and_sum(layer: Any, between: Callable[[Any], Any], inputs: Any) -> Any:
    """Computes Rescaling as the multiplication and the addition that the file has."""
    ops, dtype = keras.ops, layer.compute_dtype
    scale, offset = (ops.cast(each, dtype) for each in (layer.scale, layer.offset))
    return ops.add(between(ops.multiply(ops.cast(inputs, dtype), scale)), offset)


def _rescaling(layer: Any) -> Rule:
    if np.all(np.equal(layer.scale, 1)) or np.all(np.equal(layer.offset, 0)):
        return _COMPUTE
    return Rule("compute", parts=Parts("product", _product_and_sum))


def activation_rule(layer: Any) -> Rule:
    """Returns the rule for a layer's own ``activation`` function."""
    return _ACTIVATIONS.get(getattr(layer.activation, "__name__", ""), _SEVERAL)


def _added(layer: Any, between: Callable[[Any], Any], inputs: Any) -> Any:
    """Computes a Dense as the multiplication and the addition that the file has for inputs of more than two axes."""
    x = keras.ops.add(between(keras.ops.matmul(inputs, layer.kernel)), layer.bias)
    return x if layer.activation is None else layer.activation(x)


def _dense(layer: Any) -> Rule:
    """The product of inputs of more than two axes is reshaped: behind that neither a bias nor a BatchNorm fuses."""
    if len((layer.get_build_config() or {}).get("input_shape") or ()) <= 2:
        return _LINEAR
    if layer.bias is None:
        return dataclasses.replace(_LINEAR, fuses_batch_norm=False)
    return dataclasses.replace(_LINEAR, fuses_batch_norm=False, parts=Parts("product", _added))


def _depthwise(layer: Any) -> Rule:
    # The converter folds a depthwise multiplier above 1 as well: one scale for each of input x multiplier channels.
    return dataclasses.replace(_LINEAR, weights=(WeightRule("kernel", (-2, -1)),))


def _separated(layer: Any, between: Callable[[Any], Any], inputs: Any) -> Any:
    """Computes a SeparableConv as the depthwise and the pointwise convolution that the file has, both in two dimensions."""
    ops, first = keras.ops, layer.data_format == "channels_first"
    along = layer.rank == 1
    row = 2 if first else 1  # the axis of height 1 that TFLite gives a series

    def widened(kernel: Any) -> Any:
        return ops.expand_dims(kernel, 0) if along else kernel

    x = ops.expand_dims(inputs, row) if along else inputs
    x = ops.depthwise_conv(
        x,
        widened(layer.depthwise_kernel),
        strides=layer.strides * 2 if along else layer.strides,  # the depthwise kernel has one stride for both
        padding=layer.padding,
        dilation_rate=(1, *layer.dilation_rate) if along else layer.dilation_rate,
        data_format=layer.data_format,
    )
    x = ops.conv(between(x), widened(layer.pointwise_kernel), padding=layer.padding, data_format=layer.data_format)
    x = ops.squeeze(x, row) if along else x
    if layer.use_bias:
        x = ops.add(
            x, ops.reshape(layer.bias, (1, -1, *[1] * layer.rank) if first else (1,) * (layer.rank + 1) + (-1,))
        )
    return x if layer.activation is None else layer.activation(x)


def _separable(layer: Any) -> Rule:
    weights = (WeightRule("depthwise_kernel", (-2, -1)), WeightRule("pointwise_kernel"))
    if max(layer.strides) > 1 and max(layer.dilation_rate) > 1:
        return Rule("opaque", weights, reason="strides and dilations together become more than two operations")
    return dataclasses.replace(_LINEAR, weights=weights, parts=Parts("depthwise", _separated))


def _upsampling(layer: Any) -> Rule:
    return _SAME if layer.interpolation == "nearest" else Rule("average")


def _einsum(layer: Any) -> Rule:
    """One scale for each output, the letters of the kernel that the result has too; biases of one axis fuse."""
    kernel, result = layer.equation.replace(" ", "").partition("->")[0].split(",")[1], layer.equation.partition("->")[2]
    axes = tuple(axis for axis, letter in enumerate(kernel) if letter in result)
    weights = (WeightRule("kernel", axes),)
    channels = math.prod(int(layer.kernel.shape[axis]) for axis in axes)
    if layer.bias is not None and tuple(layer.bias.shape) != (channels,):
        return Rule("opaque", weights, reason="its bias of several axes is an addition with no output in Keras")
    return Rule("linear", weights, fuses_clamp=True)


RULES: dict[str, Rule | Callable[[Any], Rule]] = {
    **dict.fromkeys(("Conv1D", "Conv2D"), _LINEAR),
    "Dense": _dense,
    "Conv3D": Rule("opaque", (WeightRule("kernel"),), reason="TFLite has CONV_3D in float only"),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    "Conv2DTranspose": Rule("linear", (WeightRule("kernel", (-2,)),)),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "EinsumDense": _einsum,
    "Embedding": _COMPUTE,  # the rows are rounded to the range of what is looked up
    **dict.fromkeys(
        ("LSTMCell", "GRUCell", "SimpleRNNCell"),
        Rule(
            "opaque",
            (WeightRule("kernel"), WeightRule("recurrent_kernel")),
            reason="its gates have no output in Keras",
        ),
    ),
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"),
        Rule("opaque", reason="its mean and variance have no output in Keras"),
    ),
    "BatchNormalization": Rule("norm"),
    "ReLU": _relu_rule,
    "Activation": activation_rule,
    "Softmax": _UNIT,
    **dict.fromkeys(("LeakyReLU", "PReLU", "ELU"), _COMPUTE),
    **dict.fromkeys(("Add", "Subtract", "Multiply"), _FUSING_COMPUTE),
    **dict.fromkeys(("Maximum", "Minimum", "Concatenate", "Stack"), Rule("joint")),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"),
        _COMPUTE,
    ),
    "Average": _SEVERAL,
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D", "AveragePooling3D"), Rule("average")),
    **dict.fromkeys(
        (
            *(
                "MaxPooling1D",
                "MaxPooling2D",
                "MaxPooling3D",
                *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Max", "Amax"),
                "ZeroPadding3D",
                "Cropping3D",
                "Flatten",
                "Reshape",
                "Permute",
                "ZeroPadding1D",
                "ZeroPadding2D",
            ),
            *("Cropping1D", "Cropping2D", "RepeatVector", "UpSampling1D", "InputLayer", "Identity"),
            *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
            *("ActivityRegularization", "Transpose", "Squeeze", "ExpandDims", "GetItem"),
        ),
        _SAME,
    ),
    "UpSampling2D": _upsampling,
    "Resizing": _upsampling,
    "Rescaling": _rescaling,
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

    Examples:
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
    """Returns the rule for ``layer`` by its class or the nearest parent class with one; None where there is none.

    A subclass with a ``call`` of its own may compute something else: what it inherits is which weights are rounded.
    """
    own_call = False
    for ancestor in type(layer).__mro__:
        rule = RULES.get(ancestor.__name__)
        if rule is not None and ancestor is not keras.layers.Layer:
            found = rule if isinstance(rule, Rule) else rule(layer)
            return Rule("opaque", found.weights, reason=_OWN_CALL) if own_call else found
        own_call = own_call or "call" in vars(ancestor)
    return None


_OWN_CALL = "its call is its own; see tfcompress.quantization_points.register"
