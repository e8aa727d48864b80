"""Estimates from random draws: values with how far off they may be, and the scores they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cnnviz import Baseline, Expr, Run, lift, noted, procedure
from cnnviz_plugins.attributions._superpixels import Pieces


@lift
def _first(both: Tensor) -> Tensor:
    return both[0]


@lift
def _second(both: Tensor) -> Tensor:
    return both[1]


def estimate(estimated: Callable[[Run], Tensor]) -> Expr:
    """What a function of the run estimates, (2, N, C, *spatial): values, and their standard errors as a note."""
    both = procedure(estimated)
    return noted(_first(both), "standard_error", _second(both))


def subset_scores(run: Run, found: Pieces, baseline: Baseline | None, kept: Tensor) -> Tensor:
    """Scores (K, N), in float64, with only those pieces there that ``kept`` (K, N, M) says."""
    replacement = found.replacement(run, baseline)
    return run.scores_of(len(kept), lambda a, b: found.without(run.inputs, kept[a:b], replacement)).double()


def at_places(run: Run, found: Pieces, each: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """What every input's pieces are worth, and how sure that is, at their places: (2, N, 1 or C, *spatial)."""
    rows = torch.zeros(2, len(each), found.most, dtype=torch.float64, device=run.inputs.device)
    for item, (values, errors) in enumerate(each):
        rows[:, item, : found.counts[item]] = torch.stack([values, errors])
    return found.spread(rows).to(torch.promote_types(run.inputs.dtype, torch.float32))
