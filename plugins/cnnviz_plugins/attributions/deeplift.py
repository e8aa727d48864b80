"""What each input value adds to the score compared with baselines: DeepLIFT, and expectations over a background."""

from __future__ import annotations

from torch import Tensor

from cnnviz import (
    Baseline,
    Baselines,
    Expr,
    along,
    attribution,
    backgrounds,
    baseline_input,
    between,
    compared,
    gradient,
    lift,
    noted,
    over,
    score,
)
from cnnviz_plugins.attributions._deeplift_rule import rescale


@lift
def _total(values: Tensor) -> Tensor:
    return values.flatten(1).double().sum(1)


def _with_gap(values: Expr, baseline_score: Expr) -> Expr:
    """The values, and by how much their sum misses the score minus the baselines' mean score."""
    return noted(values, "completeness_gap", _total(values) - (score() - baseline_score))


@attribution(renderer="grayscale")
def deeplift(baseline: Baseline = 0.0) -> Expr:
    """What each value changes, passed on as ratios of differences (Shrikumar et al., 2017, arXiv:1704.02685).

    ``baseline`` is a number in the model's own units, "black", "white", "mean", "blur", or a tensor. Values
    (N, C, *spatial) sum to the score minus the baseline's score. The rule is known for every activation and other
    pointwise function, maxima and max-pools, products and quotients of branches, softmax, normalizations and attention;
    whatever else is not linear passes its ordinary gradient, and the note ``completeness_gap`` (N,) shows what is
    missed.
    """
    return _compared(backgrounds(baseline_input(baseline)))


@attribution(renderer="grayscale")
def deeplift_shap(baselines: Baselines = 0.0) -> Expr:
    """The mean of DeepLIFT over a background, near to SHAP values (Lundberg & Lee, 2017, arXiv:1705.07874).

    ``baselines`` is a tensor (K, C, *spatial), or one baseline. Values (N, C, *spatial) sum to the score minus the
    baselines' mean score; the note ``completeness_gap`` (N,) tells by how much they miss it. Raises ValueError for
    baselines of another shape than the input.
    """
    return _compared(backgrounds(baselines))


def _compared(baselines: backgrounds) -> Expr:
    values = compared(rescale, baselines)
    return _with_gap(values, values.baseline_score())


@attribution(renderer="grayscale")
def gradient_shap(baselines: Baselines = 0.0, samples: int = 50, sigma: float = 0.1) -> Expr:
    """Differences times gradients at random points on ways from baselines (Lundberg & Lee, 2017, arXiv:1705.07874).

    ``baselines`` is a tensor (K, C, *spatial), or one baseline; each sample draws one of them and a point on the way
    from it to the input under noise, ``sigma`` a share of each input's range (maximum minus minimum). Values
    (N, C, *spatial) sum, in expectation and without noise, to the score minus the baselines' mean score; the note
    ``completeness_gap`` (N,) tells by how much they miss it. Raises ValueError for baselines of another shape than the
    input.
    """
    known = backgrounds(baselines)
    return _with_gap(along(gradient(), between(known, samples, "random", sigma)), over(score(), known))


@attribution(renderer="grayscale")
def expected_gradients(baselines: Baselines = 0.0, samples: int = 100) -> Expr:
    """Integrated gradients' expectation over a background (Erion et al., 2019, arXiv:1906.10670).

    ``baselines`` is a tensor (K, C, *spatial), or one baseline. Every baseline is met equally often, with points spread
    evenly on its ways, so that fewer samples do. Values (N, C, *spatial) sum, in expectation, to the score minus the
    baselines' mean score; the note ``completeness_gap`` (N,) tells by how much they miss it. Raises ValueError for
    baselines of another shape than the input.
    """
    known = backgrounds(baselines)
    return _with_gap(along(gradient(), between(known, samples, "even")), over(score(), known))
