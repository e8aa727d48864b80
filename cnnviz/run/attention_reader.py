"""The self-attentions between the input and the score: shares, their gradients, and the grid of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

    @classmethod
    def of(cls, trace: Any, score: Tensor) -> _Chain:
        """The attentions that the score is computed from by operations that carry gradients.

        Raises ValueError where there are none.
        """
        # the softmax of scores that texts or prototypes give is none
        found = [attention for attention in trace.attention.found if attention.used or attention.product.descends]
        nodes = [(attention, attention.shares.grad_fn) for attention in found]
        begin = score.grad_fn
        links = [
            attention for attention, node in nodes if node and begin is not None and leads_back(begin, {node: True})
        ]
        if not links:
            raise ValueError(
                f"no attention is found between the input of {trace.model_name} and its score: a softmax of a "
                "product of queries and keys, whose output is multiplied with values; use a method that needs none, "
                "such as grad_cam"
            )
        return cls(trace, links, score)

    @property
    def items(self) -> int:
        return len(self.trace.input)

    @property
    def is_lost(self) -> bool:
        """True if it is not known where the input's axes lie in one of them."""
        return any(link.label is None for link in self.links)

    @property
    def numbers(self) -> list[int]:
        """Which of all attentions of the pass they are."""
        assert self.trace.attention is not None
        return [self.trace.attention.found.index(link) for link in self.links]

    def reading(self, by_hand: AnyGrid) -> GridReading:
        """How values of the tokens, (N, T, 1), are read. Raises ValueError where they are no chain."""
        assert self.trace.attention is not None
        name, rank, behind = self.trace.model_name, self.trace.input.ndim - 2, 0
        found = self.trace.attention.found
        every = sum(1 << number for number in self.numbers)
        used = sum(1 << number for number, attention in enumerate(found) if attention.used)
        readings: list[GridReading] = []
        for place, (number, link) in enumerate(zip(self.numbers, self.links, strict=True), 1):
            try:
                link.squared(link.shares.detach(), self.items)
                readings.append(link.grid(self.items, rank, self.trace.attention.axes, by_hand))
                if link.behind & used & ~every:
                    raise NoSelfAttention("is computed from another one that carries no gradients")
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
        passes, items = self._looking(), len(self.passes.inputs[0])
        chain = None if isinstance(passes.trace, ItemTraces) else _Chain.of(passes.trace, passes.score())
        if chain is None or (items > 1 and chain.is_lost):  # where the items lie in the shares is not known
            apart = [AttentionReader(passes.of(slice(item, item + 1))).of(scored, by_hand) for item in range(items)]
            return _joined([attentions for attentions, _ in apart]), apart[0][1]
        reading, gradients = chain.reading(by_hand), []
        if scored == "model":
            gradients = chain.gradients(chain.links)
        elif scored == "blocks":
            gradients = self._gradients_of_blocks(passes, chain)
        return Attentions(tuple(chain.shares()), tuple(gradients), chain.read()), reading

    def _gradients_of_blocks(self, passes: Passes, chain: _Chain) -> list[Tensor]:
        """The gradient of each block's own score with respect to the shares of its attention."""
        blocks = blocks_of(passes, chain.numbers) if len(chain.links) > 1 else []
        gradients: list[Tensor] = []
        for place in range(len(blocks) - 1):
            cut = cut_behind(passes, blocks, place)
            of_block = _Chain.of(cut.trace, cut.score())
            gradients += of_block.gradients(of_block.links[-1:])
        return gradients + chain.gradients(chain.links[-1:])

    def _looking(self) -> Passes:
        """The passes, or others of the same inputs, that look for attentions."""
        passes = self.passes
        if hides(passes, SHARES):
            passes = passes.at(passes.inputs[0], ATTENTION)
        passes.require(ATTENTION)
        return passes


def _joined(of_items: Sequence[Attentions]) -> Attentions:
    """Those of one item each as those of the batch."""
    shares = zip(*(each.shares for each in of_items), strict=True)
    gradients = zip(*(each.gradients for each in of_items), strict=True)
    read = torch.cat([each.read for each in of_items])
    return Attentions(tuple(map(torch.cat, shares)), tuple(map(torch.cat, gradients)), read)
