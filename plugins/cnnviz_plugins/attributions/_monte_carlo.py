"""Estimates from random perturbations, with their standard errors; the scores they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cnnviz import Expr, Run, lift, noted, procedure
from cnnviz.formulas import Baseline
from cnnviz_plugins.attributions._superpixels import Segments


@lift
def _row(rows: Tensor, number: int) -> Tensor:
    return rows[number]


def estimate(estimator: Callable[[Run], Tensor]) -> Expr:
    """The values of an estimator, with the note ``standard_error``; it returns both as (2, N, C, *spatial)."""
    rows = procedure(estimator, variants=True)
    return noted(_row(rows, 0), "standard_error", _row(rows, 1))


def subset_scores(run: Run, segments: Segments, baseline: Baseline | None, present: Tensor) -> Tensor:
    """Scores (K, N), in float64, of inputs with only the segments that ``present`` (K, N, M) bool says."""
    replacement = segments.replacement(run, baseline)
    draw = lambda start, stop: segments.masked(run.inputs, present[start:stop], replacement)  # noqa: E731
    return run.scores_of(len(present), draw).double()


def spread_estimates(run: Run, segments: Segments, estimates: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Each input's values and standard errors (M,) at the places of its segments: (2, N, 1 or C, *spatial)."""
    rows = torch.zeros(2, len(estimates), segments.max_count, dtype=torch.float64, device=run.inputs.device)
    for item, (values, errors) in enumerate(estimates):
        rows[:, item, : segments.counts[item]] = torch.stack([values, errors])
    return segments.spread(rows).to(torch.promote_types(run.inputs.dtype, torch.float32))
