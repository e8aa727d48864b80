"""Places of a map in the order of their evidence."""

from __future__ import annotations

from torch import Tensor

from cnnviz import Trial
from cnnviz.explanations import Sign, evidence


def ranks(trial: Trial, sign: Sign) -> Tensor:
    """The number of places with more evidence than each place, (N, places).

    Equal places are ordered at random, the same for each input, by the seed of the run.
    """
    maps = evidence(trial.explanation, sign).flatten(1)
    shuffled = trial.run.draws().permutation(maps.shape[1]).to(maps.device)
    order = shuffled[maps[:, shuffled].argsort(stable=True, dim=1, descending=True)]
    return order.argsort(1)  # the inverse of a permutation


def foremost(ranked: Tensor, counts: Tensor, like: Tensor) -> Tensor:
    """True at the ``counts`` (K,) places with the most evidence of inputs (N, C, *spatial): (K, N, 1, *spatial)."""
    return (ranked < counts.to(ranked.device)[:, None, None]).view(len(counts), len(like), 1, *like.shape[2:])
