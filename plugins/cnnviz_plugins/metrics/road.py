"""ROAD: the score as places are removed and filled in from their neighbours, so that their shape tells nothing."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Metric, Trial, metric
from cnnviz.explanations import Sign
from cnnviz.images import resize
from cnnviz_plugins.metrics._noise import gaussian_noise
from cnnviz_plugins.metrics._ranking import foremost, ranks
from cnnviz_plugins.metrics._settings import Scale, check_choice, check_curve

Order = Literal["difference", "most", "least"]
POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


@metric
def road(
    order: Order = "difference",
    step: float = 0.1,
    noise: float = 0.01,
    scale: Scale = "probability",
    sign: Sign = "auto",
) -> Metric:
    """Mean score as places are removed and filled in from their neighbours (Rong et al., 2022, arXiv:2202.00449).

    ROAD, remove and debias. One number for each input, (N,), in units of ``scale``: the mean over removed shares
    ``step``, 2 ``step``, ... below 1. ``order`` removes the places of the "most" evidence first (low is good), of the
    "least" (high is good), or is the "difference", least minus most, near 0 for a map without information. Noisy linear
    imputation fills each place with the weighted mean of its neighbours, corners counting half, plus Gaussian noise of
    ``noise`` times each input's range. ``scale`` and places of equal evidence are as for ``deletion``. Raises
    ValueError for an unknown ``order`` or ``scale``, a ``step`` outside of 0..1 or equal to 1, and negative ``noise``.
    """
    check_curve(step, scale)
    check_choice("order", order, "difference", "most", "least")
    if step == 1:
        raise ValueError("step=1 leaves nothing to fill places from; use less than 1")
    if not noise >= 0:
        raise ValueError(f"noise={noise:g} is no share of the input's range; use 0 or more")

    def score(trial: Trial) -> Tensor:
        run = trial.run.as_probability() if scale == "probability" else trial.run
        inputs, ranked = run.inputs, ranks(trial, sign)
        places = ranked.shape[1]
        shares = torch.arange(step, 1 - 1e-6, step, dtype=torch.float64)
        counts = (shares * places).round().long().clamp(max=places - 1)
        rankings = [ranked] * (order != "least") + [places - 1 - ranked] * (order != "most")

        def removed(number: int) -> Tensor:
            ranking, count = divmod(number, len(counts))
            gone = foremost(rankings[ranking], counts[count : count + 1], inputs)[0]
            return torch.where(gone, imputed(inputs, gone) + gaussian_noise(run, number, noise), inputs)

        total = len(rankings) * len(counts)
        scores = run.scores_of(total, lambda a, b: torch.stack([removed(number) for number in range(a, b)])).double()
        by_order = scores.view(len(rankings), len(counts), len(inputs))
        curve = by_order[1] - by_order[0] if order == "difference" else by_order[0]
        trial.draws(counts.double() / places, curve)
        return curve.mean(0)

    return score


def imputed(inputs: Tensor, gone: Tensor, tolerance: float = 1e-4, max_steps: int = 500) -> Tensor:
    """Inputs (N, C, *spatial) whose places ``gone`` (N, 1, *spatial) are the weighted mean of their neighbours.

    The linear equations of all those places are solved together, by conjugate gradients from a coarse guess, until the
    residual of each channel of each input is ``tolerance`` of the right-hand side, or for ``max_steps``.
    """
    known = torch.where(gone, 0, inputs).float()
    inside = gone.float()
    degree = _neighbours(torch.ones_like(inside[:1]))
    axes = tuple(range(2, inputs.ndim))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True)

    right = inside * _neighbours(known)
    values = inside * _coarse(known, 1 - inside)
    residual = right - inside * (degree * values - _neighbours(values))
    limit = tolerance**2 * dot(right, right)
    direction = residual / degree
    size = dot(residual, direction)
    for _ in range(max_steps):
        going = dot(residual, residual) > limit
        if not bool(going.any()):
            break
        applied = inside * (degree * direction - _neighbours(direction))
        curvature = dot(direction, applied)
        pace = torch.where(going & (curvature > 0), size / curvature, 0)  # solved inputs stay, whatever is beside them
        values = values + pace * direction
        residual = residual - pace * applied
        scaled = residual / degree
        before, size = size, dot(residual, scaled)
        direction = scaled + torch.where(before > 0, size / before, 0) * direction
    return torch.where(gone, values.to(inputs.dtype), inputs)


def _neighbours(values: Tensor) -> Tensor:
    """The sum over each place's neighbours, each step aside counting half: in images 1/2, and 1/4 at corners."""
    total = values
    for axis in range(2, values.ndim):
        lines, last = total.clone(), total.shape[axis] - 1
        lines.narrow(axis, 1, last).add_(total.narrow(axis, 0, last), alpha=0.5)
        lines.narrow(axis, 0, last).add_(total.narrow(axis, 1, last), alpha=0.5)
        total = lines
    return total - values


def _coarse(values: Tensor, known: Tensor) -> Tensor:
    """A guess for unknown places: the mean of known places around, at the finest coarser size that has any."""
    size = values.shape[2:]
    mean = values / known.where(known > 0, 1)
    if max(size) == 1 or bool((known > 0).all()):
        return mean
    stride = [2 if length > 1 else 1 for length in size]
    pool = POOLS[len(size) - 1]
    smaller = [pool(tensor, stride, stride, ceil_mode=True) for tensor in (values, known)]
    guess = resize(_coarse(*smaller), size)
    return torch.where(known > 0, mean, guess)
