"""Where a call lies in its pass, and what a rule reports of it: relevance that stays at its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from cnnviz.engine.axes import Label
from cnnviz.engine.bias_terms import Placed
from cnnviz.engine.graph_ancestry import leads_to, nearest

Bounds = Callable[[], tuple[Tensor, Tensor]]
"""The lowest and the highest values that inputs can have; they broadcast to them. Raises ValueError if unknown."""


class Reported(NamedTuple):
    """What a rule reported under a name."""

    name: str
    values: Tensor
    place: Placed | None
    """Of a call's output; None for values of the model's input."""


@dataclass(eq=False)
class BackwardPass:
    """What one backward pass finds out about the graph, and what its rules report."""

    last: Any
    """The node of the score."""
    bounds: Bounds | None = None
    reported: list[Reported] = field(default_factory=list)
    waiting: dict[str, list[tuple[GradientEdge, Tensor]]] = field(default_factory=dict)
    """By name what was reported of operands, to be carried on to the model's input."""
    known: dict[Any, bool] = field(default_factory=dict)
    """By node: does it lead back to a linear operation?"""
    weighed: dict[Any, bool] = field(default_factory=dict)
    """By node: does it lead back to the input by a way without a softmax?"""

    @cached_property
    def nearest(self) -> set[Any]:
        """The linear operations with no other between them and the score."""
        return nearest(self.last, is_linear)

    def carry_to(self, source: Tensor) -> None:
        """Carry what waits on to the model's input, by the rule that is in force now."""
        for name, reported in self.waiting.items():
            edges, values = zip(*reported, strict=True)
            (found,) = torch.autograd.grad(edges, source, values, retain_graph=True, allow_unused=True)
            if found is not None:
                self.reported.append(Reported(name, found, None))


@dataclass(eq=False)
class CallSite:
    """One call in the graph of a pass.

    Args:
        node: of the graph.
        backward_pass: that goes through the call now.
        label: where the input's axes lie in its output; None where that is not known.
    """

    node: Any
    backward_pass: BackwardPass
    label: Label | None

    @property
    def first(self) -> bool:
        """True if no linear operation lies between the input and this call."""
        return not any(leads_to(parent, is_linear, self.backward_pass.known) for parent in _operands(self.node))

    @property
    def last(self) -> bool:
        """True if no linear operation lies between this call and the score."""
        return self.node in self.backward_pass.nearest

    @property
    def shares(self) -> tuple[bool, ...]:
        """By operand, True if it comes from the input through a softmax only."""
        # each way from an operand to the input is through a softmax that layers lead to
        ends = lambda last: _is_softmax(last) and leads_to(last, is_linear, self.backward_pass.known)  # noqa: E731
        return tuple(
            not leads_to(parent, _is_given, self.backward_pass.weighed, ends) for parent in _operands(self.node)
        )

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest values of the first operand. Raises ValueError where they are not known."""
        if self.backward_pass.bounds is None:
            raise ValueError("the lowest and highest values of the input are not known here")
        low, high = self.backward_pass.bounds()
        given = _as_given(self.node)
        if given is None:
            raise ValueError(
                "the lowest and highest values are known of the model's input, and this model changes it before its "
                "first layer; choose another rule there, such as gamma"
            )
        return low.expand_as(given).reshape(like.shape), high.expand_as(given).reshape(like.shape)

    def report(self, name: str, values: Tensor, at_input: bool) -> None:
        """Keep what a rule reports of the call."""
        if not at_input:
            self.backward_pass.reported.append(Reported(name, values, Placed(self.label)))
            return
        edge = GradientEdge(*self.node.next_functions[-len(self.node.inner)])
        self.backward_pass.waiting.setdefault(name, []).append((edge, values))


def is_linear(node: Any) -> bool:
    """True for a convolution, a linear layer or another product with weights, which a rule may act on."""
    return getattr(node, "linear", False) is True


def _is_softmax(node: Any) -> bool:
    name = node.name()
    return getattr(node, "called", (None, None))[1] is F.softmax or (
        name.endswith("SoftmaxBackward0") and not name.startswith("Log")
    )


def _is_given(node: Any) -> bool:
    """True where the graph begins at what comes from the input, and not at a weight."""
    return hasattr(node, "variable") and not isinstance(node.variable, nn.Parameter)


_AS_THEY_ARE = ("CloneBackward", "ViewBackward", "ReshapeAliasBackward", "UnsafeViewBackward", "UnsqueezeBackward")


def _operands(node: Any) -> list[Any]:
    """The nodes of a call's operands, which are the last that the graph leads back to from it."""
    return [parent for parent, _ in node.next_functions[-len(node.inner) :] if parent is not None]


def _as_given(node: Any) -> Tensor | None:
    """The leaf where the graph begins, if a call's first operand holds its values in their order."""
    found = _operands(node)
    while len(found) == 1:
        if hasattr(found[0], "variable"):
            leaf: Tensor = found[0].variable
            return leaf
        if not found[0].name().startswith(_AS_THEY_ARE):
            break
        found = [parent for parent, _ in found[0].next_functions if parent is not None]
    return None
