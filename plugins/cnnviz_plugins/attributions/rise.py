"""Random masks, weighed by how well the input is recognized through them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Baseline, Expr, Run, attribution, baseline_input
from cnnviz_plugins.attributions._monte_carlo import estimate

GATHERED = 2**22  # places of masks that are weighed at once


@dataclass(frozen=True)
class Masks:
    """Coarse random grids, enlarged smoothly and moved; each mask is the same however they are chunked."""

    cells: int
    p: float

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Masks ``start`` to ``stop``, (stop - start, 1, 1, *spatial), from 0 to 1, each for the whole batch."""
        size, device = run.inputs.shape[2:], run.inputs.device
        lengths = [math.ceil(side / self.cells) for side in size]
        grids, moves = [], []
        for number in range(start, stop):
            generator = run.generator_of(number)
            grids.append(torch.rand((self.cells,) * len(size), generator=generator, device=device) < self.p)
            share = torch.rand(len(size), generator=generator, device=device).tolist()
            moves.append([int(each * length) for each, length in zip(share, lengths, strict=True)])
        larger = [(self.cells + 1) * length for length in lengths]
        mode = ("linear", "bilinear", "trilinear")[len(size) - 1]
        masks = F.interpolate(torch.stack(grids)[:, None].float(), larger, mode=mode, align_corners=False)
        windows = ([slice(move, move + side) for move, side in zip(each, size, strict=True)] for each in moves)
        return torch.stack([mask[(..., *window)] for mask, window in zip(masks, windows, strict=True)])[:, None]

    def chunks(self, run: Run, count: int) -> Iterator[tuple[slice, Tensor]]:
        """All of them, so many at once that memory does not grow with their number."""
        at_once = max(1, GATHERED // run.inputs[0, 0].numel())
        for start in range(0, count, at_once):
            part = slice(start, min(start + at_once, count))
            yield part, self.draw(run, part.start, part.stop)


@attribution
def rise(
    masks: int = 4000,
    cells: int = 7,
    p: float = 0.5,
    baseline: Baseline = 0.0,
    score: Literal["probability", "logit"] = "probability",
) -> Expr:
    """The mean of random masks, weighed by the score of what they leave (Petsiuk et al., 2018, arXiv:1806.07421).

    Each mask keeps one of ``cells`` x ``cells`` grid cells with probability ``p``, smoothly enlarged and moved; what it
    hides is the baseline's. ``score``: the class's probability, as in the paper, or the score as it is. Values
    (N, 1, *spatial) estimate by how much the expected score is higher where a place is kept, so that 0 is a place that
    does not matter: the paper's map less its expectation. The note ``standard_error`` (N, 1, *spatial) tells how far
    off they are. One forward pass for each mask.
    """
    if masks < 2 or cells < 1 or not 0 < p < 1:
        raise ValueError(
            f"masks={masks}, cells={cells}, p={p} can't be; say 2 masks, 1 cell or more, and p within 0..1"
        )
    if score not in ("probability", "logit"):
        raise ValueError(f"there is no score {score!r}; it is 'probability' or 'logit'")
    drawn, start = Masks(cells, p), baseline_input(baseline)

    def estimated(run: Run) -> Tensor:
        if run.inputs.ndim < 3:
            raise ValueError(
                f"the input is {tuple(run.inputs.shape)}, without spatial extent: there is nothing to mask"
            )
        asked, hidden = run.as_probability() if score == "probability" else run, start(run)

        def draw(begin: int, end: int) -> Tensor:
            return hidden + drawn.draw(run, begin, end).to(run.inputs.dtype) * (run.inputs - hidden)

        scores = asked.scores_of(masks, draw).double()
        total = scores.new_zeros(2, len(run.inputs), run.inputs[0, 0].numel())
        for part, each in drawn.chunks(run, masks):
            flat = each.flatten(1) / p - 1
            weights = scores[part].T.to(flat.dtype)
            total += torch.stack([weights @ flat, weights**2 @ flat**2])
        mean, square = total / masks
        error = ((square - mean**2).clamp(min=0) / (masks - 1)).sqrt()
        kind = torch.promote_types(run.inputs.dtype, torch.float32)
        return torch.stack([mean, error]).to(kind).view(2, len(run.inputs), 1, *run.inputs.shape[2:])

    return estimate(estimated)
