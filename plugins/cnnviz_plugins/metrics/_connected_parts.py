"""Parts of an input, connected ones or intervals, each with its strongest evidence and whether it is annotated."""

from __future__ import annotations

import torch
from torch import Tensor


def connected(strengths: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The strongest evidence of each connected part, annotated or not, (K,), and True if it is annotated, (K,)."""
    from skimage.measure import label

    sides = mask.cpu().numpy().astype(int) + 1  # 0 would be a background without parts
    labels = label(sides, connectivity=mask.ndim) - 1  # type: ignore[no-untyped-call]  # scikit-image has no types
    parts = torch.from_numpy(labels).long().flatten().to(strengths.device)
    lowest = strengths.new_full((int(parts.max()) + 1,), -torch.inf)
    strongest = lowest.scatter_reduce(0, parts, strengths.flatten(), "amax")
    return strongest, mask.new_zeros(len(lowest)).scatter(0, parts, mask.flatten())


def intervals(strengths: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same of ``count`` equal parts of the longest side. Raises ValueError for a side that is shorter."""
    axis = max(range(mask.ndim), key=lambda dim: mask.shape[dim])
    if count > mask.shape[axis]:
        raise ValueError(f"a side of {mask.shape[axis]} places has no {count} intervals; use fewer")
    strongest = [part.max() for part in strengths.tensor_split(count, axis)]
    annotated = [part.any() for part in mask.tensor_split(count, axis)]
    return torch.stack(strongest), torch.stack(annotated)
