"""Masks found by optimization: the smallest part of an input that keeps the score, or whose removal destroys it.

A mask has a value at each of a few nodes, spread evenly over the input, and is interpolated between them. Values are
(N, 1, *nodes), from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Expr, Run, attribution, gradient, noted, procedure
from cnnviz.formulas import Baseline, baseline_input, learned_mask, uploaded
from cnnviz.images import blurred, resize

FINE_NODES = (64, 32, 12)  # on the shorter side, of signals, images and volumes
COARSE_NODES = (56, 28, 14)  # of a mask whose roughness has a cost
REACH = 21 / 224  # radius of a node's smooth maximum, of the shorter side
WIDEST_BLUR, BLUR_LEVELS = 20 / 224, 8  # of the shorter side
TEMPERATURE = 1 / 20  # of the smooth maximum
AREA_COST = (10.0, 160.0)  # of the squared deviation from the area at the first and the last step, in score spans
SPAN_MASKS, SPAN_CELLS = 16, 5  # random masks that measure the span of scores, of so many cells along each side

MaskedInputs = Callable[[Tensor], Tensor]
"""From a mask (N, 1, *nodes) to the inputs (N, C, *spatial) that it leaves."""


@attribution
def extremal_perturbation(
    area: float = 0.1, steps: int = 200, lr: float = 1.0, baseline: Baseline | None = None
) -> Expr:
    """Smooth mask of a given area that keeps the score highest (Fong et al., 2019, arXiv:1910.08485).

    Values (N, 1, *nodes), 0 to 1, with at most 64, 32 or 12 nodes on the shorter side of signals, images and volumes: 1
    where the input is kept. ``area`` is the kept share; the rest is blurred, or fades to ``baseline``. SGD with
    momentum makes ``steps`` of learning rate ``lr``. The mask fades at its edge, and its mean ends some 10 to 30 %
    above ``area``. The note ``masked_score`` (N,) is the score of the masked input: if it is low, either the area is
    too small or the optimum was not found. One forward and one backward pass for each step, and 18 forward passes.
    Raises ValueError for an ``area`` that is not between 0 and 1, negative ``steps``, and inputs without spatial
    extent.
    """
    if not 0 < area < 1:
        raise ValueError(f"area is {area}; a share of the input is within 0 and 1")

    def optimized(run: Run) -> Tensor:
        nodes = _nodes(run, FINE_NODES)
        count, reach = math.prod(nodes), REACH * min(nodes)
        target = torch.arange(count, device=run.inputs.device) >= round((1 - area) * count)
        masked = _masking(run, baseline)

        def masked_input(mask: Tensor, step: int) -> Tensor:
            return masked(_smooth_maximum(mask, reach))

        def cost(mask: Tensor, step: int) -> Tensor:
            values = _smooth_maximum(mask, reach).flatten(1).sort(1).values
            targets = torch.stack([_tied_targets(target.to(item), item) for item in values.detach()])
            low, high = AREA_COST
            weight: float = low * (high / low) ** (step / max(1, steps))
            return weight * (values - targets).square().mean(1)

        start = run.inputs.new_ones(len(run.inputs), 1, *nodes, dtype=_precise(run))
        # makes the unit of the score irrelevant, also if the input scores as its baseline does
        span = _score_span(run, masked, nodes, area)
        worth = 1 / span.where(span > 0, 1)
        rate = lr * count / 1024  # each node's share of the score shrinks as their number grows
        momentum = partial(torch.optim.SGD, lr=rate, momentum=0.9, dampening=0.9)
        return _smooth_maximum(learned_mask(run, start, masked_input, cost, momentum, steps, worth), reach)

    mask = procedure(optimized, elsewhere=(gradient(),), variants=True)
    return _with_masked_score(mask, mask, baseline)


@attribution
def meaningful_perturbation(
    steps: int = 300,
    lr: float = 0.1,
    baseline: Baseline = "blur",
    sparsity: float = 1e-4,
    smoothness: float = 1e-2,
    beta: float = 3.0,
) -> Expr:
    """Smallest mask whose removal destroys the class's probability (Fong & Vedaldi, 2017, arXiv:1704.03296).

    Values (N, 1, *nodes), 0 to 1, with at most 56, 28 or 14 nodes on the shorter side of signals, images and volumes: 1
    where the input is replaced by the ``baseline``. The loss is the class's probability, plus ``sparsity`` times the
    replaced part and ``smoothness`` times the mask's differences to the power ``beta``. Adam makes ``steps`` of
    learning rate ``lr`` while the input is shifted by a few pixels; the initial mask is even and halves the score. The
    note ``masked_score`` (N,) is the score of the masked input. One forward and one backward pass for each step. Raises
    ValueError for negative ``steps``, an unknown ``baseline``, and inputs without spatial extent.
    """

    def optimized(run: Run) -> Tensor:
        question, nodes, masked = run.as_probability(), _nodes(run, COARSE_NODES), _masking(run, baseline)
        share = 28**2 / math.prod(nodes)

        def masked_input(mask: Tensor, step: int) -> Tensor:
            return _shifted(run, masked(mask), step)

        def cost(mask: Tensor, step: int) -> Tensor:
            removed = (1 - mask).flatten(1).sum(1)
            rough = [mask.diff(dim=dim).abs().pow(beta).flatten(1).sum(1) for dim in range(2, mask.ndim)]
            return share * (sparsity * removed + smoothness * torch.stack(rough).sum(0))

        start = _half_score_mask(question, masked, nodes)
        return 1 - learned_mask(question, start, masked_input, cost, partial(torch.optim.Adam, lr=lr), steps, worth=-1)

    removed = procedure(optimized, elsewhere=(gradient(),), variants=True)
    return _with_masked_score(removed, 1 - removed, baseline)


def _with_masked_score(values: Expr, mask: Expr, baseline: Baseline | None) -> Expr:
    def masked_score(run: Run) -> Tensor:
        values = mask(run)  # before the rest, which needs inputs with spatial extent
        return run.scores(_masking(run, baseline)(values).to(run.inputs.dtype))

    return noted(values, "masked_score", procedure(masked_score, (mask,)))


def _nodes(run: Run, finest: Sequence[int]) -> list[int]:
    size = run.model_inputs.size
    if not size:
        raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: there is nothing to mask")
    step = max(1.0, min(size) / finest[len(size) - 1])
    return [max(1, round(side / step)) for side in size]


def _precise(run: Run) -> torch.dtype:
    return torch.promote_types(run.inputs.dtype, torch.float32)


def _masking(run: Run, baseline: Baseline | None) -> MaskedInputs:
    """The function that keeps inputs where a mask is 1 and replaces them where it is 0, by a blur or the baseline."""
    inputs = run.inputs.to(_precise(run)).clone()  # a graph can't hold tensors made in inference mode
    if baseline is None:
        widest = WIDEST_BLUR * min(inputs.shape[2:])
        levels = [blurred(inputs, widest * (1 - level / (BLUR_LEVELS - 1))) for level in range(BLUR_LEVELS - 1)]
    else:
        levels = [baseline_input(baseline)(run).to(inputs).clone()]
    levels.append(inputs)

    def masked(mask: Tensor) -> Tensor:
        place = resize(mask, inputs.shape[2:]) * (len(levels) - 1)
        shares = [(1 - (place - number).abs()).clamp(min=0) for number in range(len(levels))]
        return torch.stack([share * level for share, level in zip(shares, levels, strict=True)]).sum(0)

    return masked


def _smooth_maximum(mask: Tensor, reach: float) -> Tensor:
    """Smooth maximum over each node's neighbours: of full weight within half of ``reach`` nodes, of less beyond."""
    radius, rank = 1 + math.ceil(reach), mask.ndim - 2
    windows = F.pad(mask, (radius, radius) * rank)
    for dim in range(2, mask.ndim):
        windows = windows.unfold(dim, 2 * radius + 1, 1)  # appends the neighbours along this dimension
    offsets = product(range(-radius, radius + 1), repeat=rank)
    weights = [math.exp(-2 * max(0.0, math.hypot(*offset) / reach - 0.5) ** 2) for offset in offsets]
    shares = uploaded(torch.tensor(weights, dtype=windows.dtype, device="cpu"), windows.device)
    weighted = windows.flatten(-rank) * shares
    return (weighted * (weighted / TEMPERATURE).softmax(-1)).sum(-1)


def _tied_targets(target: Tensor, values: Tensor) -> Tensor:
    """Targets of sorted values (K,), averaged over equal values: their order must not decide which of them are kept."""
    group = F.pad(values.diff() != 0, (1, 0)).cumsum(0)
    return torch.zeros_like(target).scatter_reduce(0, group, target, "mean", include_self=False)[group]


def _shifted(run: Run, inputs: Tensor, step: int) -> Tensor:
    """The inputs, shifted by up to 1/56 of each side (four pixels of 224), differently at each step."""
    limits = [round(side / 56) for side in inputs.shape[2:]]
    drawn = run.draws(step).floats(len(limits))
    shifts = [int((2 * limit + 1) * share) - limit for limit, share in zip(limits, drawn, strict=True)]
    return inputs.roll(shifts, tuple(range(2, inputs.ndim)))


def _score_span(run: Run, masked: MaskedInputs, nodes: Sequence[int], area: float) -> Tensor:
    """Score difference of input and baseline, or half the span of scores under random masks if larger, (N,)."""

    def draw(start: int, stop: int) -> Tensor:
        variants, numbers = [], range(start, stop)
        drawn = run.draws(numbers).uniform((1, 1, *[min(SPAN_CELLS, side) for side in nodes]))
        for number, cells in zip(numbers, drawn, strict=True):
            field = resize(cells, nodes)
            # the first two are the baseline and the whole input
            mask = (field >= field.flatten().quantile(1 - area)) if number > 1 else torch.full_like(field, number)
            variants.append(masked(mask.to(_precise(run)).expand(len(run.inputs), 1, *nodes)).to(run.inputs.dtype))
        return torch.stack(variants)

    scores = run.scores_of(2 + SPAN_MASKS, draw)
    return torch.maximum((scores[1] - scores[0]).abs(), (scores.amax(0) - scores.amin(0)) / 2)


def _half_score_mask(run: Run, masked: MaskedInputs, nodes: Sequence[int]) -> Tensor:
    """An even mask for each input under which its score is nearest to half way down, where its gradient is not flat."""
    levels = torch.linspace(0, 1, 11, device=run.inputs.device, dtype=_precise(run))
    masks = levels.view(-1, 1, *(1,) * (len(nodes) + 1)).expand(-1, len(run.inputs), 1, *nodes)
    draw = lambda start, stop: torch.stack([masked(mask) for mask in masks[start:stop]]).to(run.inputs)  # noqa: E731
    scores = run.scores_of(len(levels), draw)
    half = (scores - (scores[:1] + scores[-1:]) / 2).abs().argmin(0)
    return masks[half, torch.arange(len(run.inputs), device=half.device)]
