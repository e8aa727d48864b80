"""Whether what a map names decides the score: the area under its curve as places go, or come, by their evidence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnnviz import Baseline, Sign, Trial, baseline_input, metric
from cnnviz_plugins.metrics._ranking import Scale, Scored, check_curve, first_of, question, ranks


@metric
def deletion(baseline: Baseline = 0.0, step: float = 0.02, scale: Scale = "probability", sign: Sign = "auto") -> Scored:
    """How long the score stays as places go, those with the most evidence first: the area under the curve; low is good.

    Petsiuk et al. (2018, arXiv:1806.07421). A share ``step`` of the places goes at a time, to what is at the same place
    of the ``baseline``: a number in the model's own units, "blur", "mean", "black", "white" or a tensor. The area is in
    ``scale``: the class's probability, 0 to 1, or its score as it is, which functions of the output and objectives
    always are. Chance, drawn from the seed, orders places of equal evidence, and so all of a blank map.
    """
    return _curve(baseline, step, scale, sign, kept_first=False)


@metric
def insertion(
    baseline: Baseline = "blur", step: float = 0.02, scale: Scale = "probability", sign: Sign = "auto"
) -> Scored:
    """How soon the score is back as places come, those with the most evidence first: the area; high is good.

    Petsiuk et al. (2018, arXiv:1806.07421). It begins with the ``baseline`` alone, by default the blurred input; else
    as ``deletion``.
    """
    return _curve(baseline, step, scale, sign, kept_first=True)


def _curve(baseline: Baseline, step: float, scale: Scale, sign: Sign, kept_first: bool) -> Scored:
    check_curve(step, scale)
    start = baseline_input(baseline)

    def score(trial: Trial) -> Tensor:
        run = question(trial, scale)
        inputs, replacement, ranked = run.inputs, start(run), ranks(trial, sign)
        places = ranked.shape[1]
        steps = math.ceil(1 / step - 1e-9)
        counts = torch.tensor(sorted({round(places * number / steps) for number in range(steps + 1)}))

        def draw(begin: int, end: int) -> Tensor:
            foremost = first_of(ranked, counts[begin:end], inputs)
            return torch.where(foremost if kept_first else ~foremost, inputs, replacement)

        scores = run.scores_of(len(counts), draw).double()
        return torch.trapezoid(scores, (counts.double() / places).to(scores.device), dim=0)

    return score
