"""RISE and D-RISE: random masks, weighted by the score of the masked input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, Run, attribution
from cnnviz.formulas import Baseline, baseline_input
from cnnviz.images import resize
from cnnviz.targets import matching
from cnnviz_plugins.attributions._monte_carlo import estimate

CHUNK_PLACES = 2**22  # places of the masks that are summed at once


@dataclass(frozen=True)
class Masks:
    """Coarse random grids, interpolated smoothly and shifted. Each mask is drawn by its number alone."""

    cells: int
    p: float

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Masks ``start`` to ``stop``, (stop - start, 1, 1, *spatial), from 0 to 1, each for the whole batch.

        For inputs (N, F) they are (stop - start, 1, F).
        """
        numbers, size = range(start, stop), _places(run)
        grids = run.draws(numbers).uniform((self.cells,) * len(size)) < self.p
        shifts = [run.draws(number, 1).floats(len(size)) for number in numbers]
        masks = torch.stack([self._mask(*drawn, size) for drawn in zip(grids.float(), shifts, strict=True)])
        return masks.view(len(masks), *(1,) * (run.inputs.ndim - len(size)), *size)

    def _mask(self, grid: Tensor, shifts: Sequence[float], size: Sequence[int]) -> Tensor:
        # interpolated by itself: beside other masks, it would differ by rounding
        lengths = [math.ceil(side / self.cells) for side in size]
        larger = [(self.cells + 1) * length for length in lengths]
        mask = resize(grid[None, None], larger)
        begins = [int(shift * length) for shift, length in zip(shifts, lengths, strict=True)]
        window = [slice(begin, begin + side) for begin, side in zip(begins, size, strict=True)]
        return mask[0, 0][tuple(window)]


def _places(run: Run) -> Sequence[int]:
    """The sizes of what is masked: all spatial dimensions, or the features of (N, F)."""
    return run.model_inputs.size or run.inputs.shape[1:]


@attribution
def rise(
    masks: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    baseline: Baseline = 0.0,
    score: Literal["probability", "logit"] = "probability",
) -> Expr:
    """Mean of random masks, weighted by the score of the masked input (Petsiuk et al., 2018, arXiv:1806.07421).

    Values (N, 1, *spatial) estimate by how much the expected score is higher if a place is kept: the paper's map minus
    its expectation, so that 0 is a place without influence. The note ``standard_error`` (N, 1, *spatial) is their
    standard error. Each mask keeps one of ``cells`` x ``cells`` grid cells with probability ``p``, interpolated
    smoothly and shifted; features of inputs (N, F) are masked like the places of a signal, and values are (N, F).
    Masked places become the ``baseline``'s. ``score`` is the class's "probability", as in the
    paper, or its "logit", the score as it is; values are in its units. One forward pass for each mask. Raises
    ValueError for fewer than 2 masks or 1 cell, ``p`` outside of 0..1, and an unknown ``score``.
    """
    if masks < 2 or cells < 1 or not 0 < p < 1:
        raise ValueError(
            f"masks={masks}, cells={cells}, p={p} can't be; say 2 masks, 1 cell or more, and p within 0..1"
        )
    if score not in ("probability", "logit"):
        raise ValueError(f"there is no score {score!r}; it is 'probability' or 'logit'")
    random_masks, start = Masks(cells, p), baseline_input(baseline)

    def estimated(run: Run) -> Tensor:
        _places(run)
        question, replacement = run.as_probability() if score == "probability" else run, start(run)
        scores = question.scores_of(masks, partial(_masked, run, random_masks, replacement))
        return _weighted(run, random_masks, scores.double())

    return estimate(estimated)


@attribution(renderer="boxes")
def d_rise(masks: int = 5000, cells: int = 16, p: float = 0.5, baseline: Baseline = 0.0) -> Expr:
    """RISE of a detection: masks weighted by how well the box is found again (Petsiuk et al., 2021, arXiv:2006.03204).

    Values (N, 1, *spatial) are as those of ``rise``, with the note ``standard_error``, and masks of ``cells`` x
    ``cells``; the score is the ``match`` of a box as target: the largest product of overlap, cosine of the class
    probabilities and objectness of all boxes of the masked input. Other targets are weighted by their score as it is.
    One forward pass for each mask; ``several(box(0), box(1))`` share them. Raises ValueError for fewer than 2 masks or
    1 cell, ``p`` outside of 0..1, and inputs without spatial extent.
    """
    if masks < 2 or cells < 1 or not 0 < p < 1:
        raise ValueError(
            f"masks={masks}, cells={cells}, p={p} can't be; say 2 masks, 1 cell or more, and p within 0..1"
        )
    random_masks, start = Masks(cells, p), baseline_input(baseline)
    key = object()  # of this method's scores, among what runs keep

    def estimated(run: Run) -> Tensor:
        _places(run)
        if key not in run.answers:
            draw = partial(_masked, run, random_masks, start(run))
            asked = run.together or (run,)
            for each, scores in zip(asked, _match_scores(asked, masks, draw), strict=True):
                each.answers[key] = scores.double()
        return _weighted(run, random_masks, run.answers[key])

    return estimate(estimated)


def _masked(run: Run, masks: Masks, replacement: Tensor, begin: int, end: int) -> Tensor:
    return replacement + masks.draw(run, begin, end).to(run.inputs.dtype) * (run.inputs - replacement)


def _match_scores(runs: Sequence[Run], count: int, draw: Callable[[int, int], Tensor]) -> list[Tensor]:
    """The scores of masked inputs for the target of each run, (count, N) each; several are read from the same pass."""
    matches = [matching(run.question.target) for run in runs]
    if len(runs) == 1 or None in matches:
        asked = zip(runs, matches, strict=True)
        return [(run if box is None else run.toward(box)).scores_of(count, draw) for run, box in asked]
    first, items = runs[0], len(runs[0].inputs)
    rows: list[Tensor] = []

    def step(begin: int, end: int) -> None:
        passed = first.in_chunk(draw(begin, end))
        rows.append(torch.stack([passed.toward(box).score.view(end - begin, items) for box in matches]))

    first.in_chunks(count, step)
    return list(torch.cat(rows, 1).unbind())


def _weighted(run: Run, masks: Masks, scores: Tensor) -> Tensor:
    """The masks' mean deviation, weighted by scores (K, N), and its standard error: (2, N, 1, *spatial)."""
    count = len(scores)
    size = _places(run)
    sums = scores.new_zeros(2, len(run.inputs), math.prod(size))
    at_once = max(1, CHUNK_PLACES // sums.shape[2])
    for begin in range(0, count, at_once):
        end = min(begin + at_once, count)
        # in float64: products of matrices round by the number of inputs beside each other
        deviations = masks.draw(run, begin, end).flatten(1).double() / masks.p - 1
        weights = scores[begin:end].T
        sums += torch.stack([weights @ deviations, weights**2 @ deviations**2])
    mean, square = sums / count
    error = ((square - mean**2).clamp(min=0) / (count - 1)).sqrt()
    values = torch.stack([mean, error]).view(2, len(run.inputs), *(1,) * (run.inputs.ndim - 1 - len(size)), *size)
    return values.to(torch.promote_types(run.inputs.dtype, torch.float32))
