"""Sparsity: over how many places a map spreads its evidence. The model is not asked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnnviz import Metric, Trial, metric
from cnnviz.explanations import Sign, evidence


@metric
def sparseness(sign: Sign = "auto") -> Metric:
    """Gini index of the evidence's magnitude, high for few places (Chalasani et al., 2020, arXiv:1810.06583).

    One number for each input, (N,), at the input's size: 0 for an even map, as a blank one is, up to 1 for a single
    place.
    """

    def score(trial: Trial) -> Tensor:
        sizes = evidence(trial.explanation, sign).abs().flatten(1).double().sort(1).values
        total, places = sizes.sum(1), sizes.shape[1]
        behind = (places - torch.arange(1, places + 1, device=sizes.device, dtype=torch.float64) + 0.5) / places
        return torch.where(total > 0, 1 - 2 * (sizes * behind).sum(1) / total.where(total > 0, 1), 0)

    return score


@metric
def complexity(sign: Sign = "auto") -> Metric:
    """Entropy of the evidence's distribution over places, low for few places (Bhatt et al., 2020, arXiv:2005.00631).

    One number for each input, (N,), in nats: 0 for a single place, the logarithm of the number of places for an even
    map, as a blank one is. Each place counts by its share of the evidence's magnitude, at the input's size.
    """

    def score(trial: Trial) -> Tensor:
        sizes = evidence(trial.explanation, sign).abs().flatten(1).double()
        total = sizes.sum(1, keepdim=True)
        shares = sizes / total.where(total > 0, 1)
        return torch.where(total[:, 0] > 0, torch.special.entr(shares).sum(1), math.log(sizes.shape[1]))

    return score
