"""What does a model lose between two ``.tflite`` files, layer by layer: a float one and its integer one, or any two.

Runs both on the same samples, matches their ops (``op_matching``), and says how far weights and activations are apart.
Writes nothing and decides no accuracy: ``measurement`` does.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics import Difference
from ..tflite import constant_tensors, flatbuffer, operands, summarize_ops
from ..tflite.op_summaries import op_layers
from .isolated_layers import isolate
from .layer_errors import LayerError, LayerReport, ranking
from .op_matching import Pair, match
from .side_by_side import File, difference, run_blocks

__all__ = ["LayerError", "LayerReport", "layer_errors", "layer_reports", "ranking"]

BATCH = 4
_FLOAT_DB = 120.0  # float32 keeps 24 bits: 6 dB each, and a few go in sums


def layer_errors(
    float_content: bytes,
    integer_content: bytes,
    samples: Mapping[str, np.ndarray],
    *,
    own: bool = True,
    threads: int | None = None,
    debug: bool = False,
) -> tuple[LayerError, ...]:
    """Returns what each layer of the second file lost against the first, in the order of execution.

    Args:
        float_content: bytes of the float ``.tflite`` file, the reference.
        integer_content: bytes of the file made from it.
        samples: real numbers (n, ...) by input name of the first file. Four to eight samples tell the layers apart.
        own: whether each layer's own loss is found too, at the price of one more run of the float file. Default: True.
        threads: for one inference. Default: the cores this process may use.
        debug: whether the interpreter's log lines are shown. Default: False.

    Raises:
        ModelError: a file is damaged, or LiteRT refuses it.
        DataError: the samples do not fit the files' inputs.
        DeviceError: an op failed.

    Examples:
        >>> import keras, numpy as np
        >>> from tfcompress.conversion import convert
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="head")])
        >>> data = np.random.default_rng(0).random((64, 4)).astype("float32")
        >>> integer = convert(model, representative_data=data).tflite
        >>> (error,) = layer_errors(convert(model, target="float32").tflite, integer, {"x": data[:4]})
        >>> error.op, error.sqnr_db > 20, error.weight_sqnr_db > 30
        ('FULLY_CONNECTED', True, True)
    """
    threads = threads or cores()
    first = File(float_content, "the first file", threads=threads, debug=debug)
    second = File(integer_content, "the second file", threads=threads, debug=debug)
    return file_errors(first, second, samples, own=own, threads=threads, debug=debug)


def file_errors(
    first: File, second: File, samples: Mapping[str, np.ndarray], *, own: bool, threads: int, debug: bool
) -> tuple[LayerError, ...]:
    """Returns ``layer_errors`` of two files that are open already."""
    pairs = match(first.schema, second.schema)
    alone = isolate(first, second, pairs, threads, debug) if own else None
    sums: dict[Pair, Difference] = {}
    own_sums: dict[Pair, Difference] = {}
    for count in run_blocks((first, second), samples, batch=BATCH):
        for pair in pairs:
            apart = difference(first.values(pair.first_tensor), second.values(pair.second_tensor))
            if apart is not None:
                sums[pair] = sums.get(pair, Difference()) + apart
        if alone is not None and not own_sums:
            own_sums = alone.differences(second, count)
            alone = None  # one block is enough: a layer's own loss hardly depends on the sample
    return _errors(first, second, pairs, sums, own_sums)


def layer_reports(
    hub_content: bytes,
    finished_content: bytes,
    samples: Mapping[str, np.ndarray] | None,
    origins: Mapping[str, str] | None = None,
    *,
    observers: Mapping[str, str] | None = None,
    own: bool = True,
    threads: int | None = None,
    debug: bool = False,
) -> tuple[LayerReport, ...]:
    """Returns a row for each op of a finished file's main graph.

    Args:
        hub_content: bytes of the float file that it was made from.
        finished_content: bytes of the finished file.
        samples: as for ``layer_errors``; None leaves the errors out and runs nothing.
        origins: where the range of a tensor comes from, by its name in the float file. Default: none are known.
        observers: what measured the range of a tensor, likewise. Default: none are known.
        own: as for ``layer_errors``. Default: True.
        threads: likewise.
        debug: likewise. Default: False.

    Raises:
        ModelError: as ``layer_errors``; DataError and DeviceError likewise.
    """
    hub, finished = flatbuffer.parse(hub_content), flatbuffer.parse(finished_content)
    errors: dict[int, LayerError] = {}
    if samples is not None:
        found = layer_errors(hub_content, finished_content, samples, own=own, threads=threads, debug=debug)
        errors = {error.index: error for error in found}
    tensors = hub.subgraphs[0].tensors
    names = {pair.second: flatbuffer.tensor_name(tensors[pair.first_tensor]) for pair in match(hub, finished)}
    return tuple(
        LayerReport(
            operation,
            (origins or {}).get(names.get(operation.index, ""), ""),
            errors.get(operation.index),
            (observers or {}).get(names.get(operation.index, ""), ""),
        )
        for operation in summarize_ops(finished)
        if operation.subgraph == 0
    )


def _errors(
    first: File, second: File, pairs: Sequence[Pair], sums: Mapping[Pair, Difference], own: Mapping[Pair, Difference]
) -> tuple[LayerError, ...]:
    graph = second.schema.subgraphs[0]
    layers = op_layers(graph)
    mine, other = _constants(first.schema), _constants(second.schema)
    found = []
    for pair in pairs:
        apart, alone = sums.get(pair), own.get(pair)
        scale = second.scale(pair.second_tensor)
        found.append(
            LayerError(
                index=pair.second,
                layer=layers[pair.second],
                tensor=flatbuffer.tensor_name(graph.tensors[pair.second_tensor]),
                op=flatbuffer.op_name(second.schema, graph.operators[pair.second]),
                weight_sqnr_db=_weight_sqnr((first.schema, mine), (second.schema, other), pair),
                sqnr_db=None if apart is None else apart.sqnr_db,
                cosine=None if apart is None else apart.cosine,
                own_sqnr_db=None if alone is None else _without_rounding(alone.sqnr_db),
                max_difference=None if apart is None else apart.largest,
                step=None if scale is None else scale[0],
            )
        )
    return tuple(found)


def _without_rounding(sqnr_db: float) -> float:
    """Returns the ratio, infinite where the difference is that of float32 arithmetic alone."""
    return math.inf if sqnr_db > _FLOAT_DB else sqnr_db


def _weight_sqnr(first: tuple[Any, dict[int, int]], second: tuple[Any, dict[int, int]], pair: Pair) -> float | None:
    total = None
    mine, other = _weights(*first, pair.first), _weights(*second, pair.second)
    for slot in mine.keys() & other.keys():
        if mine[slot].shape == other[slot].shape:
            total = (total or Difference()) + Difference.of(mine[slot], other[slot])
    return None if total is None else total.sqnr_db


def _constants(model: Any) -> dict[int, int]:
    """Returns the number of the stored tensor by that of the one that is unpacked from it (half precision, sparse)."""
    return {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in model.subgraphs[0].operators or []
        if flatbuffer.op_name(model, operator) in ("DEQUANTIZE", "DENSIFY")
    }


def _weights(model: Any, constants: Mapping[int, int], number: int) -> dict[int, np.ndarray]:
    """Returns the real weights of an op by the number of its input."""
    graph = model.subgraphs[0]
    operator = graph.operators[number]
    found = {}
    for slot, role in operands.input_roles(flatbuffer.op_name(model, operator)).items():
        if role == operands.WEIGHTS and slot < len(operator.inputs) and int(operator.inputs[slot]) >= 0:
            index = int(operator.inputs[slot])
            values = constant_tensors.real_values(model, graph.tensors[constants.get(index, index)])
            if values is not None:
                found[slot] = values
    return found


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
