"""What the device accepts: each target is a frozen value that owns every setting of the converter.

``TARGETS`` has the named ones; make your own with ``dataclasses.replace``. Does not convert anything.
"""

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from . import supported_ops

__all__ = ["BACKENDS", "TARGETS", "Backend", "Target", "TargetName", "resolve"]

TargetName = Literal[
    "float32",
    "float16",
    "dynamic",
    "cpu-int8",
    "cpu-int8-float-io",
    "cpu-uint8-io",
    "cpu-int16x8",
    "cpu-int4",
    "gpu-fp16",
    "micro",
    "edge-tpu",
    "ethos-u",
]
"""The names of ``TARGETS``, which a type checker completes."""
Weights = Literal["float32", "float16", "int8", "int4"]
Activations = Literal["float32", "int8", "int16"]
Backend = Literal["tensorflow", "ai-edge-quantizer"]
BACKENDS: tuple[str, ...] = get_args(Backend)
TensorType = Literal["float32", "int8", "uint8", "int16"]


@dataclass(frozen=True)
class Target:
    """What a file is for: the types of its weights, activations, inputs and outputs, and what its runtime knows.

    Args:
        name: the word for it on the command line and in messages.
        purpose: one line on which device or runtime it is for.
        weights: "float32", "float16" (half-precision storage), "int8" or "int4" (convolutions and Dense; int8 elsewhere).
        activations: "float32", "int8" or "int16". The integer ones need representative data or trained ranges.
            Default: "float32".
        input_type: dtype of the file's float inputs: "float32", "int8", "uint8" or "int16". Default: "float32".
        output_type: dtype of the file's float outputs. Default: "float32".
        per_channel: whether convolution weights have one scale per output channel. Default: True.
        per_channel_dense: whether Dense weights have one scale per output. Default: True.
        strict: whether a float tensor left in the file is an error. Default: False.
        operators: the operators that the runtime knows, None for all of TFLite's. Default: None.
        in_float: those of them that the runtime has for float32 tensors only. Default: none.
        static: whether every shape must be fixed; a dynamic batch is then fixed to 1. Default: False.
        by_rule: whether fitness for the device is judged by its documented rules alone, because its compiler is not at
            hand; the file itself runs on this machine either way. Default: False.

    Raises:
        ValueError: an unknown type, or types that do not go together.

    Examples:
        >>> older_runtime = dataclasses.replace(TARGETS["cpu-int8"], name="older", per_channel_dense=False)
        >>> older_runtime.integer, older_runtime.per_channel_dense
        (True, False)
    """

    name: str
    purpose: str
    weights: Weights
    activations: Activations = "float32"
    input_type: TensorType = "float32"
    output_type: TensorType = "float32"
    per_channel: bool = True
    per_channel_dense: bool = True
    strict: bool = False
    operators: frozenset[str] | None = field(default=None, repr=False)
    in_float: frozenset[str] = field(default=frozenset(), repr=False)
    static: bool = False
    by_rule: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("weights", self.weights, get_args(Weights)),
            ("activations", self.activations, get_args(Activations)),
            ("input_type", self.input_type, get_args(TensorType)),
            ("output_type", self.output_type, get_args(TensorType)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}.")
        outside = {"float32": ("float32",), "int8": ("float32", "int8", "uint8"), "int16": ("float32", "int16")}
        for name, value in (("input_type", self.input_type), ("output_type", self.output_type)):
            if value not in outside[self.activations]:
                raise ValueError(
                    f"{name} must be one of {', '.join(outside[self.activations])} with {self.activations} activations. "
                    f"Received: {name}={value!r}. Change activations or {name}."
                )
        if self.integer and self.weights not in ("int8", "int4"):
            raise ValueError(f"Integer activations need integer weights. Received: weights={self.weights!r}.")

    @property
    def integer(self) -> bool:
        """Whether activations are integers, so that every tensor needs a range."""
        return self.activations != "float32"

    @property
    def rounding(self) -> dict[str, Any]:
        """The settings that decide on which grids values lie: training for one target holds for all that share them."""
        return {name: getattr(self, name) for name in ("weights", "activations", "per_channel", "per_channel_dense")}

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as plain JSON values; the operators are left out."""
        return {
            name: value for name, value in dataclasses.asdict(self).items() if name not in ("operators", "in_float")
        }


_INT8 = {"weights": "int8", "activations": "int8", "input_type": "int8", "output_type": "int8", "strict": True}


def _int8(name: str, purpose: str, **settings: Any) -> Target:
    return Target(name, purpose, **{**_INT8, **settings})  # type: ignore[arg-type]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("float32", "any runtime; the reference for the others", "float32"),
        Target("float16", "half the size; GPUs compute in it, CPUs unpack it", "float16"),
        Target("dynamic", "int8 weights, activations quantized while running; no data needed", "int8"),
        _int8("cpu-int8", "full integer, int8 input and output"),
        _int8(
            "cpu-int8-float-io",
            "full integer inside, float input and output",
            input_type="float32",
            output_type="float32",
        ),
        _int8("cpu-uint8-io", "full integer, uint8 input and output", input_type="uint8", output_type="uint8"),
        _int8(
            "cpu-int16x8",
            "int16 activations and int8 weights: for models that int8 breaks",
            activations="int16",
            input_type="int16",
            output_type="int16",
        ),
        _int8(
            "cpu-int4", "int4 weights in convolutions and Dense, int8 elsewhere: for the smallest file", weights="int4"
        ),
        Target("gpu-fp16", "TFLite's GPU delegate", "float16", operators=supported_ops.GPU, static=True, by_rule=True),
        _int8(
            "micro",
            "TFLite Micro on a microcontroller",
            per_channel_dense=False,
            operators=supported_ops.MICRO,
            in_float=supported_ops.MICRO_IN_FLOAT,
            static=True,
        ),
        _int8(
            "edge-tpu",
            "Coral Edge TPU, to be compiled by its own compiler",
            input_type="uint8",
            output_type="uint8",
            per_channel_dense=False,
            operators=supported_ops.EDGE_TPU,
            static=True,
            by_rule=True,
        ),
        _int8(
            "ethos-u", "Arm Ethos-U, to be compiled by Vela", operators=supported_ops.ETHOS_U, static=True, by_rule=True
        ),
    )
}
"""The named targets: what a file is for, by name."""


def resolve(target: "str | Target") -> Target:
    """Returns the target of that name, or the value itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones and the nearest.
        TypeError: neither a name nor a ``Target``.

    Examples:
        >>> resolve("cpu-int8").input_type
        'int8'
        >>> resolve("cpu-int")
        Traceback (most recent call last):
        ...
        ValueError: Unknown target 'cpu-int'. Did you mean 'cpu-int8'? Known: float32, float16, dynamic, cpu-int8, ...
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
