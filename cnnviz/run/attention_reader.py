"""The self-attentions between the input and the score: shares, their gradients, and the grid of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cnnviz.engine.attention import AnyGrid, Attention, AttentionWatch, NoSelfAttention
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
    watch: AttentionWatch
    score: Tensor
    links: dict[int, Attention]
    """By the number that each has among all attentions of the pass."""

    @classmethod
    def of(cls, trace: Any, score: Tensor) -> _Chain:
        """The attentions that the score is computed from by operations that carry gradients.

        Raises ValueError where there are none.
        """
        links: dict[int, Attention] = {}
        for number, attention in enumerate(trace.attention.found):
            known = {attention.shares.grad_fn: True, None: False}
            # the softmax of scores that texts or prototypes give is none
            if (attention.used or attention.product.descends) and leads_back(score.grad_fn, known):
                links[number] = attention
        if not links:
            raise ValueError(
                f"no attention is found between the input of {trace.model_name} and its score: a softmax of a product "
                "of queries and keys, whose output is multiplied with values; use a method that needs none, such as "
                "grad_cam"
            )
        return cls(trace, trace.attention, score, links)

    @property
    def is_lost(self) -> bool:
        """True if it is not known where the input's axes lie in one of them."""
        return any(link.label is None for link in self.links.values())

    def reading(self, by_hand: AnyGrid) -> GridReading:
        """How values of the tokens, (N, T, 1), are read. Raises ValueError where they are no chain."""
        items, rank, behind = len(self.trace.input), self.trace.input.ndim - 2, 0
        every = sum(1 << number for number in self.links)
        used = sum(1 << number for number, attention in enumerate(self.watch.found) if attention.used)
        readings: list[GridReading] = []
        for place, (number, link) in enumerate(self.links.items(), 1):
            try:
                link.squared(link.shares.detach(), items)
                readings.append(link.grid(items, rank, self.watch.axes, by_hand))
                if link.behind & used & ~every:
                    raise NoSelfAttention("is computed from another one that carries no gradients")
                if link.behind & every != behind:
                    raise NoSelfAttention("does not follow the one before it, but runs beside it")
                if readings[-1] != readings[0]:
                    raise NoSelfAttention("has other tokens than the first one")
            except NoSelfAttention as reason:
                raise ValueError(
                    f"attention {place} of {len(self.links)} in {self.trace.model_name} {reason}; methods of attention "
                    "need one chain of self-attentions over the same tokens, so use another method, such as grad_cam"
                ) from None
            behind |= 1 << number
        return readings[0]

    def shares(self) -> list[Tensor]:
        return [self._squared(link, link.shares.detach()) for link in self.links.values()]

    def read(self) -> Tensor:
        """Which tokens the score is read from. NaN goes back where a token can change it, whatever the values are."""
        last = [*self.links.values()][-1]
        with torch.inference_mode(False):
            nan = torch.full_like(self.score, torch.nan)
            (structure,) = torch.autograd.grad(self.score, last.shares, nan, retain_graph=True)
        read = last.squared(structure, len(self.trace.input)).isnan().any(3).any(1).to(self.score.dtype)
        return read / read.sum(1, keepdim=True).clamp(min=1)

    def gradients(self, first: int = 0) -> list[Tensor]:
        """Those of the links from the ``first`` one on; -1 is the last."""
        links = [*self.links.values()][first:]
        grads = self.trace.gradients(self.score, [link.shares for link in links])
        return [
            self._squared(link, torch.zeros_like(link.shares) if grad is None else grad)
            for link, grad in zip(links, grads, strict=True)
        ]

    def _squared(self, link: Attention, values: Tensor) -> Tensor:
        """(N, heads, T, T), no less precise than the input: parts of a model may compute with less."""
        values = link.squared(values, len(self.trace.input))
        return values.to(torch.promote_types(values.dtype, self.trace.input.dtype))


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
            gradients = chain.gradients()
        elif scored == "blocks":
            gradients = self._gradients_of_blocks(passes, chain)
        return Attentions(tuple(chain.shares()), tuple(gradients), chain.read()), reading

    def _gradients_of_blocks(self, passes: Passes, chain: _Chain) -> list[Tensor]:
        """The gradient of each block's own score with respect to the shares of its attention."""
        blocks = blocks_of(passes, [*chain.links]) if len(chain.links) > 1 else []
        cuts = (cut_behind(passes, blocks, place) for place in range(len(blocks) - 1))
        before = [_Chain.of(cut.trace, cut.score()).gradients(-1) for cut in cuts]
        return [gradient for (gradient,) in (*before, chain.gradients(-1))]

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
