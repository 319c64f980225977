"""How a Keras 3 model becomes a float ``.tflite`` flatbuffer.

Trained ranges go into the trace as fake-quantization nodes and come out as ranges of tensors.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConversionError
from ..quantization import TrainedRanges
from .lowered import Lowered
from .tracing import lower_call

__all__ = ["check_finite", "lower_keras"]


def lower_keras(
    model: Any,
    *,
    ranges: TrainedRanges | None = None,
    weights: str = "float32",
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    debug: bool = False,
) -> Lowered:
    """Returns the float flatbuffer of a Keras 3 model, computed in float32 whatever the model's dtype policy.

    Args:
        model: a built Keras 3 model on the TensorFlow backend.
        ranges: trained ranges; those of points come back as ranges of tensors, those of weights clip them. Default: none.
        weights: how the weights are stored: "float32", "float16" or "int8" (dynamic range). Default: "float32".
        input_shapes: whole shapes by input name, fixing dynamic axes; None leaves an axis as it is. Default: none.
        debug: whether the converter's log lines are shown. Default: False.

    Raises:
        ValueError: ``input_shapes`` does not fit.
        ModelError: the model is not built or cannot be called on its inputs.
        ConversionError: the model cannot be expressed in TFLite's ops, or a weight is not finite.

    Examples:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> lower_keras(model, input_shapes={"x": (1, 4)}).inputs
        (InputSpec(name='x', shape=(1, 4), dtype=dtype('float32')),)
    """
    from ..layers import interception, quantization_points, recovery, signatures

    recovery.make_plain(model)  # of what an exception in fit may have left, or one that is running put on
    check_finite(model, [(variable.path, variable) for variable in model.weights])
    structure = signatures.input_structure(model)
    plan = quantization_points.plan(model) if ranges else None

    def call(*values: Any) -> Any:
        return model(signatures.pack(structure, list(values)), training=False)

    return lower_call(
        call,
        signatures.named_leaves(structure),
        name=model.name,
        output_names=functools.partial(signatures.output_names, model),
        scope=functools.partial(interception.in_float32, model),
        marking=functools.partial(_marks, model, plan, ranges) if ranges else None,
        skipped=lambda: dict(plan.skipped) if plan is not None else {},
        weights=weights,
        input_shapes=input_shapes,
        layers={layer.name for layer in interception.layer_paths(model).values()},
        infer_integers=getattr(getattr(model, "_functional", None) or model, "_inputs_struct", None) is None,
        debug=debug,
    )


def check_finite(model: Any, variables: Sequence[tuple[str, Any]]) -> None:
    """Refuses weights with NaN or infinity.

    Args:
        model: a Keras model, for its name.
        variables: path and variable of each weight.

    Raises:
        ConversionError: a weight is not finite.
    """
    for path, variable in variables:
        values = np.asarray(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ConversionError(
                f"All weights must be finite. Received: NaN or infinity in {path} of {model.name!r}. "
                "Train again with a lower learning rate."
            )


def _marks(model: Any, plan: Any, trained: TrainedRanges) -> Any:
    """Returns an interception that puts every trained range behind its point as a fake-quantization node.

    A weight whose largest value was learned is clipped to it, which is where every quantizer ends its scale.
    """
    import keras

    from ..layers import interception
    from ..quantization import fake_quantization

    ranges = trained.ranges
    layers = interception.layer_paths(model)
    clipped = {}  # before the trace, where variables have values
    for path, rule in {(path, rule) for (path, _), site in plan.sites.items() for rule in site.weights}:
        values = interception.read(getattr(layers[path], rule.attribute))
        clipped[path, rule.attribute] = trained.clipped(f"{path}/{rule.attribute}", values, rule.channel_axes)

    def mark(name: str, values: Any) -> Any:
        return fake_quantization.as_constants(values, *ranges[name]) if name in ranges else values

    def on_layer(path: str, index: int, layer: Any, call: Any, args: tuple, kwargs: dict) -> Any:
        site = plan.sites[path, index]
        bounded = {rule.attribute: clipped[path, rule.attribute] for rule in site.weights}
        mapping = [
            (getattr(layer, attribute), keras.ops.convert_to_tensor(values))
            for attribute, values in bounded.items()
            if values is not None
        ]
        run = functools.partial(_run, site, layer, call, mark)
        outputs = interception.call_with_weights(run, mapping, args, kwargs)
        return mark(site.name, outputs) if site.output and site.fixed is None else outputs

    def on_model(call: Any, args: tuple, kwargs: dict) -> Any:
        remaining = iter(plan.inputs)

        def mark_input(tensor: Any) -> Any:
            name = next(remaining, None)
            return tensor if name is None else mark(name, tensor)

        return call(keras.tree.map_structure(mark_input, args[0]), *args[1:], **kwargs)

    watched = {path: layers[path] for path, _ in plan.sites}
    return interception.Interception(model, watched, on_layer, on_model)


def _run(site: Any, layer: Any, call: Any, mark: Any, *args: Any, **kwargs: Any) -> Any:
    return site.run(layer, call, args, kwargs, mark)
