"""Infidelity and sensitivity: the score and the map under small changes of the input."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cnnviz import Metric, Run, Trial, metric
from cnnviz.explanations import evidence
from cnnviz.formulas import Baseline, baseline_input
from cnnviz_plugins.metrics._noise import gaussian_noise, input_range
from cnnviz_plugins.metrics._settings import check_choice

WINDOWS_PER_SIDE = 7  # of the default size


@metric
def infidelity(
    perturb: Literal["noise", "square"] = "noise",
    samples: int = 50,
    sigma: float = 0.1,
    window: int | None = None,
    baseline: Baseline = 0.0,
    values: Literal["rates", "shares"] = "rates",
    normalize: Annotated[bool, "scale the map so that it fits best, for its unit says nothing"] = True,
) -> Metric:
    """Mean squared error between perturbation times attribution and score change (Yeh et al., 2019, arXiv:1901.09392).

    One number for each input, (N,), in squared units of the score; low is good. ``perturb`` is Gaussian "noise" of
    ``sigma`` times each input's range, or a "square" of ``window`` pixels (None: a seventh of each side) at a random
    place, which becomes the ``baseline``. ``values`` are "rates", score per unit of input, as a gradient's, or "shares"
    of the score, as those of integrated gradients with that baseline. ``normalize`` first scales each map to the least
    error, so that maps in any unit can be compared. A coarse map counts for all channels alike; a blank one predicts no
    change. Raises ValueError for an unknown ``perturb`` or ``values``, and for ``samples``, ``sigma`` or ``window``
    that are not above 0.
    """
    check_choice("perturb", perturb, "noise", "square")
    if values not in ("rates", "shares"):
        raise ValueError(f"values={values!r} are unknown; use 'rates' or 'shares'")
    if samples < 1 or (window is not None and window < 1) or not sigma > 0:
        raise ValueError(f"samples={samples}, window={window} and sigma={sigma:g} are to be above 0")
    start = baseline_input(baseline)

    def score(trial: Trial) -> Tensor:
        run, explanation = trial.run, trial.explanation
        inputs = run.inputs
        difference = inputs - start(run)
        coarse = explanation.values.shape != inputs.shape
        slopes = (evidence(explanation, "signed")[:, None] if coarse else explanation.values).double()
        if values == "shares":
            slopes = torch.where(difference != 0, slopes / difference.where(difference != 0, 1), 0)

        def change(number: int) -> Tensor:
            if perturb == "noise":
                return gaussian_noise(run, number, sigma)
            return torch.where(_square(run, number, window), difference, 0)

        scores = run.scores_of(samples, lambda a, b: torch.stack([inputs - change(number) for number in range(a, b)]))
        drops = run.score.double() - scores.double()
        predicted = torch.stack([(change(number) * slopes).flatten(1).sum(1) for number in range(samples)])
        if normalize:
            size = (predicted**2).sum(0)
            predicted = predicted * (predicted * drops).sum(0) / size.where(size > 0, 1)
        return ((predicted - drops) ** 2).mean(0)

    return score


@metric
def max_sensitivity(radius: float = 0.02, samples: int = 10) -> Metric:
    """Largest relative change of the map when the input changes a little (Yeh et al., 2019, arXiv:1901.09392).

    One number for each input, (N,): the norm of the difference between the maps, divided by the norm of the map (if it
    is blank, not divided), the largest of ``samples``; low is good. Each value of the input moves by up to ``radius``
    times the input's range, uniformly distributed. Maps that are drawn at random keep their draws. Each sample explains
    again. Raises ValueError for a ``radius`` or ``samples`` that is not above 0.
    """
    if samples < 1 or not radius > 0:
        raise ValueError(f"samples={samples} and radius={radius:g} are to be above 0")

    def score(trial: Trial) -> Tensor:
        run, values = trial.run, trial.explanation.values.flatten(1).double()
        largest = values.new_zeros(len(values))
        for number in range(samples):
            draw = run.draws(number).uniform(run.inputs.shape[1:])
            moved = run.inputs + (radius * input_range(run.inputs) * (2 * draw - 1)).to(run.inputs.dtype)
            change = trial.again(moved).flatten(1).double() - values
            largest = torch.maximum(largest, torch.linalg.vector_norm(change, dim=1))
        size = torch.linalg.vector_norm(values, dim=1)
        relative: Tensor = largest / size.where(size > 0, 1)
        return relative

    return score


def _square(run: Run, number: int, window: int | None) -> Tensor:
    """True in a square at a random place, (*spatial)."""
    size = run.inputs.shape[2:]
    inside = torch.zeros(size, dtype=torch.bool, device=run.inputs.device)
    square = []
    for side, drawn in zip(size, run.draws(number).floats(len(size)), strict=True):
        length = min(side, window if window is not None else max(1, round(side / WINDOWS_PER_SIDE)))
        begin = int(drawn * (side - length + 1))
        square.append(slice(begin, begin + length))
    inside[tuple(square)] = True
    return inside
