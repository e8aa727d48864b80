"""Maps made of the self-attentions of a transformer: where its tokens look, block after block.

Every map is (N, 1, *grid) at the grid of the tokens, not negative. None of them adds up to the score. ``grid`` is the
sizes of that grid, such as (14, 14) or "14x14", and ``extra`` how many tokens before it (negative: behind it) belong to
no place, for models whose tokens can't be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from cnnviz import Expr, attribution
from cnnviz.formulas import Attentions, attention_map

_FUSED: dict[str, Callable[..., Tensor]] = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}


@dataclass(frozen=True)
class _Rollout:
    fuse: str
    discard: float

    def __call__(self, attentions: Attentions) -> Tensor:
        relevance, own = attentions.read[:, None], torch.diag_embed(attentions.read) > 0
        for shares in reversed(attentions.shares):  # a row times a matrix costs less than a matrix times a matrix
            fused: Tensor = _FUSED[self.fuse](shares, 1)
            matrix = fused.flatten(1)
            lowest = matrix.topk(int(self.discard * matrix.shape[1]), largest=False).indices
            # what a read token takes of itself is kept
            kept = torch.where(own, fused, matrix.scatter(1, lowest, 0).view_as(fused))
            step = kept + torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device)
            relevance = relevance @ (step / step.sum(-1, keepdim=True))
        return relevance[:, 0]


@attribution
def attention_rollout(
    fuse: Literal["mean", "max", "min"] = "mean",
    discard: Annotated[float, "the share of each attention, its lowest numbers, that counts as zero"] = 0.0,
    grid: Sequence[int] | str | None = None,
    extra: int = 0,
) -> Expr:
    """Attention matrices multiplied from block to block (Abnar & Zuidema, 2020, arXiv:2005.00928).

    Map (N, 1, *grid) of shares, the same whatever the target: what the tokens that the score is read from are made of.
    Each block counts half as attention and half as what it adds to. ``fuse`` makes one matrix of the heads; ``discard``
    zeroes this share of each matrix, its lowest numbers. ``grid`` and ``extra`` say how tokens are laid out that can't
    be followed. Raises ValueError for a model that is no chain of self-attentions over the same tokens.
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard={discard} is no share of the numbers; give one from 0 to below 1")
    return attention_map(_Rollout(fuse, discard), None, grid, extra)


def _propagated(attentions: Attentions) -> Tensor:
    relevance = attentions.read[:, None]
    for shares, gradient in zip(reversed(attentions.shares), reversed(attentions.gradients), strict=True):
        relevance = relevance + relevance @ (gradient * shares).relu().mean(1)
    return (relevance - attentions.read[:, None])[:, 0]


@attribution
def transformer_attribution(grid: Sequence[int] | str | None = None, extra: int = 0) -> Expr:
    """Attention times its positive gradient, carried from block to block (Chefer et al., 2021, arXiv:2103.15679).

    Map (N, 1, *grid), not negative: the row of the tokens that the score is read from, without themselves. ``grid`` and
    ``extra`` say how tokens are laid out that can't be followed. Raises ValueError for a model that is no chain of
    self-attentions over the same tokens.
    """
    return attention_map(_propagated, "model", grid, extra)


def _weighted(attentions: Attentions) -> Tensor:
    pairs = zip(attentions.shares, attentions.gradients, strict=True)
    return torch.stack([(shares * gradient.relu()).mean((1, 2)) for shares, gradient in pairs]).mean(0)


@attribution
def grad_sam(grid: Sequence[int] | str | None = None, extra: int = 0) -> Expr:
    """Mean of attention times the positive part of its gradient (Barkan et al., 2021, arXiv:2204.11073).

    Map (N, 1, *grid), not negative: the mean over blocks, heads and queries. ``grid`` and ``extra`` say how tokens are
    laid out that can't be followed. Raises ValueError for a model that is no chain of self-attentions over the same
    tokens.
    """
    return attention_map(_weighted, "model", grid, extra)


def _sensitive(attentions: Attentions) -> Tensor:
    return torch.stack([gradient.relu().mean((1, 2)) for gradient in attentions.gradients]).mean(0)


@attribution
def legrad(grid: Sequence[int] | str | None = None, extra: int = 0) -> Expr:
    """Mean positive gradient of attentions, each of its block's own score (Bousselham et al., 2024, arXiv:2404.03214).

    Map (N, 1, *grid), not negative. A block's score is what the model makes of its tokens without the blocks behind it;
    tokens are read as the model reads them, while the authors' program averages them. ``grid`` and ``extra`` say how
    tokens are laid out that can't be followed. Raises ValueError for a model that is no chain of self-attentions over
    the same tokens, or whose blocks are no modules of one kind.
    """
    return attention_map(_sensitive, "blocks", grid, extra)
