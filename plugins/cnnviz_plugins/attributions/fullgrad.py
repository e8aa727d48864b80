"""FullGrad: the input's share of the score and the share of every bias, in one map."""

from __future__ import annotations

from torch import Tensor

import cnnviz
from cnnviz import Expr, attribution, bias_maps, bias_share, image, lift, noted, score


@lift
def _total(values: Tensor) -> Tensor:
    return values.flatten(1).double().sum(1)


def _magnitude(values: Tensor) -> Tensor:
    return values.abs().sum(1, keepdim=True)


def _scaled_magnitude(values: Tensor) -> Tensor:
    """Each sample's magnitudes from 0 to 1 over all channels, then added up over channels."""
    flat = values.abs().flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    reach = high - low
    scaled = (flat - low) / reach.where(reach > 0, 1)
    return scaled.view_as(values).sum(1, keepdim=True)


@attribution
def fullgrad(scaled: bool = True) -> Expr:
    """Magnitudes of input x gradient and of every gradient x bias (Srinivas & Fleuret, 2019, arXiv:1905.00780).

    ``scaled`` brings each layer's magnitudes to 0..1 first, as the authors do; else they are added as they are, in
    units of the score. Biases are implicit ones, so that batch norm and smooth activations count too. Values
    (N, 1, *spatial), not negative, at the input's size. The note ``completeness_gap`` (N,) tells how far the
    decomposition as a whole is from the score.
    """
    each = _scaled_magnitude if scaled else _magnitude
    share = image() * cnnviz.gradient()
    return noted(lift(each)(share) + bias_maps(each), "completeness_gap", _total(share) + bias_share() - score())
