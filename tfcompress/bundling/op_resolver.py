"""Which operators must a TFLite Micro program register for a file? Its C++ lines, from the operators that the file holds.

A ``MicroMutableOpResolver`` links the kernels that are named and no others, so that flash holds what the model needs.
"""

from collections.abc import Iterable

from ..quantization.supported_ops import MICRO

__all__ = ["resolver_code"]

# Where tensorflow/lite/micro/micro_mutable_op_resolver.h does not capitalize each word of the schema's name.
_IRREGULAR = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "TFLite_Detection_PostProcess": "DetectionPostprocess",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    "ethos-u": "EthosU",
}


def resolver_code(ops: Iterable[str], *, name: str = "resolver") -> str:
    """Returns the C++ lines that declare a ``MicroMutableOpResolver`` and register each operator once, in order of name.

    Args:
        ops: names of operators as the TFLite schema spells them, such as ``Conversion.ops``.
        name: the variable's name. Default: "resolver".

    Raises:
        ValueError: TFLite Micro has no such operator.

    Examples:
        >>> print(resolver_code(["FULLY_CONNECTED", "CONV_2D", "CONV_2D"]))
        tflite::MicroMutableOpResolver<2> resolver;
        resolver.AddConv2D();
        resolver.AddFullyConnected();

    Source: https://github.com/tensorflow/tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h.
    """
    names = sorted(set(ops))
    unknown = [op for op in names if op not in MICRO | {"ethos-u"}]
    if unknown:
        raise ValueError(f"TFLite Micro must have every operator. Received: {unknown[0]}. Convert with target='micro'.")
    lines = [f"{name}.Add{_IRREGULAR.get(op) or _camel_case(op)}();" for op in names]
    return "\n".join([f"tflite::MicroMutableOpResolver<{len(names)}> {name};", *lines])


def _camel_case(op: str) -> str:
    return "".join(word.title() for word in op.split("_"))
