"""Which nodes of an autograd graph lead back to given ones."""

from __future__ import annotations

from typing import Any


def leads_back(node: Any, known: dict[Any, bool]) -> bool:
    """True if the graph leads from a node back to one that ``known`` holds True for.

    Args:
        node: a node of the graph, as ``tensor.grad_fn``.
        known: answers by node, at first those for the nodes where the graph begins. The answers for all nodes that are
            visited are added to it. It keeps its nodes alive, and so no other node can take the id of one of them.
    """
    waiting = [node]  # a loop: a deep network's graph is deeper than Python's recursion limit
    while waiting:
        last = waiting[-1]
        parents = [] if last in known else [parent for parent, _ in last.next_functions if parent is not None]
        unknown = [parent for parent in parents if parent not in known]
        waiting += unknown
        if not unknown:
            known.setdefault(waiting.pop(), any(known[parent] for parent in parents))
    return known[node]
