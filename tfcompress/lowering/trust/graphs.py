"""Which ops does a SavedModel's graph hold, what runs them, and where does a file name in it come from?

The graph is a protocol buffer, read as data. A node names an op of TensorFlow or a function of the graph's own library; what
calls what is followed through both. Nothing is judged here.
"""

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any, NamedTuple

__all__ = ["MAIN", "Graph", "Node", "Origin", "listed_ops", "node_of"]

MAIN = ""
"""The scope of nodes that lie in no function."""

_CALLS = frozenset(["PartitionedCall", "StatefulPartitionedCall"])
_SAME_VALUE = frozenset(["Identity", "PlaceholderWithDefault"])


class Node(NamedTuple):
    """A node of the graph.

    Attributes:
        scope: the function that it lies in, ``MAIN`` for none.
        definition: the ``NodeDef``.
        functions: the functions that it calls.
    """

    scope: str
    definition: Any
    functions: tuple[str, ...]


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
        kind: "node" of the main graph, "bound" to a function by the saved objects, or "unknown".
        name: of the node; of the kind of saved object; "" for unknown.
    """

    kind: str
    name: str = ""


@functools.cache
def listed_ops() -> dict[str, str]:
    """Returns the ops that a stranger's graph may hold, with their groups.

    Examples:
        >>> listed_ops()["Conv2D"], listed_ops()["SaveV2"], "ReadFile" in listed_ops()
        ('pure', 'checkpoints', False)
    """
    groups, group = {}, ""
    for line in resources.files(__package__).joinpath("graph_ops.txt").read_text().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif not line.startswith("#"):
            groups[line] = group
    return groups


def node_of(tensor: str) -> str:
    """Returns the name of the node that makes a tensor, or that a control edge waits for.

    Examples:
        >>> node_of("layer/add:0"), node_of("^init"), node_of("call:output:0")
        ('layer/add', 'init', 'call')
    """
    return tensor.removeprefix("^").partition(":")[0]


class Graph:
    """The graph of one ``MetaGraphDef``.

    Args:
        meta: the protocol buffer.

    Raises:
        ValueError: two functions or two nodes of one name, of which a loader could take the other.

    Attributes:
        functions: the library by name, ``FunctionDef``.
        nodes: every node, of the main graph and of each function.
        concrete: of the functions that the saved objects name, the kinds of the objects that are bound to their last
            arguments.
    """

    def __init__(self, meta: Any) -> None:
        self.functions = {function.signature.name: function for function in meta.graph_def.library.function}
        if len(self.functions) < len(meta.graph_def.library.function) or MAIN in self.functions:
            raise ValueError("functions without a name of their own")
        bodies = {MAIN: meta.graph_def.node, **{name: each.node_def for name, each in self.functions.items()}}
        self.nodes = [Node(scope, node, tuple(self._called(node))) for scope, body in bodies.items() for node in body]
        self._of_scope: dict[str, list[Node]] = defaultdict(list)
        self._callers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            self._of_scope[node.scope].append(node)
            for name in node.functions:
                self._callers[name].append(node)
        self._by_name = {(node.scope, node.definition.name): node for node in self.nodes}
        if len(self._by_name) < len(self.nodes):
            raise ValueError("nodes without a name of their own")
        objects = meta.object_graph_def
        self.concrete = {
            name: [objects.nodes[i].WhichOneof("kind") or "" if 0 <= i < len(objects.nodes) else "" for i in found]
            for name, found in ((name, each.bound_inputs) for name, each in objects.concrete_functions.items())
        }

    def _called(self, node: Any) -> Iterator[str]:
        if node.op in self.functions:
            yield node.op
        for value in node.attr.values():
            yield from _function_names(value)

    def run_by(self, tensors: Iterable[str], functions: Iterable[str] = ()) -> list[Node]:
        """Returns every node that may run when these tensors of the main graph are computed and these functions called."""
        waiting = [(MAIN, node_of(tensor)) for tensor in tensors]
        calls, called, seen, found = list(functions), set(), set(), []
        while waiting or calls:
            if calls:
                name = calls.pop()
                if name not in called:
                    called.add(name)
                    waiting += [(name, node.definition.name) for node in self._of_scope[name]]
                continue
            key = waiting.pop()
            node = self._by_name.get(key)
            if node is None or key in seen:
                continue
            seen.add(key)
            found.append(node)
            calls += node.functions
            if node.scope == MAIN:
                waiting += [(MAIN, node_of(tensor)) for tensor in node.definition.input]
        return found

    def origins(self, node: Node, position: int) -> set[Origin]:
        """Returns every place that one input of a node may come from; none for a function that nothing calls."""
        waiting, seen, found = [(node, position)], set(), set()
        while waiting:
            node, position = waiting.pop()
            if (node.scope, node.definition.name, position) in seen:
                continue
            seen.add((node.scope, node.definition.name, position))
            if position >= len(node.definition.input) or node.definition.input[position].startswith("^"):
                found.add(Origin("unknown"))
                continue
            name = node_of(node.definition.input[position])
            source = self._by_name.get((node.scope, name))
            if source is None:
                further = self._given(node.scope, name)
                found |= {each for each in further if isinstance(each, Origin)}
                waiting += [each for each in further if not isinstance(each, Origin)]
            elif source.scope == MAIN:
                found.add(Origin("node", name))
            elif source.definition.op in _SAME_VALUE:
                waiting.append((source, 0))
            else:
                found.add(Origin("unknown"))
        return found

    def _given(self, scope: str, argument: str) -> list[Origin | tuple[Node, int]]:
        """Returns what a function's argument may be: of each caller the input, and what the saved objects bind to it."""
        function = self.functions.get(scope)
        names = [each.name for each in function.signature.input_arg] if function is not None else []
        if argument not in names:
            return [Origin("unknown")]
        index, found = names.index(argument), list[Origin | tuple[Node, int]]()
        for caller in self._callers[scope]:
            calls = caller.definition.op == scope or caller.definition.op in _CALLS
            found.append((caller, index) if calls else Origin("unknown"))
        if scope in self.concrete:
            bound = self.concrete[scope]
            first = len(names) - len(bound)
            found.append(Origin("bound", bound[index - first]) if index >= first >= 0 else Origin("unknown"))
        return found


def _function_names(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        functions = [each.func] if each.HasField("func") else list(each.list.func)
        for function in functions:
            yield function.name
            waiting += function.attr.values()
