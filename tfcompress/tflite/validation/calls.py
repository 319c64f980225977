"""Which subgraphs do the ops of a subgraph run, and does none of them run itself?

WHILE, IF, CALL, CALL_ONCE and the StableHLO ops name subgraphs by number. LiteRT has no stack for a subgraph that calls itself, at once
or by another: it overflows the process's own.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .sizes import Contradiction

__all__ = ["called_subgraphs", "check_no_circle"]

# LiteRT reads options that an op lacks as all 0: subgraph 0.
_CALLERS = ("WHILE", "IF", "CALL", "CALL_ONCE")
_NAMES_ONE = ("SubgraphIndex", "SubgraphIndices")
_NAMES_ONE_TOO = ("subgraph", "calledComputations")


@functools.cache
def _caller_codes() -> frozenset[int]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return frozenset(getattr(BuiltinOperator, name) for name in _CALLERS)


def called_subgraphs(model: Any, graph: Any, operators: Iterable[Any] | None = None) -> list[int]:
    """Returns the numbers of the subgraphs that ops run.

    Args:
        model: the schema's ``ModelT``.
        graph: one of its subgraphs.
        operators: some of its ops. Default: None, all.
    """
    found: list[int] = []
    for operator in graph.operators if operators is None else operators:
        named = [
            *_named(operator.builtinOptions),
            *_named(operator.builtinOptions2),
        ]
        code = model.operatorCodes[operator.opcodeIndex]
        if not named and max(code.builtinCode, code.deprecatedBuiltinCode) in _caller_codes():
            named = [0]
        found += named
    return found


def _named(options: Any) -> list[int]:
    if options is None:
        return []
    found: list[int] = []
    for name, value in vars(options).items():
        if name.endswith(_NAMES_ONE) or name in _NAMES_ONE_TOO:
            found += [] if value is None else [int(each) for each in np.atleast_1d(value)]
    return found


def check_no_circle(calls: Sequence[Sequence[int]]) -> None:
    """Refuses subgraphs that run themselves.

    Args:
        calls: for each subgraph the numbers of those that it runs, each of them there.

    Raises:
        Contradiction: there is a circle.

    Examples:
        >>> check_no_circle([[1, 2], [2], []])
        >>> check_no_circle([[1], [0]])
        Traceback (most recent call last):
        ...
        tfcompress.tflite.validation.sizes.Contradiction: subgraph 0 runs itself
    """
    done: set[int] = set()
    for start in range(len(calls)):
        path: list[tuple[int, list[int]]] = [(start, list(calls[start]))] if start not in done else []
        running = {start}
        while path:
            here, waiting = path[-1]
            if not waiting:
                path.pop()
                running.discard(here)
                done.add(here)
                continue
            called = waiting.pop()
            if called in running:
                raise Contradiction(f"subgraph {called} runs itself")
            if called not in done:
                running.add(called)
                path.append((called, list(calls[called])))
