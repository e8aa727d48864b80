"""FullGrad: the contributions of the input and of every bias to the score, in one map."""

from __future__ import annotations

from torch import Tensor

import cnnviz
from cnnviz import Expr, attribution, image, lift, score
from cnnviz.formulas import bias_maps, bias_share
from cnnviz_plugins.attributions._completeness import with_completeness_gap
from cnnviz_plugins.attributions._normalization import min_max


def _magnitude(values: Tensor) -> Tensor:
    return values.abs().sum(1, keepdim=True)


def _scaled_magnitude(values: Tensor) -> Tensor:
    return min_max(values.abs()).sum(1, keepdim=True)


@attribution
def fullgrad(scaled: bool = True) -> Expr:
    """Sum of the magnitudes of input * gradient and all bias * gradient (Srinivas & Fleuret, 2019, arXiv:1905.00780).

    Values (N, 1, *spatial), not negative, at the input's size. ``scaled`` brings each layer's magnitudes to 0..1 first,
    as the authors' program does; otherwise they are in units of the score. Biases are implicit ones, so that batch norm
    and smooth activations count too. The note ``completeness_gap`` (N,) is the sum of all contributions minus the
    score. Raises ValueError for inputs without spatial extent.
    """
    magnitude = _scaled_magnitude if scaled else _magnitude
    contributions = image() * cnnviz.gradient()
    maps = lift(magnitude)(contributions) + bias_maps(magnitude)
    return with_completeness_gap(maps, score() - bias_share(), contributions)
