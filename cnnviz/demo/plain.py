"""A small network in the plain style of VGG: 3 x 3 convolutions with max-pools between, here to be mirrored."""

from __future__ import annotations

from torch import nn


def plain_trunk() -> nn.Sequential:
    """Maps (N, 96, 6, 6) of pictures (N, 3, 96, 96); a first stride of 2 saves three quarters of the time."""
    return nn.Sequential(
        *_block(3, 16, 5, 2), *_block(16, 24), nn.MaxPool2d(2),
        *_block(24, 48), *_block(48, 48), nn.MaxPool2d(2),
        *_block(48, 72), *_block(72, 72), nn.MaxPool2d(2),
        *_block(72, 96),
    )  # fmt: skip


def _block(channels: int, out_channels: int, width: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out_channels, width, stride, padding=width // 2, bias=False)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
