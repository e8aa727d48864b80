"""LIME: a linear model of the score in the presence of segments, fitted near each input."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Expr, Run, attribution
from cnnviz.formulas import Baseline
from cnnviz_plugins.attributions._monte_carlo import estimate, spread_estimates, subset_scores
from cnnviz_plugins.attributions._superpixels import AnySegments, segmented


@attribution
def lime(
    samples: int = 1000,
    segments: AnySegments = "auto",
    pieces: int = 50,
    baseline: Baseline | None = None,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
) -> Expr:
    """Coefficients of a local linear model of the score, one a segment (Ribeiro et al., 2016, arXiv:1602.04938).

    Values (N, 1, *spatial), in units of the score; the note ``standard_error`` of the same shape is their standard
    deviation over other random samples. Each of the ``samples`` keeps every segment with probability 1/2 and replaces
    the others by the ``baseline``, by default each segment's own mean. The regression has a penalty of ``ridge`` and
    weights of exp(-d**2 / ``kernel_width``**2) ** 0.5, where d is the cosine distance to the whole input. ``segments``
    and ``pieces`` are as for ``feature_ablation``. One forward pass for each sample. Raises ValueError for fewer than 2
    samples, a width that is not above 0, a negative ridge, and segments that do not fit the input.
    """
    if samples < 2 or not kernel_width > 0 or not ridge >= 0:
        raise ValueError(
            f"samples={samples}, kernel_width={kernel_width}, ridge={ridge} can't be; "
            "say 2 samples or more, a width above 0, and a ridge that is not negative"
        )

    def fitted(run: Run) -> Tensor:
        segmentation = segmented(run, segments, pieces)
        shape = samples, len(run.inputs), segmentation.max_count
        present = torch.ones(shape, dtype=torch.bool, device=run.inputs.device)
        kept = run.draws(range(1, samples)).uniform((segmentation.max_count,)) < 0.5
        for item, count in enumerate(segmentation.counts):
            present[1:, item, :count] = kept[:, :count]  # the first is the whole input
        scores = subset_scores(run, segmentation, baseline, present)
        estimates = []
        for item, count in enumerate(segmentation.counts):
            features = present[:, item, :count].double()
            distance = 1 - (features.sum(1) / count).sqrt()
            weights = (-(distance**2) / kernel_width**2).exp().sqrt()
            estimates.append(_ridge(features, scores[:, item], weights, ridge))
        return spread_estimates(run, segmentation, estimates)

    return estimate(fitted)


def _ridge(features: Tensor, scores: Tensor, weights: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Coefficients of a weighted ridge regression with a free intercept, and their standard errors, both (M,)."""
    share = (weights / weights.sum())[:, None]
    features = features - (share * features).sum(0)
    scores = scores - scores[:1]  # so that scores that do not change are exactly zero
    scores = scores - (share[:, 0] * scores).sum()
    penalty = ridge * torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    inverse = torch.linalg.pinv(features.T @ (weights[:, None] * features) + penalty, hermitian=True)
    coefficients = inverse @ (features.T @ (weights * scores))
    # a sample pulls the fit to itself, the more the fewer there are, so that residuals are smaller than the errors
    leverage = weights * (features @ inverse * features).sum(1) + share[:, 0]
    residuals = (scores - features @ coefficients) * (1 - leverage).clamp(min=1e-6).rsqrt()
    influence = (weights * residuals)[:, None] * features @ inverse  # of each sample on the coefficients
    return coefficients, influence.square().sum(0).sqrt()
