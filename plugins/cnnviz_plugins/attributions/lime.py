"""A linear model of which pieces of the input are there. Every input of a batch has a model of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Baseline, Expr, Run, attribution
from cnnviz_plugins.attributions._monte_carlo import at_places, estimate, subset_scores
from cnnviz_plugins.attributions._superpixels import cut


@attribution
def lime(
    samples: int = 1000,
    segments: str | Tensor = "auto",
    pieces: int = 50,
    baseline: Baseline | None = None,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
) -> Expr:
    """A linear model of which pieces are there, near the input (Ribeiro et al., 2016, arXiv:1602.04938).

    Each sample keeps every piece with probability 1/2. A ridge regression of the scores, weighed by exp(-d**2 /
    ``kernel_width``**2) ** 0.5 of the cosine distance d to the whole input, gives each piece its coefficient, in units
    of the score. ``segments`` and ``pieces`` as for feature_ablation; ``baseline`` None hides a piece under its own
    mean. Values (N, 1, *spatial); the note ``standard_error`` of the same shape is what drawing other samples would
    change.
    """
    if samples < 2 or not kernel_width > 0 or not ridge >= 0:
        raise ValueError(
            f"samples={samples}, kernel_width={kernel_width}, ridge={ridge} can't be; "
            "say 2 samples or more, a width above 0, and a ridge that is not negative"
        )

    def fitted(run: Run) -> Tensor:
        found = cut(run, segments, pieces)
        kept = torch.ones(samples, len(run.inputs), found.most, dtype=torch.bool, device=run.inputs.device)
        for sample in range(1, samples):  # the first is the whole input
            for item, count in enumerate(found.counts):
                drawn = torch.rand(count, generator=run.generator_of(sample), device=kept.device)
                kept[sample, item, :count] = drawn < 0.5
        scores = subset_scores(run, found, baseline, kept)
        answers = []
        for item, count in enumerate(found.counts):
            there = kept[:, item, :count].double()
            distance = 1 - (there.sum(1) / count).sqrt()
            weights = (-(distance**2) / kernel_width**2).exp().sqrt()
            answers.append(_ridge(there, scores[:, item], weights, ridge))
        return at_places(run, found, answers)

    return estimate(fitted)


def _ridge(there: Tensor, scores: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Coefficients of a weighted ridge regression with a free constant, and their standard errors."""
    share = (weights / weights.sum())[:, None]
    there = there - (share * there).sum(0)
    scores = scores - (share[:, 0] * scores).sum()
    inverse = torch.linalg.pinv(
        there.T @ (weights[:, None] * there) + ridge * torch.eye(there.shape[1]).to(there), hermitian=True
    )
    found = inverse @ (there.T @ (weights * scores))
    # a sample draws the fit to itself, the more the fewer there are: what is left of it tells less than it was off by
    fitted = weights * (there @ inverse * there).sum(1) + share[:, 0]
    left = (scores - there @ found) * (1 - fitted).clamp(min=1e-6).rsqrt()
    pulls = (weights * left)[:, None] * there @ inverse  # how each sample moves the coefficients
    return found, pulls.square().sum(0).sqrt()
