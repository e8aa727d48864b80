"""Image parameterizations: optimized parameters and the differentiable map from them to inputs (Olah et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cnnviz.engine.draws import RandomNumbers
from cnnviz.images.bounds import Bounds

# The decorrelated colour space of Olah et al. (2017): along its columns the colours of natural images vary
# independently, and mostly in brightness
_DECORRELATED = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


@runtime_checkable
class Canvas(Protocol):
    """A parameterization of inputs: parameters that an optimizer changes, and the inputs that they give."""

    @property
    def parameters(self) -> list[Tensor]:
        """The optimized tensors (N, ...), leaves of the graph."""

    def __call__(self) -> Tensor:
        """The inputs (N, C, *spatial), with a graph back to the parameters."""


class FreeCanvas:
    """Parameters are the inputs themselves, without bounds; they begin as ``start`` (N, C, *spatial)."""

    def __init__(self, start: Tensor):
        self.values = start.detach().clone().requires_grad_()
        self.parameters = [self.values]

    def __call__(self) -> Tensor:
        return self.values.clone()  # an optimizer writes into the parameters


class PixelCanvas:
    """A parameter for each value of ``start`` (N, C, *spatial), near which inputs begin; a sigmoid keeps the bounds."""

    def __init__(self, start: Tensor, bounds: Bounds):
        self.bounds = bounds
        shares = bounds.shares(start.detach()).clamp(0.01, 0.99)  # at the ends the sigmoid is too flat to leave them
        self.parameters = [shares.logit().requires_grad_()]

    def __call__(self) -> Tensor:
        return self.bounds.inputs(self.parameters[0].sigmoid())


class FourierCanvas:
    """Inputs (N, C, *spatial) as a decorrelated Fourier spectrum with decorrelated colours (Olah et al., 2017).

    The parameters are a real Fourier transform (N, C, *frequencies, 2), divided at each frequency f by
    f ** (rank / 2), which is f for images: so every octave has the same energy, whatever the rank. Images and volumes
    of three channels are in the decorrelated colour space. A sigmoid maps all into the bounds. The start is made
    of ``draws``, and its spectrum has the standard deviation ``deviation``. Raises TypeError for torch's generators.
    """

    def __init__(self, shape: Sequence[int], bounds: Bounds, draws: RandomNumbers, deviation: float = 0.01):
        if not isinstance(draws, RandomNumbers):
            raise TypeError(
                f"a canvas can't be drawn from a {type(draws).__name__}; give it ascent.draws, "
                "whose numbers are the same on every device"
            )
        self.bounds = bounds
        self.size = tuple(shape[2:])
        low = bounds.low
        frequencies = _frequencies(self.size).to(low)
        self.amplitudes = frequencies.clamp(min=1 / max(self.size)).pow(-len(self.size) / 2)[..., None]
        drawn = draws.normal((*shape[:2], *frequencies.shape, 2), low.dtype)
        self.spectrum = (deviation * drawn.to(low.device)).requires_grad_()
        self.parameters = [self.spectrum]
        self.colours = _colour_matrix(low) if shape[1] == 3 and len(self.size) > 1 else None

    def __call__(self) -> Tensor:
        spectrum = torch.view_as_complex(self.spectrum * self.amplitudes)
        values = torch.fft.irfftn(spectrum, s=self.size, dim=tuple(range(2, spectrum.ndim)), norm="ortho") / 4
        if self.colours is not None:
            values = torch.einsum("dc, nc... -> nd...", self.colours, values)
        return self.bounds.inputs(values.sigmoid())


def _frequencies(size: Sequence[int]) -> Tensor:
    """The frequency of each term of a real Fourier transform in cycles per pixel, (*frequencies)."""
    axes = [torch.fft.fftfreq(length, dtype=torch.float64) for length in size[:-1]]
    axes.append(torch.fft.rfftfreq(size[-1], dtype=torch.float64))
    lengths: Tensor = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    return lengths


def _colour_matrix(like: Tensor) -> Tensor:
    """From the decorrelated colour space to colours, (3, 3); the longest column has length 1."""
    matrix = like.new_tensor(_DECORRELATED)
    normalized: Tensor = matrix / matrix.norm(dim=0).max()
    return normalized
