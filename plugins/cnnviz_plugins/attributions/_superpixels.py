"""Inputs divided into segments that perturbations replace as a whole: superpixels, equal parts, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnviz import Explanation, Run
from cnnviz.explanations import input_pictures
from cnnviz.formulas import Baseline, baseline_input

WAYS = ("auto", "slic", "quickshift", "equal")
QUICKSHIFT = {"kernel_size": 4, "max_dist": 200, "ratio": 0.2}  # as in the LIME authors' program


@dataclass(frozen=True, eq=False)
class Segments:
    """The segment that each value of each input belongs to. M is the largest number of segments of any input."""

    ids: Tensor
    """(N, 1 or C, *spatial), int64, from 0 up to the input's number of segments."""
    counts: Sequence[int]
    """The number of segments of each input."""

    @property
    def max_count(self) -> int:
        """M, the largest number of segments of any input."""
        return max(self.counts)

    def spread(self, values: Tensor) -> Tensor:
        """One value for each segment (..., N, M), put at every place of it: (..., N, 1 or C, *spatial)."""
        ids = self.ids.flatten(1).expand(*values.shape[:-1], -1)
        return values.gather(-1, ids).view(*values.shape[:-1], *self.ids.shape[1:])

    def masked(self, inputs: Tensor, present: Tensor, replacement: Tensor) -> Tensor:
        """Inputs with segments replaced where ``present`` (K, N, M) bool is False: (K, N, C, *spatial)."""
        return torch.where(self.spread(present), inputs, replacement)

    def replacement(self, run: Run, baseline: Baseline | None) -> Tensor:
        """What replaces a segment, (N, C, *spatial): the baseline, or the segment's mean of each channel for None."""
        if baseline is not None:
            return baseline_input(baseline)(run)
        ids = self.ids.expand_as(run.inputs).flatten(2)
        zeros = run.inputs.new_zeros(*ids.shape[:2], self.max_count)
        means = zeros.scatter_reduce(2, ids, run.inputs.flatten(2), "mean", include_self=False)
        return means.gather(2, ids).view_as(run.inputs)


def segmented(run: Run, segments: str | Tensor, pieces: int) -> Segments:
    """The inputs divided into about ``pieces`` segments, by one of ``WAYS`` or by the user's tensor.

    The tensor is (*spatial) or (1 or N, 1 or C, *spatial), with one integer for each segment. Raises ValueError for
    inputs without spatial extent, for an unknown way or one that does not fit the inputs, and for such a tensor.
    """
    if run.inputs.ndim < 3:
        raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: there is nothing to cut")
    if isinstance(segments, Tensor):
        ids = _checked(run, segments)
    elif segments not in WAYS:
        raise ValueError(f"there is no way {segments!r} to cut; there are {', '.join(WAYS)}, or a tensor of numbers")
    elif pieces < 1:
        raise ValueError(f"an input can't be cut into {pieces} pieces; say 1 or more")
    elif segments == "equal" or (segments == "auto" and run.inputs.ndim != 4):
        ids = _equal_parts(run, pieces)
    else:
        ids = _superpixels(run, "slic" if segments == "auto" else segments, pieces)
    renumbered = [item.unique(return_inverse=True) for item in ids]
    return Segments(torch.stack([inverse for _, inverse in renumbered]), [len(numbers) for numbers, _ in renumbered])


def _checked(run: Run, segments: Tensor) -> Tensor:
    """The user's tensor as (N, 1 or C, *spatial); N is the number of inputs of the run, variants included."""
    inputs = run.inputs
    if segments.is_floating_point() or segments.is_complex():
        raise ValueError(f"segments are {segments.dtype}; a piece is a whole number, the same at each of its places")
    ids = segments.to(inputs.device).long()
    ids = ids[None, None] if ids.shape == inputs.shape[2:] else ids
    items, channels = (ids.shape[0], ids.shape[1]) if ids.ndim == inputs.ndim else (0, 0)
    fits = items in (1, len(inputs) // run.copies, len(inputs)) and channels in (1, inputs.shape[1])
    if not fits or ids.shape[2:] != inputs.shape[2:]:
        raise ValueError(f"segments are {tuple(segments.shape)}, which does not fit an input of {tuple(inputs.shape)}")
    return ids.repeat(len(inputs) // items, *(1,) * (ids.ndim - 1))


def _equal_parts(run: Run, pieces: int) -> Tensor:
    size = run.inputs.shape[2:]
    parts = max(1, round(pieces ** (1 / len(size))))
    axes = [torch.arange(side, device=run.inputs.device) * min(parts, side) // side for side in size]
    ids = torch.zeros((), dtype=torch.long, device=run.inputs.device)
    for axis in axes:
        ids = ids[..., None] * (axis[-1] + 1) + axis
    return ids.expand(len(run.inputs), 1, *size)


def _superpixels(run: Run, way: str, pieces: int) -> Tensor:
    from skimage.segmentation import quickshift, slic

    rank = run.inputs.ndim - 2
    if rank == 1 or (rank == 3 and way == "quickshift"):
        raise ValueError(f"{way} cuts no {'signals' if rank == 1 else 'volumes'}; say equal, or give segments")
    explanation = Explanation(run.inputs, run.inputs, None, run.score, way, run.options.preprocessing)
    pictures = input_pictures(explanation).movedim(1, -1).double().cpu().numpy()
    segment: Any = {"slic": slic, "quickshift": quickshift}[way]
    options: dict[str, Any] = {"n_segments": pieces, "start_label": 0} if way == "slic" else QUICKSHIFT
    ids = [torch.from_numpy(segment(picture, **options)).long() for picture in pictures]
    return torch.stack(ids)[:, None].to(run.inputs.device)
