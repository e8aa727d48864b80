"""In how few places a map has its evidence, whatever the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnnviz import Sign, Trial, evidence, metric
from cnnviz_plugins.metrics._ranking import Scored


@metric
def sparseness(sign: Sign = "auto") -> Scored:
    """How unevenly evidence is spread, 0 to 1: its Gini index (Chalasani et al., 2020, arXiv:1810.06583).

    0 for an even map, as a blank one is; near 1 for few places. Of the evidence's magnitude at the input's size.
    """

    def score(trial: Trial) -> Tensor:
        sizes = evidence(trial.explanation, sign).abs().flatten(1).double().sort(1).values
        total, places = sizes.sum(1), sizes.shape[1]
        behind = (places - torch.arange(1, places + 1, device=sizes.device, dtype=torch.float64) + 0.5) / places
        return torch.where(total > 0, 1 - 2 * (sizes * behind).sum(1) / total.where(total > 0, 1), 0)

    return score


@metric
def complexity(sign: Sign = "auto") -> Scored:
    """Over how many places evidence is spread: its entropy in nats (Bhatt et al., 2020, arXiv:2005.00631).

    0 for a single place; an even map, and so a blank one, has the logarithm of the number of places. Each place counts
    by its share of the evidence's magnitude, at the input's size.
    """

    def score(trial: Trial) -> Tensor:
        sizes = evidence(trial.explanation, sign).abs().flatten(1).double()
        total = sizes.sum(1, keepdim=True)
        shares = sizes / total.where(total > 0, 1)
        return torch.where(total[:, 0] > 0, torch.special.entr(shares).sum(1), math.log(sizes.shape[1]))

    return score
