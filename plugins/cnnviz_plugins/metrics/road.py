"""Places taken away and filled from what is around them, so that their shape tells nothing; and ROAD, which does so."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Sign, Trial, metric
from cnnviz_plugins.metrics._ranking import Scale, Scored, check_curve, first_of, question, ranks

Order = Literal["difference", "most", "least"]
POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
MODES = ("linear", "bilinear", "trilinear")


@metric
def road(
    order: Order = "difference",
    step: float = 0.1,
    noise: float = 0.01,
    scale: Scale = "probability",
    sign: Sign = "auto",
) -> Scored:
    """What the score keeps as places go, filled in from what is around (ROAD; Rong et al., 2022, arXiv:2202.00449).

    The mean over the shares of places ``step``, 2 ``step``, ... below 1 that go: those of the ``"most"`` evidence first
    (low is good), of the ``"least"`` (high is good), or the ``"difference"``, least minus most, near 0 for a map that
    knows nothing. Filled is by noisy linear imputation: each place is the weighted mean of its neighbours, corners
    counting half, plus ``noise`` times each input's range. ``scale`` and places of equal evidence as in ``deletion``.
    """
    check_curve(step, scale)
    if order not in ("difference", "most", "least"):
        raise ValueError(f"there is no order={order!r}; use 'difference', 'most' or 'least'")
    if step == 1:
        raise ValueError("step=1 leaves nothing to fill places from; use less than 1")
    if not noise >= 0:
        raise ValueError(f"noise={noise:g} is no share of the input's range; use 0 or more")

    def score(trial: Trial) -> Tensor:
        run = question(trial, scale)
        inputs, ranked = run.inputs, ranks(trial, sign)
        places = ranked.shape[1]
        shares = torch.arange(step, 1 - 1e-6, step, dtype=torch.float64)
        counts = (shares * places).round().long().clamp(max=places - 1)
        turned = [False] * (order != "least") + [True] * (order != "most")
        variants = [(least, count) for least in turned for count in counts]
        flat = inputs.flatten(1)
        spread = noise * (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (inputs.ndim - 1))

        def draw(begin: int, end: int) -> Tensor:
            found = []
            for number in range(begin, end):
                least, count = variants[number]
                asked = places - 1 - ranked if least else ranked
                gone = first_of(asked, count[None], inputs)[0]
                drawn = torch.randn(
                    inputs.shape[1:], generator=run.generator_of(number), device=inputs.device, dtype=inputs.dtype
                )
                found.append(torch.where(gone, imputed(inputs, gone) + spread * drawn, inputs))
            return torch.stack(found)

        scores = run.scores_of(len(variants), draw).double().view(len(turned), len(counts), len(inputs)).mean(1)
        return scores[1] - scores[0] if order == "difference" else scores[0]

    return score


def imputed(inputs: Tensor, gone: Tensor, tolerance: float = 1e-4, most: int = 500) -> Tensor:
    """Inputs (N, C, *spatial) whose places ``gone`` (N, 1, *spatial) are the weighted mean of their neighbours.

    The linear equations of all those places are solved together, by conjugate gradients from a coarse guess, until
    what is left of each channel of each input is ``tolerance`` of what was there, or ``most`` steps are done.
    """
    values = torch.where(gone, 0, inputs).float()
    inside = gone.float()
    degree = _around(torch.ones_like(inside[:1]))
    axes = tuple(range(2, inputs.ndim))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True)

    given = inside * _around(values)
    found = inside * _coarse(values, 1 - inside)
    rest = given - inside * (degree * found - _around(found))
    limit = tolerance**2 * dot(given, given)
    way = rest / degree
    length = dot(rest, way)
    for _ in range(most):
        going = dot(rest, rest) > limit
        if not bool(going.any()):
            break
        applied = inside * (degree * way - _around(way))
        curved = dot(way, applied)
        pace = torch.where(going & (curved > 0), length / curved, 0)  # what is solved stays, whoever is beside it
        found = found + pace * way
        rest = rest - pace * applied
        scaled = rest / degree
        before, length = length, dot(rest, scaled)
        way = scaled + torch.where(before > 0, length / before, 0) * way
    return torch.where(gone, found.to(inputs.dtype), inputs)


def _around(values: Tensor) -> Tensor:
    """For each place the sum over its neighbours, each step aside counting half: in images 1/2, and 1/4 at corners."""
    total = values
    for axis in range(2, values.ndim):
        lines, size = total.clone(), total.shape[axis] - 1
        lines.narrow(axis, 1, size).add_(total.narrow(axis, 0, size), alpha=0.5)
        lines.narrow(axis, 0, size).add_(total.narrow(axis, 1, size), alpha=0.5)
        total = lines
    return total - values


def _coarse(values: Tensor, known: Tensor) -> Tensor:
    """A guess for what is not known: the mean of what is known around it, at the finest of ever coarser sizes."""
    size = values.shape[2:]
    mean = values / known.where(known > 0, 1)
    if max(size) == 1 or bool((known > 0).all()):
        return mean
    stride = [2 if length > 1 else 1 for length in size]
    pool = POOLS[len(size) - 1]
    smaller = [pool(each, stride, stride, ceil_mode=True) for each in (values, known)]
    guess = F.interpolate(_coarse(*smaller), size=size, mode=MODES[len(size) - 1])
    return torch.where(known > 0, mean, guess)
