"""What the device accepts: each target is a frozen value that owns every setting of the converter.

``TARGETS`` has the named ones; make your own with ``dataclasses.replace``. Does not convert anything.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

__all__ = ["TARGETS", "Target", "resolve"]

Weights = Literal["float32", "float16", "int8"]
TensorType = Literal["float32", "int8", "uint8"]


@dataclass(frozen=True)
class Target:
    """What a file is for: the types of its weights, activations, inputs and outputs.

    Args:
        name: the word for it on the command line and in messages.
        purpose: one line on which device or runtime it is for.
        weights: "float32", "float16" (half-precision storage) or "int8".
        integer: whether activations are int8 as well, so that representative data or trained ranges are needed.
        input_type: dtype of the file's float inputs: "float32", "int8" or "uint8". Default: "float32".
        output_type: dtype of the file's float outputs. Default: "float32".
        per_channel: whether convolution weights have one scale per output channel. Default: True.
        per_channel_dense: whether Dense weights have one scale per output. Default: True.
        strict: whether a float tensor left in the file is an error. Default: False.

    Raises:
        ValueError: an unknown type, or integer inputs without integer activations.

    Example:
        >>> import dataclasses
        >>> older_runtime = dataclasses.replace(TARGETS["cpu-int8"], name="older", per_channel_dense=False)
        >>> older_runtime.integer, older_runtime.per_channel_dense
        (True, False)
    """

    name: str
    purpose: str
    weights: Weights
    integer: bool
    input_type: TensorType = "float32"
    output_type: TensorType = "float32"
    per_channel: bool = True
    per_channel_dense: bool = True
    strict: bool = False

    def __post_init__(self) -> None:
        if self.weights not in ("float32", "float16", "int8"):
            raise ValueError(f"weights must be float32, float16 or int8. Received: weights={self.weights!r}.")
        for name, value in (("input_type", self.input_type), ("output_type", self.output_type)):
            if value not in ("float32", "int8", "uint8"):
                raise ValueError(f"{name} must be float32, int8 or uint8. Received: {name}={value!r}.")
            if value != "float32" and not self.integer:
                raise ValueError(f"{name}={value!r} needs integer activations. Set integer=True or {name}='float32'.")
        if self.integer and self.weights != "int8":
            raise ValueError(f"Integer activations need int8 weights. Received: weights={self.weights!r}.")


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("float32", "any runtime; the reference for the others", "float32", False),
        Target("float16", "half the size; GPUs compute in it, CPUs unpack it", "float16", False),
        Target("dynamic", "int8 weights, activations quantized while running; no data needed", "int8", False),
        Target("cpu-int8", "full integer, int8 input and output", "int8", True, "int8", "int8", strict=True),
        Target("cpu-int8-float-io", "full integer inside, float input and output", "int8", True, strict=True),
        Target("cpu-uint8-io", "full integer, uint8 input and output", "int8", True, "uint8", "uint8", strict=True),
    )
}


def resolve(target: "str | Target") -> Target:
    """Returns the target of that name, or the value itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones and the nearest.
        TypeError: neither a name nor a ``Target``.

    Example:
        >>> resolve("cpu-int8").input_type
        'int8'
        >>> resolve("cpu-int")
        Traceback (most recent call last):
        ...
        ValueError: Unknown target 'cpu-int'. Did you mean 'cpu-int8'? Known: float32, float16, dynamic, cpu-int8, cpu-int8-float-io, cpu-uint8-io.
    """
    if isinstance(target, Target):
        return target
    if not isinstance(target, str):
        raise TypeError(f"target must be a name or a tfcompress.Target. Received: {type(target).__name__}.")
    if target in TARGETS:
        return TARGETS[target]
    near = difflib.get_close_matches(target, TARGETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Unknown target {target!r}.{hint} Known: {', '.join(TARGETS)}.")
