"""How a SavedModel of TensorFlow 1 is frozen: its reference variables are no resources, so a session reads them.

Only for graphs with such variables; others are lowered as functions.
"""

from collections.abc import Callable
from typing import Any

from ..layers import InputTensor

__all__ = ["freeze", "has_reference_variables"]

_REFERENCE_VARIABLES = ("Variable", "VariableV2")


def has_reference_variables(function: Any) -> bool:
    """Returns whether a restored signature reads variables of TensorFlow 1.

    Args:
        function: a concrete function.
    """
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return any(node.op in _REFERENCE_VARIABLES for node in nodes)


def freeze(path: str, signature: str) -> tuple[Callable[..., Any], list[InputTensor]]:
    """Returns the signature as a function of tensors without variables, and its inputs in the order it takes them.

    Args:
        path: the folder that holds ``saved_model.pb``, with a graph tagged "serve".
        signature: the signature's key.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        loaded = v1.saved_model.load(session, ["serve"], path)
        definition = loaded.signature_def[signature]
        fed = {name: entry.name for name, entry in definition.inputs.items()}
        fetched = {name: entry.name for name, entry in definition.outputs.items()}
        nodes = [tensor.split(":")[0] for tensor in fetched.values()]
        graph = v1.graph_util.convert_variables_to_constants(session, session.graph_def, nodes)
        tensors = {name: session.graph.get_tensor_by_name(tensor) for name, tensor in fed.items()}
        inputs = [InputTensor(name, tuple(tensor.shape), tensor.dtype.name) for name, tensor in tensors.items()]

    def call(*values: Any) -> dict[str, Any]:
        feeds = dict(zip(fed.values(), values, strict=True))
        results = tf.graph_util.import_graph_def(graph, feeds, list(fetched.values()), name="")
        return dict(zip(fetched, results, strict=True))

    return call, inputs
