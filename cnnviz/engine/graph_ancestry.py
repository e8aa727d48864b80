"""Which nodes of an autograd graph lead back to given ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leads_back(node: Any, known: dict[Any, bool]) -> bool:
    """True if the graph leads from a node back to one that ``known`` holds True for.

    Args:
        node: a node of the graph, as ``tensor.grad_fn``.
        known: answers by node, at first those for the nodes where the graph begins. The answers for all nodes that are
            visited are added to it. It keeps its nodes alive, and so no other node can take the id of one of them.
    """
    return leads_to(node, lambda last: False, known)


def leads_to(
    node: Any,
    wanted: Callable[[Any], bool],
    known: dict[Any, bool],
    ends: Callable[[Any], bool] = lambda last: False,
) -> bool:
    """True if a node, or one that the graph leads back to from it, is ``wanted``; ``known`` is as in `leads_back`.

    No way is followed behind a node where it ``ends``.
    """
    waiting = [node]  # a loop: a deep network's graph is deeper than Python's recursion limit
    while waiting:
        last = waiting[-1]
        if last not in known and wanted(last):
            known[last] = True
        elif last not in known and ends(last):
            known[last] = False
        parents = [] if last in known else [parent for parent, _ in last.next_functions if parent is not None]
        unknown = [parent for parent in parents if parent not in known]
        waiting += unknown
        if not unknown:
            known.setdefault(waiting.pop(), any(known[parent] for parent in parents))
    return known[node]


def nearest(node: Any, wanted: Callable[[Any], bool]) -> set[Any]:
    """The ``wanted`` nodes that the graph leads back to from a node with no other wanted one between."""
    found, seen, waiting = set(), {node}, [node]
    while waiting:
        last = waiting.pop()
        if wanted(last):
            found.add(last)
            continue
        parents = {parent for parent, _ in last.next_functions if parent is not None} - seen
        seen |= parents
        waiting += parents
    return found
