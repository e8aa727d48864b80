"""Insertion and deletion: the area under the curve of the score as places come or go in the order of their evidence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnnviz import Metric, Trial, metric
from cnnviz.explanations import Sign
from cnnviz.formulas import Baseline, baseline_input
from cnnviz_plugins.metrics._ranking import foremost, ranks
from cnnviz_plugins.metrics._settings import Scale, check_curve


@metric
def deletion(baseline: Baseline = 0.0, step: float = 0.02, scale: Scale = "probability", sign: Sign = "auto") -> Metric:
    """Area under the score as places of most evidence are removed (Petsiuk et al., 2018, arXiv:1806.07421).

    One number for each input, (N,); low is good. A share ``step`` of the places is removed at a time: it becomes what
    the ``baseline`` has there, a number in the model's own units, "blur", "mean", "black", "white" or a tensor. The
    area is in units of ``scale``: the class's "probability", 0 to 1, or its "score" as it is; functions of the output
    and objectives are always taken as they are. Places of equal evidence, such as all of a blank map, are ordered at
    random by the seed. Raises ValueError for a ``step`` outside of 0..1, and for an unknown ``scale`` or ``baseline``.
    """
    return _area(baseline, step, scale, sign, insert=False)


@metric
def insertion(
    baseline: Baseline = "blur", step: float = 0.02, scale: Scale = "probability", sign: Sign = "auto"
) -> Metric:
    """Area under the score as places of most evidence are inserted (Petsiuk et al., 2018, arXiv:1806.07421).

    One number for each input, (N,); high is good. It begins with the ``baseline`` alone, by default the blurred input;
    settings and errors are as for ``deletion``.
    """
    return _area(baseline, step, scale, sign, insert=True)


def _area(baseline: Baseline, step: float, scale: Scale, sign: Sign, insert: bool) -> Metric:
    check_curve(step, scale)
    start = baseline_input(baseline)

    def score(trial: Trial) -> Tensor:
        run = trial.run.as_probability() if scale == "probability" else trial.run
        inputs, replacement, ranked = run.inputs, start(run), ranks(trial, sign)
        places = ranked.shape[1]
        steps = math.ceil(1 / step - 1e-9)
        counts = torch.tensor(sorted({round(places * number / steps) for number in range(steps + 1)}))

        def draw(begin: int, end: int) -> Tensor:
            first = foremost(ranked, counts[begin:end], inputs)
            return torch.where(first if insert else ~first, inputs, replacement)

        scores = run.scores_of(len(counts), draw).double()
        shares = (counts.double() / places).to(scores.device)
        trial.draws(shares, scores)
        return torch.trapezoid(scores, shares, dim=0)

    return score
