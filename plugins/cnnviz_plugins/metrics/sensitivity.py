"""What becomes of score and map when the input is changed a little."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cnnviz import Baseline, Run, Trial, baseline_input, evidence, metric
from cnnviz_plugins.metrics._ranking import Scored

SHARE = 7  # windows side by side, where nobody says how large they are


@metric
def infidelity(
    perturb: Literal["noise", "square"] = "noise",
    samples: int = 50,
    sigma: float = 0.1,
    window: int | None = None,
    baseline: Baseline = 0.0,
    values: Literal["rates", "shares"] = "rates",
    normalize: bool = True,
) -> Scored:
    """How far the map foretells wrongly what changes of the input do to the score (Yeh et al., 2019, arXiv:1901.09392).

    The mean squared difference of change x values and the score's change, in squared units of the score; low is good.
    A change is Gaussian ``"noise"`` with ``sigma`` times each input's range, or a ``"square"`` of ``window`` pixels
    (None: a seventh of each side) put anywhere, which becomes the ``baseline``. ``values="rates"`` are as a gradient's,
    per unit of the input; ``"shares"`` are parts of the score, as those of integrated gradients with that baseline.
    ``normalize`` first scales each map as suits it best, so that maps in any unit can be compared. A coarse map counts
    for all channels alike; a blank one foretells that nothing changes.
    """
    if perturb not in ("noise", "square"):
        raise ValueError(f"there is no perturb={perturb!r}; use 'noise' or 'square'")
    if values not in ("rates", "shares"):
        raise ValueError(f"values={values!r} are unknown; use 'rates' or 'shares'")
    if samples < 1 or (window is not None and window < 1) or not sigma > 0:
        raise ValueError(f"samples={samples}, window={window} and sigma={sigma:g} are to be above 0")
    start = baseline_input(baseline)

    def score(trial: Trial) -> Tensor:
        run, told = trial.run, trial.explanation
        inputs = run.inputs
        away = inputs - start(run)
        slopes = told.values if told.values.shape == inputs.shape else evidence(told, "signed")[:, None]
        slopes = slopes.double()
        if values == "shares":
            slopes = torch.where(away != 0, slopes / away.where(away != 0, 1), 0)

        def change(number: int) -> Tensor:
            if perturb == "noise":
                return _noise(run, number, sigma)
            return torch.where(_square(run, number, window), away, 0)

        scores = run.scores_of(samples, lambda a, b: torch.stack([inputs - change(each) for each in range(a, b)]))
        changed = run.score.double() - scores.double()
        foretold = torch.stack([(change(each) * slopes).flatten(1).sum(1) for each in range(samples)])
        if normalize:
            size = (foretold**2).sum(0)
            foretold = foretold * (foretold * changed).sum(0) / size.where(size > 0, 1)
        return ((foretold - changed) ** 2).mean(0)

    return score


@metric
def max_sensitivity(radius: float = 0.02, samples: int = 10) -> Scored:
    """How far the map moves at most when the input moves a little, relative to its size (2019, arXiv:1901.09392).

    Yeh et al.: the largest of so many ``samples``; each value of the input moves by up to ``radius`` of the input's
    range, evenly drawn. Low is good; maps that are drawn at random keep their draws. Where the map is blank, the size
    of the other map itself. Each sample explains again.
    """
    if samples < 1 or not radius > 0:
        raise ValueError(f"samples={samples} and radius={radius:g} are to be above 0")

    def score(trial: Trial) -> Tensor:
        run, values = trial.run, trial.explanation.values.flatten(1).double()
        most = torch.zeros(len(values), dtype=torch.float64, device=values.device)
        for number in range(samples):
            shape, generator = run.inputs.shape[1:], run.generator_of(number)
            drawn = torch.rand(shape, generator=generator, device=run.inputs.device, dtype=torch.float32)
            moved = run.inputs + (radius * _range(run) * (2 * drawn - 1)).to(run.inputs.dtype)
            most = torch.maximum(most, (trial.again(moved).flatten(1).double() - values).norm(dim=1))
        size = values.norm(dim=1)
        found: Tensor = most / size.where(size > 0, 1)
        return found

    return score


def _range(run: Run) -> Tensor:
    """Each input's highest value minus its lowest, (N, 1, ...)."""
    flat = run.inputs.flatten(1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (run.inputs.ndim - 1))


def _noise(run: Run, number: int, sigma: float) -> Tensor:
    shape, generator = run.inputs.shape[1:], run.generator_of(number)
    drawn = torch.randn(shape, generator=generator, device=run.inputs.device, dtype=run.inputs.dtype)
    return sigma * _range(run) * drawn


def _square(run: Run, number: int, window: int | None) -> Tensor:
    """Where a square drawn anywhere is, (*spatial) bool."""
    generator, size = run.generator_of(number), run.inputs.shape[2:]
    inside = torch.zeros(size, dtype=torch.bool, device=run.inputs.device)
    corner = []
    for side in size:
        length = min(side, window if window is not None else max(1, round(side / SHARE)))
        begin = int(torch.randint(side - length + 1, (), generator=generator, device=run.inputs.device))
        corner.append(slice(begin, begin + length))
    inside[tuple(corner)] = True
    return inside
