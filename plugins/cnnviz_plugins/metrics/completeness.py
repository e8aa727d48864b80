"""Completeness: whether attributions sum to the score difference from a baseline."""

from __future__ import annotations

from torch import Tensor

from cnnviz import Metric, Trial, metric
from cnnviz.formulas import Baseline, baseline_input


@metric
def completeness_gap(baseline: Baseline = 0.0) -> Metric:
    """Sum of the values minus the score difference from a baseline (Sundararajan et al., 2017, arXiv:1703.01365).

    One number for each input, (N,), in units of the score; 0 is good. For methods that compare with a ``baseline``,
    which must be the same here. A blank map lacks all of the difference. Raises ValueError for values of another size
    than the input's, which are no contributions of its places.
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
        difference = run.score.double() - run.scores(start(run)).double()
        return values.flatten(1).double().sum(1) - difference

    return score
