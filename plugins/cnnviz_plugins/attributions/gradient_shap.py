"""Expected gradients: path attributions averaged over a set of baselines and random points of the paths."""

from __future__ import annotations

from cnnviz import Expr, attribution, gradient, over, score
from cnnviz.formulas import Baselines, along, backgrounds, between
from cnnviz_plugins.attributions._completeness import with_completeness_gap


@attribution(renderer="grayscale")
def gradient_shap(baselines: Baselines = 0.0, samples: int = 50, sigma: float = 0.1) -> Expr:
    """Mean of (input - baseline) * gradient at random points of noisy paths (Lundberg & Lee, 2017, arXiv:1705.07874).

    Each sample draws one of the baselines and a point on the straight line from it to the input, which has Gaussian
    noise of ``sigma`` times its range (maximum minus minimum). Values (N, C, *spatial), in units of the score, sum, in
    expectation and without noise, to the score minus the mean score of the baselines; the note ``completeness_gap``
    (N,) is the sum of the values minus that difference. ``baselines`` is a tensor (K, C, *spatial), or one baseline as
    for ``deeplift``. Raises ValueError for baselines that do not fit the input, fewer than 1 sample, or a negative
    ``sigma``.
    """
    known = backgrounds(baselines)
    values = along(gradient(), between(known, samples, "random", sigma))
    return with_completeness_gap(values, score() - over(score(), known))


@attribution(renderer="grayscale")
def expected_gradients(baselines: Baselines = 0.0, samples: int = 100) -> Expr:
    """Mean of integrated gradients over a set of baselines (Erion et al., 2019, arXiv:1906.10670).

    Stratified sampling: every baseline is used equally often, at points spread evenly over its path, which needs fewer
    samples for the same precision. Values (N, C, *spatial), in units of the score, sum, in expectation, to the score
    minus the mean score of the baselines; the note ``completeness_gap`` (N,) is the sum of the values minus that
    difference. ``baselines`` is a tensor (K, C, *spatial), or one baseline as for ``deeplift``. Raises ValueError for
    baselines that do not fit the input, or fewer than 1 sample.
    """
    known = backgrounds(baselines)
    values = along(gradient(), between(known, samples, "even"))
    return with_completeness_gap(values, score() - over(score(), known))
