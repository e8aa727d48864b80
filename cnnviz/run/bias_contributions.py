"""What the implicit biases of a pass add to the score: by input, and by place as far as they have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.bias_terms import BiasTerm
from cnnviz.run.plan import Plan

Gradients = Callable[[Tensor, Sequence[Any]], Sequence[Tensor | None]]
"""From some of the scores to their gradients at edges of the graph."""


def bias_terms_of(plan: Plan, terms: Sequence[BiasTerm], rule: Rule) -> list[BiasTerm]:
    """Those that are asked for under a rule: of all operations, or of those whose biases the rule does not report."""
    if not plan.biases or not (rule is PLAIN or rule.follows):
        return []
    return [term for term in terms if term.operation not in rule.backwards]


def contributions(
    terms: Sequence[BiasTerm], grads: Sequence[Tensor | None], score: Tensor, rank: int, gradients: Gradients
) -> list[Tensor]:
    """Gradient x implicit bias of each term: (N, C, *grid) as far as it has places, else (N, F).

    Args:
        terms: of the pass.
        grads: of the summed score, where each term is added.
        score: (N,), with its graph.
        rank: how many spatial dimensions the input has.
        gradients: asked for each input by itself, where a term does not tell its inputs apart.
    """
    items, found = len(score), []
    pairs = [(term, grad) for term, grad in zip(terms, grads, strict=True) if grad is not None]
    mixed = [term for term, _ in pairs if not term.place.is_split(items)]
    shares = dict(zip(map(id, mixed), _one_by_one(mixed, score, gradients), strict=True))
    for term, grad in pairs:
        values = term.contribution(grad)
        rows = shares[id(term)] if id(term) in shares else term.place.rows(values, items)
        placed = term.place.on_grid(values, items, rank)
        if placed is None:
            found.append(rows)
            continue
        found.append(placed)
        if placed.numel() < values.numel():
            rest = rows.double().sum(1) - placed.flatten(1).double().sum(1)
            found.append(rest[:, None].to(values.dtype))
    return found


def rows_of_one(share: Tensor, item: int, items: int) -> Tensor:
    """What one input's term, (1, ...), adds in a batch, (N, ...): nothing to the others."""
    rows = share.new_zeros(items, *share.shape[1:])
    rows[item] = share[0]
    return rows


def _one_by_one(terms: Sequence[BiasTerm], score: Tensor, gradients: Gradients) -> list[Tensor]:
    """What each term adds to each input's score, (N, 1), by a backward pass for each input."""
    shares: list[list[Tensor]] = [[] for _ in terms]
    for item in range(len(score) if terms else 0):
        with torch.inference_mode(False), torch.enable_grad():
            alone = score[item : item + 1]
        grads = gradients(alone, [term.edge for term in terms])
        for term, grad, column in zip(terms, grads, shares, strict=True):
            column.append(score.new_zeros(()) if grad is None else term.contribution(grad).sum())
    return [torch.stack(column)[:, None] for column in shares]
