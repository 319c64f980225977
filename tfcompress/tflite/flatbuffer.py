"""What is in a ``.tflite`` file, and how it is edited: tensors, ops, ranges, signatures.

The float flatbuffer is the hub of every conversion. This module reads and writes it as the object API of LiteRT's own
schema; it neither runs nor converts anything.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import ModelError
from .validation.indices import check_indices
from .validation.sizes import Contradiction, check_sizes

__all__ = [
    "FLOAT_TYPES",
    "activation_tensors",
    "add_constant",
    "constant",
    "drop_dead",
    "drop_unused",
    "dtype_of",
    "expose",
    "index_list",
    "new_buffer",
    "new_operator",
    "op_counts",
    "op_name",
    "pack",
    "parse",
    "replace_tensor",
    "schema",
    "set_ranges",
    "set_signature",
    "tensor_name",
    "type_name",
    "unique_names",
]

FLOAT_TYPES = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")
OLD_CODES = 127  # schema.fbs: what stands in the old one-byte field for every newer op
_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def schema() -> Any:
    """Returns LiteRT's generated module of the ``.tflite`` format."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def parse(content: bytes, *, place: str = "the model") -> Any:
    """Returns the file as the schema's ``ModelT`` object.

    Args:
        content: the bytes of a ``.tflite`` file.
        place: how messages name it. Default: "the model".

    Raises:
        ModelError: the bytes are not a TFLite flatbuffer or are damaged: ``validation`` says what is looked at.

    Examples:
        >>> parse(b"not a model at all")
        Traceback (most recent call last):
        ...
        tfcompress.errors.ModelError: the model must be a TFLite flatbuffer. Received: 18 bytes without the mark TFL3. Convert the model first.
    """
    if len(content) < 8 or content[4:8] != b"TFL3":
        raise ModelError(
            f"{place} must be a TFLite flatbuffer. Received: {len(content)} bytes without the mark TFL3. "
            "Convert the model first."
        )
    try:
        root = schema().Model.GetRootAsModel(content, 0)
        check_sizes(root, len(content))
        model = schema().ModelT.InitFromObj(root)
        _take_in(model, content)
        _as_lists(model)
        check_indices(model)
        return model
    except Contradiction as error:
        raise ModelError(f"{place} is damaged: {error}. Copy or convert it again.") from error
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError, AttributeError, RecursionError) as error:
        reason = type(error).__name__
    except Exception as error:  # struct.error, from the flatbuffers runtime
        if type(error).__module__ != "struct":
            raise
        reason = "it ends too early"
    raise ModelError(f"{place} is damaged: its flatbuffer cannot be read ({reason}). Copy or convert it again.")


def _take_in(model: Any, content: bytes) -> None:
    """Gives each buffer its bytes where they stand behind the flatbuffer, as ai-edge-quantizer writes them from 256 kB on."""
    room = len(content)
    for number, buffer in enumerate(model.buffers or []):
        if (buffer.offset or 0) <= 1:
            continue
        room -= buffer.size
        if buffer.offset + buffer.size > len(content) or room < 0:
            raise Contradiction(f"buffer {number} ends behind it")
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0


def _as_lists(model: Any) -> None:
    """Writes an empty list for each one that is left out."""
    for name in ("operatorCodes", "subgraphs", "buffers"):
        setattr(model, name, getattr(model, name) or [])
    for graph in model.subgraphs:
        graph.tensors, graph.operators = graph.tensors or [], graph.operators or []
        for part in (graph, *graph.operators):
            part.inputs, part.outputs = (
                np.zeros(0, np.int32) if indices is None else indices for indices in (part.inputs, part.outputs)
            )


def index_list(array: Any) -> list[int]:
    """Returns the tensor numbers of one of the schema's lists, which is None or an array."""
    return [] if array is None else [int(index) for index in array]


def pack(model: Any, *, aligned: bool = False) -> bytes:
    """Returns the bytes of a ``ModelT``.

    Args:
        model: the file as ``parse`` returns it.
        aligned: whether constants begin at multiples of 16 bytes, as the schema asks of a finished file
            (``force_align``) and Python's generated code does not do. Default: False.
    """
    import flatbuffers

    class Aligned(flatbuffers.Builder):
        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:
            return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    builder = Aligned(1024) if aligned else flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@functools.cache
def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def op_name(model: Any, operator: Any) -> str:
    """Returns the op's name as in the schema, for instance "CONV_2D"; a custom op's own name."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return code.customCode.decode(errors="replace")
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _names(schema().BuiltinOperator).get(number, f"OP_{number}")


def op_counts(model: Any) -> dict[str, int]:
    """Returns how often each op occurs over all subgraphs, most frequent first."""
    names = _names(schema().BuiltinOperator)
    counts: Counter[str] = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            custom = code.customCode
            counts[custom.decode(errors="replace") if custom else names.get(number, f"OP_{number}")] += 1
    return dict(counts.most_common())


def type_name(tensor: Any) -> str:
    """Returns the tensor's type as in the schema, for instance "INT8"."""
    return _names(schema().TensorType).get(tensor.type, f"TYPE_{tensor.type}")


def dtype_of(tensor: Any) -> np.dtype | None:
    """Returns the tensor's NumPy dtype, None for a type that NumPy does not have."""
    dtype = _DTYPES.get(type_name(tensor))
    return None if dtype is None else np.dtype(dtype)


def tensor_name(tensor: Any) -> str:
    """Returns the tensor's name as text."""
    name = tensor.name
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """Returns the values stored for ``tensor``, None for one that is computed or of a type without a NumPy dtype."""
    data = model.buffers[tensor.buffer].data
    dtype = dtype_of(tensor)
    if data is None or not len(data) or dtype is None:
        return None
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    if len(data) != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        return None
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype).reshape(shape)


def activation_tensors(model: Any) -> list[int]:
    """Returns the indices of the float tensors of the main subgraph that are computed or fed, in order of use."""
    graph = model.subgraphs[0]
    order = index_list(graph.inputs)
    for operator in graph.operators or []:
        order.extend(index for index in index_list(operator.outputs) if index >= 0)
    return [index for index in dict.fromkeys(order) if type_name(graph.tensors[index]) == "FLOAT32"]


def unique_names(model: Any) -> None:
    """Renames tensors whose name another has too, so that a range finds its tensor by name."""
    taken: set[str] = set()
    tried: dict[str, int] = {}  # the number to go on with, by name: a file may give one name to all
    for tensor in model.subgraphs[0].tensors:
        name = plain = tensor_name(tensor) or "tensor"
        while name in taken:
            number = tried.get(plain, 0) + 1
            name, tried[plain] = f"{plain}_{number}", number
        taken.add(name)
        tensor.name = name.encode()


def expose(model: Any, tensors: Iterable[int]) -> bytes:
    """Returns the file with these tensors of the main subgraph as its outputs, so that XNNPACK hands them out."""
    graph = model.subgraphs[0]
    outputs, signatures = graph.outputs, model.signatureDefs
    fed = set(index_list(graph.inputs))
    graph.outputs = np.array([index for index in tensors if index not in fed], dtype=np.int32)
    model.signatureDefs = None
    try:
        return pack(model)
    finally:
        graph.outputs, model.signatureDefs = outputs, signatures


def set_ranges(model: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Writes (lowest, highest) as min and max of the tensors of that name, where the quantizer reads them."""
    for tensor in model.subgraphs[0].tensors:
        pair = ranges.get(tensor_name(tensor))
        if pair is not None:
            parameters = schema().QuantizationParametersT()
            parameters.min = np.array([pair[0]], np.float32)
            parameters.max = np.array([pair[1]], np.float32)
            tensor.quantization = parameters


def set_signature(model: Any, inputs: list[str], outputs: list[str], *, key: str = "serving_default") -> None:
    """Writes the one signature by which the file is fed: a name for each input and output, in their order."""
    graph = model.subgraphs[0]

    def mapped(names: list[str], indices: list[int]) -> list[Any]:
        maps = []
        for name, index in zip(names, indices, strict=True):
            entry = schema().TensorMapT()
            entry.name, entry.tensorIndex = name, index
            maps.append(entry)
        return maps

    signature = schema().SignatureDefT()
    signature.signatureKey = key
    signature.subgraphIndex = 0
    signature.inputs = mapped(inputs, index_list(graph.inputs))
    signature.outputs = mapped(outputs, index_list(graph.outputs))
    model.signatureDefs = [signature]


def new_buffer(model: Any, values: np.ndarray) -> int:
    """Adds the values as a buffer of the file and returns its number."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def new_operator(model: Any, name: str, inputs: list[int], outputs: list[int]) -> Any:
    """Returns an op without options, for instance "QUANTIZE", that is yet to be put among a subgraph's operators."""
    number = getattr(schema().BuiltinOperator, name)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    if number not in codes:
        code = schema().OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, OLD_CODES)
        code.version = 1
        model.operatorCodes.append(code)
        codes.append(number)
    operator = schema().OperatorT()
    operator.opcodeIndex = codes.index(number)
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    return operator


def add_constant(model: Any, values: np.ndarray) -> int:
    """Adds a tensor of these int32 values, under a name that no other has, to the main subgraph and returns its index."""
    graph, tensor = model.subgraphs[0], schema().TensorT()
    taken = {tensor_name(other) for other in graph.tensors}
    names = itertools.chain(["shape"], (f"shape_{number}" for number in itertools.count(1)))
    tensor.name, tensor.buffer = next(name for name in names if name not in taken).encode(), new_buffer(model, values)
    tensor.shape, tensor.type = np.array(values.shape, np.int32), schema().TensorType.INT32
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def drop_dead(model: Any) -> None:
    """Removes the ops of the main subgraph whose results nobody reads, and the tensors that no op is left for."""
    graph = model.subgraphs[0]
    readers = Counter(index_list(graph.outputs))
    makers: dict[int, list[int]] = {}
    for number, operator in enumerate(graph.operators):
        readers.update(index_list(operator.inputs))
        for index in index_list(operator.outputs):
            makers.setdefault(index, []).append(number)
    dead: set[int] = set()
    waiting = list(range(len(graph.operators)))
    while waiting:  # each op is looked at once, and once more for each input of an op that goes
        number = waiting.pop()
        operator = graph.operators[number]
        if number in dead or any(readers[index] for index in index_list(operator.outputs)):
            continue
        dead.add(number)
        readers.subtract(index_list(operator.inputs))
        waiting += [maker for index in index_list(operator.inputs) for maker in makers.get(index, ())]
    graph.operators = [operator for number, operator in enumerate(graph.operators) if number not in dead]
    drop_unused(model)


def replace_tensor(graph: Any, old: int, new: int) -> None:
    """Lets everything that reads tensor ``old`` of a subgraph read ``new``, its outputs too."""
    for operator in graph.operators:
        operator.inputs = np.array([new if index == old else index for index in index_list(operator.inputs)], np.int32)
    graph.outputs = np.array([new if index == old else index for index in index_list(graph.outputs)], np.int32)


def drop_unused(model: Any) -> dict[int, int]:
    """Removes the tensors of the main subgraph that no op and no signature is left for; returns new numbers by old."""
    graph = model.subgraphs[0]
    used = set(index_list(graph.inputs)) | set(index_list(graph.outputs))
    for operator in graph.operators:
        used.update(index_list(operator.inputs), index_list(operator.outputs), index_list(operator.intermediates))
    kept = [index for index in range(len(graph.tensors)) if index in used]
    position = {old: new for new, old in enumerate(kept)} | {-1: -1}

    def moved(array: Any) -> Any:
        return None if array is None else np.array([position[index] for index in index_list(array)], np.int32)

    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for operator in graph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
        operator.intermediates = moved(operator.intermediates)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
                entry.tensorIndex = position.get(int(entry.tensorIndex), entry.tensorIndex)
    return position
