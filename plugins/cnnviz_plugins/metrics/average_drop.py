"""What the score becomes where only the places that a map names are left."""

from __future__ import annotations

from torch import Tensor

from cnnviz import Baseline, Sign, Trial, baseline_input, evidence, metric
from cnnviz_plugins.metrics._ranking import Scored, question


@metric
def average_drop(baseline: Baseline = 0.0, sign: Sign = "auto") -> Scored:
    """Which share of the probability is lost where the input is multiplied by the map, 0 to 1; low is good.

    Chattopadhay et al. (2018, arXiv:1710.11063): max(0, before - after) / before, whose mean over pictures is their
    average drop. The map is divided by its peak; where it is 0 the input becomes the ``baseline``, all of it where the
    map is blank. Scores of functions and objectives are taken as they are; one that is not above 0 has no share to
    lose: ValueError.
    """

    def score(trial: Trial) -> Tensor:
        before, after = _before_and_after(trial, baseline, sign)
        wrong = [item for item, value in enumerate(before.tolist()) if value <= 0]
        if wrong:
            raise ValueError(
                f"input {wrong[0]} has the score {float(before[wrong[0]]):.3g}, of which no share can be lost; "
                "explain a class, or a function above 0"
            )
        return (before - after).clamp(min=0) / before

    return score


@metric
def average_increase(baseline: Baseline = 0.0, sign: Sign = "auto") -> Scored:
    """Whether the probability grows where the input is multiplied by the map, 1 or 0; high is good.

    Chattopadhay et al. (2018, arXiv:1710.11063), whose increase in confidence is the mean over pictures. The rest as
    in ``average_drop``.
    """

    def score(trial: Trial) -> Tensor:
        before, after = _before_and_after(trial, baseline, sign)
        return (after > before).double()

    return score


def _before_and_after(trial: Trial, baseline: Baseline, sign: Sign) -> tuple[Tensor, Tensor]:
    """The score (N,) of the inputs, and of what the map leaves of them."""
    run = question(trial, "probability")
    inputs, replacement = run.inputs, baseline_input(baseline)(run)
    maps = evidence(trial.explanation, sign).clamp(min=0).flatten(1)
    peak = maps.amax(1, keepdim=True)
    shares = (maps / peak.where(peak > 0, 1)).view(len(inputs), 1, *inputs.shape[2:]).to(inputs.dtype)
    left = replacement + shares * (inputs - replacement)
    after = run.scores_of(1, lambda start, stop: left[None])[0]
    return run.score.double(), after.double()
