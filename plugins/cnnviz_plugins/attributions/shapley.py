"""Shapley values of the segments of an input, in a game whose payoff is the score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnnviz import Expr, Run, attribution
from cnnviz.formulas import Baseline, uploaded
from cnnviz_plugins.attributions._monte_carlo import estimate, spread_estimates, subset_scores
from cnnviz_plugins.attributions._superpixels import AnySegments, segmented


@attribution
def kernel_shap(
    samples: int = 1000, segments: AnySegments = "auto", pieces: int = 50, baseline: Baseline = 0.0
) -> Expr:
    """Shapley values of segments by a weighted linear regression (Lundberg & Lee, 2017, arXiv:1705.07874).

    Values (N, 1, *spatial), in units of the score; those of an input's segments sum exactly to the score minus the
    baseline's score. The note ``standard_error`` of the same shape is their standard deviation over other random
    subsets: zero if all were enumerated, infinite if too few were drawn to tell. All subsets are enumerated if
    ``samples`` suffice, otherwise all of the sizes for which they do; the others are drawn in pairs with their
    complements (Covert & Lee, 2021, arXiv:2012.01536). ``segments`` and ``pieces`` are as for ``feature_ablation``;
    ``baseline`` None replaces a segment by its own mean. One forward pass for each sample. Raises ValueError for fewer
    samples than twice the segments, and for segments that do not fit the input.
    """

    def fitted(run: Run) -> Tensor:
        segmentation = segmented(run, segments, pieces)
        subsets = [_subsets(run, count, samples) for count in segmentation.counts]
        longest = max(len(rows) for rows, _, _ in subsets)
        # the first two are the baseline and the whole input; inputs with fewer subsets are scored whole at the end
        shape = longest + 2, len(subsets), segmentation.max_count
        present = torch.ones(shape, dtype=torch.bool, device=run.inputs.device)
        present[0] = False
        for item, (rows, _, _) in enumerate(subsets):
            present[2 : len(rows) + 2, item, : rows.shape[1]] = rows
        scores = subset_scores(run, segmentation, baseline, present)
        estimates = []
        for item, (rows, weights, pairs) in enumerate(subsets):
            gains = scores[1:, item] - scores[0, item]
            estimates.append(_constrained(rows.double(), gains[1 : len(rows) + 1], weights, gains[0], pairs))
        return spread_estimates(run, segmentation, estimates)

    return estimate(fitted)


def _subsets(run: Run, count: int, samples: int) -> tuple[Tensor, Tensor, int]:
    """Subsets (K, count) bool of the segments, their weights (K,), and the number of drawn pairs, which come last."""
    total = 2**count - 2
    if samples < min(2 * count, total):
        raise ValueError(
            f"{samples} samples can't tell {count} pieces apart; take {2 * count} or more, or fewer pieces"
        )
    rows = [torch.zeros(0, count, dtype=torch.bool, device=run.inputs.device)]
    weights: list[float] = []
    # Shapley kernel: the weight of all subsets of a size and their complements, sizes from the ends inwards
    sizes = {size: (2 - (2 * size == count)) / (size * (count - size)) for size in range(1, count // 2 + 1)}
    left = samples
    for size, weight in list(sizes.items()):
        number = math.comb(count, size) * (2 - (2 * size == count))
        if total > samples and left * weight / sum(sizes.values()) < number:
            break
        rows.append(_of_size(run, count, size))
        weights += [weight / number] * number
        del sizes[size]
        left -= number
    pairs = left // 2 if sizes else 0
    if pairs:
        draws = run.draws(range(pairs))
        chosen = min(sizes) + draws.choice(list(sizes.values()))  # what is left are all sizes from the least on
        subset = draws.permutation(count) < chosen[:, None]
        rows.append(torch.stack([subset, ~subset], 1).flatten(0, 1))
    weights += [sum(sizes.values()) / (2 * pairs)] * (2 * pairs) if pairs else []
    on_host = torch.tensor(weights, dtype=torch.float64, device="cpu")
    return torch.cat(rows), uploaded(on_host, run.inputs.device), pairs


def _of_size(run: Run, count: int, size: int) -> Tensor:
    """All subsets of a size, and their complements, (K, count) bool."""
    members = torch.combinations(torch.arange(count, device="cpu"), size)
    on_host = torch.zeros(len(members), count, dtype=torch.bool, device="cpu").scatter_(1, members, True)
    subsets = uploaded(on_host, run.inputs.device)
    return subsets if 2 * size == count else torch.cat([subsets, ~subsets])


def _constrained(features: Tensor, gains: Tensor, weights: Tensor, total: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Coefficients of a weighted regression that sum to ``total``, and their standard errors over drawn pairs."""
    count = features.shape[1]
    system = features.new_ones(count + 1, count + 1)  # with a Lagrange multiplier for the sum
    system[count, count] = 0
    system[:count, :count] = features.T @ (weights[:, None] * features)
    inverse = torch.linalg.pinv(system, hermitian=True)
    values = inverse[:count, :count] @ (features.T @ (weights * gains)) + inverse[:count, count] * total
    values = values + (total - values.sum()) / count  # a sum that is exact in spite of rounding
    if not pairs:
        return values, torch.zeros_like(values)
    drawn = features[-2 * pairs :].view(pairs, 2, count)
    residuals = (gains - features @ values)[-2 * pairs :].view(pairs, 2, 1)
    if int(torch.linalg.matrix_rank(system, hermitian=True)) <= count or _too_few(drawn, weights[-1], inverse):
        return values, torch.full_like(values, math.inf)
    # a pair pulls the fit to itself, the more the fewer there are, so that residuals are smaller than the errors
    leverage, axes = torch.linalg.eigh(weights[-1] * drawn @ inverse[:count, :count] @ drawn.mT)
    residuals = axes @ ((axes.mT @ residuals) * (1 - leverage).clamp(min=1e-6).rsqrt()[..., None])
    influence = weights[-1] * (residuals * drawn).sum(1) @ inverse[:count, :count]
    return values, ((influence - influence.mean(0)).square().sum(0) * pairs / (pairs - 1)).sqrt()


def _too_few(drawn: Tensor, weight: Tensor, inverse: Tensor) -> bool:
    """True if pairs (pairs, 2, count) can't contradict the fit: it reproduces one exactly, or fewer than 2 are free.

    A pair that is drawn again, whichever half comes first, adds no information.
    """
    count = drawn.shape[2]
    first = torch.where(drawn[:, 0, :1] > 0, drawn[:, 0], drawn[:, 1])
    subsets, times = torch.unique(first, dim=0, return_counts=True)
    both = torch.stack([subsets, 1 - subsets], 1)
    leverage = torch.linalg.eigvalsh(times[:, None, None] * weight * both @ inverse[:count, :count] @ both.mT)[:, -1]
    return bool((leverage > 1 - 1e-6).any()) or float((1 - leverage).sum()) < 2


@attribution
def shapley_sampling(
    permutations: int = 25, segments: AnySegments = "auto", pieces: int = 50, baseline: Baseline = 0.0
) -> Expr:
    """Mean gain of each segment in random orders of segments (Castro et al., 2009, doi:10.1016/j.cor.2008.04.004).

    As explanation of a prediction by Strumbelj & Kononenko (2010). Values (N, 1, *spatial), in units of the score,
    estimate Shapley values; those of an input's segments sum to the score minus the baseline's score. The note
    ``standard_error`` of the same shape is their standard error over the ``permutations``. ``segments`` and ``pieces``
    are as for ``feature_ablation``; ``baseline`` None replaces a segment by its own mean. One forward pass for each
    segment and permutation. Raises ValueError for fewer than 2 permutations, and for segments that do not fit the
    input.
    """
    if permutations < 2:
        raise ValueError(f"permutations={permutations} don't tell how much they differ; take 2 or more")

    def sampled(run: Run) -> Tensor:
        segmentation = segmented(run, segments, pieces)
        most, device = segmentation.max_count, run.inputs.device
        ranks = [_ranks(run, count, permutations) for count in segmentation.counts]
        # present after each number of steps; all orders share the baseline and the whole input
        shape = permutations, most + 1, len(ranks), most
        present = torch.ones(shape, dtype=torch.bool, device=device)
        for item, rank in enumerate(ranks):
            count = rank.shape[1]
            steps = torch.arange(count + 1, device=device)
            present[:, : count + 1, item, :count] = rank[:, None] < steps[:, None]
        between = present[:, 1:most].flatten(0, 1)
        subsets = torch.cat([present[0, :1], present[0, -1:], between])
        scores = subset_scores(run, segmentation, baseline, subsets)
        estimates = []
        for item, rank in enumerate(ranks):
            path = scores[2:, item].view(permutations, most - 1)[:, : rank.shape[1] - 1]
            ends = scores[:2, item].expand(permutations, 2)
            gains = torch.cat([ends[:, :1], path, ends[:, 1:]], 1).diff(dim=1).gather(1, rank)
            estimates.append((gains.mean(0), gains.std(0) / math.sqrt(permutations)))
        return spread_estimates(run, segmentation, estimates)

    return estimate(sampled)


def _ranks(run: Run, count: int, permutations: int) -> Tensor:
    """For each order the step at which each segment appears, (permutations, count)."""
    return run.draws(range(permutations)).permutation(count)
