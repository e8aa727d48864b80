"""DeepLIFT: the score's difference from a baseline's, passed back through the network as ratios of differences."""

from __future__ import annotations

from cnnviz import Expr, attribution, score
from cnnviz.formulas import Baseline, Baselines, backgrounds, baseline_input, compared
from cnnviz_plugins.attributions._completeness import with_completeness_gap
from cnnviz_plugins.attributions._deeplift_rule import RESCALE


@attribution(renderer="grayscale")
def deeplift(baseline: Baseline = 0.0) -> Expr:
    """Contribution of each value to the score difference from a baseline (Shrikumar et al., 2017, arXiv:1704.02685).

    Values (N, C, *spatial), in units of the score, sum to the score minus the baseline's score. ``baseline`` is a
    number in the model's own units, "black", "white", "mean", "blur", or a tensor that broadcasts to the input. The
    rescale rule covers every activation and other pointwise function, maxima and max-pools, products and quotients of
    branches, softmax, normalizations and attention; any other nonlinear operation passes its ordinary gradient, and the
    note ``completeness_gap`` (N,), the sum of the values minus that difference, shows the error. Raises ValueError for
    an unknown baseline, or one that does not fit the input.
    """
    return _mean_deeplift(backgrounds(baseline_input(baseline)))


@attribution(renderer="grayscale")
def deeplift_shap(baselines: Baselines = 0.0) -> Expr:
    """Mean of DeepLIFT over a set of baselines, near to SHAP values (Lundberg & Lee, 2017, arXiv:1705.07874).

    Values (N, C, *spatial), in units of the score, sum to the score minus the mean score of the baselines; the note
    ``completeness_gap`` (N,) is the sum of the values minus that difference. ``baselines`` is a tensor
    (K, C, *spatial), or one baseline as for ``deeplift``. Raises ValueError for baselines that do not fit the input.
    """
    return _mean_deeplift(backgrounds(baselines))


def _mean_deeplift(baselines: backgrounds) -> Expr:
    values = compared(RESCALE, baselines)
    return with_completeness_gap(values, score() - values.baseline_score())
