"""Gradients gathered along a path to the input."""

from __future__ import annotations

from torch import Tensor

import cnnviz
from cnnviz import Baseline, Expr, Quadrature, at, attribution, baseline_input, image, lift, noted, over, path, score


@lift
def _total(values: Tensor) -> Tensor:
    return values.flatten(1).double().sum(1)


@attribution(renderer="grayscale")
def integrated_gradients(baseline: Baseline = 0.0, steps: int = 50, quadrature: Quadrature = "gauss-legendre") -> Expr:
    """What each input value adds to the score on the way from a baseline (Sundararajan et al., 2017, arXiv:1703.01365).

    ``baseline`` is a number in the model's own units, "black", "white", "mean", "blur", or a tensor; ``quadrature`` one
    of gauss-legendre, left, right, middle, trapezoid, captum-trapezoid. Values (N, C, *spatial) sum to the score minus
    the baseline's score; the note ``completeness_gap`` (N,) tells by how much they miss it.
    """
    start = baseline_input(baseline)
    values = (image() - start) * over(cnnviz.gradient(), path(steps, start, quadrature))
    return noted(values, "completeness_gap", _total(values) - (score() - at(score(), start)))
