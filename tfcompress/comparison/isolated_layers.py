"""How each layer of a float file is run alone, all in one run: every activation is fed instead of computed.

Feeding each float layer what the integer file's layer really got, and comparing what comes out, gives the error that this
layer adds by itself. Edits a flatbuffer; compares nothing.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..system import native_stderr_silenced
from ..tflite import flatbuffer

__all__ = ["Detached"]


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
