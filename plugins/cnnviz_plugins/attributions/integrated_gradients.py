"""Integrated gradients: the gradient integrated along the straight path from a baseline to the input."""

from __future__ import annotations

import cnnviz
from cnnviz import Expr, at, attribution, image, over, score
from cnnviz.formulas import Baseline, Quadrature, baseline_input, path
from cnnviz_plugins.attributions._completeness import with_completeness_gap


@attribution(renderer="grayscale")
def integrated_gradients(baseline: Baseline = 0.0, steps: int = 50, quadrature: Quadrature = "gauss-legendre") -> Expr:
    """Input minus baseline, times the mean gradient between them (Sundararajan et al., 2017, arXiv:1703.01365).

    Values (N, C, *spatial), in units of the score, sum to the score minus the baseline's score; the note
    ``completeness_gap`` (N,) is the sum of the values minus that difference. ``baseline`` is a number in the model's
    own units, "black", "white", "mean", "blur", or a tensor that broadcasts to the input; ``quadrature`` is one of
    gauss-legendre, left, right, middle, trapezoid, captum-trapezoid, with ``steps`` points. Raises ValueError for an
    unknown baseline, or one that does not fit the input, for an unknown quadrature, and for fewer steps than 1 (2 for
    the trapezoids).
    """
    start = baseline_input(baseline)
    values = (image() - start) * over(cnnviz.gradient(), path(steps, start, quadrature))
    return with_completeness_gap(values, score() - at(score(), start))
