"""Average drop and increase: the probability of the input multiplied by the map."""

from __future__ import annotations

from torch import Tensor

from cnnviz import Metric, Trial, metric
from cnnviz.explanations import Sign, evidence
from cnnviz.formulas import Baseline, baseline_input


@metric
def average_drop(baseline: Baseline = 0.0, sign: Sign = "auto") -> Metric:
    """Share of probability lost if the input is multiplied by the map (Chattopadhay et al., 2018, arXiv:1710.11063).

    One number for each input, (N,), 0 to 1; low is good: max(0, before - after) / before, whose mean over pictures is
    the paper's average drop. The map is divided by its peak; where it is 0 the input becomes the ``baseline``, all of
    it for a blank map. Functions and objectives are scored as they are. Raises ValueError for a score that is not above
    0, of which no share can be lost.
    """

    def score(trial: Trial) -> Tensor:
        before, after = _before_and_after(trial, baseline, sign)
        wrong = (before <= 0).nonzero()[:, 0].tolist()
        if wrong:
            raise ValueError(
                f"input {wrong[0]} has the score {float(before[wrong[0]]):.3g}, of which no share can be lost; "
                "explain a class, or a function above 0"
            )
        return (before - after).clamp(min=0) / before

    return score


@metric
def average_increase(baseline: Baseline = 0.0, sign: Sign = "auto") -> Metric:
    """1 if the input times the map has a higher probability, else 0 (Chattopadhay et al., 2018, arXiv:1710.11063).

    One number for each input, (N,); high is good. The mean over pictures is the paper's increase in confidence.
    Settings are as for ``average_drop``.
    """

    def score(trial: Trial) -> Tensor:
        before, after = _before_and_after(trial, baseline, sign)
        return (after > before).double()

    return score


def _before_and_after(trial: Trial, baseline: Baseline, sign: Sign) -> tuple[Tensor, Tensor]:
    """Probabilities (N,), in float64, of the inputs, and of the inputs multiplied by the map."""
    run = trial.run.as_probability()
    inputs, replacement = run.inputs, baseline_input(baseline)(run)
    maps = evidence(trial.explanation, sign).clamp(min=0).flatten(1)
    peak = maps.amax(1, keepdim=True)
    shares = (maps / peak.where(peak > 0, 1)).view(len(inputs), 1, *inputs.shape[2:]).to(inputs.dtype)
    multiplied = replacement + shares * (inputs - replacement)
    return run.score.double(), run.scores(multiplied).double()
