"""A detector whose file answers boxes: the choice among them is written behind the heads of a finished ``.tflite`` file.

It becomes one op, ``TFLite_Detection_PostProcess``, which TFLite's interpreters have: it decodes the boxes and suppresses
overlapping ones in float32. Everything before it stays as the converter made it; in an integer file two DEQUANTIZE ops lead
to it. ``non_max_suppression.detect`` is the same in NumPy.
"""

from typing import Any

import numpy as np

from ..errors import ConversionError
from ..tflite import flatbuffer, static_shapes
from .non_max_suppression import Detections

__all__ = ["OP", "OUTPUTS", "attach_detections"]

OP = "TFLite_Detection_PostProcess"
OUTPUTS = ("boxes", "classes", "scores", "count")
HEADS = ("boxes", "logits")
# (scale, zero point) that LOGISTIC's kernels prescribe for their output: tensorflow/lite/kernels/activations.cc.
LOGISTIC_GRIDS = {"INT8": (1 / 256, -128), "INT16": (1 / 32768, 0)}


def attach_detections(content: bytes, settings: Detections, *, place: str = "the model", debug: bool = False) -> bytes:
    """Returns the file of a detector with its boxes chosen inside, for one picture at a time.

    The outputs "boxes" (1, n, 4), codes, and "logits" (1, n, classes) give way to four float32 outputs: "boxes" (1, most, 4),
    [top, left, bottom, right] as fractions of the picture, "classes" (1, most), "scores" (1, most), the highest first, and
    "count" (1,): the rows that mean something. The sigmoid of the logits is computed in the file's own integers.

    Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/kernels/detection_postprocess.cc

    Args:
        content: the bytes of a float or integer ``.tflite`` file.
        settings: the anchors and how boxes are chosen.
        place: how messages name the file. Default: "the model".
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ConversionError: the file has no such outputs, or not as many anchors or classes.

    Examples:
        >>> import keras
        >>> from tfcompress.lowering import lower_keras
        >>> x = keras.Input((2, 7), name="x")
        >>> model = keras.Model(x, {"boxes": keras.layers.Dense(4)(x), "logits": keras.layers.Dense(3)(x)})
        >>> settings = Detections(np.array([[0.5, 0.25, 1, 0.5], [0.5, 0.75, 1, 0.5]]), classes=3)
        >>> finished = attach_detections(lower_keras(model).content, settings)
        >>> OP in flatbuffer.op_counts(flatbuffer.parse(finished))
        True
    """
    model = flatbuffer.parse(static_shapes.fix_batch(content, place=place, debug=debug), place=place)
    graph, schema = model.subgraphs[0], flatbuffer.schema()
    codes, logits = (_computed(model, _output(model, name, place)) for name in HEADS)
    for index, name, last in ((codes, "boxes", 4), (logits, "logits", settings.classes)):
        shape = tuple(int(size) for size in graph.tensors[index].shape)
        if shape != (1, len(settings.anchors), last):
            raise ConversionError(
                f"{place}: output {name} must have shape (1, {len(settings.anchors)}, {last}) for these detections. "
                f"Received: {shape}. Use the anchors and classes that the model was built with."
            )
    scores = _tensor(model, "scores", graph.tensors[logits].shape, flatbuffer.type_name(graph.tensors[logits]))
    grid = LOGISTIC_GRIDS.get(flatbuffer.type_name(graph.tensors[logits]))
    if grid is not None:
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = np.array([grid[0]], np.float32), np.array([grid[1]], np.int64)
        graph.tensors[scores].quantization = quantization
    graph.operators.append(flatbuffer.new_operator(model, "LOGISTIC", [logits], [scores]))
    anchors = _tensor(model, "anchors", settings.anchors.shape, "FLOAT32", settings.anchors)
    inputs = [_in_float(model, codes), _in_float(model, scores), anchors]
    shapes = ((1, settings.most, 4), (1, settings.most), (1, settings.most), (1,))
    outputs = [_tensor(model, name, shape, "FLOAT32") for name, shape in zip(OUTPUTS, shapes, strict=True)]
    graph.operators.append(_operator(model, inputs, outputs, settings))
    graph.outputs = np.array(outputs, np.int32)
    names = [flatbuffer.tensor_name(entry) for entry in model.signatureDefs[0].inputs]
    order = [int(entry.tensorIndex) for entry in model.signatureDefs[0].inputs]
    by_input = [names[order.index(int(index))] for index in graph.inputs]
    flatbuffer.set_signature(model, by_input, list(OUTPUTS))
    flatbuffer.drop_dead(model)
    return flatbuffer.pack(model)


def _output(model: Any, name: str, place: str) -> int:
    """Returns the index of the tensor that the signature calls by this name."""
    found = {
        flatbuffer.tensor_name(entry): int(entry.tensorIndex)
        for signature in (model.signatureDefs or [])[:1]
        for entry in signature.outputs or []
    }
    if name not in found:
        raise ConversionError(
            f"{place}: a detector has outputs boxes and logits. Received: {', '.join(found) or 'none with a name'}. "
            "Return a dictionary with these keys from the model, as tfcompress.zoo's ssdlite does."
        )
    return found[name]


def _computed(model: Any, index: int) -> int:
    """Returns the tensor itself, or the integers it was converted from for the file's output."""
    graph = model.subgraphs[0]
    maker = next((op for op in graph.operators if index in [int(i) for i in op.outputs]), None)
    if maker is None or flatbuffer.op_name(model, maker) not in ("QUANTIZE", "DEQUANTIZE"):
        return index
    before = int(maker.inputs[0])
    return before if flatbuffer.type_name(graph.tensors[before]) in LOGISTIC_GRIDS else index


def _in_float(model: Any, index: int) -> int:
    tensor = model.subgraphs[0].tensors[index]
    if flatbuffer.type_name(tensor) == "FLOAT32":
        return index
    real = _tensor(model, f"{flatbuffer.tensor_name(tensor).split('/')[-1]}_real", tensor.shape, "FLOAT32")
    model.subgraphs[0].operators.append(flatbuffer.new_operator(model, "DEQUANTIZE", [index], [real]))
    return real


def _tensor(model: Any, name: str, shape: Any, kind: str, values: np.ndarray | None = None) -> int:
    schema, graph = flatbuffer.schema(), model.subgraphs[0]
    tensor = schema.TensorT()
    tensor.name, tensor.shape = f"detections/{name}".encode(), np.array(shape, np.int32)
    tensor.type = getattr(schema.TensorType, kind)
    tensor.buffer = 0 if values is None else flatbuffer.new_buffer(model, values)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, inputs: list[int], outputs: list[int], settings: Detections) -> Any:
    from flatbuffers import flexbuffers

    schema = flatbuffer.schema()
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode, code.customCode, code.version = schema.BuiltinOperator.CUSTOM, OP.encode(), 1
    model.operatorCodes.append(code)
    options = flexbuffers.Builder()
    with options.Map():
        options.Int("max_detections", settings.most)
        options.Int("max_classes_per_detection", 1)
        options.Int("detections_per_class", settings.most)
        options.Bool("use_regular_nms", True)
        options.Float("nms_score_threshold", settings.least_score)
        options.Float("nms_iou_threshold", settings.overlap)
        options.Int("num_classes", settings.classes)
        for side, scale in zip("yxhw", settings.scales, strict=True):
            options.Float(f"{side}_scale", scale)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    operator.customOptions = np.frombuffer(bytes(options.Finish()), np.uint8)
    operator.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    return operator
