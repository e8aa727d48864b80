"""Resizing and blurring of tensors (N, C, *spatial) of any spatial rank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(values: Tensor, size: Sequence[int], mode: str = "linear", antialias: bool = False) -> Tensor:
    """Interpolate ``values`` (N, C, *spatial), of one to three spatial dimensions, at the spatial size ``size``.

    ``mode`` is "linear", "nearest", or "corners": linear with aligned corners. ``antialias`` smooths images that are
    reduced; signals and volumes are never smoothed. Raises ValueError for another mode.
    """
    modes = {"linear": ("linear", "bilinear", "trilinear"), "nearest": ("nearest",) * 3}
    modes["corners"] = modes["linear"]
    if mode not in modes:
        raise ValueError(f"there is no interpolation {mode!r}; it is {', '.join(modes)}")
    if values.shape[2:] == tuple(size):
        return values
    corners = None if mode == "nearest" else mode == "corners"
    smooth = antialias and len(size) == 2 and size[0] < values.shape[2]
    return F.interpolate(values, tuple(size), mode=modes[mode][len(size) - 1], align_corners=corners, antialias=smooth)


def spread(values: Tensor, size: Sequence[int]) -> Tensor:
    """Values (N, C, *spatial) at another spatial size, each spread evenly over the places it covers: sums are kept."""
    for dim, (coarse, fine) in enumerate(zip(values.shape[2:], size, strict=True), 2):
        if coarse == fine:
            continue
        theirs, ours = (torch.linspace(0, 1, count + 1, dtype=torch.float64) for count in (coarse, fine))
        low = torch.maximum(theirs[:-1, None], ours[None, :-1])
        high = torch.minimum(theirs[1:, None], ours[None, 1:])
        shares = ((high - low).clamp(min=0) * coarse).to(values)  # (coarse, fine); each row adds up to one
        values = (values.movedim(dim, -1) @ shares).movedim(-1, dim)
    return values


def blurred(inputs: Tensor, sigma: float) -> Tensor:
    """Blur ``inputs`` (N, C, *spatial) with a Gaussian of the standard deviation ``sigma`` in pixels, above 0.

    The kernel ends at 3 sigma; beyond the border, the values of the border go on.
    """
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=inputs.device, dtype=torch.float32)
    kernel = torch.softmax(-0.5 * (offsets / sigma) ** 2, 0).to(inputs.dtype)
    for dim in range(2, inputs.ndim):
        lines = inputs.movedim(dim, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        inputs = F.conv1d(flat, kernel.view(1, 1, -1)).view(lines.shape).movedim(-1, dim)
    return inputs.contiguous()
