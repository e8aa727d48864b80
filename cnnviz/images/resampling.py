"""Resizing and blurring of tensors (N, C, *spatial), whatever the rank."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(values: Tensor, size: torch.Size, mode: str = "linear") -> Tensor:
    """(N, C, *spatial) at another spatial size, whatever the rank; "corners" is linear with aligned corners."""
    modes = {"linear": ("linear", "bilinear", "trilinear"), "nearest": ("nearest",) * 3}
    modes["corners"] = modes["linear"]
    if mode not in modes:
        raise ValueError(f"there is no interpolation {mode!r}; it is {', '.join(modes)}")
    if values.shape[2:] == size:
        return values
    corners = None if mode == "nearest" else mode == "corners"
    return F.interpolate(values, size, mode=modes[mode][len(size) - 1], align_corners=corners)


def blurred(inputs: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of (N, C, *spatial), whatever the rank; the border is continued. ``sigma`` in pixels."""
    radius = math.ceil(3 * sigma)
    places = torch.arange(-radius, radius + 1, device=inputs.device, dtype=torch.float32)
    kernel = torch.softmax(-0.5 * (places / sigma) ** 2, 0).to(inputs.dtype)
    for dim in range(2, inputs.ndim):
        lines = inputs.movedim(dim, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        inputs = F.conv1d(flat, kernel.view(1, 1, -1)).view(lines.shape).movedim(-1, dim)
    return inputs.contiguous()
