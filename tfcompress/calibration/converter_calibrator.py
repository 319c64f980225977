"""How ranges are found where inner tensors cannot be made outputs: by TFLiteConverter's own calibrator.

Loops hide the tensors of their bodies and fused recurrent ops those between their gates. TensorFlow's calibrating
interpreter logs them all from inside its kernels, sample by sample, min and max only. Slower than ``calibrator``, and with
its weakness of reading tensors that an op in place has overwritten; hence only for files that need it. It runs in a child
process, because that of TensorFlow 2.21 crashes on every WHILE (so does ``TFLiteConverter`` itself on a Keras 3 LSTM or GRU
without ``unroll=True``). Such files go through ``calibrator`` all the same: what is outside the loop becomes integer and
the loop stays float, with a QUANTIZE and a DEQUANTIZE at its ends.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..data import Samples
from ..errors import ConversionError
from ..system import ChildExit, Reporter, run_isolated
from ..tflite import flatbuffer, model_sha256
from .calibrated_ranges import Calibration

__all__ = ["calibrate_by_converter", "inner_tensors_hidden", "needs_converter", "with_ranges"]

_LOOPS = frozenset(("WHILE", "IF", "STABLEHLO_WHILE", "CALL", "STABLEHLO_COMPOSITE"))
_FUSED = frozenset(
    (
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "RNN",
        "SVDF",
    )
)
_SCRATCH_RANGE = (-1.0, 1.0)
_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_LSTM_INTERMEDIATES = 5  # what its calibrating kernel insists on: four gates and the hidden state


def inner_tensors_hidden(content: bytes) -> tuple[str, ...]:
    """Returns the names of the file's ops that hide float tensors, for instance ("WHILE",); empty if there are none.

    Fused recurrent ops among them need ``calibrate_by_converter``; around loops ``calibrator.calibrate`` does.

    Args:
        content: bytes of a float ``.tflite`` file.

    Raises:
        ModelError: the file is damaged.
    """
    model = flatbuffer.parse(content)
    inner = any(flatbuffer.type_name(tensor) == "FLOAT32" for graph in model.subgraphs[1:] for tensor in graph.tensors)
    return tuple(name for name in flatbuffer.op_counts(model) if name in _FUSED or (name in _LOOPS and inner))


def needs_converter(content: bytes) -> bool:
    """Returns whether the file has a fused recurrent op, whose inner tensors only TFLiteConverter's calibrator sees.

    Args:
        content: bytes of a float ``.tflite`` file.
    """
    return not _FUSED.isdisjoint(flatbuffer.op_counts(flatbuffer.parse(content)))


def calibrate_by_converter(
    content: bytes,
    samples: Samples,
    *,
    on_batch: Callable[[int], None] | None = None,
    on_inputs: Callable[[Mapping[str, np.ndarray]], None] | None = None,
    debug: bool = False,
) -> tuple[bytes, Calibration]:
    """Returns the float file with min and max of every tensor written into it, and what was measured as a value.

    The file goes to ``quantizers.quantize`` with the ranges that are known otherwise, or none.

    Args:
        content: bytes of a float ``.tflite`` file with a signature.
        samples: the representative data, read one sample at a time.
        on_batch: called with 1 after each sample. Default: nothing.
        on_inputs: called with each sample, arrays (1, ...) by input name, before it runs. Default: nothing.
        debug: whether the calibrator's log lines are shown. Default: False.

    Raises:
        DataError: the samples do not fit.
        ConversionError: the calibrator refused the file or crashed on it, or a tensor is not finite.
    """
    model = flatbuffer.parse(content)
    signature = model.signatureDefs[0]
    names = {int(entry.tensorIndex): _text(entry.name) for entry in signature.inputs}
    order = [names[int(index)] for index in model.subgraphs[0].inputs]
    seen = 0

    def feeds() -> Iterator[list[np.ndarray]]:
        nonlocal seen
        for batch in samples.batches(1):
            if on_inputs is not None:
                on_inputs(batch)
            yield [batch[name] for name in order]
            seen += 1
            if on_batch is not None:
                on_batch(1)

    measured = _in_child(_prepared(content), feeds(), inner_tensors_hidden(content), debug)
    finished = flatbuffer.parse(measured)
    ranges, indices = {}, {}
    for index, tensor in enumerate(finished.subgraphs[0].tensors):
        pair = _range_of(tensor)
        if pair is not None:
            ranges[flatbuffer.tensor_name(tensor)] = pair
            indices[flatbuffer.tensor_name(tensor)] = index
    calibration = Calibration(
        ranges, "MinMax()", seen, samples.sha256 or "", model_sha256(model), indices=indices, calibrator="converter"
    )
    return with_ranges(content, calibration), calibration


def with_ranges(content: bytes, calibration: Calibration) -> bytes:
    """Returns the float file with the ranges that ``calibrate_by_converter`` measured, ready for the quantizer.

    Args:
        content: bytes of the float ``.tflite`` file that was calibrated.
        calibration: made then, or loaded from a file.
    """
    model = flatbuffer.parse(_prepared(content))
    # Only an LSTM with layer normalization writes to its gates' scratch tensors and reads their scales, but the quantizer
    # crashes on those without any.
    graph = model.subgraphs[0]
    scratch = [
        flatbuffer.tensor_name(graph.tensors[int(index)])
        for operator in graph.operators or []
        for index in (operator.intermediates if operator.intermediates is not None else ())
    ]
    flatbuffer.set_ranges(model, {**dict.fromkeys(scratch, _SCRATCH_RANGE), **calibration.ranges})
    return flatbuffer.pack(model)


def _in_child(content: bytes, feeds: Iterator[list[np.ndarray]], hidden: tuple[str, ...], debug: bool) -> bytes:
    """Returns the file with statistics, from a child process that is handed the samples one by one."""

    def explain(ended: ChildExit) -> ConversionError:
        return ConversionError(
            f"The tensors inside {', '.join(hidden) or 'the model'} can be measured by TFLiteConverter's calibrator only. "
            f"Received: it crashed (exit code {ended.code}). Build recurrent layers with unroll=True, or leave the loop in "
            "float (allow_float=True)."
        )

    return run_isolated(f"{__name__}:measure_in_child", content, pieces=feeds, explain=explain, debug=debug)


def measure_in_child(content: bytes, report: Reporter) -> bytes:
    """Returns the file with statistics of the samples in ``report.pieces``; ``calibrate_by_converter`` calls it in a child.

    Args:
        content: bytes of the prepared file.
        report: with a list of arrays for each sample, in the order of the file's inputs.

    Raises:
        ConversionError: the calibrator refuses the file.
    """
    from tensorflow.lite.python.optimize import calibrator

    try:
        return bytes(calibrator.Calibrator(content).calibrate(lambda: report.pieces))
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(
            f"TFLiteConverter's calibrator must accept the model. Received: {reason.rstrip('.')}. Run with --debug for its log."
        ) from error


def _prepared(content: bytes) -> bytes:
    """Returns the file as the calibrator wants it: no code of an op that is not there, scratch tensors for LSTM gates.

    TFLiteConverter gives a sequence LSTM those five when it is about to calibrate; a finished float file has none.
    """
    model = flatbuffer.parse(content)
    used = sorted({operator.opcodeIndex for graph in model.subgraphs for operator in graph.operators or []})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            operator.opcodeIndex = used.index(operator.opcodeIndex)
            has_scratch = operator.intermediates is not None and len(operator.intermediates)
            if flatbuffer.op_name(model, operator) != _LSTM or has_scratch:
                continue
            first = len(graph.tensors)
            for number in range(_LSTM_INTERMEDIATES):
                scratch = copy.copy(graph.tensors[int(operator.outputs[0])])
                scratch.name, scratch.buffer = f"intermediate_{first + number}".encode(), 0
                scratch.shape, scratch.shapeSignature = np.zeros(1, np.int32), None
                graph.tensors.append(scratch)
            operator.intermediates = np.arange(first, len(graph.tensors), dtype=np.int32)
    return flatbuffer.pack(model)


def _range_of(tensor: Any) -> tuple[float, float] | None:
    """Returns the measured (lowest, highest) with zero inside, None for a tensor without."""
    parameters = tensor.quantization
    if parameters is None or parameters.min is None or not len(parameters.min) or parameters.max is None:
        return None
    low, high = float(parameters.min[0]), float(parameters.max[0])
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ConversionError(
            f"Every tensor must stay finite on the representative data. Received: [{low}, {high}] in "
            f"{flatbuffer.tensor_name(tensor)}. Check the data's scaling and the model's weights."
        )
    return min(low, 0.0), max(high, 0.0)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name
