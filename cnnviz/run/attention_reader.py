"""The self-attentions between the input and the score: shares, their gradients, and the grid of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnviz.engine.attention import Attention, NoSelfAttention
from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.grid_reading import GridReading
from cnnviz.engine.item_traces import ItemTraces
from cnnviz.engine.trace import Trace
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan

PLAN = Plan(attention=True, again=True)


@dataclass(frozen=True, eq=False)
class Attentions:
    """The self-attentions of a model that lie between the input and the score, in the order in which they run."""

    shares: tuple[Tensor, ...]
    """Of each the softmax, (N, heads, T, T): which share of every key's value each query takes; rows add up to 1."""
    gradients: tuple[Tensor, ...]
    """The score's gradient with respect to each, laid out alike; empty if it was not asked for."""
    read: Tensor
    """Which tokens behind the last attention the score is read from, (N, T), adding up to 1: a class token alone, or
    all tokens that are averaged."""


class AttentionReader:
    """Reads the attentions of one question's passes."""

    def __init__(self, passes: Passes):
        self.passes = passes

    def of(
        self, gradients: bool, grid: Sequence[int] | None = None, extra: int = 0
    ) -> tuple[Attentions, GridReading]:
        """The attentions, and how values of their tokens, (N, T, 1), are read as maps. See ``Run.attentions``."""
        passes = self.passes
        passes.require(PLAN)
        trace, score = passes.trace, passes.score()
        parts = trace.traces if isinstance(trace, ItemTraces) else [trace]
        by_hand = None if grid is None and not extra else (grid, extra)
        found = [self._of_trace(part, score, gradients, by_hand) for part in parts]
        if len(found) == 1:
            return found[0]
        each = [attentions for attentions, _ in found]
        joined = Attentions(
            tuple(map(torch.cat, zip(*(attentions.shares for attentions in each), strict=True))),
            tuple(map(torch.cat, zip(*(attentions.gradients for attentions in each), strict=True))),
            torch.cat([attentions.read for attentions in each]),
        )
        return joined, found[0][1]

    def _of_trace(
        self, trace: Trace, score: Tensor, gradients: bool, by_hand: tuple[Sequence[int] | None, int] | None
    ) -> tuple[Attentions, GridReading]:
        assert trace.attention is not None
        items, rank, name = len(trace.input), trace.input.ndim - 2, trace.model_name
        reached = _reached(trace.attention.used, score)
        if not reached:
            raise ValueError(
                f"no attention is found between the input of {name} and its score: a softmax of a product of queries "
                "and keys, whose output is multiplied with values; methods of attention are not defined there, so "
                "use another one, such as grad_cam"
            )
        readings: list[GridReading] = []
        shares: list[Tensor] = []
        behind = 0
        for number, attention in enumerate(reached, 1):
            try:
                shares.append(trace.ordinary(attention.squared(attention.shares.detach(), items)))
                readings.append(attention.grid(items, rank, trace.attention.axes, by_hand))
                if (attention.behind & _bits(trace, reached)) != behind:
                    raise NoSelfAttention("does not follow the one before it, but runs beside it")
                if readings[-1] != readings[0]:
                    raise NoSelfAttention("has its tokens at other places than the first one")
            except NoSelfAttention as reason:
                raise ValueError(
                    f"attention {number} of {len(reached)} in {name} {reason}; methods of attention need one chain of "
                    "self-attentions over the same tokens, so use another method, such as grad_cam"
                ) from None
            behind |= 1 << trace.attention.found.index(attention)
        read = reached[-1].squared(_structure(score, reached[-1].shares), items).isnan().any(3).any(1)
        weights = read.to(shares[0].dtype) / read.sum(1, keepdim=True).clamp(min=1)
        grads = trace.gradients(score, [attention.shares for attention in reached]) if gradients else []
        squared = tuple(
            attention.squared(grad, items)
            for attention, grad in zip(reached, grads, strict=gradients)
            if grad is not None
        )
        return Attentions(tuple(shares), squared, weights), readings[0]


def _reached(found: Sequence[Attention], score: Tensor) -> list[Attention]:
    """The attentions that the score is computed from by operations that carry gradients."""
    if score.grad_fn is None:
        return []
    return [
        attention
        for attention in found
        if attention.shares.grad_fn is not None and leads_back(score.grad_fn, {attention.shares.grad_fn: True})
    ]


def _bits(trace: Trace, reached: Sequence[Attention]) -> int:
    assert trace.attention is not None
    return sum(1 << trace.attention.found.index(attention) for attention in reached)


def _structure(score: Tensor, shares: Tensor) -> Tensor:
    """NaN at the shares that can change the score, whatever the values are."""
    with torch.inference_mode(False):
        nan = torch.full_like(score, torch.nan)
        return torch.autograd.grad(score, shares, nan, retain_graph=True)[0]
