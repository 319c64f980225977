"""How each layer of a float file is run alone, all in one run: every activation is fed instead of computed.

Feeding each float layer what the integer file's layer really got, and comparing what comes out, gives the error that this
layer adds by itself. Edits a flatbuffer in memory only; which ops belong together is found by ``op_matching``.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics import Difference
from ..system import native_stderr_silenced
from ..tflite import flatbuffer
from .op_matching import Pair
from .side_by_side import File, Values, difference

__all__ = ["Detached", "IsolatedLayers", "isolate"]

_OWN_SAMPLES = 2


class Detached:
    """A float file whose activations are inputs, so that an error does not travel from layer to layer.

    Args:
        schema: the schema's object of the float file; it is not changed.
        tensors: numbers of the activations, computed or fed, of the main graph that are to be fed.
        threads: threads for one inference. Default: 1.
        debug: whether the interpreter's log lines are shown. Default: False.
    """

    def __init__(self, schema: Any, tensors: Iterable[int], *, threads: int = 1, debug: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter

        graph = copy.copy(schema.subgraphs[0])
        model = copy.copy(schema)
        model.subgraphs = [graph, *schema.subgraphs[1:]]
        fed = list(dict.fromkeys(tensors))
        twins = {index: len(graph.tensors) + i for i, index in enumerate(fed)}
        graph.tensors = [*graph.tensors, *(_twin(graph.tensors[index]) for index in fed)]
        given = [int(index) for index in graph.inputs]
        graph.inputs = np.array([*given, *twins.values()], np.int32)
        computed: list[int] = []
        operators = []
        for operator in graph.operators:
            changed = copy.copy(operator)
            inputs = [] if operator.inputs is None else operator.inputs
            changed.inputs = np.array([twins.get(int(index), int(index)) for index in inputs], np.int32)
            computed += [int(index) for index in operator.outputs if int(index) in twins]
            operators.append(changed)
        graph.operators, graph.outputs = operators, np.array(computed, np.int32)
        model.signatureDefs = None
        self._twins, self._computed, self._debug = twins, computed, debug
        with native_stderr_silenced(debug=debug):
            self._interpreter = Interpreter(model_content=flatbuffer.pack(model), num_threads=threads)

    def run(self, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Returns what each layer makes of these inputs.

        Args:
            values: float32 array by the number of each of the ``tensors``.

        Returns:
            float32 array by the number of those that are computed.

        Raises:
            ValueError: a shape that the graph cannot take.
            RuntimeError: likewise.
        """
        interpreter = self._interpreter
        with native_stderr_silenced(debug=self._debug):
            shapes = {detail["index"]: tuple(detail["shape"]) for detail in interpreter.get_input_details()}
            for index, twin in self._twins.items():
                if shapes[twin] != values[index].shape:
                    interpreter.resize_tensor_input(twin, values[index].shape)
            batch = len(next(iter(values.values())))
            for index, shape in shapes.items():  # the file's own inputs feed nothing any more, yet have a batch axis
                if index not in self._twins.values() and shape and shape[0] != batch:
                    interpreter.resize_tensor_input(index, (batch, *shape[1:]))
            interpreter.allocate_tensors()
            for index, twin in self._twins.items():
                interpreter.set_tensor(twin, values[index])
            interpreter.invoke()
        return {index: interpreter.get_tensor(index) for index in self._computed}


def _twin(tensor: Any) -> Any:
    twin = copy.copy(tensor)
    twin.name = f"{flatbuffer.tensor_name(tensor)} (fed)".encode()
    twin.buffer = 0
    return twin


class IsolatedLayers:
    """Runs each layer of one file on what another file's layer got.

    Args:
        detached: the first file, whose activations are fed.
        pairs: the ops that belong together.
        fed: number of each fed tensor in the second file by its number in the first.
    """

    def __init__(self, detached: Detached, pairs: Sequence[Pair], fed: Mapping[int, int]) -> None:
        self._detached = detached
        self._pairs = pairs
        self._fed = fed

    def differences(self, second: File, count: int) -> dict[Pair, Difference]:
        """Returns how far each layer's output is from that of the second file, which has just run ``count`` samples."""
        read = {index: second.values(theirs) for index, theirs in self._fed.items()}
        known = {index: values for index, values in read.items() if values is not None}
        if len(known) < len(read):
            return {}
        if all(raw.ndim and len(raw) == count for raw, _ in known.values()):
            known = {index: (raw[:_OWN_SAMPLES], scale) for index, (raw, scale) in known.items()}
        try:
            made = self._detached.run({index: _as_float(values) for index, values in known.items()})
        except (ValueError, RuntimeError):  # shapes that depend on values
            return {}
        found = {}
        for pair in self._pairs:
            if pair.first_tensor in made:
                apart = difference((made[pair.first_tensor], None), known[pair.first_tensor])
                if apart is not None:
                    found[pair] = apart
        return found


def isolate(first: File, second: File, pairs: Sequence[Pair], threads: int, debug: bool) -> IsolatedLayers | None:
    """Returns the first file cut into its layers, each fed what the second file's layer got; None unless its activations are float and its graph is the only one."""
    graph = first.schema.subgraphs[0]
    fed = {pair.first_tensor: pair.second_tensor for pair in pairs}
    ours, theirs = first.model.inputs, second.model.inputs
    by_name = {info.name: info.index for info in theirs}
    for place, info in enumerate(ours):
        partner = by_name.get(info.name, theirs[place].index if place < len(theirs) else None)
        if partner is not None and info.dtype == np.float32:
            fed[info.index] = partner
    fed = {mine: other for mine, other in fed.items() if flatbuffer.type_name(graph.tensors[mine]) == "FLOAT32"}
    if len(first.schema.subgraphs) > 1 or first.model.is_stateful or not fed:
        return None
    try:
        return IsolatedLayers(Detached(first.schema, fed, threads=threads, debug=debug), pairs, fed)
    except (ValueError, RuntimeError):  # a graph that does not let itself be cut up
        return None


def _as_float(values: Values) -> np.ndarray:
    raw, scale = values
    real = raw.astype(np.float32)
    return real if scale is None else (real - np.float32(scale[1])) * np.float32(scale[0])
