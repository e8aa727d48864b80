"""Update of a convolution for a change of one channel: the recorded result plus the contribution of that channel.

A variant without one of C channels then costs 1 / C of the convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
"""By how many spatial dimensions there are."""


def with_one_channel_changed(
    before: Tensor, recorded: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """``func(*args)`` (K, O, *spatial) of variants that differ in one channel each from ``before``, (1, C, *spatial).

    ``recorded`` is the result for that, (1, O, *spatial). None where they differ in more, or it is another kind of
    convolution.
    """
    if func not in CONVOLUTIONS or len(args) < 2 or kwargs:
        return None
    variants, weight = args[:2]
    settings: list[Any] = [1, 0, 1, 1]
    settings[: max(0, len(args) - 3)] = args[3:7]
    stride, padding, dilation, groups = settings
    if groups != 1 or variants.ndim != weight.ndim or variants.dtype not in (torch.float32, torch.float64):
        return None
    if variants.shape[1:] != before.shape[1:]:
        return None
    differ = (variants != before).flatten(2).any(2)
    if bool((differ.sum(1) > 1).any()):
        return None
    channel = differ.int().argmax(1)
    change = variants[torch.arange(len(variants), device=channel.device), channel] - before[0, channel]
    kernels = weight[:, channel].transpose(0, 1)  # (K, O, *kernel)
    if kernels[0, 0].numel() == 1 and padding in (0, (0,) * CONVOLUTIONS[func]):
        steps: tuple[int, ...] = stride if isinstance(stride, tuple) else (stride,) * CONVOLUTIONS[func]
        reached = change[(slice(None), *(slice(None, None, step) for step in steps))]
        return torch.addcmul(recorded, kernels, reached.unsqueeze(1))
    filters = kernels.reshape(-1, 1, *weight.shape[2:])
    share: Tensor = func(change.unsqueeze(0), filters, None, stride, padding, dilation, len(variants))
    return recorded + share.view(len(variants), -1, *share.shape[2:])
