"""Inputs divided into segments that perturbations replace as a whole: superpixels, equal parts, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cnnviz import Explanation, Run
from cnnviz.explanations import input_pictures
from cnnviz.formulas import Baseline, baseline_input, uploaded

WAYS = ("auto", "slic", "quickshift", "equal")
QUICKSHIFT = {"kernel_size": 4, "max_dist": 200, "ratio": 0.2}  # as in the LIME authors' program


@dataclass(frozen=True, eq=False)
class Segments:
    """The segment that each value of each input belongs to. M is the largest number of segments of any input."""

    ids: Tensor
    """(N, 1 or C, *spatial) or (N, F), int64, from 0 up to the input's number of segments."""
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
        apart = run.model_inputs.by_input
        pairs = zip(apart(run.inputs), apart(self.ids), strict=True)
        return run.model_inputs.joined([_means(part, ids, self.max_count) for part, ids in pairs])


def _means(inputs: Tensor, ids: Tensor, count: int) -> Tensor:
    """At each place the mean of its channel over the segment, (N, C, *spatial); over features of (N, F)."""
    ids, values = ids.expand_as(inputs), inputs
    if inputs.ndim == 2:
        ids, values = ids[:, None], inputs[:, None]
    ids = ids.flatten(2)
    zeros = inputs.new_zeros(*ids.shape[:2], count)
    means = zeros.scatter_reduce(2, ids, values.flatten(2), "mean", include_self=False)
    return means.gather(2, ids).view_as(inputs)


AnySegments: TypeAlias = str | Tensor | Sequence[str | Tensor]
"""How to find segments, or a tensor of numbers; a tuple with one for each input that is explained together."""


def segmented(run: Run, segments: AnySegments, pieces: int) -> Segments:
    """The inputs divided into about ``pieces`` segments, by one of ``WAYS`` or by the user's tensor.

    The tensor is (*spatial) or (1 or N, 1 or C, *spatial), of features (F,) or (1 or N, F), with one integer for each
    segment. Raises ValueError for an unknown way or one that does not fit the inputs, and for such a tensor.
    """
    inputs = run.model_inputs.by_input(run.inputs)
    ways: list[Any] = list(segments) if isinstance(segments, list | tuple) else [segments] * len(inputs)
    if len(ways) != len(inputs):
        raise ValueError(f"there are {len(ways)} segmentations for {len(inputs)} inputs; give one, or one for each")
    # on the host, which has to know how many segments there are
    parts = [_renumbered(_ids(run, part, way, pieces)) for part, way in zip(inputs, ways, strict=True)]
    counts = torch.tensor([[int(item.max()) + 1 for item in ids] for ids in parts], device="cpu")
    if len(parts) == 1:
        return Segments(uploaded(parts[0], run.inputs.device), counts[0].tolist())
    before = counts.cumsum(0) - counts  # numbers of the next input's segments follow those of the one before
    shifted = [
        uploaded(ids + first.view(-1, *(1,) * (ids.ndim - 1)), part.device).expand_as(part)
        for ids, first, part in zip(parts, before, inputs, strict=True)
    ]
    return Segments(run.model_inputs.joined(shifted), counts.sum(0).tolist())


def _renumbered(ids: Tensor) -> Tensor:
    """Numbers from 0 for each input of the batch."""
    return torch.stack([item.unique(return_inverse=True)[1] for item in ids])


def _ids(run: Run, inputs: Tensor, segments: str | Tensor, pieces: int) -> Tensor:
    if isinstance(segments, Tensor):
        return _checked(run, inputs, segments)
    if not isinstance(segments, str):
        given = f"a {type(segments).__name__}"
        raise TypeError(f"segments is {given}; give {', '.join(WAYS)}, or an integer tensor; pieces says how many")
    if segments not in WAYS:
        raise ValueError(f"there is no way {segments!r} to cut; there are {', '.join(WAYS)}, or a tensor of numbers")
    if pieces < 1:
        raise ValueError(f"an input can't be cut into {pieces} pieces; say 1 or more")
    if segments == "equal" or (segments == "auto" and inputs.ndim != 4):
        return _equal_parts(inputs, pieces)
    return _superpixels(run, inputs, "slic" if segments == "auto" else segments, pieces)


def _checked(run: Run, inputs: Tensor, segments: Tensor) -> Tensor:
    """The user's tensor as (N, 1 or C, *spatial) or (N, F); N is the number of inputs, variants included."""
    if segments.is_floating_point() or segments.is_complex():
        raise ValueError(f"segments are {segments.dtype}; a piece is a whole number, the same at each of its places")
    ids = segments.cpu().long()
    places = inputs.shape[2:] or inputs.shape[1:]
    ids = ids[(None,) * (inputs.ndim - len(places))] if ids.shape == places else ids
    items, channels = (ids.shape[0], ids.shape[1]) if ids.ndim == inputs.ndim else (0, 0)
    widths = (1, inputs.shape[1]) if inputs.ndim > 2 else (inputs.shape[1],)
    fits = items in (1, len(inputs) // run.copies, len(inputs)) and channels in widths
    if not fits or ids.shape[2:] != inputs.shape[2:]:
        raise ValueError(f"segments are {tuple(segments.shape)}, which does not fit an input of {tuple(inputs.shape)}")
    return ids.repeat(len(inputs) // items, *(1,) * (ids.ndim - 1))


def _equal_parts(inputs: Tensor, pieces: int) -> Tensor:
    size = inputs.shape[2:] or inputs.shape[1:]
    parts = max(1, round(pieces ** (1 / len(size))))
    axes = [torch.arange(side, device="cpu") * min(parts, side) // side for side in size]
    ids = torch.zeros((), dtype=torch.long, device="cpu")
    for axis in axes:
        ids = ids[..., None] * (axis[-1] + 1) + axis
    return ids.expand(len(inputs), *(1,) * (inputs.ndim - 1 - len(size)), *size)


def _superpixels(run: Run, inputs: Tensor, way: str, pieces: int) -> Tensor:
    from skimage.segmentation import quickshift, slic

    rank = inputs.ndim - 2
    if rank < 2 or (rank == 3 and way == "quickshift"):
        kind = ("features", "signals", "", "volumes")[rank]
        raise ValueError(f"{way} cuts no {kind}; say equal, or give segments")
    explanation = Explanation(inputs, inputs, None, run.score, way, run.options.preprocessing)
    pictures = input_pictures(explanation).movedim(1, -1).double().cpu().numpy()
    segment: Any = {"slic": slic, "quickshift": quickshift}[way]
    options: dict[str, Any] = {"n_segments": pieces, "start_label": 0} if way == "slic" else QUICKSHIFT
    ids = [torch.from_numpy(segment(picture, **options)).long() for picture in pictures]
    return torch.stack(ids)[:, None]
