"""Whether values can be what a preprocessing makes of pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz.images.preprocessing import Preprocessing

_MARGIN = 1.0
"""How far outside of 0..1 a pixel may be: cubic resizing goes a little beyond, and noise as an input does."""
_SPREAD = 0.5
"""How far apart values are at least that are taken for a picture in 0..1."""


def oddities(inputs: Tensor, preprocessing: Preprocessing) -> list[tuple[Tensor, str]]:
    """What is hardly meant of inputs (N, C, H, W): a flag for each, of one value, and what is told where it is true.

    Nothing is known of signals and volumes, nor of values that the preprocessing leaves as they are.
    """
    mean, std = preprocessing.mean, preprocessing.std
    if inputs.ndim != 4 or inputs.shape[1] != len(mean) or not inputs.is_floating_point() or inputs.numel() == 0:
        return []
    if max(mean) > 1 or (set(mean) == {0.0} and set(std) == {1.0}):
        return []
    lowest, highest = (bound(inputs.detach(), (0, 2, 3)) for bound in (torch.amin, torch.amax))
    shift, scale = (lowest.new_tensor(each, dtype=torch.float32) for each in (mean, std))
    dark, bright = lowest.float() * scale + shift, highest.float() * scale + shift
    outside = (dark.amin() < -_MARGIN) | (bright.amax() > 1 + _MARGIN)
    low, high = lowest.amin(), highest.amax()
    return [
        (
            outside,
            "has values far outside of what the preprocessing makes of pictures in 0..1; divide values in 0..255 by "
            "255 and normalize them with its mean and std, or give the pictures themselves",
        ),
        (
            (low >= 0) & (high <= 1) & (high - low > _SPREAD),
            "has values in 0..1, as pictures have them before they are normalized; subtract the preprocessing's "
            "mean and divide by its std, or give the pictures themselves",
        ),
    ]
