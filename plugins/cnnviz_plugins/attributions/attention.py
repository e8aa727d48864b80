"""Maps made of the attentions of a vision transformer: which tokens the score is read from, block after block.

Every map is (N, 1, *grid) at the grid of the tokens. None of them adds up to the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, attribution
from cnnviz.formulas import Attentions, attention_map


def _rolled_out(attentions: Attentions, fuse: str, discard: float) -> Tensor:
    joint: Tensor | None = None
    for shares in attentions.shares:
        fused = shares.mean(1) if fuse == "mean" else shares.amax(1) if fuse == "max" else shares.amin(1)
        count = int(discard * fused.shape[-1])
        if count:
            fused = fused.scatter(-1, fused.topk(count, -1, largest=False).indices, 0)
        step = fused + torch.eye(fused.shape[-1]).to(fused)
        step = step / step.sum(-1, keepdim=True)
        joint = step if joint is None else step @ joint
    assert joint is not None
    return (attentions.read[:, None] @ joint)[:, 0]


@attribution
def attention_rollout(
    fuse: Literal["mean", "max", "min"] = "mean",
    discard: float = 0.0,
    grid: Sequence[int] | str | None = None,
    extra: int = 0,
) -> Expr:
    """Attention matrices multiplied from block to block (Abnar & Zuidema, 2020, arXiv:2005.00928)."""
    return attention_map(partial(_rolled_out, fuse=fuse, discard=discard), None, grid, extra)


def _propagated(attentions: Attentions) -> Tensor:
    tokens = attentions.read.shape[1]
    identity = torch.eye(tokens).to(attentions.read).expand(len(attentions.read), -1, -1)
    relevance = identity
    for shares, gradient in zip(attentions.shares, attentions.gradients, strict=True):
        relevance = relevance + (gradient * shares).relu().mean(1) @ relevance
    return (attentions.read[:, None] @ (relevance - identity))[:, 0]


@attribution
def transformer_attribution(grid: Sequence[int] | str | None = None, extra: int = 0) -> Expr:
    """Attention times its gradient, carried from block to block (Chefer et al., 2021, arXiv:2103.15679)."""
    return attention_map(_propagated, "model", grid, extra)


def _weighted(attentions: Attentions) -> Tensor:
    pairs = zip(attentions.shares, attentions.gradients, strict=True)
    return torch.stack([(shares * gradient.relu()).mean((1, 2)) for shares, gradient in pairs]).mean(0)


@attribution
def grad_sam(grid: Sequence[int] | str | None = None, extra: int = 0) -> Expr:
    """Attention times the positive part of its gradient (Barkan et al., 2021, arXiv:2204.11073)."""
    return attention_map(_weighted, "model", grid, extra)


def _sensitive(attentions: Attentions) -> Tensor:
    return torch.stack([gradient.relu().mean((1, 2)) for gradient in attentions.gradients]).mean(0)


@attribution
def legrad(grid: Sequence[int] | str | None = None, extra: int = 0) -> Expr:
    """Positive gradients of attentions, each of its own block's score (Bousselham et al., 2024, arXiv:2404.03214)."""
    return attention_map(_sensitive, "blocks", grid, extra)
