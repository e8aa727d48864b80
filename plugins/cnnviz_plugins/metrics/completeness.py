"""Whether values add up to the score, as they do where each is a share of it."""

from __future__ import annotations

from torch import Tensor

from cnnviz import Baseline, Trial, baseline_input, metric
from cnnviz_plugins.metrics._ranking import Scored


@metric
def completeness_gap(baseline: Baseline = 0.0) -> Scored:
    """By how much the values' sum exceeds the score minus the baseline's score (Sundararajan et al., 2017).

    Completeness (arXiv:1703.01365), in units of the score; 0 is good. For methods that compare with a ``baseline``,
    which is to be the same here. A blank map lacks all of the difference. Values of another size than the input's are
    no shares: ValueError.
    """
    start = baseline_input(baseline)

    def score(trial: Trial) -> Tensor:
        values, inputs = trial.explanation.values, trial.explanation.inputs
        if values.shape[2:] != inputs.shape[2:]:
            raise ValueError(
                f"{trial.explanation.recipe} gave {tuple(values.shape)} for inputs {tuple(inputs.shape)}; "
                "only values of the input's size are shares that can add up to the score"
            )
        run = trial.run
        compared = run.scores_of(1, lambda begin, end: start(run)[None])[0]
        return values.flatten(1).double().sum(1) - (run.score.double() - compared.double())

    return score
