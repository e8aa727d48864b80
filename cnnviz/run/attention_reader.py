"""The self-attentions between the input and the score: shares, their gradients, and the grid of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cnnviz.engine.attention import AnyGrid, Attention, NoSelfAttention
from cnnviz.engine.graph_ancestry import leads_back
from cnnviz.engine.grid_reading import GridReading
from cnnviz.engine.item_traces import ItemTraces
from cnnviz.engine.trace import Trace
from cnnviz.engine.written_out import SHARES
from cnnviz.run.passes import Passes, hides
from cnnviz.run.plan import Plan
from cnnviz.run.scores_of_blocks import blocks_of, cut_behind

ATTENTION = Plan(attention=True, again=True)
Scored = Literal["model", "blocks"]
"""Of whose score gradients are: the model's, or of each attention that of its block's tokens."""


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


@dataclass(frozen=True, eq=False)
class _Chain:
    """The self-attentions of one pass."""

    trace: Trace
    links: list[Attention]
    score: Tensor

    @property
    def items(self) -> int:
        return len(self.trace.input)

    @property
    def numbers(self) -> list[int]:
        """Which of all attentions of the pass they are."""
        assert self.trace.attention is not None
        return [self.trace.attention.found.index(link) for link in self.links]

    def reading(self, by_hand: AnyGrid) -> GridReading:
        """How values of the tokens, (N, T, 1), are read. Raises ValueError where they are no chain."""
        assert self.trace.attention is not None
        name, rank, behind = self.trace.model_name, self.trace.input.ndim - 2, 0
        every = sum(1 << number for number in self.numbers)
        readings: list[GridReading] = []
        for place, (number, link) in enumerate(zip(self.numbers, self.links, strict=True), 1):
            try:
                link.squared(link.shares.detach(), self.items)
                readings.append(link.grid(self.items, rank, self.trace.attention.axes, by_hand))
                if link.behind & every != behind:
                    raise NoSelfAttention("does not follow the one before it, but runs beside it")
                if readings[-1] != readings[0]:
                    raise NoSelfAttention("has other tokens than the first one")
            except NoSelfAttention as reason:
                raise ValueError(
                    f"attention {place} of {len(self.links)} in {name} {reason}; methods of attention need one chain "
                    "of self-attentions over the same tokens, so use another method, such as grad_cam"
                ) from None
            behind |= 1 << number
        return readings[0]

    def shares(self) -> list[Tensor]:
        return [self._squared(link, link.shares.detach()) for link in self.links]

    def read(self) -> Tensor:
        """Which tokens the score is read from. NaN goes back where a token can change it, whatever the values are."""
        last = self.links[-1]
        with torch.inference_mode(False):
            nan = torch.full_like(self.score, torch.nan)
            (structure,) = torch.autograd.grad(self.score, last.shares, nan, retain_graph=True)
        read = last.squared(structure, self.items).isnan().any(3).any(1).to(self.score.dtype)
        return read / read.sum(1, keepdim=True).clamp(min=1)

    def gradients(self, links: Sequence[Attention]) -> list[Tensor]:
        grads = self.trace.gradients(self.score, [link.shares for link in links])
        return [
            self._squared(link, torch.zeros_like(link.shares) if grad is None else grad)
            for link, grad in zip(links, grads, strict=True)
        ]

    def _squared(self, link: Attention, values: Tensor) -> Tensor:
        """(N, heads, T, T), no less precise than the input: parts of a model may compute with less."""
        return link.squared(values, self.items).to(torch.promote_types(values.dtype, self.trace.input.dtype))


class AttentionReader:
    """Reads the attentions of one question's passes."""

    def __init__(self, passes: Passes):
        self.passes = passes

    def of(self, scored: Scored | None, by_hand: AnyGrid = None) -> tuple[Attentions, GridReading]:
        """The attentions, and how values of their tokens, (N, T, 1), are read as maps.

        ``scored`` is None to spare gradients. Raises ValueError for a model that is no chain of self-attentions over
        the same tokens, or of whose blocks there are no scores.
        """
        chains = self._chains()
        readings = [chain.reading(by_hand) for chain in chains]
        shares, read = _joined([chain.shares() for chain in chains]), torch.cat([chain.read() for chain in chains])
        gradients: list[Tensor] = []
        if scored == "model":
            gradients = _joined([chain.gradients(chain.links) for chain in chains])
        elif scored == "blocks":
            gradients = self._gradients_of_blocks(chains)
        return Attentions(tuple(shares), tuple(gradients), read), readings[0]

    def _gradients_of_blocks(self, chains: Sequence[_Chain]) -> list[Tensor]:
        """The gradient of each block's own score with respect to the shares of its attention."""
        count = len(chains[0].links)
        blocks = blocks_of(self.passes, chains[0].numbers) if count > 1 else []
        gradients: list[Tensor] = []
        for place in range(count):
            last = place == count - 1
            of_block = chains if last else AttentionReader(cut_behind(self.passes, blocks, place))._chains()
            gradients += _joined([chain.gradients(chain.links[-1:]) for chain in of_block])
        return gradients

    def _chains(self) -> list[_Chain]:
        passes = self.passes
        if hides(passes, SHARES):
            passes = passes.at(passes.inputs[0], ATTENTION)
        passes.require(ATTENTION)
        trace, score = passes.trace, passes.score()
        parts = trace.traces if isinstance(trace, ItemTraces) else [trace]
        chains = [_Chain(part, _reached(part, score), score) for part in parts]
        if not all(chain.links for chain in chains):
            raise ValueError(
                f"no attention is found between the input of {parts[0].model_name} and its score: a softmax of a "
                "product of queries and keys, whose output is multiplied with values; use a method that needs none, "
                "such as grad_cam"
            )
        return chains


def _reached(trace: Trace, score: Tensor) -> list[Attention]:
    """The attentions that the score is computed from by operations that carry gradients."""
    assert trace.attention is not None
    # the softmax of scores that texts or prototypes give is none
    found = [attention for attention in trace.attention.found if attention.used or attention.product.descends]
    nodes = [(attention, attention.shares.grad_fn) for attention in found]
    return [
        attention
        for attention, node in nodes
        if node is not None and score.grad_fn is not None and leads_back(score.grad_fn, {node: True})
    ]


def _joined(of_traces: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Tensors of passes of one item each, joined to those of the batch."""
    return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*of_traces, strict=True)]
