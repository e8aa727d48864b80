"""Min-max normalization of maps."""

from __future__ import annotations

from torch import Tensor


def min_max(maps: Tensor) -> Tensor:
    """Maps (N, ...), each scaled from its minimum and maximum to 0 and 1; zero where it is constant."""
    flat = maps.flatten(1)
    low = flat.amin(1, keepdim=True)
    reach = flat.amax(1, keepdim=True) - low
    return ((flat - low) / reach.where(reach > 0, 1)).view_as(maps)
