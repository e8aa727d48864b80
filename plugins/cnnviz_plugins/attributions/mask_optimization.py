"""The smallest part that a network needs, and the smallest that it can't do without: masks that are learned.

A mask has a value at each of a few nodes, spread evenly over the input, and is interpolated between them. Values are
(N, 1, *nodes), from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Baseline, Expr, Run, attribution, baseline_input, blurred, learned_mask, noted, procedure

NODES = (64, 32, 12)  # on the shorter side, of signals, images and volumes
REACH = 21 / 224  # of the shorter side: how far a node's mask reaches out
WIDEST, LEVELS = 20 / 224, 8  # blur, of the shorter side, and steps to it
TEMPERATURE = 1 / 20  # of the smooth maximum
AREA_COST = (10.0, 160.0)  # of the squared deviation from the area, at the first step and the last, in scores' spans
SPANNED, CELLS = 16, 5  # random masks that tell how far scores span, of so many cells along each side
COARSE = (56, 28, 14)  # nodes of a mask whose roughness costs something
MODES = ("linear", "bilinear", "trilinear")

Cover = Callable[[Tensor], Tensor]
"""From a mask (N, 1, *nodes) to the inputs as it leaves them."""


@attribution
def extremal_perturbation(
    area: float = 0.1, steps: int = 200, lr: float = 1.0, baseline: Baseline | None = None
) -> Expr:
    """The smooth mask of a given size that keeps the score highest (Fong et al., 2019, arXiv:1910.08485).

    ``area`` is the share of the input that is kept; the rest is blurred, or fades to ``baseline``. Momentum makes
    ``steps`` of ``lr``. The mask fades at its edge, and its mean ends some 10 to 30 % above ``area``. The note
    ``masked_score`` (N,) is the score of what is kept: where it is low, that much is not enough, or what is was not
    found: no mask is known to be the best. One forward and one backward pass for each step, and 18 forward passes.
    """
    if not 0 < area < 1:
        raise ValueError(f"area is {area}; a share of the input is within 0 and 1")

    def searched(run: Run) -> Tensor:
        nodes = _nodes(run, NODES)
        count, reach = math.prod(nodes), REACH * min(nodes)
        wanted = torch.arange(count, device=run.inputs.device) >= round((1 - area) * count)
        cover = _cover(run, baseline)

        def cost(mask: Tensor, step: int) -> Tensor:
            values = _smooth_maximum(mask, reach).flatten(1).sort(1).values
            goal = torch.stack([_shared(wanted.to(each), each) for each in values.detach()])
            low, high = AREA_COST
            price: float = low * (high / low) ** (step / max(1, steps))
            return price * (values - goal).square().mean(1)

        def momentum(parameters: list[Tensor]) -> torch.optim.Optimizer:
            rate = lr * count / 1024  # each node's share of the score shrinks as their number grows
            return torch.optim.SGD(parameters, rate, momentum=0.9, dampening=0.9)

        start = run.inputs.new_ones(len(run.inputs), 1, *nodes, dtype=_precise(run))
        # so that the scores' unit does not matter, also where the whole input scores as its baseline does
        span = _span(run, cover, nodes, area)
        worth = 1 / span.where(span > 0, 1)

        def shown(mask: Tensor, step: int) -> Tensor:
            return cover(_smooth_maximum(mask, reach))

        found = learned_mask(run, start, shown, cost, momentum, steps, worth)
        return _smooth_maximum(found, reach)

    return _with_score(procedure(searched), baseline)


@attribution
def meaningful_perturbation(
    steps: int = 300,
    lr: float = 0.1,
    baseline: Baseline = "blur",
    sparsity: float = 1e-4,
    smoothness: float = 1e-2,
    beta: float = 3.0,
) -> Expr:
    """The smallest part without which the class is not recognized (Fong & Vedaldi, 2017, arXiv:1704.03296).

    Values are 1 where the input is replaced by the baseline's. What is lowered is the class's probability, plus
    ``sparsity`` times what is replaced and ``smoothness`` times the mask's differences to the power ``beta``; Adam
    makes ``steps`` of ``lr`` while the input moves by a few pixels. It begins half covered, so much that the score is
    half lost. The note ``masked_score`` (N,) is the score of what is left. One forward and one backward pass for each
    step.
    """

    def searched(run: Run) -> Tensor:
        asked, nodes, cover = run.as_probability(), _nodes(run, COARSE), _cover(run, baseline)
        share = 28**2 / math.prod(nodes)

        def shown(mask: Tensor, step: int) -> Tensor:
            return _moved(run, cover(mask), step)

        def cost(mask: Tensor, step: int) -> Tensor:
            flat = (1 - mask).flatten(1).sum(1)
            rough = [mask.diff(dim=dim).abs().pow(beta).flatten(1).sum(1) for dim in range(2, mask.ndim)]
            return share * (sparsity * flat + smoothness * torch.stack(rough).sum(0))

        start = _half_covered(asked, cover, nodes)
        adam = lambda parameters: torch.optim.Adam(parameters, lr)  # noqa: E731
        return 1 - learned_mask(asked, start, shown, cost, adam, steps, worth=-1)

    return _with_score(procedure(searched), baseline, removed=True)


def _with_score(mask: Expr, baseline: Baseline | None, removed: bool = False) -> Expr:
    def masked(run: Run) -> Tensor:
        found = mask(run)
        return run.scores(_cover(run, baseline)(1 - found if removed else found).to(run.inputs.dtype))

    return noted(mask, "masked_score", procedure(masked, (mask,)))


def _nodes(run: Run, finest: Sequence[int]) -> list[int]:
    size = run.inputs.shape[2:]
    if not size:
        raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: there is nothing to mask")
    step = max(1.0, min(size) / finest[len(size) - 1])
    return [max(1, round(side / step)) for side in size]


def _precise(run: Run) -> torch.dtype:
    return torch.promote_types(run.inputs.dtype, torch.float32)


def _cover(run: Run, baseline: Baseline | None) -> Cover:
    """Where a mask is 1 the input is whole, where it is 0 the baseline's, or blurred; between, it is between."""
    inputs = run.inputs.to(_precise(run)).clone()  # a graph can't keep what was made in inference mode
    widest = WIDEST * min(inputs.shape[2:])
    if baseline is None:
        levels = [blurred(inputs, widest * (1 - level / (LEVELS - 1))) for level in range(LEVELS - 1)]
    else:
        levels = [baseline_input(baseline)(run).to(inputs).clone()]
    levels.append(inputs)

    def cover(mask: Tensor) -> Tensor:
        size = inputs.shape[2:]
        place = F.interpolate(mask, size, mode=MODES[len(size) - 1], align_corners=False) * (len(levels) - 1)
        shares = [(1 - (place - number).abs()).clamp(min=0) for number in range(len(levels))]
        return torch.stack([share * level for share, level in zip(shares, levels, strict=True)]).sum(0)

    return cover


def _smooth_maximum(mask: Tensor, reach: float) -> Tensor:
    """The mask where every node reaches out to its neighbours, full within half of ``reach`` nodes, then less."""
    radius, rank = 1 + math.ceil(reach), mask.ndim - 2
    windows = F.pad(mask, (radius, radius) * rank)
    for dim in range(2, mask.ndim):
        windows = windows.unfold(dim, 2 * radius + 1, 1)  # puts what a node sees along this dimension behind
    offsets = product(range(-radius, radius + 1), repeat=rank)
    weights = [math.exp(-2 * max(0.0, math.hypot(*offset) / reach - 0.5) ** 2) for offset in offsets]
    seen: Tensor = windows.flatten(-rank) * windows.new_tensor(weights)
    return (seen * (seen / TEMPERATURE).softmax(-1)).sum(-1)


def _shared(goal: Tensor, values: Tensor) -> Tensor:
    """Each sorted value's goal, where equal values share theirs: else their order would decide which are kept."""
    group = F.pad(values.diff() != 0, (1, 0)).cumsum(0)
    sums, sizes = goal.new_zeros(2, len(goal))
    sums.scatter_add_(0, group, goal)
    sizes.scatter_add_(0, group, torch.ones_like(goal))
    shared: Tensor = sums / sizes.clamp(min=1)
    return shared[group]


def _moved(run: Run, inputs: Tensor, step: int) -> Tensor:
    """The inputs some pixels further, other ones at each step: four of 224."""
    far = [round(side / 56) for side in inputs.shape[2:]]
    generator = run.generator_of(step)
    draw = torch.rand(len(far), generator=generator, device=inputs.device).tolist()
    moves = [int((2 * each + 1) * share) - each for each, share in zip(far, draw, strict=True)]
    return inputs.roll(moves, tuple(range(2, inputs.ndim)))


def _span(run: Run, cover: Cover, nodes: Sequence[int], area: float) -> Tensor:
    """How far the scores of the input and of its baseline lie apart, (N,), or half as far as those of random parts."""

    def draw(start: int, stop: int) -> Tensor:
        found = []
        for number in range(start, stop):
            shape = (1, 1, *[min(CELLS, each) for each in nodes])
            cells = torch.rand(shape, generator=run.generator_of(number), device=run.inputs.device)
            field = F.interpolate(cells, nodes, mode=MODES[len(nodes) - 1], align_corners=False)
            part = (field >= field.flatten().quantile(1 - area)) if number > 1 else torch.full_like(field, number)
            found.append(cover(part.to(_precise(run)).expand(len(run.inputs), 1, *nodes)).to(run.inputs.dtype))
        return torch.stack(found)

    scores = run.scores_of(2 + SPANNED, draw)
    return torch.maximum((scores[1] - scores[0]).abs(), (scores.amax(0) - scores.amin(0)) / 2)


def _half_covered(run: Run, cover: Cover, nodes: Sequence[int]) -> Tensor:
    """An even mask for each input, where its score is nearest to half way down: there it can be felt."""
    levels = torch.linspace(0, 1, 11, device=run.inputs.device, dtype=_precise(run))
    masks = levels.view(-1, 1, *(1,) * (len(nodes) + 1)).expand(-1, len(run.inputs), 1, *nodes)
    scores = run.scores_of(len(levels), lambda a, b: torch.stack([cover(each) for each in masks[a:b]]).to(run.inputs))
    half = (scores - (scores[:1] + scores[-1:]) / 2).abs().argmin(0)
    return masks[half, torch.arange(len(run.inputs), device=half.device)]
