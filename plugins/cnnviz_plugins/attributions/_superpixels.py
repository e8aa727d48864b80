"""Inputs cut into pieces that are taken away together: superpixels, equal parts, or what the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnviz import Baseline, Explanation, Run, baseline_input, input_pictures

WAYS = ("auto", "slic", "quickshift", "equal")
QUICKSHIFT = {"kernel_size": 4, "max_dist": 200, "ratio": 0.2}  # as LIME's authors do


@dataclass(frozen=True, eq=False)
class Pieces:
    """For every value of every input the piece it belongs to."""

    ids: Tensor
    """(N, 1 or C, *spatial), from 0 to each input's number of pieces."""
    counts: Sequence[int]
    """How many pieces each input has."""

    @property
    def most(self) -> int:
        """Pieces of the input that has most of them, M."""
        return max(self.counts)

    def spread(self, values: Tensor) -> Tensor:
        """One value for each piece (..., N, M), put at every place of it: (..., N, 1 or C, *spatial)."""
        flat = self.ids.flatten(1).expand(*values.shape[:-1], -1)
        return values.gather(-1, flat).view(*values.shape[:-1], *self.ids.shape[1:])

    def without(self, inputs: Tensor, kept: Tensor, baseline: Tensor) -> Tensor:
        """Inputs whose pieces ``kept`` (K, N, M) does not keep are the baseline's, (K, N, C, *spatial)."""
        return torch.where(self.spread(kept), inputs, baseline)

    def replacement(self, run: Run, baseline: Baseline | None) -> Tensor:
        """What stands where a piece is gone; None is each piece's mean."""
        if baseline is not None:
            return baseline_input(baseline)(run)
        ids = self.ids.expand_as(run.inputs).flatten(2)
        zeros = run.inputs.new_zeros(*ids.shape[:2], self.most)
        sums = zeros.scatter_add(2, ids, run.inputs.flatten(2))
        sizes = zeros.scatter_add(2, ids, torch.ones_like(run.inputs).flatten(2))
        return (sums / sizes.clamp(min=1)).gather(2, ids).view_as(run.inputs)


def cut(run: Run, segments: str | Tensor, pieces: int) -> Pieces:
    """The inputs in about so many pieces. Raises ValueError for a way that is not known, or does not fit the input.

    ``segments`` is a tensor of whole numbers, (*spatial) or (1 or N, 1 or C, *spatial), whose equal numbers are one
    piece, or the way to find them.
    """
    if run.inputs.ndim < 3:
        raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: there is nothing to cut")
    if isinstance(segments, Tensor):
        ids = _given(run, segments)
    elif segments not in WAYS:
        raise ValueError(f"there is no way {segments!r} to cut; there are {', '.join(WAYS)}, or a tensor of numbers")
    elif pieces < 1:
        raise ValueError(f"an input can't be cut into {pieces} pieces; say 1 or more")
    elif segments == "equal" or (segments == "auto" and run.inputs.ndim != 4):
        ids = _equal(run, pieces)
    else:
        ids = _superpixels(run, "slic" if segments == "auto" else segments, pieces)
    found = [each.unique(return_inverse=True) for each in ids]
    return Pieces(torch.stack([inverse for _, inverse in found]), [len(values) for values, _ in found])


def _given(run: Run, segments: Tensor) -> Tensor:
    inputs = run.inputs
    if segments.is_floating_point() or segments.is_complex():
        raise ValueError(f"segments are {segments.dtype}; a piece is a whole number, the same at each of its places")
    ids = segments.to(inputs.device).long()
    ids = ids[None, None] if ids.shape == inputs.shape[2:] else ids
    items, channels = (ids.shape[0], ids.shape[1]) if ids.ndim == inputs.ndim else (0, 0)
    fits = items and len(inputs) % items == 0 and channels in (1, inputs.shape[1]) and ids.shape[2:] == inputs.shape[2:]
    if not fits or items not in (1, len(inputs) // run.copies, len(inputs)):
        raise ValueError(f"segments are {tuple(segments.shape)}, which does not fit an input of {tuple(inputs.shape)}")
    return ids.repeat(len(inputs) // items, *(1,) * (ids.ndim - 1))


def _equal(run: Run, pieces: int) -> Tensor:
    size = run.inputs.shape[2:]
    along = max(1, round(pieces ** (1 / len(size))))
    ids = torch.zeros((1,) * len(size), dtype=torch.long, device=run.inputs.device)
    for dim, length in enumerate(size):
        parts = min(along, length)
        place = torch.arange(length, device=ids.device) * parts // length
        ids = ids * parts + place.view([-1 if each == dim else 1 for each in range(len(size))])
    return ids.expand(len(run.inputs), 1, *size)


def _superpixels(run: Run, way: str, pieces: int) -> Tensor:
    from skimage.segmentation import quickshift, slic

    rank = run.inputs.ndim - 2
    if rank == 1 or (rank == 3 and way == "quickshift"):
        raise ValueError(f"{way} cuts no {'signals' if rank == 1 else 'volumes'}; say equal, or give segments")
    shown = Explanation(run.inputs, run.inputs, None, run.score, way, run.options.preprocessing)
    pictures = input_pictures(shown).movedim(1, -1).double().cpu().numpy()
    find: Any = {"slic": slic, "quickshift": quickshift}[way]
    how: dict[str, Any] = {"n_segments": pieces, "start_label": 0} if way == "slic" else QUICKSHIFT
    return torch.stack([torch.from_numpy(find(each, **how)) for each in pictures])[:, None].to(run.inputs.device).long()
