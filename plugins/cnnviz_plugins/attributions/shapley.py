"""Pieces of the input as players in a game for the score: Shapley values. Each input's pieces play by themselves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnnviz import Baseline, Expr, Run, attribution
from cnnviz_plugins.attributions._monte_carlo import at_places, estimate, subset_scores
from cnnviz_plugins.attributions._superpixels import cut


@attribution
def kernel_shap(
    samples: int = 1000, segments: str | Tensor = "auto", pieces: int = 50, baseline: Baseline = 0.0
) -> Expr:
    """Shapley values of pieces by a weighted regression (Lundberg & Lee, 2017, arXiv:1705.07874).

    All subsets are counted through where ``samples`` reach for them, and sizes of subsets where they reach for those;
    the rest are drawn with their complements (Covert & Lee, 2021, arXiv:2012.01536). Each piece's value sums with the
    others' to the score minus the baseline's, exactly. ``segments`` and ``pieces`` as for feature_ablation. Values
    (N, 1, *spatial), in units of the score; the note ``standard_error`` of the same shape is what drawing other subsets
    would change: zero where all were counted, infinite where too few were drawn to tell. Raises ValueError for fewer
    samples than twice the pieces.
    """

    def fitted(run: Run) -> Tensor:
        found = cut(run, segments, pieces)
        subsets = [_subsets(run, count, samples) for count in found.counts]
        longest = max(len(kept) for kept, _, _ in subsets)
        # two more for the baseline and the whole input; inputs with fewer subsets are asked about as they are
        kept = torch.ones(longest + 2, len(subsets), found.most, dtype=torch.bool, device=run.inputs.device)
        kept[0] = False
        for item, (rows, _, _) in enumerate(subsets):
            kept[2 : len(rows) + 2, item, : found.counts[item]] = rows
        scores = subset_scores(run, found, baseline, kept)
        answers = []
        for item, (rows, weights, pairs) in enumerate(subsets):
            nothing, everything = scores[0, item], scores[1, item]
            gains = scores[2 : len(rows) + 2, item] - nothing
            answers.append(_constrained(rows.double(), gains, weights, everything - nothing, pairs))
        return at_places(run, found, answers)

    return estimate(fitted)


def _subsets(run: Run, count: int, samples: int) -> tuple[Tensor, Tensor, int]:
    """Subsets (K, count) of the pieces, what each weighs (K,), and how many pairs of them, at the end, were drawn."""
    every = 2**count - 2
    if samples < min(2 * count, every):
        raise ValueError(
            f"{samples} samples can't tell {count} pieces apart; take {2 * count} or more, or fewer pieces"
        )
    rows = [torch.zeros(0, count, dtype=torch.bool, device=run.inputs.device)]
    weights: list[float] = []
    # for sizes from the ends, with their complements: what all subsets of the size weigh together
    sizes = {size: (2 - (2 * size == count)) / (size * (count - size)) for size in range(1, count // 2 + 1)}
    left = samples
    for size, weight in list(sizes.items()):
        number = math.comb(count, size) * (2 - (2 * size == count))
        if every > samples and left * weight / sum(sizes.values()) < number:
            break
        rows.append(_of_size(run, count, size))
        weights += [weight / number] * number
        del sizes[size]
        left -= number
    pairs = left // 2 if sizes else 0
    for pair in range(pairs):
        generator = run.generator_of(pair)
        shares = torch.tensor(list(sizes.values()), dtype=torch.float64, device=run.inputs.device)
        size = list(sizes)[int(torch.multinomial(shares, 1, generator=generator))]
        chosen = torch.randperm(count, generator=generator, device=shares.device)[:size]
        subset = rows[0].new_zeros(count).index_fill_(0, chosen, True)
        rows.append(torch.stack([subset, ~subset]))
    weights += [sum(sizes.values()) / (2 * pairs)] * (2 * pairs) if pairs else []
    return torch.cat(rows), torch.tensor(weights, dtype=torch.float64, device=run.inputs.device), pairs


def _of_size(run: Run, count: int, size: int) -> Tensor:
    """Every subset of so many pieces, and every complement."""
    members = torch.combinations(torch.arange(count, device=run.inputs.device), size)
    chosen = torch.zeros(len(members), count, dtype=torch.bool, device=members.device).scatter_(1, members, True)
    return chosen if 2 * size == count else torch.cat([chosen, ~chosen])


def _constrained(there: Tensor, gains: Tensor, weights: Tensor, total: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Coefficients of a weighted regression that sum to ``total``, and what drawing other pairs would change."""
    count = there.shape[1]
    system = torch.ones(count + 1, count + 1).to(there)  # with a multiplier for the sum
    system[count, count] = 0
    system[:count, :count] = there.T @ (weights[:, None] * there)
    inverse = torch.linalg.pinv(system, hermitian=True)
    found = inverse[:count, :count] @ (there.T @ (weights * gains)) + inverse[:count, count] * total
    found = found + (total - found.sum()) / count  # of rounding
    if not pairs:
        return found, torch.zeros_like(found)
    drawn, left = there[-2 * pairs :].view(pairs, 2, count), (gains - there @ found)[-2 * pairs :].view(pairs, 2)
    if int(torch.linalg.matrix_rank(system, hermitian=True)) <= count or _too_few(drawn, weights[-1], inverse):
        return found, torch.full_like(found, math.inf)
    # a pair draws the fit to itself, the more the fewer there are: what is left of it tells less than it was off by
    fitted, ways = torch.linalg.eigh(weights[-1] * drawn @ inverse[:count, :count] @ drawn.mT)
    left = ways @ ((ways.mT @ left[..., None]) * (1 - fitted).clamp(min=1e-6).rsqrt()[..., None])
    pulls = weights[-1] * (left * drawn).sum(1) @ inverse[:count, :count]
    return found, ((pulls - pulls.mean(0)).square().sum(0) * pairs / (pairs - 1)).sqrt()


def _too_few(drawn: Tensor, weight: Tensor, inverse: Tensor) -> bool:
    """Whether pairs (pairs, 2, count) can't contradict the fit: one of them is fitted alone, or less than two are free.

    The same pair drawn again, whichever half comes first, tells nothing new.
    """
    count = drawn.shape[2]
    first = torch.where(drawn[:, 0, :1] > 0, drawn[:, 0], drawn[:, 1])
    subsets, times = torch.unique(first, dim=0, return_counts=True)
    both = torch.stack([subsets, 1 - subsets], 1)
    fitted = torch.linalg.eigvalsh(times[:, None, None] * weight * both @ inverse[:count, :count] @ both.mT)[:, -1]
    return bool((fitted > 1 - 1e-6).any()) or float((1 - fitted).sum()) < 2


@attribution
def shapley_sampling(
    permutations: int = 25, segments: str | Tensor = "auto", pieces: int = 50, baseline: Baseline = 0.0
) -> Expr:
    """What each piece adds when pieces appear in random orders (Strumbelj & Kononenko, 2010; Castro et al., 2009).

    The mean over ``permutations`` estimates Shapley values; they sum to the score minus the baseline's. ``segments``
    and ``pieces`` as for feature_ablation. Values (N, 1, *spatial), in units of the score; the note ``standard_error``
    of the same shape is what drawing other orders would change. One forward pass for each piece and order.
    """
    if permutations < 2:
        raise ValueError(f"permutations={permutations} don't tell how much they differ; take 2 or more")

    def sampled(run: Run) -> Tensor:
        found = cut(run, segments, pieces)
        ranks = [_ranks(run, count, permutations) for count in found.counts]
        # how many pieces are there after each step; all orders share the baseline and the whole input
        kept = torch.ones(
            permutations, found.most + 1, len(ranks), found.most, dtype=torch.bool, device=ranks[0].device
        )
        for item, (count, rank) in enumerate(zip(found.counts, ranks, strict=True)):
            steps = torch.arange(count + 1, device=rank.device)
            kept[:, : count + 1, item, :count] = rank[:, None] < steps[:, None]
        between = kept[:, 1 : found.most].flatten(0, 1)
        scores = subset_scores(run, found, baseline, torch.cat([kept[0, :1], kept[0, -1:], between]))
        answers = []
        for item, (count, rank) in enumerate(zip(found.counts, ranks, strict=True)):
            path = scores[2:, item].view(permutations, found.most - 1)[:, : count - 1]
            ends = scores[:2, item].expand(permutations, 2)
            gains = torch.cat([ends[:, :1], path, ends[:, 1:]], 1).diff(dim=1).gather(1, rank)
            answers.append((gains.mean(0), gains.std(0) / math.sqrt(permutations)))
        return at_places(run, found, answers)

    return estimate(sampled)


def _ranks(run: Run, count: int, permutations: int) -> Tensor:
    """For each order the step at which each piece appears, (permutations, count)."""
    device = run.inputs.device
    drawn = [torch.randperm(count, generator=run.generator_of(each), device=device) for each in range(permutations)]
    return torch.stack(drawn)
