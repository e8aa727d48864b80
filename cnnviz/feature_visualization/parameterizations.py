"""What is painted on when an input is made: numbers that an optimizer may change, and the input they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cnnviz.images.bounds import Bounds

# Columns are directions in which the colours of natural images vary independently, and mostly in brightness
# (Olah et al., 2017)
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@runtime_checkable
class Canvas(Protocol):
    """Numbers that an optimizer may change, and the inputs they stand for."""

    @property
    def parameters(self) -> list[Tensor]:
        """What the optimizer changes: leaves of the graph, (N, ...)."""

    def __call__(self) -> Tensor:
        """The inputs (N, C, *spatial), with a graph back to the parameters."""


class FreeCanvas:
    """The input itself, without bounds, begun with ``start`` (N, C, *spatial)."""

    def __init__(self, start: Tensor):
        self.values = start.detach().clone().requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        return [self.values]

    def __call__(self) -> Tensor:
        return self.values.clone()  # an optimizer writes into the parameters


class PixelCanvas:
    """A number for each pixel and channel, brought between the bounds by a sigmoid, begun with ``start``."""

    def __init__(self, start: Tensor, bounds: Bounds):
        self.bounds = bounds
        shares = bounds.shares(start.detach()).clamp(0.01, 0.99)  # at the ends the sigmoid is too flat to leave them
        self.values = shares.logit().requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        return [self.values]

    def __call__(self) -> Tensor:
        return self.bounds.inputs(self.values.sigmoid())


class FourierCanvas:
    """An input as waves that are stronger the longer they are, as those of natural images (Olah et al., 2017).

    The parameters are a real Fourier transform (N, C, *frequencies, 2), divided at each frequency f by
    f ** (rank / 2), which is f for images: so every octave has the same energy, whatever the rank. Images and volumes
    of three channels have colours that vary independently. A sigmoid brings all between the bounds. ``generator`` draws
    the start, whose spectrum has the standard deviation ``deviation``.
    """

    def __init__(self, shape: Sequence[int], bounds: Bounds, generator: torch.Generator, deviation: float = 0.01):
        self.bounds = bounds
        self.size = tuple(shape[2:])
        low = bounds.low
        frequencies = _frequencies(self.size).to(low)
        self.amplitudes = frequencies.clamp(min=1 / max(self.size)).pow(-len(self.size) / 2)[..., None]
        drawn = torch.randn(*shape[:2], *frequencies.shape, 2, generator=generator, device=low.device, dtype=low.dtype)
        self.spectrum = (deviation * drawn).requires_grad_()
        self.colours = _independent(low) if shape[1] == 3 and len(self.size) > 1 else None

    @property
    def parameters(self) -> list[Tensor]:
        return [self.spectrum]

    def __call__(self) -> Tensor:
        waves = torch.view_as_complex(self.spectrum * self.amplitudes)
        values = torch.fft.irfftn(waves, s=self.size, dim=tuple(range(2, waves.ndim)), norm="ortho") / 4
        if self.colours is not None:
            values = torch.einsum("dc, nc... -> nd...", self.colours, values)
        return self.bounds.inputs(values.sigmoid())


def _frequencies(size: Sequence[int]) -> Tensor:
    """How often each wave of a real Fourier transform swings within a pixel's length, (*frequencies)."""
    axes = [torch.fft.fftfreq(length, dtype=torch.float64) for length in size[:-1]]
    axes.append(torch.fft.rfftfreq(size[-1], dtype=torch.float64))
    lengths: Tensor = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    return lengths


def _independent(like: Tensor) -> Tensor:
    """From independent directions to colours; the longest direction has length 1."""
    matrix = like.new_tensor(_COLOURS)
    normalized: Tensor = matrix / matrix.norm(dim=0).max()
    return normalized
