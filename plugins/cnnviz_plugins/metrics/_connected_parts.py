"""Parts of an input that are annotated as one: connected ones, and intervals. Each with its strongest evidence."""

from __future__ import annotations

import torch
from torch import Tensor


def connected(strengths: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """For each connected part, annotated or not, its strongest evidence, (K,), and whether it is annotated, (K,)."""
    from skimage.measure import label

    found, inside = [], []
    for side in (True, False):
        places = (mask == side).cpu().numpy()
        parts = torch.from_numpy(label(places, connectivity=places.ndim)).to(strengths.device)  # type: ignore[no-untyped-call]
        count = int(parts.max())
        peaks = torch.full((count + 1,), -torch.inf, dtype=strengths.dtype, device=strengths.device)
        found.append(peaks.scatter_reduce(0, parts.flatten().long(), strengths.flatten(), "amax")[1:])
        inside.append(torch.full((count,), side, device=strengths.device))
    return torch.cat(found), torch.cat(inside)


def intervals(strengths: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same of ``count`` equal parts of the longest side. Raises ValueError for a side that is shorter."""
    axis = max(range(mask.ndim), key=lambda each: mask.shape[each])
    if count > mask.shape[axis]:
        raise ValueError(f"a side of {mask.shape[axis]} places has no {count} intervals; use fewer")
    pieces = zip(strengths.tensor_split(count, axis), mask.tensor_split(count, axis), strict=True)
    found = [(piece.max(), within.any()) for piece, within in pieces]
    return torch.stack([peak for peak, _ in found]), torch.stack([within for _, within in found])
